package plan

import (
	"math"
	"testing"

	"github.com/meridian-mesh/meridian/controller/price"
)

// Services that share a full machine, at a site beside an idle one of the same kind,
// each plan for themselves by reports that are late: together they take what both
// machines have, and do not all leave and come back in turn.
func TestTick_matesSettle(t *testing.T) {
	for _, k := range []int{2, 3, 6} {
		for _, late := range []int{1, 10, 25} {
			const capacity = 400.0
			demand := 1.2 * capacity / float64(k)
			planners := make([]*Planner, k)
			home := make([]float64, k)
			var sent [][]float64
			for i := range planners {
				planners[i], home[i] = New("default/x", new(price.Curves)), demand
			}
			least, lo, hi := math.Inf(1), math.Inf(1), 0.0
			const ticks = 400
			for tick := range ticks {
				away := make([]float64, k)
				for i := range away {
					away[i] = demand - home[i]
				}
				sent = append(sent, away)
				known := sent[max(0, len(sent)-late)]
				there := 0.0
				for _, x := range known {
					there += x
				}
				now := append([]float64(nil), home...)
				here := 0.0
				for _, x := range now {
					here += x
				}
				for i, p := range planners {
					w := p.Tick(int64(1e9+1e8*tick), Input{
						DemandPerS: demand, Slots: 4, ServiceMS: 10, OthersPerS: here - now[i], Mates: k - 1,
						Options: []Option{{Site: "b", Slots: 4, ServiceMS: 10, ArrivalsPerS: there, FromUsPerS: known[i], InFlight: 1, AgeMS: 100 * float64(late), RTTMS: 5, Spillers: 1}},
					})
					home[i] = demand * w.HomeWeight
				}
				least = math.Min(least, here/capacity)
				if tick > ticks/2 {
					lo, hi = math.Min(lo, here/capacity), math.Max(hi, here/capacity)
				}
			}
			if least < 0.5 { // 0.37 where each of six moves for all
				t.Errorf("%d services, reports %d ms late: they leave together, down to a load of %.3f", k, 100*late, least)
			}
			if lo < 0.55 || hi > 0.75 || hi-lo > 0.05 {
				t.Errorf("%d services, reports %d ms late: the machine's load is between %.3f and %.3f, want about 0.65 without swings", k, 100*late, lo, hi)
			}
		}
	}
}
