package path

import (
	"container/heap"
	"fmt"
	"math"
	"slices"
)

// Demand is a stream of packets that wants to pass functions in order.
type Demand struct {
	Name      string
	Functions []string
	// Ingress and Egress are nodes.
	Ingress, Egress string
	// PerS is what reaches each function, Mbps what each link carries.
	PerS, Mbps float64
	// BudgetMS bounds links and functions together, one way; 0 is no bound.
	BudgetMS float64
	// Symmetric streams come back the same way, at the same rate.
	Symmetric bool
	// Pinned names an instance for some places, by index, "" for a free choice.
	Pinned []string
}

// Placement is where a demand goes.
type Placement struct {
	// Instances are in the order of the demand's functions.
	Instances []string
	// Nodes are those that packets cross, in order, each hop of the topology.
	Nodes []string
	// LatencyMS is links and functions at the load with the demand; PriceMS is what
	// it costs everybody.
	LatencyMS, PriceMS float64

	used  []int // edges
	where []int // instances
}

// state of the search: after k functions at a node.
type label struct {
	price, latency float64
	// from is the label before, via the edge or instance; -1 each where there is none.
	from, edge, instance int
}

// Place finds the cheapest way for a demand and takes what it needs. The way is
// that of a layered graph, one layer a function: Dijkstra inside a layer, over
// links, and steps to the next layer where an instance is. Where the cheapest is
// beyond the latency budget, latency is made dearer until it fits (Lagrangian
// relaxation: Handler and Zang 1980). What one search cannot see, a link or an
// instance used twice by one demand, is checked behind it, and excluded.
func (n *Network) Place(d Demand) (*Placement, error) {
	p, err := n.find(d)
	if err != nil {
		return nil, err
	}
	n.take(d, p, 1)
	return p, nil
}

// Release gives back what a placement took.
func (n *Network) Release(d Demand, p *Placement) { n.take(d, p, -1) }

func (n *Network) take(d Demand, p *Placement, sign float64) {
	for _, e := range p.used {
		n.edges[e].used = math.Max(0, n.edges[e].used+sign*d.Mbps)
		if d.Symmetric {
			n.edges[e^1].used = math.Max(0, n.edges[e^1].used+sign*d.Mbps)
		}
	}
	rate := d.rate()
	for _, i := range p.where {
		n.instances[i].load = math.Max(0, n.instances[i].load+sign*rate)
	}
}

func (d *Demand) rate() float64 {
	if d.Symmetric {
		return 2 * d.PerS
	}
	return d.PerS
}

// maxExclusions bounds the searches for one demand.
const maxExclusions = 8

func (n *Network) find(d Demand) (*Placement, error) {
	s, err := n.newSearch(d)
	if err != nil {
		return nil, err
	}
	for range maxExclusions {
		p := s.run(0)
		if p == nil {
			return nil, s.refusal()
		}
		if d.BudgetMS > 0 && p.LatencyMS > d.BudgetMS {
			if p = s.within(d.BudgetMS); p == nil {
				best := s.run(latencyOnly)
				return nil, fmt.Errorf("chain %s: latency budget of %.1f ms cannot be kept: the fastest way with room takes %.1f ms by %v", d.Name, d.BudgetMS, best.LatencyMS, best.Instances)
			}
		}
		if !s.exclude(p) {
			return p, nil
		}
	}
	return nil, fmt.Errorf("chain %s: no way that does not use a link or an instance more often than it has room for", d.Name)
}

// latencyOnly is a weight of latency beside which prices do not count.
const latencyOnly = 1e6

type search struct {
	n       *Network
	d       Demand
	in, out int
	labels  []label
	done    []bool
	heap    labelHeap
	noEdge  map[int]bool
	noInst  map[int]bool
	edgeMS  []float64 // price by edge, NaN where it does not fit
	deepest int       // the layer that was reached
}

