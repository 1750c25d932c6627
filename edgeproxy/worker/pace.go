package worker

import (
	"cmp"
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
)

// wait is what a request waits for of its client.
type wait uint8

const (
	noWait    wait = iota
	forBody        // more of the request's body
	forReader      // that it takes what was sent
)

const (
	// leastPiece is the least that is read for a client whose socket is nearly full:
	// with its framing it fits the smaller buffer.
	leastPiece = 4<<10 - framing
	// largePiece is a write after which the next may fill the client's socket.
	largePiece = 16 << 10
	// mostPiece is the most that one read takes.
	mostPiece = 64 << 10
)

// pace bounds what a slow client holds, and for how long. Its windows begin when
// something is waited for: within each the client has to move enough, or it is cut.
type pace struct {
	mark   int64 // what had been moved when the window began
	sent   int64 // bytes that its socket took
	since  int64 // when it was held back
	piece  int32 // bounds the next read for it, once it was full
	wait   wait
	held   bool // not read, as the backend's connection is full
	filled bool // its socket has been full
}

// window is how long a window takes and what the client has to move in it.
func (d *down) window() (time.Duration, int64) {
	t := d.w.shared.Times.Body
	if d.pace.wait == forReader {
		t = d.w.shared.Times.Stall
	}
	if d.socket == nil { // of what was a tunnel
		return t, 1
	}
	t = cmp.Or(d.socket.Slow.Grace, t)
	return t, max(1, int64(float64(d.socket.Slow.MinBytesPerSecond)*t.Seconds()))
}

// expect begins a window.
func (d *down) expect(what wait) {
	d.pace.wait = what
	if what == noWait {
		return
	}
	window, _ := d.window()
	d.pace.mark = d.moved()
	d.deadline = d.w.Loop.Now() + int64(window)
	d.w.Loop.Wheel.Set(&d.timer, d.deadline)
}

// waiting is what is waited for now.
func (d *down) waiting() wait {
	switch r := d.requests; {
	case d.conn.Unsent() > 0:
		return forReader
	case r == nil || d.many || r.x.RequestDone() || d.conn.Paused() || r.owesNothing():
		return noWait
	case r.head.Expect100 && r.received == 0 && !r.continued:
		return noWait // the backend is asked whether it wants the body
	}
	return forBody
}

// moved is what the client has moved of what is waited for.
func (d *down) moved() int64 {
	switch r := d.requests; {
	case d.pace.wait == forReader:
		return d.pace.sent - int64(d.conn.Untaken()-d.conn.Unsent())
	case r != nil:
		return r.received
	}
	return 0
}

// stalled looks, at the end of a window, whether the client moved enough.
func (d *down) stalled(now int64) {
	if d.many {
		d.lookAround(now)
		return
	}
	what := d.waiting()
	_, least := d.window()
	switch {
	case what == noWait:
		d.pace.wait = noWait
		d.deadline = now + int64(d.w.shared.Times.KeepAlive)
		d.w.Loop.Wheel.Set(&d.timer, d.deadline)
	case what != d.pace.wait || d.moved()-d.pace.mark >= least:
		d.expect(what)
	case what == forBody:
		d.w.Counters.SlowBodies.Add(1)
		d.w.stop(d.requests, exchange.SlowBody, 0)
	default:
		d.w.Counters.SlowReaders.Add(1)
		for d.requests != nil {
			d.w.stop(d.requests, exchange.SlowReader, 0)
		}
		d.lost()
	}
}

// paced follows each write to the client. While its socket is full, nothing is
// read for it; what is read next is no more than it takes.
func (d *down) paced(n, left int) {
	if d.many { // each stream has a window, see lookAround
		return
	}
	p := &d.pace
	switch {
	case left > 0:
		p.filled = true
		p.piece = int32(max(leastPiece, cmp.Or(int(p.piece), mostPiece)/2))
		if d.phase == resting { // the next request has to wait
			d.phase = serving
			d.conn.Pause()
		}
		if p.wait != forReader && d.phase == serving {
			d.expect(forReader)
		}
	case p.wait == forReader:
		p.wait = noWait
		if what := d.waiting(); what != noWait && d.phase == serving {
			d.expect(what)
		}
	}
	r := d.requests
	if r == nil || d.many {
		return
	}
	if left == 0 && !p.filled && n < largePiece {
		return
	}
	bound := 0
	if left == 0 {
		p.piece = int32(min(2*cmp.Or(int(p.piece), mostPiece), mostPiece))
		bound = max(leastPiece, min(int(p.piece), d.conn.Takes()))
	}
	for i := range r.attempts {
		if u := r.attempts[i].up; u != nil && u.mux == nil {
			u.pacedBy(left, bound)
		}
	}
}

// pacedBy holds the backend back while the client's socket is full.
func (u *up) pacedBy(left, bound int) {
	if left > 0 {
		u.held = true
		u.conn.Pause()
		return
	}
	u.conn.Bound(bound)
	if u.held {
		u.held = false
		u.goOn()
	}
}

// goOn reads the backend again unless something else keeps it from that.
func (u *up) goOn() {
	if !u.held && !u.ended && u.conn.Paused() && u.unpaid < u.w.shared.Watermark && !u.conn.Closed() {
		u.conn.Resume()
	}
}

// paced holds the client back while the backend's socket is full.
func (u *up) paced(left int) {
	a := u.attempts
	if a == nil || u.mux != nil || a.r.d == nil || a.r.d.many {
		return
	}
	switch d := a.r.d; {
	case left > 0 && !d.pace.held:
		d.pace.held = true
		d.holdBack()
	case left == 0 && d.pace.held:
		d.pace.held = false
		d.goOn(a.r)
	}
}

// holdBack stops reading the client; its window stands still meanwhile.
func (d *down) holdBack() {
	if !d.conn.Paused() {
		d.pace.since = d.w.Loop.Now()
		d.conn.Pause()
	}
}

// goOn reads the client's request again unless something else keeps it from that.
func (d *down) goOn(r *request) {
	if d.pace.held || !d.conn.Paused() || r.x.RequestDone() || int(d.unpaid) >= d.w.shared.Watermark || d.conn.Closed() {
		return
	}
	if d.pace.wait == forBody {
		d.deadline += d.w.Loop.Now() - d.pace.since
	}
	d.conn.Resume()
}
