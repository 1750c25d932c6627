package plan

import (
	"math"
	"slices"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Fade mixes two plans of one service: from where part is 0 or less, to where it
// is 1 or more, and in between a plan whose shares, draws and limits lie between
// the two. What to excludes gets nothing at once, whatever part is. The plans
// are not changed; the result may share their tables.
func Fade(from, to mesh.ServiceWeights, part float64) mesh.ServiceWeights {
	if !(part > 0) {
		return from
	}
	if part >= 1 {
		return to
	}
	out := to
	out.HomeWeight = mix(from.HomeWeight, to.HomeWeight, part)
	out.HomeLimit = mixLimit(from.HomeLimit, to.HomeLimit, part)
	out.Remotes = make([]mesh.RemoteWeight, 0, len(to.Remotes)+len(from.Remotes))
	old := make(map[string]*mesh.RemoteWeight, len(from.Remotes))
	for i := range from.Remotes {
		old[from.Remotes[i].Site] = &from.Remotes[i]
	}
	for _, r := range to.Remotes {
		o := old[r.Site]
		delete(old, r.Site)
		switch {
		case r.Excluded != "":
			r.Weight, r.Draw, r.Limit = 0, 0, 0
		case o == nil || o.Excluded != "":
			r.Weight *= part
			r.Draw *= part
		default:
			r.Weight = mix(o.Weight, r.Weight, part)
			r.Draw = mix(o.Draw, r.Draw, part)
			r.Limit = mixLimit(o.Limit, r.Limit, part)
		}
		out.Remotes = append(out.Remotes, r)
	}
	for _, o := range old {
		r := *o
		r.Weight *= 1 - part
		r.Draw *= 1 - part
		out.Remotes = append(out.Remotes, r)
	}
	slices.SortFunc(out.Remotes, func(a, b mesh.RemoteWeight) int { return strings.Compare(a.Site, b.Site) })

	sum := out.HomeWeight
	for _, r := range out.Remotes {
		sum += r.Weight
	}
	if sum > 0 {
		out.HomeWeight /= sum
		for i := range out.Remotes {
			out.Remotes[i].Weight /= sum
		}
	}
	return out
}

func mix(a, b, part float64) float64 { return a + part*(b-a) }

// mixLimit mixes by ratio: between 10 and "no limit" half way is not half a million.
func mixLimit(a, b int, part float64) int {
	return int(math.Round(math.Exp(mix(math.Log1p(float64(a)), math.Log1p(float64(b)), part)) - 1))
}
