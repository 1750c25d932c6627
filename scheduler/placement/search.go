package placement

import (
	"math"
	"math/rand/v2"
	"slices"
)

// search is one assignment under change, with what each change would do kept at
// hand.
type search struct {
	p     *Problem
	links [][]link
	at    Assignment
	use   []Resources
	ms    []float64 // delays, nodes x nodes
	nodes int
	// home and moveCost: a unit that is not where it was costs so much more.
	home     Assignment
	moveCost []float64
	// pull[u*nodes+n] is what u costs, or would cost, on n.
	pull []float64
	cost float64
}

func newSearch(p *Problem, home Assignment, moveCost []float64) *search {
	n := len(p.Capacity)
	s := &search{
		p: p, links: p.links(), nodes: n, home: home, moveCost: moveCost,
		ms: make([]float64, n*n), pull: make([]float64, n*len(p.Units)),
		use: make([]Resources, n), at: make(Assignment, len(p.Units)),
	}
	for i := range n {
		for j := range n {
			s.ms[i*n+j] = p.Delays.MS(i, j)
		}
	}
	return s
}

// set begins anew from an assignment; units may be unplaced.
func (s *search) set(a Assignment) {
	copy(s.at, a)
	clear(s.use)
	clear(s.pull)
	s.cost = 0
	for u, n := range s.at {
		if n >= 0 {
			s.use[n] = s.use[n].plus(s.p.Units[u].Request)
		}
	}
	for u := range s.at {
		if s.moveCost != nil && s.home[u] >= 0 {
			row := s.pull[u*s.nodes : (u+1)*s.nodes]
			for n := range row {
				if n != s.home[u] {
					row[n] += s.moveCost[u]
				}
			}
		}
		for _, l := range s.links[u] {
			if m := s.at[l.to]; m >= 0 {
				s.draw(u, l, m, 1)
			}
		}
	}
	s.cost = s.total()
}

// total prices the whole: half of the traffic is at each end of a link.
func (s *search) total() float64 {
	c := 0.0
	for u, n := range s.at {
		if n < 0 {
			continue
		}
		if s.moveCost != nil && s.home[u] >= 0 && n != s.home[u] {
			c += s.moveCost[u]
		}
		for _, l := range s.links[u] {
			if m := s.at[l.to]; m >= 0 && l.to > u {
				c += s.between(l, n, m)
			}
		}
	}
	return c
}

// between is the cost of a link from a unit on n to its neighbour on m.
func (s *search) between(l link, n, m int) float64 {
	return l.out*s.ms[n*s.nodes+m] + l.in*s.ms[m*s.nodes+n]
}

// draw adds or takes away what a neighbour on m means for u on every node.
func (s *search) draw(u int, l link, m int, sign float64) {
	row := s.pull[u*s.nodes : (u+1)*s.nodes]
	from := s.ms[m*s.nodes : (m+1)*s.nodes]
	out, in := sign*l.out, sign*l.in
	for n := range row {
		row[n] += out*s.ms[n*s.nodes+m] + in*from[n]
	}
}

// put moves a unit.
func (s *search) put(u, n int) {
	from := s.at[u]
	if from == n {
		return
	}
	if from >= 0 {
		s.cost -= s.pull[u*s.nodes+from]
		s.use[from] = s.use[from].minus(s.p.Units[u].Request)
	}
	if n >= 0 {
		s.cost += s.pull[u*s.nodes+n]
		s.use[n] = s.use[n].plus(s.p.Units[u].Request)
	}
	s.at[u] = n
	for _, l := range s.links[u] {
		back := link{out: l.in, in: l.out}
		if from >= 0 {
			s.draw(l.to, back, from, -1)
		}
		if n >= 0 {
			s.draw(l.to, back, n, 1)
		}
	}
}

// room is by how much taking r in (and giving away g) changes how far a node is
// over its capacity.
func (s *search) room(n int, r, g Resources) float64 {
	after := s.use[n].plus(r).minus(g)
	if s.hasRoom(n) && within(after, s.p.Capacity[n]) {
		return 0 // nearly always, and cheaper than the parts
	}
	return over(after, s.p.Capacity[n]) - over(s.use[n], s.p.Capacity[n])
}

const (
	tinyOver = 1e-12
	tinyCost = 1e-9
)

// better reports that a change is worth making: less over capacity, or no more
// and cheaper.
func better(over, cost float64) bool {
	return over < -tinyOver || over <= tinyOver && cost < -tinyCost
}

