package placement

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/meridian-mesh/meridian/scheduler/placement"
)

// evaluator prices changes of a placement from the flows alone. It is apart from
// the product's search on purpose: each is a check of the other.
type evaluator struct {
	p     *placement.Problem
	of    [][]int // flows of each unit
	at    placement.Assignment
	used  []int64
	nodes int
	ms    []float64
}

func newEvaluator(p *placement.Problem, at placement.Assignment) *evaluator {
	n := len(p.Capacity)
	e := &evaluator{p: p, of: make([][]int, len(p.Units)), at: slices.Clone(at), used: make([]int64, n), nodes: n, ms: make([]float64, n*n)}
	for i, f := range p.Flows {
		e.of[f.From] = append(e.of[f.From], i)
		if f.To != f.From {
			e.of[f.To] = append(e.of[f.To], i)
		}
	}
	for u, m := range at {
		e.used[m] += p.Units[u].Request.MilliCPU
	}
	for i := range n {
		for j := range n {
			e.ms[i*n+j] = p.Delays.MS(i, j)
		}
	}
	return e
}

// around is the cost of all flows of u, and of v where v is not negative.
func (e *evaluator) around(u, v int) float64 {
	c := 0.0
	for _, i := range e.of[u] {
		f := &e.p.Flows[i]
		a, b := e.at[f.From], e.at[f.To]
		c += f.Forward*e.ms[a*e.nodes+b] + f.Backward*e.ms[b*e.nodes+a]
	}
	if v >= 0 {
		for _, i := range e.of[v] {
			f := &e.p.Flows[i]
			if f.From == u || f.To == u {
				continue
			}
			a, b := e.at[f.From], e.at[f.To]
			c += f.Forward*e.ms[a*e.nodes+b] + f.Backward*e.ms[b*e.nodes+a]
		}
	}
	return c / 1000
}

func (e *evaluator) put(u, n int) {
	e.used[e.at[u]] -= e.p.Units[u].Request.MilliCPU
	e.used[n] += e.p.Units[u].Request.MilliCPU
	e.at[u] = n
}

func (e *evaluator) over(n int) float64 {
	return math.Max(0, float64(e.used[n]-e.p.Capacity[n].MilliCPU))
}

// AnnealSteps are the steps of one annealing for each pair of unit and node.
const AnnealSteps = 8000

// Anneal is simulated annealing by single moves, swaps of two services and swaps
// of all that two nodes run, three runs from start at geometric cooling, the best
// kept. Capacity may be exceeded on the way, at a price. It stands for the
// optimum, which is too dear to compute, so it has some 50 times the steps of ours.
func Anneal(c *Case, start placement.Assignment, seed uint64, stepsEach int) placement.Assignment {
	p := c.Problem
	best := slices.Clone(start)
	bestCost := p.Cost(best)
	steps := min(stepsEach*len(p.Units)*len(p.Capacity), 60_000_000)
	hot := newEvaluator(p, start).hot()
	perCore := 8 * hot * 1000 / NodeCPU
	for run := range uint64(3) {
		rng := rand.New(rand.NewPCG(seed, 0x616e6e+run))
		e := newEvaluator(p, start)
		cost, full := p.Cost(start).WireBytes, 0.0
		for n := range e.used {
			full += e.over(n)
		}
		low, lowFull, lowest := cost, full, slices.Clone(e.at)
		t, cool := hot, math.Pow(1e-4, 1/float64(steps))
		for i := range steps {
			t *= cool
			var d, df float64
			var undo func()
			if i%50 == 0 {
				d, df, undo = e.exchange(rng.IntN(e.nodes), rng.IntN(e.nodes))
			} else {
				u, v, n := rng.IntN(len(p.Units)), -1, rng.IntN(e.nodes)
				from := e.at[u]
				if i%2 == 1 {
					v = rng.IntN(len(p.Units))
					n = e.at[v]
				}
				if n == from || v == u {
					continue
				}
				d, df = -e.around(u, v), -e.over(n)-e.over(from)
				e.put(u, n)
				if v >= 0 {
					e.put(v, from)
				}
				d, df = d+e.around(u, v), df+e.over(n)+e.over(from)
				undo = func() {
					e.put(u, from)
					if v >= 0 {
						e.put(v, n)
					}
				}
			}
			if x := d + perCore*df/1000; x > 0 && rng.Float64() >= math.Exp(-x/t) {
				undo()
				continue
			}
			cost, full = cost+d, full+df
			if full < lowFull || full <= lowFull && cost < low-1e-9 {
				low, lowFull = cost, full
				copy(lowest, e.at)
			}
		}
		if x := p.Cost(lowest); x.Less(bestCost) {
			bestCost = x
			copy(best, lowest)
		}
	}
	return best
}

