package worker

import (
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// sending is what one side of an exchange has to send. Where a connection carries
// many streams, what a stream's window has no room for waits here; the sender of
// the body gets no credit for it, so it is bounded by the watermark.
type sending struct {
	backlog loop.List
	ended   bool  // the stream's end waits behind it
	owed    int   // bytes sent whose credit the body's sender has not got back
	since   int64 // when a byte of the backlog went last
}

func (s *sending) waits() bool { return s.ended || s.backlog.Len() > 0 }

func (s *sending) drop(slabs *loop.Slabs) {
	s.backlog.Free(slabs)
	*s = sending{}
}

// push sends a piece of a body, or as much as the stream's window and the
// connection's queue have room for.
func (w *Worker) push(c *loop.Conn, k codec, mux muxCodec, id stream.ID, s *sending, p []byte) error {
	if mux != nil {
		n := 0
		if s.backlog.Len() == 0 && c.Unsent() < w.shared.Watermark {
			n = min(len(p), mux.Sendable(id))
		}
		if n < len(p) {
			if s.backlog.Len() == 0 {
				s.since = w.Loop.Now()
			}
			s.backlog.Append(&w.Loop.Slabs, p[n:])
			p = p[:n]
		}
	}
	s.owed += len(p)
	return w.encodeData(c, k, id, p)
}

// pump sends of a backlog what there is room for.
func (w *Worker) pump(c *loop.Conn, mux muxCodec, id stream.ID, s *sending) error {
	for s.backlog.Len() > 0 && c.Unsent() < w.shared.Watermark {
		p := s.backlog.Front()
		n := min(len(p), mux.Sendable(id), dataPart)
		if n == 0 {
			return nil
		}
		if err := w.encodeData(c, mux, id, p[:n]); err != nil {
			return err
		}
		s.backlog.Drop(&w.Loop.Slabs, n)
		s.owed += n
		s.since = w.Loop.Now()
	}
	return nil
}

// say queues what a codec has to send on its own account.
func (w *Worker) say(c *loop.Conn, mux muxCodec) {
	if mux.Silent() || c.Closed() {
		return
	}
	w.scratch = mux.Say(w.scratch[:0])
	c.Out.Append(&w.Loop.Slabs, w.scratch)
	c.Dirty()
}

// credit notes that n bytes of request r were passed on.
func (d *down) credit(r *request, n int) {
	if d.many {
		if r.inbound {
			d.w.taken(&r.in, d.mux(), r.stream, n)
		}
		d.w.out = stream.Event{Kind: stream.Window, Stream: r.stream, N: n}
		d.send(&d.w.out, framing)
		return
	}
	d.unpaid -= int32(n)
	if int(d.unpaid) < d.w.shared.Watermark/2 {
		d.goOn(r)
	}
}

// mux is the codec of a connection with many streams, nil of one with one.
func (d *down) mux() muxCodec {
	if !d.many {
		return nil
	}
	return d.codec.(muxCodec)
}

// pump goes on with the streams that waited for room, the client's window or both,
// and gives the senders of what went credit for more.
func (d *down) pump() {
	for r := d.requests; r != nil && !d.conn.Closed(); {
		next, life := r.next, r.life
		d.pumpOne(r)
		if r.life == life && !r.over && r.out.owed > 0 && d.conn.Unsent() <= d.w.shared.Watermark/2 {
			owed := r.out.owed
			r.out.owed = 0
			d.w.step(r, &exchange.Event{Kind: exchange.ClientCredit, N: owed})
		}
		r = next
	}
}

func (d *down) pumpOne(r *request) {
	if !r.out.waits() {
		return
	}
	ok := d.w.pump(&d.conn, d.mux(), r.stream, &r.out) == nil
	if ok && r.out.ended && r.out.backlog.Len() == 0 {
		r.out.ended = false
		ok = d.end(r)
	}
	switch {
	case !ok:
		d.cut(r, stream.Internal)
	case r.over && !r.out.waits():
		d.leaves(r)
	}
}

// end sends the trailers and the end of a response.
func (d *down) end(r *request) bool {
	if len(r.replyTrailers) > 0 {
		d.w.out = stream.Event{Kind: stream.Trailers, Stream: r.stream, Fields: r.replyTrailers}
		if !d.send(&d.w.out, roomForFields(r.replyTrailers)) {
			return false
		}
	}
	d.w.out = stream.Event{Kind: stream.End, Stream: r.stream}
	return d.send(&d.w.out, framing)
}

// cut ends a request's stream early; what waits of its response is dropped.
func (d *down) cut(r *request, why stream.Reason) {
	r.out.drop(&d.w.Loop.Slabs)
	d.w.out = stream.Event{Kind: stream.Reset, Stream: r.stream, Reason: why}
	_ = d.send(&d.w.out, framing) // a reset is always written
	if r.over {
		d.leaves(r)
		return
	}
	d.w.step(r, &exchange.Event{Kind: exchange.ClientGone})
}

// leaves forgets a request whose exchange is over and whose response is out.
func (d *down) leaves(r *request) {
	d.finished(r)
	d.w.freeRequest(r)
}

// heard handles a frame of a request whose exchange is over, while its response
// waits for the client's window.
func (d *down) heard(r *request, ev *stream.Event) {
	switch ev.Kind {
	case stream.Data:
		d.credit(r, len(ev.Data))
	case stream.Reset:
		r.out.drop(&d.w.Loop.Slabs)
		d.leaves(r)
	case stream.Window:
		d.pumpOne(r)
	}
}

// lookAround ends the streams of a connection whose clients have kept them waiting
// for too long, and says when to look again.
func (d *down) lookAround(now int64) {
	t := &d.w.shared.Times
	for r := d.requests; r != nil && !d.conn.Closed(); {
		next := r.next
		switch {
		case r.x.Tunnel() && !r.over: // timed by itself
		case r.out.waits() && now-r.out.since >= int64(t.Stall):
			d.w.Counters.SlowReaders.Add(1)
			if !r.over {
				d.w.stop(r, exchange.SlowReader, 0)
			} else {
				d.cut(r, stream.Cancelled)
			}
		case !r.over && !r.x.RequestDone() && !r.owesNothing() && r.kept.Len() == 0 && now-r.moved >= int64(t.Body):
			d.w.Counters.SlowBodies.Add(1)
			d.w.stop(r, exchange.SlowBody, 0)
		}
		r = next
	}
	if d.conn.Closed() || d.phase != serving {
		return
	}
	if d.conn.Unsent() > 0 && now-d.active >= int64(t.Stall) {
		d.w.Counters.SlowReaders.Add(1)
		d.lost()
		return
	}
	d.deadline = now + int64(min(t.Stall, t.Body)/4)
	d.w.Loop.Wheel.Set(&d.timer, d.deadline)
}

// endAll ends the requests of a connection that is of no use any more.
func (d *down) endAll(ev exchange.Event) {
	for d.requests != nil {
		r := d.requests
		r.out.drop(&d.w.Loop.Slabs)
		if r.over {
			d.leaves(r)
		} else {
			d.w.step(r, &ev)
		}
	}
}

// pump goes on with the requests that waited for room or the backend's window.
func (u *up) pump() {
	for a := u.attempts; a != nil && !u.conn.Closed(); {
		next, ref := a.next, a.ref
		u.pumpOne(a)
		if a.ref == ref && a.up == u && a.out.owed > 0 && u.conn.Unsent() <= u.w.shared.Watermark/2 {
			owed := a.out.owed
			a.out.owed = 0
			u.w.step(a.r, &exchange.Event{Kind: exchange.BackendCredit, Ref: ref, N: owed})
		}
		a = next
	}
}

func (u *up) pumpOne(a *attempt) {
	if !a.out.waits() || a.stream == 0 {
		return
	}
	if u.w.pump(&u.conn, u.mux, a.stream, &a.out) != nil {
		u.w.failed(a, exchange.ClientProtocol)
		return
	}
	if a.out.ended && a.out.backlog.Len() == 0 {
		a.out.ended = false
		a.end()
	}
}

// lookAround ends the streams whose backend has been silent for too long, and says
// when to look again.
func (u *up) lookAround(now int64) {
	next := int64(time.Minute)
	for a := u.attempts; a != nil && !u.conn.Closed(); {
		follows := a.next
		// While the client is what is waited for, the backend has said enough.
		left := a.heard + int64(a.silence) - now
		switch {
		case !a.sent || a.r.x.Tunnel() || a.r.out.waits() || a.r.replyKept.Len() > 0:
		case left <= 0:
			u.w.failed(a, exchange.UpstreamTimeout)
		default:
			next = min(next, left)
		}
		a = follows
	}
	if u.attempts != nil && !u.conn.Closed() {
		u.deadline = now + next
		u.w.Loop.Wheel.Set(&u.timer, u.deadline)
	}
}