// moved is what moving u to another node n changes.
func (s *search) moved(u, n int) (over, cost float64) {
	from := s.at[u]
	r := s.p.Units[u].Request
	return s.room(n, r, Resources{}) + s.room(from, Resources{}, r), s.pull[u*s.nodes+n] - s.pull[u*s.nodes+from]
}

// swapped is what exchanging the places of u and v changes.
func (s *search) swapped(u, v int) (over, cost float64) {
	n, m := s.at[u], s.at[v]
	cost = s.pull[u*s.nodes+m] - s.pull[u*s.nodes+n] + s.pull[v*s.nodes+n] - s.pull[v*s.nodes+m]
	for _, l := range s.links[u] {
		if l.to == v {
			// Both pulls took the other for standing still.
			cost += s.between(l, n, m) + s.between(l, m, n) - s.between(l, m, m) - s.between(l, n, n)
		}
	}
	ru, rv := s.p.Units[u].Request, s.p.Units[v].Request
	return s.room(m, ru, rv) + s.room(n, rv, ru), cost
}

// greedy places the units that have no place, the one that says most to those
// that have one first, each where it costs least. Where none has room, the node
// that it overfills least.
func (s *search) greedy() {
	stress := make([]float64, len(s.at))
	drawn := make([]float64, len(s.at))
	left := 0
	for u, ls := range s.links {
		for _, l := range ls {
			stress[u] += l.out + l.in
			if s.at[l.to] >= 0 {
				drawn[u] += l.out + l.in
			}
		}
		if s.at[u] < 0 {
			left++
		}
	}
	for ; left > 0; left-- {
		next := -1
		for u := range s.at {
			if s.at[u] >= 0 {
				continue
			}
			if next < 0 || drawn[u] > drawn[next] || drawn[u] == drawn[next] && stress[u] > stress[next] {
				next = u
			}
		}
		s.put(next, s.cheapest(next, drawn[next] == 0))
		for _, l := range s.links[next] {
			drawn[l.to] += l.out + l.in
		}
	}
}

// cheapest is the best node for a unit that has none. One that nothing draws
// goes where most is free, so that its peers find room beside it.
func (s *search) cheapest(u int, free bool) int {
	best, bestOver, bestCost := 0, 0.0, 0.0
	for n := range s.nodes {
		over, cost := s.room(n, s.p.Units[u].Request, Resources{}), s.pull[u*s.nodes+n]
		if free {
			cost += float64(s.use[n].MilliCPU-s.p.Capacity[n].MilliCPU) * 1e-12
		}
		if n == 0 || over < bestOver-tinyOver || over <= bestOver+tinyOver && cost < bestCost {
			best, bestOver, bestCost = n, over, cost
		}
	}
	return best
}

// descend makes the best single moves and swaps until none helps, at most rounds
// times around.
func (s *search) descend(rounds int) {
	for range rounds {
		changed := false
		for u := range s.at {
			if s.p.Units[u].Pinned {
				continue
			}
			to, bestOver, bestCost := -1, 0.0, 0.0
			for n := range s.nodes {
				if n == s.at[u] {
					continue
				}
				// A dear node is worth looking at only where room is wanted.
				if s.pull[u*s.nodes+n] >= s.pull[u*s.nodes+s.at[u]]-tinyCost && s.hasRoom(s.at[u]) {
					continue
				}
				if over, cost := s.moved(u, n); better(over, cost) && better(over-bestOver, cost-bestCost) {
					to, bestOver, bestCost = n, over, cost
				}
			}
			if to >= 0 {
				s.put(u, to)
				changed = true
			}
		}
		for u := range s.at {
			for v := u + 1; v < len(s.at); v++ {
				n, m := s.at[u], s.at[v]
				if n == m || s.p.Units[u].Pinned || s.p.Units[v].Pinned {
					continue
				}
				// The cheap look first: swaps that cost more are nearly all of them.
				if s.pull[u*s.nodes+m]-s.pull[u*s.nodes+n]+s.pull[v*s.nodes+n]-s.pull[v*s.nodes+m] >= 0 && s.hasRoom(n) && s.hasRoom(m) {
					continue
				}
				if over, cost := s.swapped(u, v); better(over, cost) {
					s.put(u, m)
					s.put(v, n)
					changed = true
				}
			}
		}
		if !changed {
			return
		}
	}
}