func (n *Network) newSearch(d Demand) (*search, error) {
	if len(d.Functions) == 0 {
		return nil, fmt.Errorf("chain %s: names no function", d.Name)
	}
	if len(d.Functions) > maxFunctions {
		return nil, fmt.Errorf("chain %s: has %d functions; the service index allows %d", d.Name, len(d.Functions), maxFunctions)
	}
	in, ok := n.index[d.Ingress]
	if !ok {
		return nil, fmt.Errorf("chain %s: ingress node %q is not in the topology", d.Name, d.Ingress)
	}
	out, ok := n.index[d.Egress]
	if !ok {
		return nil, fmt.Errorf("chain %s: egress node %q is not in the topology", d.Name, d.Egress)
	}
	for _, f := range d.Functions {
		if len(n.of[f]) == 0 {
			return nil, fmt.Errorf("chain %s: function %s has no instance", d.Name, f)
		}
	}
	size := (len(d.Functions) + 1) * len(n.names)
	s := &search{n: n, d: d, in: in, out: out, labels: make([]label, size), done: make([]bool, size),
		noEdge: map[int]bool{}, noInst: map[int]bool{}, edgeMS: make([]float64, len(n.edges))}
	for i := range n.edges {
		ms, ok := n.edges[i].price(d.Mbps)
		if ok && d.Symmetric {
			var back float64
			back, ok = n.edges[i^1].price(d.Mbps)
			ms += back
		}
		if !ok {
			ms = math.NaN()
		}
		s.edgeMS[i] = ms
	}
	return s, nil
}

// run finds the way of the least price plus weight times latency.
func (s *search) run(weight float64) *Placement {
	n, width := s.n, len(s.n.names)
	for i := range s.labels {
		s.labels[i] = label{price: math.Inf(1), from: -1, edge: -1, instance: -1}
		s.done[i] = false
	}
	s.heap = s.heap[:0]
	relax := func(at, from int, price, latency float64, edge, inst int) {
		if l := &s.labels[at]; price < l.price {
			*l = label{price, latency, from, edge, inst}
			heap.Push(&s.heap, item{price, at})
		}
	}
	relax(s.in, -1, 0, 0, -1, -1)
	goal := len(s.d.Functions)*width + s.out
	rate := s.d.rate()
	for s.heap.Len() > 0 {
		at := heap.Pop(&s.heap).(item).at
		if s.done[at] {
			continue
		}
		s.done[at] = true
		if at == goal {
			return s.placement(goal)
		}
		l, layer, node := s.labels[at], at/width, at%width
		s.deepest = max(s.deepest, layer)
		for _, e := range n.out[node] {
			if ms := s.edgeMS[e]; !math.IsNaN(ms) && !s.noEdge[e] {
				edge := &n.edges[e]
				relax(layer*width+edge.to, at, l.price+ms+weight*edge.latencyMS, l.latency+edge.latencyMS, e, -1)
			}
		}
		if layer == len(s.d.Functions) {
			continue
		}
		for _, i := range n.of[s.d.Functions[layer]] {
			in := &n.instances[i]
			if in.node != node || s.noInst[i] || layer < len(s.d.Pinned) && s.d.Pinned[layer] != "" && s.d.Pinned[layer] != in.Name {
				continue
			}
			if ms, ok := in.price(rate); ok {
				if s.d.Symmetric {
					ms *= 2
				}
				delay := in.delay(rate)
				relax(at+width, at, l.price+ms+weight*delay, l.latency+delay, -1, i)
			}
		}
	}
	return nil
}

func (s *search) placement(goal int) *Placement {
	p := &Placement{LatencyMS: s.labels[goal].latency}
	width := len(s.n.names)
	nodes := []int{goal % width}
	for at := goal; s.labels[at].from >= 0; at = s.labels[at].from {
		l := s.labels[at]
		if l.edge >= 0 {
			p.used = append(p.used, l.edge)
			p.PriceMS += s.edgeMS[l.edge]
			nodes = append(nodes, l.from%width)
			continue
		}
		p.where = append(p.where, l.instance)
		ms, _ := s.n.instances[l.instance].price(s.d.rate())
		if s.d.Symmetric {
			ms *= 2
		}
		p.PriceMS += ms
	}
	slices.Reverse(p.used)
	slices.Reverse(p.where)
	slices.Reverse(nodes)
	for _, i := range nodes {
		p.Nodes = append(p.Nodes, s.n.names[i])
	}
	for _, i := range p.where {
		p.Instances = append(p.Instances, s.n.instances[i].Name)
	}
	return p
}

