package worker

import (
	"errors"
	"io"
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/limit"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
	"github.com/meridian-mesh/meridian/edgeproxy/tlsio"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
)

// up is a connection to a backend or to another site's gateway.
type up struct {
	conn     loop.Conn
	codec    codec
	mux      muxCodec // the codec where it carries many streams, else nil
	speaks   *protocol
	w        *Worker
	key      upstream.PoolKey
	idle     upstream.Idle[*up]
	attempts *attempt // open streams, or those that wait for the connection
	timer    loop.Timer
	deadline int64
	dialing  bool
	used     bool // has carried a stream before
	fresh    bool // nothing was written since the last stream was opened
	closing  bool // closed once all is sent
	ended    bool // a tunnel's backend has sent all
	held     bool // not read, as the client's socket is full
	full     bool // has no room for another stream, so it is not in the pool
	// unsettled says that an attempt waits for the other end's settings.
	unsettled bool
	span      span
	carried   int           // requests
	unpaid    int           // response bytes received and not passed on
	tls       *tlsio.Client // nil where the connection is plain
	meter     *limit.Meter  // of the link it goes over; nil within the site
	next      *up           // free
}

// connect gets an attempt a stream: on a resting connection, else on a new one.
func (w *Worker) connect(a *attempt, anew bool) {
	key := upstream.PoolKey{Endpoint: a.endpoint, Protocol: a.speaks.id}
	if f := a.r.filters; f != nil {
		key.Chain = uint32(f.Onward.CodePoint)
	}
	client := a.client()
	if client != nil {
		if !client.Usable() {
			a.r.log.unsecured = "upstream_tls_no_certificate"
			w.connectFailed(a)
			return
		}
		key.Identity = client.ID
	}
	if !anew {
		for {
			u, ok := w.pool.Take(key)
			if !ok {
				break
			}
			if u.span.over(w.Loop.Now(), u.carried) {
				u.retire()
				continue
			}
			w.Counters.Reused.Add(1)
			a.endpoint.Cells[w.id].Reused.Add(1)
			u.attach(a)
			return
		}
	}
	u := w.freeUp[a.speaks.id]
	if u == nil {
		u = &up{w: w, codec: a.speaks.client(), speaks: a.speaks}
		u.mux, _ = u.codec.(muxCodec)
		w.Loop.Spend(upBytes)
		u.timer.Owner = u
		u.idle.Conn = u
	} else {
		w.freeUp[a.speaks.id] = u.next
		*u = up{w: w, codec: u.codec, mux: u.mux, speaks: u.speaks, timer: u.timer, idle: upstream.Idle[*up]{Conn: u}}
	}
	u.key, u.dialing, u.tls, u.meter = key, true, client, a.endpoint.Meter
	u.span = w.spanOf(a.maxAge, a.maxRequests)
	w.Counters.Connects.Add(1)
	a.endpoint.Cells[w.id].Connects.Add(1)
	u.wait(a)
	if err := u.conn.Dial(w.Loop, a.endpoint.Addr, uint8(key.Chain), u); err != nil {
		u.attempts, a.up = nil, nil
		u.Recycle()
		w.connectFailed(a)
		return
	}
	u.deadline = w.Loop.Now() + int64(a.connect)
	w.Loop.Wheel.Set(&u.timer, u.deadline)
	if u.mux != nil {
		u.rest() // who comes meanwhile waits for the same connection
	}
}

// attach opens a stream for an attempt.
func (u *up) attach(a *attempt) {
	if u.dialing {
		if u.wait(a); u.mux != nil && u.carried < waitLimit {
			u.rest()
		}
		return
	}
	if o := u.offers(a); o != offered {
		if o == undecided {
			u.wait(a)
			u.settles(a)
		}
		u.shared()
		if o == missing {
			u.declines(a)
		}
		return
	}
	if !u.open(a) {
		if u.mux != nil && u.attempts != nil {
			u.full = true // until a stream ends
		} else {
			u.close()
		}
		u.w.connect(a, u.mux == nil)
		return
	}
	u.shared()
	u.ready(a)
}

// shared lets others have the connection as well, where it carries many streams.
func (u *up) shared() {
	if u.mux != nil && !u.span.over(u.w.Loop.Now(), u.carried) {
		u.rest()
	}
}

