// Package beat has the periodic work of a process fall together. What a process at rest
// costs is its wake-ups, not its work: a timer alone wakes three threads of the Go
// runtime (the one that waits for it, one that looks for more to do, and the monitor),
// while several that are due in the same moment wake no more than one does.
package beat

import "time"

// began is the origin of all beats.
var began = time.Now()

// Next is the time until the next whole multiple of every since the process began: what
// waits so long comes with everybody else's beat of that length, and of its parts. It is
// more than 0 and at most every, which must be positive.
func Next(every time.Duration) time.Duration { return next(time.Since(began), every) }

func next(since, every time.Duration) time.Duration { return every - since%every }

// Ticker is a [time.Ticker] that keeps to the beat. Receive from C, then call Again.
type Ticker struct {
	C     <-chan time.Time
	every time.Duration
	timer *time.Timer
}

// Every returns a Ticker whose first tick is the next beat of that length.
func Every(every time.Duration) *Ticker {
	t := time.NewTimer(Next(every))
	return &Ticker{C: t.C, every: every, timer: t}
}

// Again waits for the next beat. Beats that pass before it is called are left out.
func (t *Ticker) Again() { t.timer.Reset(Next(t.every)) }

// Reset waits for the next beat of another length.
func (t *Ticker) Reset(every time.Duration) {
	t.every = every
	t.Again()
}

// Stop ends it; nothing comes on C afterwards.
func (t *Ticker) Stop() { t.timer.Stop() }
