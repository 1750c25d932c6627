package share

import (
	"math"
	"slices"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// maxTurns bounds a round; weights are scaled to fit.
const maxTurns = 512

// turns writes out one round of smooth weighted round robin over home and the
// remotes that may be used: each place as often as its weight, as evenly spread
// as whole turns allow. A list and one counter need no lock between loops.
func turns(home float64, plan []mesh.RemoteWeight, weight func(*mesh.RemoteWeight) float64) []int8 {
	weights := make([]float64, 1+len(plan))
	weights[0] = clean(home)
	sum := weights[0]
	for i := range plan {
		if plan[i].Excluded == "" {
			weights[i+1] = clean(weight(&plan[i]))
			sum += weights[i+1]
		}
	}
	if sum == 0 {
		return nil
	}
	// Whole weights, the smallest at least 1, within the bound.
	scale := 1.0
	if room := float64(maxTurns - len(weights)); sum > room {
		scale = room / sum
	}
	total := 0
	share := make([]int, len(weights))
	for i, w := range weights {
		if w > 0 {
			share[i] = max(1, int(math.Round(w*scale)))
			total += share[i]
		}
	}
	round := make([]int8, 0, total)
	credit := make([]int, len(weights))
	for range total {
		best := -1
		for i := range credit {
			credit[i] += share[i]
			if share[i] > 0 && (best < 0 || credit[i] > credit[best]) {
				best = i
			}
		}
		credit[best] -= total
		round = append(round, int8(best-1))
	}
	return round
}

// capacity is the rate at which a place is full, 0 where it is not known. It is
// per thousand seconds, for turns rounds to whole weights.
func capacity(slots, serviceMS float64) float64 {
	if serviceMS > 0 {
		return 1e6 * slots / serviceMS
	}
	return 0
}

func clean(w float64) float64 {
	if w > 0 && w <= math.MaxInt32 {
		return w
	}
	return 0
}

// turn takes the next place of the round that may be used, or None.
func (g *Gate) turn(nowNS int64, home bool, tried Mask) int {
	at := g.account.turn.Add(1) - 1
	for k := range uint64(len(g.turns)) {
		i := int(g.turns[(at+k)%uint64(len(g.turns))])
		if i == Home {
			if home {
				return Home
			}
			continue
		}
		r := &g.remotes[i]
		if tried.Has(i) || r.live.early(nowNS) || r.live.Spent() {
			continue
		}
		switch r.live.admits(nowNS, r.silentNS, math.MaxInt64) {
		case yes:
			return i
		case test:
			if r.live.claimTest(nowNS) {
				return i
			}
		}
	}
	return None
}

// inForce is the plan with the shares that the gate's policy really uses: the
// plan's own only where the policy is to follow it.
func (g *Gate) inForce(w mesh.ServiceWeights, home bool) mesh.ServiceWeights {
	counts := make([]int, 1+len(g.remotes))
	switch {
	case len(g.turns) > 0:
		for _, i := range g.turns {
			counts[i+1]++
		}
	case g.policy == mesh.SharingNone && home:
		counts[0] = 1
	default:
		return w
	}
	total := max(1, len(g.turns))
	w.HomeWeight = float64(counts[0]) / float64(total)
	w.Remotes = slices.Clone(w.Remotes)
	for i := range g.remotes {
		w.Remotes[i].Weight = float64(counts[i+1]) / float64(total)
	}
	return w
}