// open opens a stream for an attempt, false where the connection takes no more.
func (u *up) open(a *attempt) bool {
	id, ok := u.codec.Open()
	if !ok {
		a.up = nil
		return false
	}
	a.up, a.stream = u, id
	a.next = u.attempts
	u.attempts = a
	u.carried++
	return true
}

func (u *up) ready(a *attempt) {
	reused, ref := u.used, a.ref
	u.used, u.fresh = true, true
	u.conn.Bound(0)
	u.w.step(a.r, &exchange.Event{Kind: exchange.Ready, Ref: a.ref, Reused: reused, Holds: u.mux != nil, N: u.w.shared.Watermark})
	if a.speaks.bytes && a.ref == ref {
		u.w.joins(a.r, a)
	}
}

// Connected goes on to the handshake of TLS, or to the first stream.
func (u *up) Connected() {
	if u.tls != nil {
		u.secure()
		return
	}
	u.established()
}

// established opens the stream of the attempt that dialled.
func (u *up) established() {
	u.dialing = false
	u.w.Loop.Wheel.Clear(&u.timer)
	if u.attempts == nil {
		u.close()
		return
	}
	u.carried = 0
	for a := u.waiting(); a != nil && !u.conn.Closed(); a = u.waiting() {
		if u.offers(a) == undecided {
			u.settles(a)
			continue
		}
		u.forget(a)
		if !u.open(a) { // more wait than the other side takes at a time, which it says later
			u.w.connect(a, true)
			continue
		}
		u.ready(a)
	}
	switch {
	case u.mux == nil || u.conn.Closed():
	case u.attempts == nil:
		u.close()
	default:
		u.w.say(&u.conn, u.mux)
	}
}

// waiting returns an attempt that waited for the connection.
func (u *up) waiting() *attempt {
	for a := u.attempts; a != nil; a = a.next {
		if a.stream == 0 && !a.settling {
			return a
		}
	}
	return nil
}

// forget takes an attempt from the list.
func (u *up) forget(a *attempt) {
	for p := &u.attempts; *p != nil; p = &(*p).next {
		if *p == a {
			*p = a.next
			break
		}
	}
	a.next = nil
}

// watch bounds the backend's silence from now.
func (u *up) watch(silence time.Duration) {
	u.deadline = u.w.Loop.Now() + int64(silence)
	if !u.timer.Armed() {
		u.w.Loop.Wheel.Set(&u.timer, u.deadline)
	}
}

// Expire ends a dial or a silence that took too long.
func (u *up) Expire(_ *loop.Timer, now int64) {
	switch {
	case u.closing:
		u.close()
	case u.attempts == nil && u.dialing: // see keeps
		if now < u.deadline {
			u.w.Loop.Wheel.Set(&u.timer, u.deadline)
			return
		}
		u.close()
	case u.attempts == nil || u.mux == nil && u.attempts.r.x.Tunnel(): // at rest, or timed by the client's side
	case u.conn.Paused():
		u.deadline = now + int64(u.attempts.silence)
		u.w.Loop.Wheel.Set(&u.timer, u.deadline)
	case now < u.deadline:
		u.w.Loop.Wheel.Set(&u.timer, u.deadline)
	case u.securing():
		u.unsecured(tlsio.TimedOut)
	case u.dialing:
		u.abandon()
	case u.mux != nil:
		u.lookAround(now)
	default:
		u.fail(exchange.UpstreamTimeout)
	}
}

// Input decodes responses.
func (u *up) Input(in []byte) int {
	w := u.w
	if a := u.attempts; a != nil {
		u.deadline = w.Loop.Now() + int64(a.silence)
	}
	used := u.decode(in)
	if u.meter != nil {
		u.meter.Add(used)
	}
	if u.mux != nil && !u.conn.Closed() {
		if u.unsettled {
			u.settled()
		}
		w.say(&u.conn, u.mux)
		if u.attempts == nil && !u.mux.Reusable() {
			u.close()
		}
	}
	return used
}

func (u *up) decode(in []byte) int {
	w := u.w
	used := 0
	for {
		ev := &w.upEv
		n, err := u.codec.Decode(in[used:], ev)
		used += n
		if err != nil {
			if u.mux != nil {
				w.say(&u.conn, u.mux)
			}
			u.fail(exchange.UpstreamProtocol)
			return len(in)
		}
		if ev.Kind == stream.None {
			return used
		}
		u.event(ev)
		if u.conn.Closed() {
			return len(in)
		}
		if u.conn.Paused() {
			return used
		}
	}
}