// hot is the temperature at which anything goes: a service's traffic over the mean
// delay.
func (e *evaluator) hot() float64 {
	ms, bytes := 0.0, 0.0
	for _, d := range e.ms {
		ms += d
	}
	for _, f := range e.p.Flows {
		bytes += f.Forward + f.Backward
	}
	return ms / float64(len(e.ms)) * bytes / 1000 / float64(len(e.at))
}

// exchange swaps all that two nodes run and says what that changes.
func (e *evaluator) exchange(n, m int) (cost, full float64, undo func()) {
	flip := func() (sum float64) {
		seen := map[int]bool{}
		price := func() {
			clear(seen)
			sum = 0
			for u, at := range e.at {
				if at != n && at != m {
					continue
				}
				for _, i := range e.of[u] {
					if !seen[i] {
						seen[i] = true
						f := &e.p.Flows[i]
						a, b := e.at[f.From], e.at[f.To]
						sum += (f.Forward*e.ms[a*e.nodes+b] + f.Backward*e.ms[b*e.nodes+a]) / 1000
					}
				}
			}
		}
		price()
		before := sum
		for u, at := range e.at {
			switch at {
			case n:
				e.put(u, m)
			case m:
				e.put(u, n)
			}
		}
		price()
		return sum - before
	}
	full = -e.over(n) - e.over(m)
	cost = flip()
	full += e.over(n) + e.over(m)
	return cost, full, func() { flip() }
}

// tradeBudget bounds TraDE's evaluations: past it the best so far counts, as its
// time limit would have it.
const tradeBudget = 60_000_000

// tradeWorkers is how many workers share the pairs, one for each core of its
// testbed's workers.
const tradeWorkers = 4

// TraDE is the parallel greedy algorithm of TraDE (TPDS 2026): pairs by stress,
// dealt to workers; each tries for a pair all pairs of nodes, takes the first that
// is cheaper and starts again; the best worker's placement goes into the next
// round, until none gains. The cost is its own: half of traffic times delay, and
// 10,000 for each core over capacity. We price changes by their difference, which
// its code does not, so its time here is better than it would be.
func TraDE(c *Case, start placement.Assignment) placement.Assignment {
	p := c.Problem
	pairs := make([]placement.Flow, len(p.Flows))
	copy(pairs, p.Flows)
	slices.SortStableFunc(pairs, func(a, b placement.Flow) int { return cmp.Compare(b.Forward+b.Backward, a.Forward+a.Backward) })
	// Its traffic is KB a minute and its weights a half: cost = 0.5 x 60 x bytes/s x ms / 1000.
	const units = 0.5 * 60
	price := func(e *evaluator) float64 {
		t := p.Cost(e.at).WireBytes * units
		for n := range e.used {
			t += 10000 * e.over(n) / 1000
		}
		return t
	}
	at := slices.Clone(start)
	cost := price(newEvaluator(p, at))
	budget := tradeBudget
	for {
		best, bestCost := at, cost
		for w := range tradeWorkers {
			e := newEvaluator(p, at)
			now := cost
			for improved := true; improved && budget > 0; {
				improved = false
			search:
				for i := w; i < len(pairs); i += tradeWorkers {
					u, v := pairs[i].From, pairs[i].To
					n0, m0 := e.at[u], e.at[v]
					for n := range e.nodes {
						for m := range e.nodes {
							if n == n0 && m == m0 {
								continue
							}
							budget--
							before := e.around(u, v)*units + 10*e.overAll(n0, m0, n, m)
							e.put(u, n)
							e.put(v, m)
							d := e.around(u, v)*units + 10*e.overAll(n0, m0, n, m) - before
							if d < -1e-6 {
								now += d
								improved = true
								break search
							}
							e.put(u, n0)
							e.put(v, m0)
							if budget <= 0 {
								break search
							}
						}
					}
				}
			}
			if now < bestCost-1e-6 {
				best, bestCost = slices.Clone(e.at), now
			}
		}
		if bestCost >= cost-1e-6 || budget <= 0 {
			return best
		}
		at, cost = best, price(newEvaluator(p, best))
	}
}

// overAll is the excess of several nodes, each counted once.
func (e *evaluator) overAll(nodes ...int) float64 {
	sum := 0.0
	for i, n := range nodes {
		if !slices.Contains(nodes[:i], n) {
			sum += e.over(n)
		}
	}
	return sum
}