// hasRoom reports that a node is not over its capacity.
func (s *search) hasRoom(n int) bool { return within(s.use[n], s.p.Capacity[n]) }

func within(u, c Resources) bool {
	return u.MilliCPU <= c.MilliCPU && u.MemoryBytes <= c.MemoryBytes && u.Pods <= c.Pods
}

// overfull is by how much all nodes are over.
func (s *search) overfull() float64 {
	c := 0.0
	for n := range s.use {
		c += over(s.use[n], s.p.Capacity[n])
	}
	return c
}

func (s *search) value() Cost { return Cost{WireBytes: s.cost, Over: s.overfull()} }

// typical is what a unit's traffic costs at the mean delay, mean over units.
func (s *search) typical() float64 {
	ms, bytes := 0.0, 0.0
	for _, d := range s.ms {
		ms += d
	}
	for _, ls := range s.links {
		for _, l := range ls {
			bytes += (l.out + l.in) / 2
		}
	}
	return ms / float64(len(s.ms)) * bytes / float64(max(1, len(s.at)))
}

// fine is what a node's worth of overfull capacity costs while annealing, in
// typical costs of a unit: enough to end within capacity, little enough to pass
// through what is not.
const fine = 8

// anneal changes places at random for a number of steps: better ones always, worse
// ones with a probability that falls as the temperature does from hot to cold. Now
// and then two nodes exchange all that they run, since where a group of units
// stands matters as much as who is in it. Capacity may be exceeded on the way. It
// leaves the search at the best that it met, which may be where it began.
func (s *search) anneal(rng *rand.Rand, steps int, hot, cold float64) {
	var free []int
	for u := range s.at {
		if !s.p.Units[u].Pinned {
			free = append(free, u)
		}
	}
	if len(free) == 0 || s.nodes < 2 || steps <= 0 || !(hot > cold && cold > 0) {
		return
	}
	penalty := fine * s.typical()
	best, bestCost, bestOver := slices.Clone(s.at), s.cost, s.overfull()
	nowOver := bestOver
	note := func() {
		if nowOver < bestOver-tinyOver || nowOver <= bestOver+1e-9 && s.cost < bestCost-tinyCost {
			bestCost, bestOver = s.cost, nowOver
			copy(best, s.at)
		}
	}
	t, cool := hot, math.Pow(cold/hot, 1/float64(steps/64+1))
	for i := range steps {
		// What is surely too dear is refused before the rest is looked at.
		limit := t * rng.ExpFloat64()
		if i%64 == 0 {
			t *= cool
			s.exchange(rng.IntN(s.nodes), rng.IntN(s.nodes), free, limit, penalty, &nowOver)
			note()
			continue
		}
		u := free[rng.IntN(len(free))]
		from := s.at[u]
		row := s.pull[u*s.nodes : (u+1)*s.nodes]
		var over, cost float64
		v := -1
		var n int
		// All that could be gained from capacity is what is over it.
		most := limit + penalty*nowOver
		if i%2 == 0 {
			if n = rng.IntN(s.nodes); n == from || row[n]-row[from] > most {
				continue
			}
			over, cost = s.moved(u, n)
		} else {
			v = free[rng.IntN(len(free))]
			n = s.at[v]
			other := s.pull[v*s.nodes : (v+1)*s.nodes]
			if n == from || row[n]-row[from]+other[from]-other[n] > most {
				continue
			}
			over, cost = s.swapped(u, v)
		}
		if cost+penalty*over > limit {
			continue
		}
		s.put(u, n)
		if v >= 0 {
			s.put(v, from)
		}
		nowOver += over
		note()
	}
	s.set(best)
}

// exchange lets two nodes swap all units that are free to move, if that costs no
// more than limit.
func (s *search) exchange(n, m int, free []int, limit, penalty float64, nowOver *float64) {
	if n == m {
		return
	}
	before := s.cost
	overBefore := over(s.use[n], s.p.Capacity[n]) + over(s.use[m], s.p.Capacity[m])
	flip := func() {
		for _, u := range free {
			switch s.at[u] {
			case n:
				s.put(u, m)
			case m:
				s.put(u, n)
			}
		}
	}
	flip()
	change := over(s.use[n], s.p.Capacity[n]) + over(s.use[m], s.p.Capacity[m]) - overBefore
	if s.cost-before+penalty*change > limit {
		flip()
		return
	}
	*nowOver += change
}
