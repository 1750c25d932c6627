package worker

import (
	"io"
	"net/netip"
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
	"github.com/meridian-mesh/meridian/edgeproxy/proxyproto"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
	"github.com/meridian-mesh/meridian/edgeproxy/tlsio"
	"github.com/meridian-mesh/meridian/edgeproxy/view"
)

// down is a client's connection. There may be tens of thousands at rest: order and
// width of the fields keep it in the allocator's class of 448 bytes.
type down struct {
	conn     loop.Conn
	codec    serverCodec // nil at rest, where one codec serves all
	w        *Worker
	listener *Listener
	socket   *view.Socket // of the listener in the present view
	requests *request     // open streams
	timer    loop.Timer
	deadline int64
	id       uint64
	born     int64
	active   int64 // when it last sent or took something
	pace     pace
	span     span
	carried  int32 // requests
	unpaid   int32 // request bytes received and not passed on
	from     netip.AddrPort

	// caller is whose connection it is, one more than the index, 0 while that is not
	// looked up. It is so until the registry's epoch is another than callerEpoch.
	callerEpoch uint32

	caller    uint16
	phase     phase
	decoding  bool
	many      bool // its codec carries many streams at a time
	plain     bool // its codec carries bytes and nothing else
	agreed    bool // on that, in the TLS handshake
	balanced  bool // a PROXY header comes first
	peeks     bool // the first byte says whether it is TLS
	closing   bool // closed once all is sent
	linger    bool // ... after reading what the client still sends
	reset     bool // ... by a reset, because its last response is cut short
	drained   bool // no request is to follow
	departing bool // in the list of those to be closed

	nextGone   *down
	next, prev *down
}

// phase is what a client's connection waits for.
type phase uint8

const (
	resting    phase = iota // a request's first byte
	heading                 // the rest of a head
	serving                 // a request is under way
	tunnelling              // bytes either way
	lingering               // the client's close
	securing                // the end of a TLS handshake
)

// newDown takes memory for a client's connection and lists it.
func (w *Worker) newDown(l *Listener, from netip.AddrPort) *down {
	d := w.freeDown
	if d == nil {
		d = &down{w: w}
		d.timer.Owner = d
		w.Loop.Spend(downBytes)
	} else {
		w.freeDown = d.next
		*d = down{w: w, timer: d.timer}
	}
	d.listener, d.from = l, from
	d.next = w.downs
	if d.next != nil {
		d.next.prev = d
	}
	w.downs = d
	return d
}

// gateway names who serves the connection.
func (d *down) gateway() string {
	s := d.socket
	if s == nil {
		s = d.w.state.Sockets[d.listener] // of a tunnel
	}
	if s == nil {
		return ""
	}
	return s.Gateway
}

// protocol is what the connection speaks.
func (d *down) protocol() *protocol {
	if d.plain {
		return d.w.speaks.plain
	}
	return d.w.speaks.of(d.many)
}

// header reads what a balancer says of the client before its first request.
func (d *down) header(in []byte) int {
	h, n, err := proxyproto.Parse(in)
	switch {
	case err != nil:
		d.w.count(d.w.shared.Unrouted, 0, exchange.ClientProtocol, 0)
		d.lost()
		return len(in)
	case n == 0:
		return 0
	case !h.Local:
		d.from = h.From
	}
	d.balanced = false
	d.greet()
	if n == len(in) {
		return n
	}
	if d.phase == securing {
		d.hello(in[n:])
		return len(in)
	}
	return n + d.Input(in[n:])
}

// await notes what is waited for and how long. The timer stays where it is while
// that is early enough, and looks at the deadline when it expires.
func (d *down) await(p phase, timeout time.Duration) {
	d.phase = p
	d.active = d.w.Loop.Now()
	d.deadline = d.active + int64(timeout)
	if !d.timer.Armed() || timeout < d.w.shared.Times.KeepAlive {
		d.w.Loop.Wheel.Set(&d.timer, d.deadline)
	}
}

