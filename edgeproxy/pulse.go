package edgeproxy

import (
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/loop"
	"github.com/meridian-mesh/meridian/internal/beat"
)

const (
	// restAfter is how many ticks in a row must find nothing new before a pulse rests:
	// two seconds, so that what comes now and then is followed as closely as ever.
	restAfter = 20
	// restPace is how often a pulse at rest ticks: as often as a quiet node tells its
	// controller that it is there.
	restPace = 500 * time.Millisecond
)

// pulse ticks ten times a second while there is something to decide, and only with the
// beat of [restPace] where nothing was for a while. The first byte that comes in on a
// loop brings the full pace back, with a tick at once, or as soon as the last is 100 ms
// ago: what ticks differences counters, and short spans make bad rates.
type pulse struct {
	timer *time.Timer
	// woken says that something happened, from a loop or from others.
	woken chan struct{}
	watch *loop.Watch // nil where nobody would say: then it never rests
	still int         // ticks in a row without news
	last  time.Time
}

func newPulse(watch *loop.Watch, woken chan struct{}) *pulse {
	return &pulse{timer: time.NewTimer(tickEvery), woken: woken, watch: watch, last: time.Now()}
}

// wake is what follows a value from woken.
func (p *pulse) wake() {
	if p.still > restAfter {
		p.timer.Reset(time.Until(p.last.Add(tickEvery)))
	}
	p.still = 0
}

// ticked is called after the tick of a time; busy says that it found something new, or
// that the next one is to come as soon as ever.
func (p *pulse) ticked(at time.Time, busy bool) {
	p.last = at
	p.still++
	if busy || p.watch == nil {
		p.still = 0
	}
	if p.still == restAfter {
		// What happens from now on wakes it, what did before the next tick sees.
		p.watch.Sleep(p.woken)
	}
	if p.still > restAfter {
		p.timer.Reset(beat.Next(restPace))
		return
	}
	p.timer.Reset(time.Until(at.Add(tickEvery)))
}

func (p *pulse) stop() { p.timer.Stop() }
