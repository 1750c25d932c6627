package worker

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
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
	// newcomer is how long a connection has for its first byte before it is one that
	// waits.
	newcomer = 100 * time.Millisecond
	// trimAtOnce bounds the slabs given back in one turn.
	trimAtOnce = 1024
)

// Memory is what workers and the watcher of the memory limit tell each other.
type Memory struct {
	pressure atomic.Int32
	// Idle and Slow count connections that were given up, Connections and Requests
	// what was refused.
	Idle, Slow, Connections, Requests atomic.Uint64
}

// What a loop spends of its budget for a connection, besides buffers. The objects
// are used again, so that only new ones count; the watcher sees what they took in
// the end.
const (
	// SocketBytes is what the kernel keeps of an open TCP socket with little in its
	// buffers: sock, file, inode, dentry and an skb or two.
	SocketBytes = 4 << 10
	// codecBytes is more than a codec of either side takes.
	codecBytes = 2 << 10
	downBytes  = int(unsafe.Sizeof(down{}))
	upBytes    = int(unsafe.Sizeof(up{})) + codecBytes
	// requestBytes counts the room for fields, too.
	requestBytes = int(unsafe.Sizeof(request{})) + requestFields*int(unsafe.Sizeof(stream.Field{}))
)

// Set is for the watcher.
func (m *Memory) Set(p Pressure) { m.pressure.Store(int32(p)) }

// full reports whether new connections and requests are refused. What the loop
// took since the watcher looked counts: a flood fills memory in between.
func (w *Worker) full() bool {
	return Pressure(w.shared.Memory.pressure.Load()) == Full || w.Loop.Room() == 0
}

// makeRoom gives up connections at the end of this turn, where there was no room
// to read: the watcher looks too late for a burst.
func (w *Worker) makeRoom() {
	if w.relieving {
		return
	}
	w.relieving = true
	w.Loop.Post(loop.Func(func() {
		w.relieving = false
		w.Relieve(Full, false)
	}))
}

// makeWay gives up connections that keep the proxy waiting in favour of one that
// comes, once a turn, and reports whether there is room for it then. A flood of slow
// clients has no better right to the memory than who asks now.
func (w *Worker) makeWay() bool {
	if now := w.Loop.Now(); w.madeWay != now {
		w.madeWay = now
		w.Relieve(Full, false)
	}
	return !w.full()
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
	before := w.Loop.Now()
	if p < Full {
		before -= int64(patience)
	}
	w.shared.Memory.Slow.Add(uint64(w.streams.Relieve(before, shedAtOnce)))
	if p == Full {
		w.shared.Memory.Idle.Add(uint64(w.datagrams.Relieve(shedAtOnce)))
	}
	if collect {
		w.forgetSpares()
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
	n := 0
	for d := w.freeDown; d != nil && n <= most; d = d.next {
		n++
	}
	for i := range w.freeUp {
		n += len(w.restCodecs[i])
		for u := w.freeUp[i]; u != nil && n <= most; u = u.next {
			n++
		}
	}
	for r := w.freeReq; r != nil && n <= most; r = r.next {
		n++
	}
	if n <= most {
		return false
	}
	w.forgetSpares()
	return true
}

// forgetSpares leaves unused objects to the collector, one by one: a connection at rest or
// a timer that still points to one of them must not keep all that were freed before it.
func (w *Worker) forgetSpares() {
	for d := w.freeDown; d != nil; {
		d, d.next = d.next, nil
	}
	for _, u := range w.freeUp {
		for u != nil {
			u, u.next = u.next, nil
		}
	}
	for r := w.freeReq; r != nil; {
		r, r.next = r.next, nil
	}
	w.freeDown, w.freeReq = nil, nil
	w.freeUp, w.restCodecs = [protocolCount]*up{}, [protocolCount][]serverCodec{}
}

// longest returns the connections to give up, the longest wait first.
func (w *Worker) longest(p Pressure) []*down {
	out := make([]*down, 0, shedAtOnce+1)
	now := w.Loop.Now()
	before := now - int64(patience)
	for d := w.downs; d != nil; d = d.next {
		if (d.phase == resting || d.phase == securing) && d.carried == 0 && now-d.born < int64(newcomer) {
			continue
		}
		if !d.waited() || p < Full && d.phase != resting && d.active > before {
			continue
		}
		at, _ := slices.BinarySearchFunc(out, d.active, func(o *down, t int64) int { return cmp.Compare(o.active, t) })
		if at < shedAtOnce {
			out = slices.Insert(out, at, d)
			out = out[:min(len(out), shedAtOnce)]
		}
	}
	return out
}

// waited reports whether the connection is one to give up: its client is waited
// for, and has been since it was last active.
func (d *down) waited() bool {
	switch d.phase {
	case tunnelling:
		return false
	case serving:
		return d.waiting() != noWait
	}
	return true
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
		w.logRefused(d, 0, exchange.Overload, "memory_limit")
	}
	d.endAll(exchange.Event{Kind: exchange.Stop, Flag: exchange.Overload})
	d.lost()
}