// Expire ends a wait that took too long.
func (d *down) Expire(_ *loop.Timer, now int64) {
	if now < d.deadline {
		d.w.Loop.Wheel.Set(&d.timer, d.deadline)
		return
	}
	switch d.phase {
	case resting:
		d.depart()
	case lingering:
		d.lost()
	case heading:
		if d.closing {
			d.lost()
		} else if d.codec == nil {
			d.lost()
		} else if id, ok := d.codec.Refuse(); ok {
			d.refuse(exchange.ClientTimeout, exchange.ClientTimeout.Status(), id, "")
		} else {
			d.lost()
		}
	case serving:
		d.stalled(now)
	case tunnelling:
		d.w.stop(d.requests, exchange.IdleTimeout, 0)
	case securing:
		d.unsecured(tlsio.TimedOut)
	}
}

// Connected is for connections that were dialled.
func (d *down) Connected() {}

// Input decodes requests.
func (d *down) Input(in []byte) int {
	if d.phase == lingering {
		return len(in)
	}
	if d.balanced {
		return d.header(in)
	}
	if d.peeks && len(in) > 0 {
		return d.peek(in)
	}
	w := d.w
	w.Counters.Received.Add(uint64(len(in)))
	d.active = w.Loop.Now()
	if d.codec == nil {
		if d.carried == 0 && !d.agreed {
			p := w.speaks.spoken(in)
			if p == nil { // not yet clear
				if d.phase == resting {
					d.await(heading, w.shared.Times.Head)
				}
				return 0
			}
			d.many = p.many
		}
		d.codec = w.takeCodec(w.speaks.of(d.many))
		d.trusts()
	}
	d.decoding = true
	used := d.decode(in)
	d.decoding = false
	if d.many {
		d.answers()
	}
	switch r := d.requests; {
	case d.conn.Closed() || d.closing || d.conn.Paused():
	case d.phase == tunnelling:
		d.await(tunnelling, r.idle)
	case d.phase == resting && used < len(in):
		d.await(heading, w.shared.Times.Head)
	case d.phase == resting:
		d.restCodec()
	case d.phase == serving && !d.many && r != nil && !r.x.RequestDone() && d.pace.wait == noWait:
		d.expect(d.waiting())
	}
	return used
}

func (d *down) decode(in []byte) int {
	w := d.w
	used := 0
	for n := 0; ; {
		if d.closing || d.conn.Closed() {
			return len(in)
		}
		if d.conn.Paused() {
			break
		}
		if n == burst {
			d.conn.Again()
			break
		}
		ev := &w.downEv
		k, err := d.codec.Decode(in[used:], ev)
		used += k
		if err != nil {
			d.malformed(err, ev)
			return len(in)
		}
		if ev.Kind == stream.None {
			break
		}
		if ev.Kind == stream.Head || ev.Kind == stream.Reset { // a head that is refused was read as well
			n++
		}
		d.event(ev)
	}
	return used
}

// restCodec gives the codec of a connection at rest to whoever needs one next.
func (d *down) restCodec() {
	if d.codec != nil && !d.many && !d.decoding && d.codec.Active() == 0 && d.codec.Reusable() && d.conn.Left() == 0 {
		d.w.giveCodec(d.protocol(), d.codec)
		d.codec = nil
	}
}