func (u *up) find(id stream.ID) *attempt {
	for a := u.attempts; a != nil; a = a.next {
		if a.stream == id {
			return a
		}
	}
	return nil
}

func (u *up) event(ev *stream.Event) {
	w := u.w
	if ev.Kind == stream.Window && ev.Stream == 0 {
		u.pump()
		return
	}
	a := u.find(ev.Stream)
	if a == nil {
		return // of a stream that was reset
	}
	r := a.r
	a.heard = w.Loop.Now()
	switch ev.Kind {
	case stream.Head:
		r.replyHead = ev.Head
		kind, again := exchange.Response, false
		if r.relays && ev.Head.Status >= 300 && !r.inbound {
			w.heard(a, ev.Head)
			w.step(r, &exchange.Event{Kind: exchange.Failed, Ref: a.ref, Flag: refusal(ev.Head.Status), Unsent: true})
			r.replyHead = nil
			return
		}
		if ev.Head.Status < 200 && len(ev.Head.Upgrade) == 0 {
			kind = exchange.Informational
		} else {
			if r.asksTunnel() {
				if wrong := w.tunnelFault(r, a, ev.Head); wrong != "" {
					r.log.declined = wrong
					a.broke()
					w.stop(r, exchange.UpstreamProtocol, 0)
					return
				}
			}
			a.countReply(ev.Head)
			w.heard(a, ev.Head)
			again = w.again(r, a, ev.Head.Status)
		}
		w.step(r, &exchange.Event{Kind: kind, Ref: a.ref, Status: r.statusFor(ev.Head), Switch: len(ev.Head.Upgrade) > 0, Retry: again})
		r.replyHead = nil
	case stream.Data:
		if a.flow != nil {
			a.flow.ResponseBytes.Add(uint64(len(ev.Data)))
		}
		r.carries()
		u.replies(a, w.encoded(r, ev.Data), len(ev.Data))
		if u.mux == nil && u.unpaid >= w.shared.Watermark && !u.conn.Closed() {
			u.conn.Pause()
		}
	case stream.Trailers:
		if r.web.replying {
			u.replies(a, w.trailersFrame(ev.Fields, r.web.textOut), 0)
			return
		}
		r.replyTrailers = r.store.trailers(w, r.replyTrailers[:0], ev.Fields)
	case stream.End:
		w.step(r, &exchange.Event{Kind: exchange.ResponseEnd, Ref: a.ref})
	case stream.Reset:
		w.lostStream(a, ev.Reason)
	case stream.Window:
		r.carries()
		u.pumpOne(a)
	}
}

// replies hands on a piece of a response's body, of n octets on the way here.
func (u *up) replies(a *attempt, piece []byte, n int) {
	r := a.r
	u.unpaid += n
	r.reply += int64(len(piece))
	r.replyPiece = piece
	u.w.step(r, &exchange.Event{Kind: exchange.ResponseData, Ref: a.ref, N: len(piece)})
	r.replyPiece = nil
}

// lostStream tells the exchange that the backend ended a stream early.
func (w *Worker) lostStream(a *attempt, why stream.Reason) {
	f := exchange.UpstreamReset
	if why == stream.Malformed || why == stream.TooLarge {
		f = exchange.UpstreamProtocol
	}
	unsent := why == stream.Refused || a.up.fresh
	if !unsent {
		a.broke()
	}
	w.step(a.r, &exchange.Event{Kind: exchange.Failed, Ref: a.ref, Flag: f, Unsent: unsent})
}

// credit notes that n bytes of an attempt's response were passed on.
func (u *up) credit(a *attempt, n int) {
	n = a.r.creditOf(n)
	if u.mux != nil {
		if a.remote != upstream.Home {
			u.w.taken(&a.in, u.mux, a.stream, n)
		}
		u.w.out = stream.Event{Kind: stream.Window, Stream: a.stream, N: n}
		a.send(&u.w.out, framing)
		return
	}
	u.unpaid = max(0, u.unpaid-n) // of what was made here nothing came
	if u.unpaid < u.w.shared.Watermark/2 {
		u.goOn()
	}
}

