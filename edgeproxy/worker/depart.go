package worker

import "time"

// closeAtOnce bounds the connections that one turn closes, well below what would
// take 5 ms.
const closeAtOnce = 100

// departures are connections to be closed, in the order in which they came.
type departures struct {
	first, last *down
	posted      bool
}

// depart has the connection closed soon: at rest for too long or, drained, when
// its last response is out. Thousands at one time take many turns, so that requests
// of others do not wait for them.
func (d *down) depart() {
	if d.departing {
		return
	}
	d.departing, d.nextGone = true, nil
	q := &d.w.leavers
	if q.last == nil {
		q.first = d
	} else {
		q.last.nextGone = d
	}
	q.last = d
	if !q.posted {
		q.posted = true
		d.w.Loop.Post((*leaver)(d.w))
	}
}

type leaver Worker

// Run closes some of those that are to be closed.
func (l *leaver) Run() {
	w := (*Worker)(l)
	q := &w.leavers
	q.posted = false
	for n := 0; q.first != nil; n++ {
		if n == closeAtOnce {
			q.posted = true
			w.Loop.Post(l)
			return
		}
		d := q.first
		if q.first = d.nextGone; q.first == nil {
			q.last = nil
		}
		d.departing, d.nextGone = false, nil
		switch {
		case d.conn.Closed():
			if d.listener == nil { // Recycle was here
				d.Recycle()
			}
		case d.drained:
			d.drain()
		case d.phase == resting && w.Loop.Now() >= d.deadline:
			d.lost()
		}
	}
}

// drain closes a resting connection; others end with their next response.
func (d *down) drain() {
	if d.many {
		d.goAway()
		return
	}
	if d.requests == nil && d.phase != heading {
		d.close(false)
		return
	}
	if d.codec != nil {
		_ = d.codec.Close(nil)
	}
}

// goAway tells a client of many streams to send no more, and waits until it has
// heard it, or not for long where it has no request under way.
func (d *down) goAway() {
	_ = d.codec.Close(nil)
	d.w.say(&d.conn, d.mux())
	if d.phase == resting {
		d.await(resting, d.w.shared.Times.Linger)
		d.w.Loop.Wheel.Set(&d.timer, d.deadline)
	}
}

// leave has the next response say that it is the last, this one where its head is
// still to come.
func (d *down) leave() {
	if d.many {
		d.goAway()
	} else if d.phase == resting {
		d.await(resting, d.w.keepAlive())
	} else if r := d.requests; r != nil && r.log.firstByte == 0 { // else the next response says it
		_ = d.codec.Close(nil)
	}
}

// keepAlive is how long a client's connection may rest now.
func (w *Worker) keepAlive() time.Duration {
	if w.leaving > 0 {
		// Not all at one time, nor all of their clients back at one time.
		return w.leaving - time.Duration(w.random()%uint64(w.leaving/4+1))
	}
	return w.shared.Times.KeepAlive
}