func (d *down) event(ev *stream.Event) {
	w := d.w
	if ev.Kind == stream.Head {
		if !d.many {
			d.await(serving, w.shared.Times.KeepAlive) // expect is for what takes less
		} else if d.phase != serving {
			d.await(serving, min(w.shared.Times.Stall, w.shared.Times.Body)/4)
		}
		if w.leaving > 0 {
			_ = d.codec.Close(nil)
		}
		w.begin(d, ev.Stream, ev.Head)
		return
	}
	if ev.Kind == stream.Window && ev.Stream == 0 {
		d.pump()
		return
	}
	r := d.find(ev.Stream)
	switch {
	case r == nil:
		d.unheard(ev)
		return
	case r.over:
		d.heard(r, ev)
		return
	}
	switch ev.Kind {
	case stream.Data:
		r.moved = w.Loop.Now()
		d.unpaid += int32(len(ev.Data)) // of one that carries many nobody looks
		piece, ok := w.decoded(r, ev.Data)
		if !ok {
			return
		}
		r.received += int64(len(piece))
		r.piece = piece
		if r.copies != nil {
			w.copyData(r)
		}
		w.step(r, &exchange.Event{Kind: exchange.RequestData, N: len(piece)})
		r.piece = nil
		d.throttle()
	case stream.Trailers:
		r.trailers = r.store.trailers(w, r.trailers[:0], ev.Fields)
	case stream.End:
		if d.pace.wait == forBody {
			d.pace.wait = noWait
		}
		if !d.many {
			d.conn.Pause()
		}
		if !w.wholeText(r) {
			return
		}
		if r.copies != nil {
			w.copyEnd(r)
		}
		if !r.x.RequestDone() || r.extended {
			w.step(r, &exchange.Event{Kind: exchange.RequestEnd})
		}
	case stream.Reset:
		r.out.drop(&w.Loop.Slabs)
		w.step(r, &exchange.Event{Kind: exchange.ClientGone})
	case stream.Window:
		r.carries()
		d.pumpOne(r)
	}
}

// unheard is for frames of streams that carry no request: what came late for one
// that was answered and reset, or a head that the codec refused.
func (d *down) unheard(ev *stream.Event) {
	if ev.Kind != stream.Reset || !d.many {
		return
	}
	f := exchange.ClientProtocol
	if ev.Reason == stream.Refused {
		f = exchange.Overload
	}
	d.w.count(d.w.shared.Unrouted, 0, f, 0)
	d.w.logRefused(d, 0, f, "")
}

// answers queues what the codec says of what it read; after the last word of a
// connection that is over nothing follows.
func (d *down) answers() {
	d.w.say(&d.conn, d.mux())
	if d.requests == nil && !d.closing && !d.conn.Closed() && !d.codec.Reusable() {
		d.close(true)
	}
}

func (d *down) find(id stream.ID) *request {
	for r := d.requests; r != nil; r = r.next {
		if r.stream == id {
			return r
		}
	}
	return nil
}

// throttle stops reading a client whose request is not taken as fast as it comes.
func (d *down) throttle() {
	if !d.many && int(d.unpaid) >= d.w.shared.Watermark && !d.conn.Closed() {
		d.holdBack()
	}
}

// Written goes on with what waited for room.
func (d *down) Written(n, left int) {
	if n > 0 {
		d.w.Counters.Sent.Add(uint64(n))
		d.pace.sent += int64(n)
		d.active = d.w.Loop.Now()
		if d.phase == tunnelling {
			d.await(tunnelling, d.requests.idle)
		}
	}
	d.paced(n, left)
	if d.closing {
		if left == 0 {
			d.sent()
		}
		return
	}
	if d.many {
		d.pump()
	} else {
		switch r := d.requests; {
		case r == nil:
			if d.phase == serving && left == 0 {
				d.proceed()
			}
		case r.out.owed > 0 && left <= d.w.shared.Watermark/2:
			owed := r.out.owed
			r.out.owed = 0
			d.w.step(r, &exchange.Event{Kind: exchange.ClientCredit, N: owed})
		}
	}
}

// close has the connection closed once all is sent; with linger the client may
// still be sending.
func (d *down) close(linger bool) {
	if d.conn.Closed() || d.closing {
		return
	}
	d.closing, d.linger = true, linger
	if d.many {
		d.w.say(&d.conn, d.mux())
	}
	if d.conn.Unsent() == 0 {
		d.sent()
		return
	}
	d.phase = serving
	d.expect(forReader)
	d.conn.Dirty()
}

