package placement

import (
	"fmt"
	"math"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/scheduler/traffic"
)

// Resources are what a unit asks for or a node has.
type Resources struct {
	// MilliCPU are thousandths of a processor.
	MilliCPU    int64 `json:"milliCPU"`
	MemoryBytes int64 `json:"memoryBytes"`
	// Pods counts units: a node runs so many and no more.
	Pods int64 `json:"pods"`
}

func (r Resources) plus(o Resources) Resources {
	return Resources{r.MilliCPU + o.MilliCPU, r.MemoryBytes + o.MemoryBytes, r.Pods + o.Pods}
}

func (r Resources) minus(o Resources) Resources {
	return Resources{r.MilliCPU - o.MilliCPU, r.MemoryBytes - o.MemoryBytes, r.Pods - o.Pods}
}

func (r Resources) negative() bool { return r.MilliCPU < 0 || r.MemoryBytes < 0 || r.Pods < 0 }

// over is how far use is over capacity, in parts of the capacity, summed over the
// resources.
func over(use, capacity Resources) float64 {
	part := func(u, c int64) float64 {
		if u <= c {
			return 0
		}
		return float64(u-c) / float64(max(c, 1))
	}
	return part(use.MilliCPU, capacity.MilliCPU) + part(use.MemoryBytes, capacity.MemoryBytes) + part(use.Pods, capacity.Pods)
}

// Unplaced is the node of a unit that has none yet.
const Unplaced = -1

// Unit is what is placed as a whole: a pod.
type Unit struct {
	// Name tells it from others in messages.
	Name string
	// Service is its index in [Problem.Services].
	Service int
	Request Resources
	// Pinned units stay where they are.
	Pinned bool
	// Share is its part of the service's traffic; 0 means an even one.
	Share float64
}

// Service is a workload and what it does.
type Service struct {
	Workload mesh.Workload
}

// Flow is the traffic between two services, by index: Forward from From to To and
// Backward the other way, in bytes per second.
type Flow struct {
	From, To          int
	Forward, Backward float64
}

// Problem is what there is to place and where. Delays' nodes are the nodes.
type Problem struct {
	Delays *traffic.Delays
	// Capacity of each node, for the units of this problem.
	Capacity []Resources
	Services []Service
	Units    []Unit
	Flows    []Flow
}

// Assignment gives each unit's node, or [Unplaced].
type Assignment []int

// Cost is how good an assignment is; less is better.
type Cost struct {
	// WireBytes is traffic times delay: bytes between nodes at any moment.
	WireBytes float64 `json:"wireBytes"`
	// Over is by how much nodes are over capacity, in nodes.
	Over float64 `json:"over"`
}

// Less orders costs: capacity first.
func (c Cost) Less(o Cost) bool {
	if math.Abs(c.Over-o.Over) > 1e-9 {
		return c.Over < o.Over
	}
	return c.WireBytes < o.WireBytes
}

// Check returns what is wrong with p, by name, or nil: every function of this
// package takes a checked problem.
func (p *Problem) Check() error {
	if p.Delays == nil || len(p.Delays.Nodes()) == 0 {
		return fmt.Errorf("placement: there is no node to place on")
	}
	nodes := p.Delays.Nodes()
	if len(p.Capacity) != len(nodes) {
		return fmt.Errorf("placement: %d nodes but %d capacities", len(nodes), len(p.Capacity))
	}
	for i, c := range p.Capacity {
		if c.negative() {
			return fmt.Errorf("placement: node %s: capacity %+v is negative", nodes[i], c)
		}
	}
	for i, u := range p.Units {
		switch {
		case u.Service < 0 || u.Service >= len(p.Services):
			return fmt.Errorf("placement: unit %s: there is no service %d", p.unit(i), u.Service)
		case u.Request.negative():
			return fmt.Errorf("placement: unit %s: request %+v is negative", p.unit(i), u.Request)
		case math.IsNaN(u.Share) || u.Share < 0 || u.Share > 1:
			return fmt.Errorf("placement: unit %s: share %v: want 0 to 1", p.unit(i), u.Share)
		}
	}
	for i, f := range p.Flows {
		if f.From < 0 || f.From >= len(p.Services) || f.To < 0 || f.To >= len(p.Services) {
			return fmt.Errorf("placement: flow %d goes from service %d to %d, there are %d", i, f.From, f.To, len(p.Services))
		}
		for _, v := range []float64{f.Forward, f.Backward} {
			if math.IsNaN(v) || v < 0 || v > traffic.MaxBytesPerS {
				return fmt.Errorf("placement: flow from %s to %s: %v bytes/s: want 0 to %g",
					p.Services[f.From].Workload, p.Services[f.To].Workload, v, traffic.MaxBytesPerS)
			}
		}
	}
	return nil
}

