package upstream

import (
	"sync/atomic"

	"github.com/meridian-mesh/meridian/edgeproxy/lb"
	"github.com/meridian-mesh/meridian/edgeproxy/outlier"
)

// Health is one endpoint's health word: written by one goroutine a few times a
// second, read by every loop for every pick. The zero word is healthy and warm.
type Health struct{ word atomic.Uint32 }

// Set says why the endpoint is out of rotation, 0 for not, and what it must not
// take yet of its share, as [lb.SlowStart.Missing] has it.
func (h *Health) Set(why outlier.Health, missing uint16) {
	h.word.Store(uint32(why)<<16 | uint32(missing))
}

// Load is what was set.
func (h *Health) Load() (why outlier.Health, missing uint16) {
	w := h.word.Load()
	return outlier.Health(w >> 16), uint16(w)
}

// In reports whether the endpoint, number i of its service, takes part in the pick
// of the draw.
func (h *Health) In(draw uint64, i int) bool {
	why, missing := h.Load()
	return why == 0 && (missing == 0 || lb.Warm(missing, draw, i))
}

// Watch is what the goroutine that judges health remembers of an endpoint.
type Watch struct {
	outlier.State
	// Since is when it appeared or recovered, of the loops' clock.
	Since int64
	Known bool
}

// Counts sums the outcomes that say something of the endpoint.
func (e *Endpoint) Counts() (c outlier.Counts) {
	for i := range e.Cells {
		c.Success += e.Cells[i].Good.Load()
		c.Failure += e.Cells[i].Bad.Load()
	}
	return c
}