func (d *down) sent() {
	switch {
	case d.reset:
		d.conn.Reset()
		d.forget()
	case d.linger:
		d.conn.ShutdownWrite()
		d.conn.Resume()
		d.await(lingering, d.w.shared.Times.Linger)
	default:
		d.lost()
	}
}

// Failed ends what the client has left; of a tunnel an end is one direction's. One
// that only sends no more gets the rest of its last response; where a response is
// still to come reading is paused, so that its end is not met before.
func (d *down) Failed(err error) {
	if d.phase == securing {
		d.ended(err)
		return
	}
	if r := d.requests; (d.phase == tunnelling || d.plain && r != nil) && err == io.EOF && !r.x.RequestDone() {
		d.conn.Pause()
		if ev := &d.w.downEv; d.codec.EOF(ev) == nil && ev.Kind == stream.End {
			d.w.step(d.requests, &exchange.Event{Kind: exchange.RequestEnd})
			return
		}
	}
	if err == io.EOF && d.requests == nil && d.conn.Unsent() > 0 {
		d.close(false)
		d.linger = false
		return
	}
	d.lost()
}

// lost closes at once, by a reset where a response is cut short: one that runs
// until the close would pass for whole.
func (d *down) lost() {
	if d.conn.Closed() {
		return
	}
	cut := d.requests != nil || d.conn.Unsent() > 0
	d.closing = true
	d.endAll(exchange.Event{Kind: exchange.ClientGone})
	if cut {
		d.conn.Reset()
	} else {
		d.conn.Close()
	}
	d.forget()
}

// forget takes the connection out of the books; Recycle follows.
func (d *down) forget() {
	w := d.w
	w.Loop.Wheel.Clear(&d.timer)
	w.shared.Connections.Add(-1)
	d.listener.Connections.Add(-1)
	w.Counters.Open.Add(-1)
	if d.prev != nil {
		d.prev.next = d.next
	} else {
		w.downs = d.next
	}
	if d.next != nil {
		d.next.prev = d.prev
	}
	d.next, d.prev = nil, nil
}

// Recycle keeps the connection's memory for the next one.
func (d *down) Recycle() {
	if d.codec != nil {
		d.w.giveCodec(d.protocol(), d.codec)
		d.codec = nil
	}
	d.listener, d.socket = nil, nil
	if d.departing {
		return // that list still goes through it
	}
	d.next = d.w.freeDown
	d.w.freeDown = d
}

// finished is called when a request is over: its stream is ended or reset.
func (d *down) finished(r *request) {
	for p := &d.requests; *p != nil; p = &(*p).next {
		if *p == r {
			*p = r.next
			break
		}
	}
	if d.conn.Closed() {
		return
	}
	if !d.many {
		d.unpaid, d.pace.held = 0, false
	}
	if d.phase == tunnelling {
		d.phase = serving // for what is still to be sent
		d.expect(forReader)
	}
	switch {
	case d.closing:
	case !d.codec.Reusable() && d.requests == nil:
		d.close(!r.x.RequestDone() || d.conn.Left() > 0)
	case !d.many && !r.x.RequestDone():
		d.close(true) // what still comes of the body is not worth reading
	case !d.many && (d.conn.Unsent() > d.w.shared.Watermark/2 || d.pace.wait == forReader && d.conn.Unsent() > 0):
		d.conn.Pause() // who asks on without taking the answers must wait
	case d.requests == nil:
		d.proceed()
	}
}

// proceed goes on to the next request.
func (d *down) proceed() {
	d.await(resting, d.w.keepAlive())
	d.conn.Resume()
	d.restCodec()
}

// send encodes an event of the client's stream. A failure is a fault of the
// backend's message: the codec refuses to write what would break the framing.
func (d *down) send(ev *stream.Event, room int) bool {
	if d.conn.Closed() {
		return true
	}
	return d.w.encode(&d.conn, d.codec, ev, room) == nil
}

var _ loop.Peer = (*down)(nil)
