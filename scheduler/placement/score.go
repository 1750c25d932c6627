package placement

import (
	"math"

	"github.com/meridian-mesh/meridian/scheduler/traffic"
)

// Pull is what one pod that runs draws another by: Out flows from the new pod to
// it and In back, bytes per second.
type Pull struct {
	Node    int
	Out, In float64
}

// NodeCosts prices every node for one pod, in bytes on the wire (see the package
// doc), into dst, which has the length of d's nodes. It costs nodes times the
// sites that pulls come from, not nodes times pulls.
func NodeCosts(d *traffic.Delays, pulls []Pull, dst []float64) {
	clear(dst)
	sites := d.Sites()
	out, in := make([]float64, sites), make([]float64, sites)
	seen := make([]bool, sites)
	var used []int
	for _, p := range pulls {
		s := d.SiteIndex(p.Node)
		if !seen[s] {
			seen[s] = true
			used = append(used, s)
		}
		out[s] += p.Out / 1000
		in[s] += p.In / 1000
	}
	bySite := make([]float64, sites)
	done := make([]bool, sites)
	for n := range dst {
		s := d.SiteIndex(n)
		if !done[s] {
			done[s] = true
			for _, t := range used {
				bySite[s] += out[t]*d.Between(s, t) + in[t]*d.Between(t, s)
			}
		}
		dst[n] = bySite[s]
	}
	// What runs on the node itself is not across the site but here.
	for _, p := range pulls {
		s := d.SiteIndex(p.Node)
		dst[p.Node] -= (p.Out + p.In) / 1000 * d.Between(s, s)
	}
	for n := range dst {
		dst[n] = math.Max(0, dst[n]) // rounding
	}
}

// Points turns costs into scores from 0 (the dearest) to best. All nodes get best
// when they cost the same: then others decide.
func Points(costs []float64, best int64) []int64 {
	low, high := math.Inf(1), math.Inf(-1)
	for _, c := range costs {
		low, high = math.Min(low, c), math.Max(high, c)
	}
	out := make([]int64, len(costs))
	for i, c := range costs {
		out[i] = best
		if high-low > 1e-12*math.Max(1, high) {
			out[i] = int64(math.Round(float64(best) * (high - c) / (high - low)))
		}
	}
	return out
}