// Written goes on with what waited for room.
func (u *up) Written(n, left int) {
	if n > 0 {
		u.fresh = false
		if u.meter != nil {
			u.meter.Add(n)
		}
	}
	if u.closing && left == 0 {
		u.close()
		return
	}
	u.paced(left)
	if u.mux != nil {
		u.pump()
	} else if a := u.attempts; a != nil && a.out.owed > 0 && left <= u.w.shared.Watermark/2 {
		owed := a.out.owed
		a.out.owed = 0
		u.w.step(a.r, &exchange.Event{Kind: exchange.BackendCredit, Ref: a.ref, N: owed})
	}
}

// Failed ends every stream of a connection that broke.
func (u *up) Failed(err error) {
	if t, ok := u.conn.Transport().(*tlsio.Conn); ok && u.dialing {
		if !t.Ended() {
			u.unsecured(tlsio.ReasonOf(err))
		}
		return
	}
	if u.dialing {
		u.abandon()
		return
	}
	if errors.Is(err, io.EOF) && u.attempts != nil {
		ev := &u.w.upEv
		if err := u.codec.EOF(ev); err == nil && ev.Kind == stream.End {
			if u.attempts.r.x.Tunnel() {
				u.ended = true // the other direction goes on
				u.conn.Pause()
				u.event(ev)
				return
			}
			u.event(ev) // a body that runs to the close
		}
	}
	u.fail(exchange.UpstreamReset)
}

// fail closes the connection and fails what it carries.
func (u *up) fail(f exchange.Flag) {
	u.close()
	for u.attempts != nil {
		a := u.attempts
		u.attempts = a.next
		u.w.failed(a, f)
	}
}

// detach lets go of an attempt's stream, by a reset unless both directions ended.
func (u *up) detach(a *attempt, ok bool) {
	u.forget(a)
	if u.conn.Closed() {
		return
	}
	if u.dialing {
		switch {
		case u.attempts != nil:
		case u.keeps():
			u.rest()
		default:
			u.close()
		}
		return
	}
	over := u.span.over(u.w.Loop.Now(), u.carried)
	if u.mux == nil {
		u.unpaid, u.held = 0, false
		if a.r.x.Tunnel() {
			u.endTunnel(ok)
			return
		}
		if !ok {
			u.conn.Reset() // an end would say: answer me all the same
			u.close()
			return
		}
		// What the socket has not taken of a request that is answered already may
		// be taken for the next one, as may what was not encoded (the class CL.0).
		if over || u.codec.Active() > 0 || !u.codec.Reusable() || u.conn.Left() > 0 || u.conn.Unsent() > 0 {
			u.close()
			return
		}
		if u.conn.Paused() {
			u.conn.Resume()
		}
		u.rest()
		return
	}
	if !ok {
		u.w.out = stream.Event{Kind: stream.Reset, Stream: a.stream, Reason: stream.Cancelled}
		if u.w.encode(&u.conn, u.codec, &u.w.out, framing) != nil {
			u.close()
			return
		}
	}
	switch {
	case over || !u.codec.Reusable():
		if u.attempts == nil {
			u.close()
		}
	case u.full:
		u.full = false
		u.rest()
	}
}

// rest puts the connection into the pool.
func (u *up) rest() {
	w := u.w
	old, over := w.pool.Put(&u.idle, u.key, w.Loop.Now(), poolLimit)
	if over {
		old.retire()
	}
	if !w.sweep.Armed() {
		w.Loop.Wheel.Set(&w.sweep, w.Loop.Now()+int64(time.Second))
	}
}

// retire closes a connection that left the pool once its streams have ended.
func (u *up) retire() {
	if u.attempts == nil {
		u.close()
		return
	}
	_ = u.codec.Close(nil)
	if u.mux != nil && !u.dialing {
		u.w.say(&u.conn, u.mux)
	}
}

func (u *up) close() {
	u.w.pool.Remove(&u.idle)
	u.w.Loop.Wheel.Clear(&u.timer)
	u.conn.Close()
}

// Recycle keeps the connection's memory for the next one.
func (u *up) Recycle() {
	u.codec.Reset()
	u.next = u.w.freeUp[u.speaks.id]
	u.w.freeUp[u.speaks.id] = u
}

var _ loop.Peer = (*up)(nil)
