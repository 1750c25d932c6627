package worker

import (
	"time"

	"github.com/meridian-mesh/meridian/controller/price"
	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
	"github.com/meridian-mesh/meridian/edgeproxy/tlsio"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
	"github.com/meridian-mesh/meridian/edgeproxy/view"
)

// attempt is one try at an answer: a target and a stream to it.
type attempt struct {
	r        *request
	ref      exchange.Ref
	up       *up      // nil while there is none
	packets  *packets // in its place, to an endpoint of UDP
	stream   stream.ID
	next     *attempt // of the connection
	endpoint *upstream.Endpoint
	remote   int // index in the gate's list, or upstream.Home
	speaks   *protocol
	clients  *tlsio.Client // nil where the way there is plain
	gate     upstream.Gate
	flow     *upstream.Flow // nil where it is not told of
	name     []byte         // of the service, for a remote
	connect  time.Duration
	silence  time.Duration
	slots    int
	unqueued bool // it found a free slot
	learns   bool // nobody says how many slots there are
	level    int  // then, of price.Slots, from 1 on, else 0
	timed    bool // its latency counts
	told     bool // what its endpoint says of its load does
	// maxAge and maxRequests bound a new connection; cookie and token mark a session.
	maxAge      time.Duration
	maxRequests int
	cookie      *view.Cookie
	token       uint64
	sendProxy   int // version of the PROXY header that the endpoint gets
	sent        bool
	asked       bool             // the gate was told of it
	how         upstream.Outcome // what the gate will be told
	status      int              // of its answer
	sentAt      int64
	out         sending
	in          intake // of the answer
	heard       int64  // when the backend said something last
	timer       loop.Timer
	waits       bool   // until the timer expires, before it starts
	settling    bool   // waits for the settings of its connection's other end
	key         []byte // of WebSocket, made here; nil for none
}

// Expire ends an attempt that took longer than its route allows, or a wait before one.
func (a *attempt) Expire(*loop.Timer, int64) {
	w := a.r.w
	if a.waits {
		a.waits = false
		w.aim(a.r, a, false)
		return
	}
	if a.settling {
		a.r.log.declined = "settings_timeout"
		w.failed(a, exchange.UpstreamProtocol)
		return
	}
	a.broke()
	w.step(a.r, &exchange.Event{Kind: exchange.AttemptTimeout, Ref: a.ref})
}

// start begins an attempt, a retry after the wait that its route asks for.
func (w *Worker) start(r *request, act *exchange.Action) {
	a := &r.attempts[act.Ref.Slot]
	if r.asking != nil {
		a.ref, a.up, a.endpoint, a.asked, a.how = act.Ref, nil, nil, false, upstream.Cancelled
		r.asking.held = act.Ref
		return
	}
	a.ref, a.up, a.sent, a.asked, a.how = act.Ref, nil, false, false, upstream.Cancelled
	if act.Retry {
		w.Counters.Retries.Add(1)
		if act.Burden && !w.budget.Retry(w.Loop.Now()) {
			a.endpoint = nil
			w.step(r, &exchange.Event{Kind: exchange.NoTarget, Ref: a.ref, Flag: exchange.Overload})
			return
		}
	}
	if act.Retry && !act.Fresh && r.retry != nil {
		if wait := r.retry.Wait(r.x.Retries(), w.random()); wait > 0 {
			a.endpoint, a.waits = nil, true
			w.Loop.Wheel.Set(&a.timer, w.Loop.Now()+int64(wait))
			return
		}
	}
	w.aim(r, a, act.Fresh)
}

