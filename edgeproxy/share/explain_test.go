package share

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// What Explain says is what Pick does: over random plans, sites in trouble and
// numbers in flight, nothing is picked that has no chance, and what is picked comes
// as often as was said.
func TestGateExplain_saysWhatPickDoes(t *testing.T) {
	const picks = 4000
	policies := []string{mesh.SharingCooperative, mesh.SharingCooperative, mesh.SharingNone, mesh.SharingRoundRobin, mesh.SharingWeightedRoundRobin}
	met := map[string]int{}
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		w := mesh.ServiceWeights{
			Service: "default/shop", HomeLimit: rnd.IntN(6), HomeSlots: 4, HomeServiceTimeMS: 10, Drained: rnd.IntN(4) == 0, ShedLimit: rnd.IntN(3) * 4,
		}
		if w.Drained {
			w.HomeLimit = 0
		}
		for i := range rnd.IntN(5) {
			r := mesh.RemoteWeight{
				Site: fmt.Sprintf("s%d", i), Draw: float64(rnd.IntN(3)) * 10 * rnd.Float64(), Limit: rnd.IntN(4), RTTMS: 2,
				PriceMS: 5 + 50*rnd.Float64(), Slots: 4, ServiceTimeMS: 10,
			}
			if rnd.IntN(5) == 0 {
				r.Excluded = "stale"
			}
			w.Remotes = append(w.Remotes, r)
		}
		policy := policies[rnd.IntN(len(policies))]
		var ledger Ledger
		g, err := Compile(policy, &w, &ledger)
		if err != nil {
			t.Fatal(err)
		}
		const now = int64(1e12)
		for i := range g.remotes {
			switch rnd.IntN(6) {
			case 0:
				g.remotes[i].live.Start(now)
				g.remotes[i].live.Fail(now, true)
			case 1:
				g.remotes[i].live.Start(now)
			}
		}
		inFlight := rnd.IntN(10) - 1
		said := g.Explain(now, 0, inFlight, 1)
		counts := make([]int, len(said))
		other := 0
		for range picks {
			if i := g.Pick(now, inFlight, rnd.Uint64(), 0); i >= Home {
				counts[i+1]++
			} else {
				other++
			}
		}
		sum := 0.0
		for i, c := range said {
			sum += c.Chance
			if c.Why == "" {
				t.Errorf("seed %d: %q has no reason", seed, c.Site)
			}
			if got := float64(counts[i]) / picks; math.Abs(got-c.Chance) > 0.04 {
				t.Errorf("seed %d, %s, %d in flight: %q is picked in %.3f of all, and Explain says %.3f (%s)\n%+v", seed, policy, inFlight, c.Site, got, c.Chance, c.Why, w)
			}
			if c.Chance > 0 {
				met[c.Why[:min(12, len(c.Why))]]++
			}
		}
		if want := 1.0; math.Abs(sum-want) > 1e-9 && other != picks {
			t.Errorf("seed %d: chances sum to %v, %d picks were none or shed\n%+v", seed, sum, other, said)
		}
	}
	if len(met) < 6 {
		t.Errorf("only these reasons were met: %v", met)
	}
}
