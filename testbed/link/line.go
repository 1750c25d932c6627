package link

import (
	"math/rand/v2"
	"time"
)

// Shape is what one direction of a line between two places does to packets.
type Shape struct {
	// Delay is the mean time on the way; Jitter the standard deviation from it. A
	// packet does not overtake another for it.
	Delay, Jitter time.Duration
	// Loss is the share of packets that are lost, each by itself.
	Loss float64
	// Reorder is the share of packets that take half of Delay, and overtake.
	Reorder float64
	// Rate is bits per second, 0 for no limit. Queue is how many bytes wait for it
	// before more are dropped; 0 means [DefaultQueue].
	Rate  float64
	Queue int
	// Cut loses everything.
	Cut bool
}

// DefaultQueue holds a tenth of a second at 20 Mbit/s.
const DefaultQueue = 256 << 10

// Line decides when packets arrive. It is deterministic for a seed and knows no
// clock: time comes in. The zero Shape passes everything at once.
type Line struct {
	Shape
	rng  *rand.Rand
	free time.Duration // when the last byte sent so far is on the wire
	last time.Duration // when the last packet arrives
}

// NewLine returns a line with its own randomness.
func NewLine(s Shape, seed uint64) *Line {
	return &Line{Shape: s, rng: rand.New(rand.NewPCG(seed, 0x6c696e65))}
}

// Send takes a packet of a size at a time and returns when it arrives, or false
// when it never does.
func (l *Line) Send(now time.Duration, size int) (at time.Duration, ok bool) {
	if l.Cut {
		return 0, false
	}
	sent := now
	if l.Rate > 0 {
		queue := l.Queue
		if queue == 0 {
			queue = DefaultQueue
		}
		waiting := max(0, l.free-now).Seconds() * l.Rate / 8
		if int(waiting)+size > queue {
			return 0, false
		}
		l.free = max(l.free, now) + time.Duration(float64(8*size)/l.Rate*float64(time.Second))
		sent = l.free
	}
	// Drawn always, so that one fault does not shift the others.
	lost, early, noise := l.rng.Float64() < l.Loss, l.rng.Float64() < l.Reorder, l.rng.NormFloat64()
	switch {
	case lost:
		return 0, false
	case early:
		return sent + l.Delay/2, true
	}
	at = sent + max(0, l.Delay+time.Duration(noise*float64(l.Jitter)))
	l.last = max(l.last, at)
	return l.last, true
}