// aim finds a target for an attempt and a connection to it; fresh asks for the
// same target over a new connection.
func (w *Worker) aim(r *request, a *attempt, fresh bool) {
	if !(fresh && a.endpoint != nil) {
		a.endpoint = nil
		flag := w.target(r, a)
		if a.endpoint == nil && r.retry != nil && r.tries > r.round {
			r.round = r.tries // they have all been asked once: ask them again
			flag = w.target(r, a)
		}
		if a.endpoint == nil {
			w.step(r, &exchange.Event{Kind: exchange.NoTarget, Ref: a.ref, Flag: flag, Status: r.local.status})
			return
		}
	}
	a.speaks = w.speaks.serial
	switch {
	case r.relays && a.remote == upstream.Home:
		a.speaks, a.clients = w.speaks.plain, nil
	case r.relays || a.remote == upstream.Home && r.http2:
		a.speaks = w.speaks.mux
	case a.remote != upstream.Home:
		a.speaks = w.between(r, a)
	}
	if !r.answerable(a) {
		a.endpoint, r.log.details = nil, "websocket_key_invalid"
		w.stop(r, exchange.ClientProtocol, 0)
		return
	}
	if r.tries < len(r.tried) {
		r.tried[r.tries] = a.endpoint
		r.tries++
	}
	a.flow = w.flow(r, a.endpoint)
	n := a.endpoint.InFlight.Add(1)
	a.unqueued, a.level = int(n) <= a.slots && !r.relays, 0
	if a.remote == upstream.Home {
		there := r.service.InFlight.Add(1)
		if a.learns && !r.relays {
			a.level = 1 + price.LevelOf(int(there))
		}
		if a.unqueued {
			r.service.Cells[w.id].UnqueuedStarts.Add(1)
		}
	} else if a.gate != nil {
		a.asked = true
		a.gate.Sent(a.remote, w.Loop.Now())
	}
	if r.udp && a.remote == upstream.Home {
		w.connectPackets(a)
		return
	}
	w.connect(a, fresh)
}

// broke notes that the attempt ended without a response, which the gate is told.
func (a *attempt) broke() {
	if a.how == upstream.Cancelled {
		a.how = upstream.Broken
	}
}

// toBackend carries out what concerns an attempt's stream.
func (w *Worker) toBackend(r *request, a *attempt, act *exchange.Action) {
	switch act.Kind {
	case exchange.SendHead:
		w.sendHead(r, a)
	case exchange.SendData:
		w.sendBody(r, a, act)
	case exchange.SendEnd:
		if a.out.backlog.Len() > 0 {
			a.out.ended = true
			return
		}
		a.end()
	case exchange.CreditBackend:
		if a.up != nil { // sockets of UDP are always read
			a.up.credit(a, act.N)
		}
	}
}

func (w *Worker) sendHead(r *request, a *attempt) {
	now := w.Loop.Now()
	a.sent, a.sentAt, a.heard = true, now, now
	a.endpoint.Cells[w.id].Requests.Add(1)
	if r.relays {
		if a.speaks.bytes {
			w.greets(r, a)
		} else {
			w.sendConnect(r, a)
		}
		return
	}
	w.msg = r.head
	if a.clients != nil {
		w.msg.Scheme = valueHTTPS
	}
	if len(w.msg.Authority) == 0 {
		w.msg.Authority = a.endpoint.Authority
	}
	if a.remote == upstream.Home {
		r.service.Cells[w.id].Arrivals.Add(1)
	} else {
		w.msg.Fields = append(w.fields[:0], r.head.Fields...)
		w.msg.Fields = append(w.msg.Fields,
			stream.Field{Name: fieldService, Value: a.name}, stream.Field{Name: fieldSource, Value: w.state.View.Site})
		if len(r.clientText) > 0 {
			w.msg.Fields = append(w.msg.Fields, stream.Field{Name: fieldClient, Value: r.clientText})
		}
		w.fields = w.msg.Fields[:0]
	}
	if r.bodyMax > 0 {
		w.Loop.Wheel.Set(&a.timer, now+int64(r.bodyMax))
	}
	if r.asksTunnel() {
		w.askBackend(r, a)
	}
	a.up.watch(a.silence)
	w.out = stream.Event{Kind: stream.Head, Stream: a.stream, Head: &w.msg}
	room := roomFor(&w.msg)
	a.countHead(room)
	a.send(&w.out, room)
}

