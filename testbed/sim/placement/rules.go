package placement

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/meridian-mesh/meridian/scheduler/placement"
)

// Rule places all services of a case.
type Rule struct {
	Name string
	// From says that the rule improves the default placement, so that it has moves.
	From bool
	// Place returns a placement; start is the default one.
	Place func(c *Case, start placement.Assignment, seed uint64) (placement.Assignment, error)
}

// Rules are all rules, in the order of the table.
var Rules = []Rule{
	{Name: "default spread", Place: func(c *Case, _ placement.Assignment, seed uint64) (placement.Assignment, error) {
		return c.online(seed, c.Order, nil), nil
	}},
	{Name: "NetMARKS", Place: NetMARKS},
	{Name: "Diktyo NetworkOverhead", Place: Diktyo},
	{Name: "TraDE PGA", From: true, Place: func(c *Case, start placement.Assignment, _ uint64) (placement.Assignment, error) {
		return TraDE(c, start), nil
	}},
	{Name: "ours, pod by pod", Place: OursOnline},
	{Name: "ours, batch", Place: func(c *Case, start placement.Assignment, seed uint64) (placement.Assignment, error) {
		r, err := placement.Assign(c.Problem, unplaced(start), placement.Options{Seed: seed})
		if err != nil {
			return nil, err
		}
		return r.At, nil
	}},
	{Name: "annealed", Place: func(c *Case, start placement.Assignment, seed uint64) (placement.Assignment, error) {
		return Anneal(c, start, seed, AnnealSteps), nil
	}},
}

func unplaced(a placement.Assignment) placement.Assignment {
	return slices.Repeat(placement.Assignment{placement.Unplaced}, len(a))
}

// online places pods one by one in an order. preference gives a node's score for
// a pod, higher is better, -Inf for a node that is refused; equal ones are decided
// as Kubernetes does: by what would be least allocated (NodeResourcesFit's default),
// and at random among equals. Where every node is refused the pod goes as if there
// were no preference, since in a cluster it would be tried again until it fits.
func (c *Case) online(seed uint64, order []int, preference func(at placement.Assignment, u int) []float64) placement.Assignment {
	rng := rand.New(rand.NewPCG(seed, 0x6f6e6c))
	p := c.Problem
	at := slices.Repeat(placement.Assignment{placement.Unplaced}, len(p.Units))
	used := make([]int64, len(p.Capacity))
	for _, u := range order {
		var likes []float64
		if preference != nil {
			likes = preference(at, u)
		}
		pick := func(all bool) int {
			best, bestLike, bestFree, equal := -1, 0.0, 0.0, 0
			for n := range p.Capacity {
				free := float64(p.Capacity[n].MilliCPU-used[n]-p.Units[u].Request.MilliCPU) / float64(p.Capacity[n].MilliCPU)
				like := 0.0
				if likes != nil && !all {
					like = likes[n]
				}
				if free < 0 || math.IsInf(like, -1) {
					continue
				}
				switch {
				case best < 0 || like > bestLike || like == bestLike && free > bestFree:
					best, bestLike, bestFree, equal = n, like, free, 1
				case like == bestLike && free == bestFree:
					if equal++; rng.IntN(equal) == 0 {
						best = n
					}
				}
			}
			return best
		}
		n := pick(false)
		if n < 0 {
			n = pick(true)
		}
		if n < 0 { // nothing has room: the emptiest
			n = 0
			for m := range used {
				if used[m] < used[n] {
					n = m
				}
			}
		}
		at[u] = n
		used[n] += p.Units[u].Request.MilliCPU
	}
	return at
}

// NetMARKS (INFOCOM 2021): a node's score for a pod is the bytes, both ways, that
// the pod exchanges with pods on that very node.
func NetMARKS(c *Case, _ placement.Assignment, seed uint64) (placement.Assignment, error) {
	return c.online(seed, c.Order, func(at placement.Assignment, u int) []float64 {
		s := make([]float64, len(c.Problem.Capacity))
		for _, f := range c.Problem.Flows {
			if f.From == u && at[f.To] >= 0 {
				s[at[f.To]] += f.Forward + f.Backward
			}
			if f.To == u && at[f.From] >= 0 {
				s[at[f.From]] += f.Forward + f.Backward
			}
		}
		return s
	}), nil
}

// Diktyo's NetworkOverhead with TopologicalSort (scheduler-plugins,
// pkg/networkaware): a pod's dependencies are the services that it calls; a
// dependency on the node costs 0, on the site 1, else the delay between the nodes
// (whole milliseconds). It is satisfied up to the greatest cost allowed, for which
// we take the mean delay. Nodes where more dependencies are violated than satisfied
// are refused, the least sum of costs wins. Callees come first, which is the order
// that suits it best, since only dependencies that run count.
func Diktyo(c *Case, _ placement.Assignment, seed uint64) (placement.Assignment, error) {
	d := c.Problem.Delays
	nodes := len(d.Nodes())
	sum, n := 0.0, 0.0
	for i := range nodes {
		for j := range nodes {
			if i != j {
				sum += d.MS(i, j)
				n++
			}
		}
	}
	most := sum / math.Max(1, n)
	return c.online(seed, c.calleesFirst(), func(at placement.Assignment, u int) []float64 {
		s := make([]float64, nodes)
		for node := range s {
			satisfied, violated := 0, 0
			for _, f := range c.Problem.Flows {
				if f.From != u || at[f.To] < 0 {
					continue
				}
				cost := math.Round(d.MS(node, at[f.To]))
				switch {
				case node == at[f.To]:
					cost = 0
				case d.SiteIndex(node) == d.SiteIndex(at[f.To]):
					cost = 1
				}
				if cost <= most {
					satisfied++
				} else {
					violated++
				}
				s[node] -= cost
			}
			if violated > satisfied {
				s[node] = math.Inf(-1)
			}
		}
		return s
	}), nil
}

// calleesFirst orders services so that callees come before their callers, where
// the graph has no circle.
func (c *Case) calleesFirst() []int {
	callees := make([][]int, len(c.Problem.Services))
	for _, f := range c.Problem.Flows {
		callees[f.From] = append(callees[f.From], f.To)
	}
	var out []int
	seen := make([]bool, len(callees))
	var visit func(int)
	visit = func(s int) {
		if seen[s] {
			return
		}
		seen[s] = true
		for _, t := range callees[s] {
			visit(t)
		}
		out = append(out, s)
	}
	for _, s := range c.Order {
		visit(s)
	}
	return out
}

// OursOnline is the plugin's score, pod by pod: traffic with what runs already
// times delay ([placement.NodeCosts]).
func OursOnline(c *Case, _ placement.Assignment, seed uint64) (placement.Assignment, error) {
	costs := make([]float64, len(c.Problem.Capacity))
	return c.online(seed, c.Order, func(at placement.Assignment, u int) []float64 {
		var pulls []placement.Pull
		for _, f := range c.Problem.Flows {
			if f.From == u && at[f.To] >= 0 {
				pulls = append(pulls, placement.Pull{Node: at[f.To], Out: f.Forward, In: f.Backward})
			}
			if f.To == u && at[f.From] >= 0 {
				pulls = append(pulls, placement.Pull{Node: at[f.From], Out: f.Backward, In: f.Forward})
			}
		}
		placement.NodeCosts(c.Problem.Delays, pulls, costs)
		s := make([]float64, len(costs))
		for n, points := range placement.Points(costs, 100) {
			s[n] = float64(points)
		}
		return s
	}), nil
}