// within finds the cheapest way it can inside the budget, nil when there is none.
func (s *search) within(budgetMS float64) *Placement {
	best := s.run(latencyOnly)
	if best == nil || best.LatencyMS > budgetMS {
		return nil
	}
	lo, hi := 0.0, 64.0
	for range 12 {
		mid := (lo + hi) / 2
		if p := s.run(mid); p.LatencyMS <= budgetMS {
			hi = mid
			if p.PriceMS < best.PriceMS {
				best = p
			}
		} else {
			lo = mid
		}
	}
	return best
}

// exclude takes one link or instance out that p uses more often than it has room
// for, and reports whether there was one.
func (s *search) exclude(p *Placement) bool {
	mbps := map[int]float64{}
	for _, e := range p.used {
		mbps[e] += s.d.Mbps
		if s.d.Symmetric {
			mbps[e^1] += s.d.Mbps
		}
	}
	for _, e := range p.used {
		for _, e := range [...]int{e, e ^ 1} {
			if l := &s.n.edges[e]; l.mbps > 0 && l.used+mbps[e] > l.mbps*maxUtilisation {
				s.noEdge[e], s.noEdge[e^1] = true, true
				return true
			}
		}
	}
	load := map[int]float64{}
	for _, i := range p.where {
		load[i] += s.d.rate()
		if in := &s.n.instances[i]; in.load+load[i] > in.queue.CapacityPerS()*maxUtilisation {
			s.noInst[i] = true
			return true
		}
	}
	return false
}

// refusal says where the search ended.
func (s *search) refusal() error {
	if s.deepest == len(s.d.Functions) {
		return fmt.Errorf("chain %s: no links with room for %.4g Mbit/s lead from %s to egress %s", s.d.Name, s.d.Mbps, s.d.Functions[s.deepest-1], s.d.Egress)
	}
	f := s.d.Functions[s.deepest]
	free, up := 0, 0
	for _, i := range s.n.of[f] {
		if in := &s.n.instances[i]; !in.Down && !in.Draining {
			up++
			if _, ok := in.price(s.d.rate()); ok {
				free++
			}
		}
	}
	switch {
	case up == 0:
		return fmt.Errorf("chain %s: none of the %d instances of %s is up", s.d.Name, len(s.n.of[f]), f)
	case free == 0:
		return fmt.Errorf("chain %s: none of the %d instances of %s that are up has room for %.4g/s", s.d.Name, up, f, s.d.rate())
	}
	return fmt.Errorf("chain %s: no links with room for %.4g Mbit/s lead to an instance of %s with room", s.d.Name, s.d.Mbps, f)
}

// Improve places each demand anew in turn while that makes their sum cheaper, at
// most rounds times, and returns how many moved. Greedy placement one by one is
// what this mends: early demands took what later ones need more.
func (n *Network) Improve(ds []Demand, ps []*Placement, rounds int) (moved int) {
	for range rounds {
		before := moved
		for i, d := range ds {
			if ps[i] == nil {
				continue
			}
			n.Release(d, ps[i])
			old := n.cost(d, ps[i])
			p, err := n.find(d)
			if err == nil && p.PriceMS < old-1e-9 {
				ps[i] = p
				moved++
			}
			n.take(d, ps[i], 1)
		}
		if moved == before {
			break
		}
	}
	return moved
}

// cost is the price of a placement that is not taken.
func (n *Network) cost(d Demand, p *Placement) (ms float64) {
	for _, e := range p.used {
		m, _ := n.edges[e].price(d.Mbps)
		if d.Symmetric {
			back, _ := n.edges[e^1].price(d.Mbps)
			m += back
		}
		ms += m
	}
	for _, i := range p.where {
		m, _ := n.instances[i].price(d.rate())
		if d.Symmetric {
			m *= 2
		}
		ms += m
	}
	return ms
}

type item struct {
	price float64
	at    int
}

type labelHeap []item

func (h labelHeap) Len() int           { return len(h) }
func (h labelHeap) Less(i, j int) bool { return h[i].price < h[j].price }
func (h labelHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *labelHeap) Push(x any)        { *h = append(*h, x.(item)) }
func (h *labelHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
