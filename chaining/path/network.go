package path

import (
	"fmt"
	"math"

	"github.com/meridian-mesh/meridian/controller/price"
)

// Link joins two nodes in both directions.
type Link struct {
	A, B string
	// LatencyMS is the time of one way.
	LatencyMS float64
	// Mbps is the capacity of each direction; 0 is without bound.
	Mbps float64
}

// Instance is a place where a function runs.
type Instance struct {
	Name, Function, Node string
	// Slots is how many packets or requests it works on at once, ServiceMS how long
	// one takes it: an M/M/c queue, as everywhere in the mesh.
	Slots, ServiceMS float64
	// LoadPerS is what it serves for others than the chains planned here.
	LoadPerS float64
	// Down and Draining instances get nothing new.
	Down, Draining bool
}

// Network is the topology with what is taken of it. It belongs to one goroutine.
type Network struct {
	names []string
	index map[string]int
	// out are the directed edges of each node, indexes into edges.
	out       [][]int
	edges     []edge
	instances []instance
	// of are the instances of each function.
	of map[string][]int
}

type edge struct {
	from, to  int
	latencyMS float64
	mbps      float64
	used      float64
	queue     price.Queue
}

type instance struct {
	Instance
	node  int
	queue price.Queue
	load  float64
}

// maxUtilisation is how full an instance or a link is made: past it the price of
// the queue is nearly a wall, and reports of load are late.
const maxUtilisation = 0.95

// NewNetwork checks the topology. Nodes that links do not name may be named here.
func NewNetwork(nodes []string, links []Link, instances []Instance) (*Network, error) {
	var curves price.Curves
	n := &Network{index: make(map[string]int), of: make(map[string][]int)}
	for _, name := range nodes {
		n.node(name)
	}
	for i, l := range links {
		if l.A == l.B || l.A == "" || l.B == "" {
			return nil, fmt.Errorf("link %d joins %q and %q: name two nodes", i+1, l.A, l.B)
		}
		if !(l.LatencyMS >= 0) || math.IsInf(l.LatencyMS, 0) || !(l.Mbps >= 0) || math.IsInf(l.Mbps, 0) {
			return nil, fmt.Errorf("link %s-%s: latency %v ms, capacity %v Mbit/s: use numbers from 0", l.A, l.B, l.LatencyMS, l.Mbps)
		}
		e := edge{from: n.node(l.A), to: n.node(l.B), latencyMS: l.LatencyMS, mbps: l.Mbps}
		if l.Mbps > 0 {
			var err error
			// A link works on one megabit at a time.
			if e.queue, err = curves.Queue(1, 1000/l.Mbps); err != nil {
				return nil, fmt.Errorf("link %s-%s: %w", l.A, l.B, err)
			}
		}
		n.addEdge(e)
		e.from, e.to = e.to, e.from
		n.addEdge(e)
	}
	for _, in := range instances {
		q, err := curves.Queue(in.Slots, in.ServiceMS)
		if err != nil {
			return nil, fmt.Errorf("instance %s: %w", in.Name, err)
		}
		n.of[in.Function] = append(n.of[in.Function], len(n.instances))
		n.instances = append(n.instances, instance{Instance: in, node: n.node(in.Node), queue: q, load: in.LoadPerS})
	}
	return n, nil
}

func (n *Network) node(name string) int {
	if i, ok := n.index[name]; ok {
		return i
	}
	i := len(n.names)
	n.index[name] = i
	n.names = append(n.names, name)
	n.out = append(n.out, nil)
	return i
}

func (n *Network) addEdge(e edge) {
	n.out[e.from] = append(n.out[e.from], len(n.edges))
	n.edges = append(n.edges, e)
}

// price of an edge for mbps more: its latency and what the others wait longer. ok
// is false where it does not fit.
func (e *edge) price(mbps float64) (ms float64, ok bool) {
	if e.mbps == 0 {
		return e.latencyMS, true
	}
	if e.used+mbps > e.mbps*maxUtilisation {
		return 0, false
	}
	return e.latencyMS + e.queue.MarginalMS(e.used+mbps) - e.queue.ServiceMS(), true
}

// price of an instance for perS more, in ms.
func (in *instance) price(perS float64) (ms float64, ok bool) {
	if in.Down || in.Draining || in.load+perS > in.queue.CapacityPerS()*maxUtilisation {
		return 0, false
	}
	return in.queue.MarginalMS(in.load + perS), true
}

// delay of an instance with perS more, in ms.
func (in *instance) delay(perS float64) float64 { return in.queue.SojournMS(in.load + perS) }
