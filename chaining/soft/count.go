package soft

import (
	"maps"

	"github.com/meridian-mesh/meridian/chaining/path"
)

// Counters are a forwarder's.
type Counters struct {
	Verdicts [path.VerdictCount]uint64
	Reasons  [path.ReasonCount]uint64
	// Hops counts by the entry that decided, packets that were dropped there too.
	Hops map[path.Hop]HopCount
}

// HopCount counts at one hop.
type HopCount struct {
	Packets, Bytes, Drops uint64
}

func (c *Counters) count(r *Result, size int) {
	c.Verdicts[r.Verdict]++
	if r.Verdict == path.VerdictDrop {
		c.Reasons[r.Reason]++
	}
	if r.Hop.SPI == 0 || r.Reason == path.ReasonUnknownPath {
		return // Made-up paths must not make the map grow.
	}
	h := c.Hops[r.Hop]
	h.Packets++
	h.Bytes += uint64(size)
	if r.Verdict == path.VerdictDrop {
		h.Drops++
	}
	c.Hops[r.Hop] = h
}

// Counters returns a copy. It belongs to the forwarder's goroutine.
func (f *Forwarder) Counters() Counters {
	c := f.counters
	c.Hops = maps.Clone(c.Hops)
	return c
}
