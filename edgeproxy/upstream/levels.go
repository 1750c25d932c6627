package upstream

import (
	"sync/atomic"

	"github.com/meridian-mesh/meridian/controller/price"
)

// LevelCell is one loop's count of the completions that started with a like number in
// flight, see [price.Level].
type LevelCell struct{ n, ns, squareUS atomic.Uint64 }

// Completed counts one that took so long.
func (c *LevelCell) Completed(tookNS uint64) {
	c.n.Add(1)
	c.ns.Add(tookNS)
	c.squareUS.Add(tookNS / 1000 * (tookNS / 1000))
}

// Levels writes the service's totals of all loops into out.
func (s *Service) Levels(out *[price.Levels]price.Level) {
	*out = [price.Levels]price.Level{}
	for i := range s.Cells {
		for k := range out {
			c := &s.Cells[i].Levels[k]
			if n := c.n.Load(); n > 0 {
				out[k].N += n
				out[k].MS += float64(c.ns.Load()) / 1e6
				out[k].SqMS += float64(c.squareUS.Load()) / 1e6
			}
		}
	}
}
