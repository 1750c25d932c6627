package worker

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
