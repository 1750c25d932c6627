package share

import (
	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/price"
)

// learned are the slots of a service that declares none, and what its completions
// tell of its service time.
type learned struct {
	price.Slots
	last [price.Levels]price.Level
	// free, ms and sqMS are running totals of those that found a free slot.
	free     uint64
	ms, sqMS float64
}

// learn returns the counters as they are where the slots are declared. Otherwise it
// learns them and fills in what follows from them: the slots, and the completions that
// found one free, which stand for the starts that did. Before anything is known all
// count as such.
func (s *service) learn(c *Counters) *Counters {
	if c.Levels == nil || s.Sessions {
		s.standing = mesh.SlotsDeclared
		return c
	}
	if s.learned == nil {
		s.learned = new(learned)
	}
	l := s.learned
	l.Observe(c.Levels)
	slots, settled := l.Known()
	for i, now := range c.Levels {
		before := l.last[i]
		if now.N < before.N {
			before = price.Level{}
		}
		if n := now.N - before.N; n > 0 && (slots == 0 || i <= price.LevelOf(int(slots))) {
			l.free += n
			l.ms += now.MS - before.MS
			l.sqMS += now.SqMS - before.SqMS
		}
	}
	l.last = *c.Levels
	out := *c
	out.FreeStarts, out.Unqueued, out.UnqueuedMS, out.UnqueuedSqMS = l.free, l.free, l.ms, l.sqMS
	out.Slots = 0
	if s.standing = mesh.SlotsLowerBound; settled {
		s.standing = mesh.SlotsSettled
	}
	if out.Up { // then there is one at least
		out.Slots = max(1, slots)
	}
	return &out
}