// sendBody sends bytes that were kept, the piece at hand, or the end of the one
// and the beginning of the other.
func (w *Worker) sendBody(r *request, a *attempt, act *exchange.Action) {
	from, n := act.From, act.N
	if a.flow != nil {
		a.flow.RequestBytes.Add(uint64(n))
	}
	w.carried(r, n, 0)
	pieceFrom := r.received - int64(len(r.piece))
	for n > 0 && (a.up != nil || a.packets != nil) {
		var p []byte
		if from >= pieceFrom {
			p = r.piece[from-pieceFrom:]
		} else {
			p = r.kept.At(int(from - r.keptFrom))
		}
		p = p[:min(n, len(p))]
		if a.packets != nil {
			from += int64(len(p))
			n -= len(p)
			w.toEndpoint(a, p)
			continue
		}
		if err := w.push(&a.up.conn, a.up.codec, a.up.mux, a.stream, &a.out, p); err != nil {
			w.failed(a, exchange.ClientProtocol)
			return
		}
		from += int64(len(p))
		n -= len(p)
	}
}

// end sends the trailers and the end of the request.
func (a *attempt) end() {
	w, r := a.r.w, a.r
	if a.packets != nil { // either side's end is that of both
		w.step(r, &exchange.Event{Kind: exchange.ResponseEnd, Ref: a.ref})
		return
	}
	if a.up != nil && a.up.mux != nil && r.asksTunnel() && !r.x.Tunnel() {
		return // of its request; the tunnel that it asks for has another end
	}
	if len(r.trailers) > 0 {
		w.out = stream.Event{Kind: stream.Trailers, Stream: a.stream, Fields: r.trailers}
		a.send(&w.out, roomForFields(r.trailers))
	}
	w.out = stream.Event{Kind: stream.End, Stream: a.stream}
	a.send(&w.out, framing)
	if a.up != nil && a.up.mux == nil && (r.x.Tunnel() || a.speaks.bytes) {
		a.up.conn.CloseWrite()
	}
}

// send encodes an event of the attempt's stream. The codec refuses what would
// break the framing, which is then the fault of the request.
func (a *attempt) send(ev *stream.Event, room int) {
	w := a.r.w
	if a.up == nil || a.up.conn.Closed() {
		return
	}
	if err := w.encode(&a.up.conn, a.up.codec, ev, room); err != nil {
		w.failed(a, exchange.ClientProtocol)
	}
}

// failed tells the exchange that an attempt ended without an answer.
func (w *Worker) failed(a *attempt, f exchange.Flag) {
	unsent := !a.sent || a.up != nil && a.up.fresh && f == exchange.UpstreamReset
	// A resting connection that the other side closed says nothing of it, nor does
	// a request that cannot be encoded.
	if !unsent && f != exchange.ClientProtocol {
		a.broke()
	}
	w.step(a.r, &exchange.Event{Kind: exchange.Failed, Ref: a.ref, Flag: f, Unsent: unsent})
}

// release closes the books of an attempt and lets go of its stream.
func (w *Worker) release(a *attempt, ok bool) {
	r := a.r
	now := w.Loop.Now()
	w.Loop.Wheel.Clear(&a.timer)
	a.waits, a.settling = false, false
	a.out.drop(&w.Loop.Slabs)
	w.narrow(&a.in)
	if a.endpoint != nil {
		a.endpoint.InFlight.Add(-1)
		if !ok {
			a.endpoint.Cells[w.id].Failures.Add(1)
		}
		if a.remote == upstream.Home {
			r.service.InFlight.Add(-1)
			w.judged(a)
		} else if a.asked {
			a.gate.Done(a.remote, now, a.how)
		}
		if ok && a.remote == upstream.Home {
			c := &r.service.Cells[w.id]
			c.Completed.Add(1)
			if a.level > 0 && a.how == upstream.Answered && a.status < 500 { // who refuses is quick
				c.Levels[a.level-1].Completed(uint64(now - a.sentAt))
			}
			if a.unqueued {
				took := uint64(now - a.sentAt)
				c.Unqueued.Add(1)
				c.UnqueuedNS.Add(took)
				c.UnqueuedSq.Add(took / 1000 * (took / 1000))
			}
		}
	}
	if a.packets != nil {
		w.closePackets(a)
	}
	if u := a.up; u != nil {
		a.up = nil
		u.detach(a, ok)
		if r.d != nil && r.d.pace.held {
			r.d.pace.held = false
			r.d.goOn(r)
		}
	}
	a.ref = exchange.Ref{}
}
