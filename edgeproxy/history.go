package edgeproxy

import (
	"math"
	"time"
)

// historyLength bounds the kept changes: at ten a second of one service, the most
// a tick can make, it holds the last two minutes.
const historyLength = 1200

// shareStep is the smallest move of a share that is a change worth keeping: half
// a request in a thousand moves with every tick.
const shareStep = 0.005

// history keeps the changes of shares in force, the newest historyLength of them.
type history struct {
	ring  []ShareChange
	next  int
	floor int64 // time of the newest change that was dropped
}

// add keeps c unless it says what last does. It reports whether it was kept.
func (h *history) add(c ShareChange, last *ShareChange) bool {
	if last != nil && last.Source == c.Source && last.HomeLimit == c.HomeLimit && near(last.Shares, c.Shares) {
		return false
	}
	if len(h.ring) < historyLength {
		h.ring = append(h.ring, c)
		return true
	}
	h.floor = h.ring[h.next].AtMS
	h.ring[h.next] = c
	h.next = (h.next + 1) % historyLength
	return true
}

// since returns the changes after t, oldest first, and up to when older ones are gone.
func (h *history) since(t time.Time) ([]ShareChange, int64) {
	out := []ShareChange{}
	for i := range h.ring {
		if c := h.ring[(h.next+i)%len(h.ring)]; c.AtMS > t.UnixMilli() {
			out = append(out, c)
		}
	}
	return out, h.floor
}

func near(a, b map[string]float64) bool {
	for site, v := range a {
		if math.Abs(v-b[site]) >= shareStep {
			return false
		}
	}
	for site, v := range b {
		if math.Abs(v-a[site]) >= shareStep {
			return false
		}
	}
	return true
}
