package price

import (
	"fmt"
	"math"
)

// kneeUse is the part of its slots at which a session queue's price goes on along the
// tangent, so that it is finite where there are more sessions than slots.
const kneeUse = 0.98

// Sessions is one service at one site whose load is sessions that stay open: tunnels,
// streams, connections, each of which exchanges messages now and then. The slots are
// how many may be open at once, and the open ones share the endpoints as jobs share a
// processor: with n open a message meets the delay s/(1-n/c) (M/M/1 with processor
// sharing, which depends on the mean alone). It is an immutable value.
type Sessions struct{ slots, messageMS float64 }

// NewSessions returns that of a site for slots sessions at once, in which a message
// takes messageMS milliseconds at an idle endpoint. The bounds are those of a Queue.
func NewSessions(slots, messageMS float64) (Sessions, error) {
	if !(slots >= minSlots && slots <= MaxSlots) {
		return Sessions{}, fmt.Errorf("slots %v out of range %g to %g", slots, float64(minSlots), float64(MaxSlots))
	}
	if !(messageMS >= minServiceMS && messageMS <= MaxServiceMS) {
		return Sessions{}, fmt.Errorf("service time %v ms out of range %g to %g", messageMS, float64(minServiceMS), float64(MaxServiceMS))
	}
	return Sessions{slots, messageMS}, nil
}

// Slots is how many may be open at once.
func (q Sessions) Slots() float64 { return q.slots }

// MarginalMS is d(n*delay)/dn = s/(1-n/c)^2: the delay per message that one more
// session with n open costs all of them together, itself included.
func (q Sessions) MarginalMS(n float64) float64 {
	use := math.Max(0, n) / q.slots
	if use <= kneeUse {
		return q.messageMS / ((1 - use) * (1 - use))
	}
	const free = 1 - kneeUse
	return q.messageMS / (free * free) * (1 + 2*(use-kneeUse)/free)
}

// Open is the inverse of MarginalMS: the number of sessions at which the price is ms,
// 0 where the first one is dearer already.
func (q Sessions) Open(ms float64) float64 {
	const free = 1 - kneeUse
	top := q.messageMS / (free * free)
	switch {
	case ms <= q.messageMS:
		return 0
	case ms <= top:
		return q.slots * (1 - math.Sqrt(q.messageMS/ms))
	}
	return q.slots * (kneeUse + (ms/top-1)*free/2)
}

// OpenWithin is how many sessions may be open for a message to be held up by at most
// waitMS beyond its own time: less than the slots, whatever waitMS is.
func (q Sessions) OpenWithin(waitMS float64) float64 {
	return q.slots * waitMS / (q.messageMS + waitMS)
}
