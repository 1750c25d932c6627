package placement

import (
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strconv"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/scheduler/placement"
	"github.com/meridian-mesh/meridian/scheduler/traffic"
)

// Call is what one service asks of another, by index, in bytes per second.
type Call struct {
	From, To          int
	Forward, Backward float64
}

// Network is a call graph.
type Network struct {
	Title    string
	Services []string
	Calls    []Call
}

// ReadNetwork reads two squares of KB per minute, requests and responses, whose
// first row and column name the services; the row calls the column.
func ReadNetwork(title string, forward, backward io.Reader) (*Network, error) {
	f, names, err := square(forward)
	if err != nil {
		return nil, fmt.Errorf("requests: %w", err)
	}
	b, others, err := square(backward)
	if err != nil {
		return nil, fmt.Errorf("responses: %w", err)
	}
	n := &Network{Title: title, Services: names}
	for i, s := range names {
		if others[i] != s {
			return nil, fmt.Errorf("row %d is %s in one matrix and %s in the other", i+1, s, others[i])
		}
		for j := range names {
			if i != j && f[i][j]+b[i][j] > 0 {
				n.Calls = append(n.Calls, Call{i, j, f[i][j] * 1000 / 60, b[i][j] * 1000 / 60})
			}
		}
	}
	return n, nil
}

func square(r io.Reader) ([][]float64, []string, error) {
	rows, err := csv.NewReader(r).ReadAll()
	if err != nil {
		return nil, nil, err
	}
	if len(rows) < 2 {
		return nil, nil, fmt.Errorf("no rows")
	}
	names := rows[0][1:]
	if len(rows)-1 != len(names) {
		return nil, nil, fmt.Errorf("%d rows for %d columns", len(rows)-1, len(names))
	}
	out := make([][]float64, len(names))
	for i, row := range rows[1:] {
		if row[0] != names[i] {
			return nil, nil, fmt.Errorf("row %d is %s, its column %s", i+1, row[0], names[i])
		}
		for j, cell := range row[1:] {
			v, err := strconv.ParseFloat(cell, 64)
			if err != nil || v < 0 || math.IsInf(v, 0) {
				return nil, nil, fmt.Errorf("row %s, column %s: %q is not an amount of traffic", names[i], names[j], cell)
			}
			out[i] = append(out[i], v)
		}
	}
	return out, names, nil
}

// Generate makes a call graph of n services in layers: every service but the
// first is called by one of an earlier layer, chosen the more often the more it
// calls already (as in real graphs of services), and some by a second one. Sizes
// of requests and responses are log-normal.
func Generate(n int, seed uint64) *Network {
	rng := rand.New(rand.NewPCG(seed, 0x67656e))
	out := &Network{Title: fmt.Sprintf("generated %d", n)}
	calls := make([]int, n)
	for i := range n {
		out.Services = append(out.Services, fmt.Sprintf("s%d", i))
		if i == 0 {
			continue
		}
		callers := 1
		if rng.IntN(4) == 0 {
			callers = 2
		}
		for range callers {
			a, b := rng.IntN(i), rng.IntN(i)
			if calls[b] > calls[a] && calls[b] < 8 {
				a = b
			}
			calls[a]++
			out.Calls = append(out.Calls, Call{a, i, 2000 * math.Exp(rng.NormFloat64()), 10000 * math.Exp(1.2*rng.NormFloat64())})
		}
	}
	return out
}

// Case is one problem for all rules.
type Case struct {
	Network *Network
	// Problem has one unit for each service.
	Problem *placement.Problem
	// Order is how pods come.
	Order []int
}

// NodeCPU is what a node has, as in TraDE's testbed: 4 cores.
const NodeCPU = 4000

// NewCase makes a case: each service asks for 200 to 1,200 thousandths of a core,
// its traffic is the network's times a log-normal factor (sigma 0.25), and pods
// come in random order.
func NewCase(n *Network, d *traffic.Delays, seed uint64) (*Case, error) {
	rng := rand.New(rand.NewPCG(seed, 0x63617365))
	p := &placement.Problem{Delays: d}
	for range d.Nodes() {
		p.Capacity = append(p.Capacity, placement.Resources{MilliCPU: NodeCPU, MemoryBytes: 16 << 30, Pods: 110})
	}
	for i, s := range n.Services {
		p.Services = append(p.Services, placement.Service{Workload: mesh.Workload{Namespace: "default", Name: s}})
		p.Units = append(p.Units, placement.Unit{Name: s, Service: i, Request: placement.Resources{MilliCPU: 200 + rng.Int64N(1001), MemoryBytes: 64 << 20, Pods: 1}})
	}
	for _, c := range n.Calls {
		x := math.Exp(0.25 * rng.NormFloat64())
		p.Flows = append(p.Flows, placement.Flow{From: c.From, To: c.To, Forward: c.Forward * x, Backward: c.Backward * x})
	}
	c := &Case{Network: n, Problem: p, Order: rng.Perm(len(n.Services))}
	return c, p.Check()
}

// Sites makes delays between n nodes, per to a site, sites at random places of a
// square of that many milliseconds, in detours of up to a half. Inside a site it
// is 0.3 ms.
func Sites(n, per int, acrossMS float64, seed uint64) (*traffic.Delays, error) {
	rng := rand.New(rand.NewPCG(seed, 0x73697465))
	m := (n + per - 1) / per
	type point struct{ x, y float64 }
	at := make([]point, m)
	sites := make([]string, m)
	for i := range at {
		at[i] = point{rng.Float64() * acrossMS, rng.Float64() * acrossMS}
		sites[i] = fmt.Sprintf("site-%d", i)
	}
	ms := make([][]float64, m)
	for i := range ms {
		ms[i] = make([]float64, m)
		for j := range ms[i] {
			ms[i][j] = 0.3
			if i != j {
				ms[i][j] = 1 + math.Hypot(at[i].x-at[j].x, at[i].y-at[j].y)*(1+rng.Float64()/2)
			}
		}
	}
	nodes := make([]string, n)
	site := map[string]string{}
	for i := range nodes {
		nodes[i] = fmt.Sprintf("node-%d", i)
		site[nodes[i]] = sites[i/per]
	}
	return traffic.NewDelays(nodes, func(n string) string { return site[n] }, sites, ms)
}

// LatencyMS is what delays add to one request at the services that nobody calls,
// mean over them, when every service calls each of its callees once: one after
// another, and all at once.
func (c *Case) LatencyMS(a placement.Assignment) (sequential, parallel float64) {
	callees := make([][]int, len(c.Network.Services))
	called := make([]bool, len(c.Network.Services))
	for _, x := range c.Network.Calls {
		callees[x.From] = append(callees[x.From], x.To)
		called[x.To] = true
	}
	type both struct{ seq, par float64 }
	known := map[int]both{}
	busy := map[int]bool{}
	var of func(int) both
	of = func(s int) both {
		if b, ok := known[s]; ok || busy[s] {
			return b // a call back to a caller is not followed
		}
		busy[s] = true
		var b both
		for _, t := range callees[s] {
			below := of(t)
			way := c.Problem.Delays.MS(a[s], a[t]) + c.Problem.Delays.MS(a[t], a[s])
			b.seq += way + below.seq
			b.par = math.Max(b.par, way+below.par)
		}
		busy[s] = false
		known[s] = b
		return b
	}
	roots := 0.0
	for s := range callees {
		if !called[s] && len(callees[s]) > 0 {
			b := of(s)
			sequential += b.seq
			parallel += b.par
			roots++
		}
	}
	roots = math.Max(1, roots)
	return sequential / roots, parallel / roots
}