// CheckAssignment returns what is wrong with a, or nil.
func (p *Problem) CheckAssignment(a Assignment) error {
	if len(a) != len(p.Units) {
		return fmt.Errorf("placement: %d units but %d places", len(p.Units), len(a))
	}
	for i, n := range a {
		if n < Unplaced || n >= len(p.Capacity) {
			return fmt.Errorf("placement: unit %s is on node %d, there are %d", p.unit(i), n, len(p.Capacity))
		}
		if n == Unplaced && p.Units[i].Pinned {
			return fmt.Errorf("placement: unit %s is pinned to no node", p.unit(i))
		}
	}
	return nil
}

func (p *Problem) unit(i int) string {
	if n := p.Units[i].Name; n != "" {
		return n
	}
	if s := p.Units[i].Service; s >= 0 && s < len(p.Services) {
		return fmt.Sprintf("%s #%d", p.Services[s].Workload, i)
	}
	return fmt.Sprintf("#%d", i)
}

// link is one neighbour of a unit: out flows to it, in from it, bytes per ms.
type link struct {
	to      int
	out, in float64
}

// links lists the neighbours of every unit, traffic shared out over replicas.
func (p *Problem) links() [][]link {
	members := make([][]int, len(p.Services))
	for i, u := range p.Units {
		members[u.Service] = append(members[u.Service], i)
	}
	share := func(i int) float64 {
		if s := p.Units[i].Share; s > 0 {
			return s
		}
		return 1 / float64(len(members[p.Units[i].Service]))
	}
	type ends struct{ a, b int }
	at := map[ends]int{}
	out := make([][]link, len(p.Units))
	add := func(a, b int, o, i float64) {
		k, ok := at[ends{a, b}]
		if !ok {
			k = len(out[a])
			at[ends{a, b}] = k
			out[a] = append(out[a], link{to: b})
		}
		out[a][k].out += o
		out[a][k].in += i
	}
	for _, f := range p.Flows {
		if f.From == f.To || f.Forward+f.Backward == 0 {
			continue
		}
		for _, u := range members[f.From] {
			for _, v := range members[f.To] {
				s := share(u) * share(v) / 1000
				add(u, v, f.Forward*s, f.Backward*s)
				add(v, u, f.Backward*s, f.Forward*s)
			}
		}
	}
	return out
}

// Cost prices an assignment; units that are not placed cost nothing.
func (p *Problem) Cost(a Assignment) Cost {
	var c Cost
	for u, ls := range p.links() {
		for _, l := range ls {
			if l.to > u && a[u] >= 0 && a[l.to] >= 0 {
				c.WireBytes += l.out*p.Delays.MS(a[u], a[l.to]) + l.in*p.Delays.MS(a[l.to], a[u])
			}
		}
	}
	use := make([]Resources, len(p.Capacity))
	for u, n := range a {
		if n >= 0 {
			use[n] = use[n].plus(p.Units[u].Request)
		}
	}
	for n := range use {
		c.Over += over(use[n], p.Capacity[n])
	}
	return c
}

// CrossBytesPerS is the traffic between units on different sites, and on different
// nodes, in bytes per second.
func (p *Problem) CrossBytesPerS(a Assignment) (sites, nodes float64) {
	for u, ls := range p.links() {
		for _, l := range ls {
			if l.to < u || a[u] < 0 || a[l.to] < 0 || a[u] == a[l.to] {
				continue
			}
			nodes += 1000 * (l.out + l.in)
			if p.Delays.SiteIndex(a[u]) != p.Delays.SiteIndex(a[l.to]) {
				sites += 1000 * (l.out + l.in)
			}
		}
	}
	return sites, nodes
}
