package worker

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
)

// Pressure is how near the process is to its memory limit.
type Pressure int32

// Pressures.
const (
	// Relaxed: nothing is given up.
	Relaxed Pressure = iota
	// Tight: connections at rest are closed, and those of clients who keep the proxy
	// waiting for longer than their patience; memory that was freed goes back.
	Tight
	// Full: new connections and requests are refused too, and no wait is too short.
	Full
)

const (
	// shedAtOnce bounds what one loop gives up in one turn.
	shedAtOnce = 128
	// patience is what a client's wait may last while memory is tight.
	patience = 500 * time.Millisecond
	// trimAtOnce bounds the slabs given back in one turn.
	trimAtOnce = 1024
)

// Memory is what workers and the watcher of the memory limit tell each other.
type Memory struct {
	pressure atomic.Int32
	// room is how many bytes of buffers each loop may use before the next look, 0
	// without a limit.
	room atomic.Int64
	// Idle and Slow count connections that were given up, Connections and Requests
	// what was refused.
	Idle, Slow, Connections, Requests atomic.Uint64
}

// Set is for the watcher: room is how many bytes of buffers each loop may use
// before it looks again.
func (m *Memory) Set(p Pressure, room int64) {
	m.pressure.Store(int32(p))
	m.room.Store(max(room, 1))
}

// full reports whether new connections and requests are refused. What the loop
// took since the watcher looked counts: a flood fills memory in between.
func (w *Worker) full() bool {
	return Pressure(w.shared.Memory.pressure.Load()) == Full || w.crowded()
}

func (w *Worker) crowded() bool {
	room := w.shared.Memory.room.Load()
	return room > 0 && int64(w.Loop.Slabs.InUse()) > room
}

// makeRoom gives up connections in this turn where what was read took more memory
// than there was: the watcher looks too late for a burst.
func (w *Worker) makeRoom() {
	if w.relieving || !w.crowded() {
		return
	}
	w.relieving = true
	w.Loop.Post(loop.Func(func() {
		w.relieving = false
		w.Relieve(Full, false)
	}))
}

// Relieve gives up connections, the longest wait first, and gives memory that is
// not in use back; spare objects too, where a collection follows. It runs on the
// loop.
func (w *Worker) Relieve(p Pressure, collect bool) {
	for range shedAtOnce {
		u, ok := w.pool.Expired(1 << 62)
		if !ok {
			break
		}
		u.retire()
	}
	for _, d := range w.longest(p) {
		w.giveUp(d)
	}
	if collect {
		w.freeDown, w.freeUp, w.freeReq, w.restCodecs = nil, nil, nil, nil
	}
	w.Loop.Slabs.Release(trimAtOnce)
}

// spares is how many unused objects of a kind a loop keeps beyond twice those in use.
const spares = 64

// DropSpares forgets the memory of connections and requests that are gone where
// that is much more than what is in use, and reports whether it did. It runs on
// the loop.
func (w *Worker) DropSpares() bool {
	most := 2*int(w.Counters.Open.Load()) + spares
	n := len(w.restCodecs)
	for d := w.freeDown; d != nil && n <= most; d = d.next {
		n++
	}
	for u := w.freeUp; u != nil && n <= most; u = u.next {
		n++
	}
	for r := w.freeReq; r != nil && n <= most; r = r.next {
		n++
	}
	if n <= most {
		return false
	}
	w.freeDown, w.freeUp, w.freeReq, w.restCodecs = nil, nil, nil, nil
	return true
}

// longest returns the connections to give up, the longest wait first.
func (w *Worker) longest(p Pressure) []*down {
	out := make([]*down, 0, shedAtOnce+1)
	before := w.Loop.Now() - int64(patience)
	for d := w.downs; d != nil; d = d.next {
		since, ok := d.waitsSince()
		if !ok || p < Full && d.phase != resting && since > before {
			continue
		}
		d.since = since
		at, _ := slices.BinarySearchFunc(out, since, func(o *down, t int64) int { return int(min(max(o.since-t, -1), 1)) })
		if at < shedAtOnce {
			out = slices.Insert(out, at, d)
			out = out[:min(len(out), shedAtOnce)]
		}
	}
	return out
}

// waitsSince says when the wait began that makes the connection one to give up,
// false where it is none.
func (d *down) waitsSince() (int64, bool) {
	t := &d.w.shared.Times
	switch {
	case d.phase == resting:
		return d.deadline - int64(d.w.keepAlive()), true
	case d.phase == tunnelling:
		return 0, false
	case d.phase == lingering:
		return d.deadline - int64(t.Linger), true
	case d.phase == heading:
		return d.deadline - int64(t.Head), true
	case d.conn.Unsent() > 0: // a slow reader
		return d.deadline - int64(t.Stall), true
	case d.requests != nil && d.w.codecs.serial && !d.requests.x.RequestDone() && !d.conn.Paused(): // a slow body
		return d.deadline - int64(t.Body), true
	}
	return 0, false
}

func (w *Worker) giveUp(d *down) {
	m := &w.shared.Memory
	if d.phase == resting {
		m.Idle.Add(1)
	} else {
		m.Slow.Add(1)
	}
	if d.phase == heading {
		w.count(w.shared.Unrouted, 0, exchange.Overload, 0)
		w.logRefused(d, 0, exchange.Overload)
	}
	for r := d.requests; r != nil; r = d.requests {
		w.stop(r, exchange.Overload, 0)
	}
	d.lost()
}
