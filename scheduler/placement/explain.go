package placement

import (
	"cmp"
	"slices"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Crossing is what two workloads exchange between sites, in bytes per second.
type Crossing struct {
	A         mesh.Workload `json:"a"`
	B         mesh.Workload `json:"b"`
	BytesPerS float64       `json:"bytesPerS"`
	// WireBytes is that traffic times its delay.
	WireBytes float64 `json:"wireBytes"`
}

// Crossings lists the pairs of workloads that talk across sites, the one with the
// most bytes first.
func (p *Problem) Crossings(a Assignment) []Crossing {
	at := map[[2]int]*Crossing{}
	for u, ls := range p.links() {
		for _, l := range ls {
			if l.to < u || a[u] < 0 || a[l.to] < 0 || p.Delays.SiteIndex(a[u]) == p.Delays.SiteIndex(a[l.to]) {
				continue
			}
			s, t := p.Units[u].Service, p.Units[l.to].Service
			k := [2]int{min(s, t), max(s, t)}
			c := at[k]
			if c == nil {
				c = &Crossing{A: p.Services[k[0]].Workload, B: p.Services[k[1]].Workload}
				at[k] = c
			}
			c.BytesPerS += 1000 * (l.out + l.in)
			c.WireBytes += l.out*p.Delays.MS(a[u], a[l.to]) + l.in*p.Delays.MS(a[l.to], a[u])
		}
	}
	out := make([]Crossing, 0, len(at))
	for _, c := range at {
		out = append(out, *c)
	}
	slices.SortFunc(out, func(x, y Crossing) int {
		return cmp.Or(cmp.Compare(y.BytesPerS, x.BytesPerS), x.A.Compare(y.A), x.B.Compare(y.B))
	})
	return out
}

// NodePrice is what a node would cost a unit.
type NodePrice struct {
	Node int
	// WireBytes is the unit's traffic times delay there; Points is the score that a
	// scheduler's plugin gives for it.
	WireBytes float64
	Points    int64
	// Fits says that the node has room for the unit.
	Fits bool
}

// PeerAt is a peer of a unit on one node.
type PeerAt struct {
	Service, Node int
	BytesPerS     float64
}

// Explain prices every node for a unit as it would be placed now, all others
// staying where they are: the nodes, the cheapest first and among equals those
// with room, and the peers that decide, the heaviest first. best is the score of
// the cheapest node.
func (p *Problem) Explain(a Assignment, unit int, best int64) ([]NodePrice, []PeerAt) {
	var pulls []Pull
	var peers []PeerAt
	type place struct{ service, node int }
	seen := map[place]int{}
	for _, l := range p.links()[unit] {
		n := a[l.to]
		if n < 0 {
			continue
		}
		pulls = append(pulls, Pull{Node: n, Out: 1000 * l.out, In: 1000 * l.in})
		k := place{p.Units[l.to].Service, n}
		i, ok := seen[k]
		if !ok {
			i = len(peers)
			seen[k] = i
			peers = append(peers, PeerAt{Service: k.service, Node: n})
		}
		peers[i].BytesPerS += 1000 * (l.out + l.in)
	}
	slices.SortStableFunc(peers, func(x, y PeerAt) int { return cmp.Compare(y.BytesPerS, x.BytesPerS) })
	use := make([]Resources, len(p.Capacity))
	for u, n := range a {
		if n >= 0 && u != unit {
			use[n] = use[n].plus(p.Units[u].Request)
		}
	}
	costs := make([]float64, len(p.Capacity))
	NodeCosts(p.Delays, pulls, costs)
	points := Points(costs, best)
	out := make([]NodePrice, len(costs))
	for n := range out {
		out[n] = NodePrice{n, costs[n], points[n], !p.Capacity[n].minus(use[n].plus(p.Units[unit].Request)).negative()}
	}
	slices.SortStableFunc(out, func(x, y NodePrice) int {
		if c := cmp.Compare(x.WireBytes, y.WireBytes); c != 0 || x.Fits == y.Fits {
			return c
		}
		if x.Fits {
			return -1
		}
		return 1
	})
	return out, peers
}
