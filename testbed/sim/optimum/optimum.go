// Package optimum solves the load sharing problem exactly: where the requests of
// every site should be served so that the total delay of all is least.
//
// The problem is convex (Gallager 1977; reference: Kelly, "Network routing",
// 1991): minimise the sum over sites i and j of x_ij*(RTT_ij + S_j(L_j)), where
// L_j is the sum of x_ij over i, the sum of x_ij over j is the demand of i, and
// L*S(L) of an M/M/c queue is convex. At the optimum RTT_ij + m_j is the same for
// every j that serves requests of i, and no less for any other, with m_j the
// derivative of L_j*S_j (controller/price).
//
// [Solve] goes round the sites and gives each its exact best answer to the others
// (block coordinate descent), until the duality gap is small. It is pure.
package optimum

import (
	"fmt"
	"math"

	"github.com/meridian-mesh/meridian/controller/price"
)

// Problem is a mesh at one moment. All slices have one entry for each site.
type Problem struct {
	// DemandPerS is the rate of requests of each site's own users.
	DemandPerS []float64
	Queues     []price.Queue
	// RTTMS[i][j] is the round trip from i to j in ms; +Inf where there is no way.
	// The way to oneself must be finite.
	RTTMS [][]float64
}

// Solution is a division of every site's demand.
type Solution struct {
	// PerS[i][j] is the rate that site i sends to site j.
	PerS [][]float64
	// LoadPerS is what each site serves.
	LoadPerS []float64
	// MeanMS is the mean delay of a request, round trip and waiting included; past
	// a utilisation of 0.995 waiting is reckoned as there.
	MeanMS float64
	// Gap bounds how far the total cost can be above the least one, as a part of
	// it: sum of x_ij times (its marginal cost less the least of i).
	Gap float64
	// Rounds is how often the solver went round.
	Rounds int
	// Overload says that demand that has to be served somewhere is above 0.995 of
	// the capacity that it can reach, so that delays have no finite mean.
	Overload bool
}

// Precision is the duality gap that small meshes reach in tens of rounds.
const Precision = 1e-6

// Solve returns a solution whose duality gap is at most most (Precision, for
// instance), or the best after so many rounds, with its Gap. start is a solution to begin with, such as that of the moment before;
// nil begins with everybody at home. It is an error when a number is impossible.
func Solve(p Problem, start *Solution, most float64, rounds int) (*Solution, error) {
	n := len(p.DemandPerS)
	if err := p.check(); err != nil {
		return nil, err
	}
	s := &Solution{PerS: make([][]float64, n), LoadPerS: make([]float64, n)}
	for i := range n {
		s.PerS[i] = make([]float64, n)
		given := 0.0
		if start != nil && len(start.PerS) == n {
			for j, x := range start.PerS[i] {
				if !math.IsInf(p.RTTMS[i][j], 1) {
					s.PerS[i][j] = x
					given += x
				}
			}
		}
		if given > 0 {
			for j := range s.PerS[i] {
				s.PerS[i][j] *= p.DemandPerS[i] / given
			}
		} else {
			s.PerS[i][i] = p.DemandPerS[i]
		}
		for j, x := range s.PerS[i] {
			s.LoadPerS[j] += x
		}
	}
	fill := filler{p: &p, base: make([]float64, n), order: make([]int, n)}
	for s.Rounds = 1; s.Rounds <= rounds; s.Rounds++ {
		for i := range n {
			fill.site(s, i)
		}
		if s.Gap = gap(&p, s); s.Gap <= most {
			break
		}
	}
	s.Rounds = min(s.Rounds, rounds)
	total, sum := 0.0, 0.0
	for i, row := range s.PerS {
		for j, x := range row {
			if x > 0 {
				sum += x * (p.RTTMS[i][j] + p.Queues[j].SojournMS(s.LoadPerS[j]))
				total += x
			}
		}
		if s.LoadPerS[i] > 0.995*p.Queues[i].CapacityPerS() {
			s.Overload = true
		}
	}
	if total > 0 {
		s.MeanMS = sum / total
	}
	return s, nil
}

func (p *Problem) check() error {
	n := len(p.DemandPerS)
	if len(p.Queues) != n || len(p.RTTMS) != n {
		return fmt.Errorf("%d demands, %d queues and %d rows of round trips: want as many of each", n, len(p.Queues), len(p.RTTMS))
	}
	for i, d := range p.DemandPerS {
		if !(d >= 0) || math.IsInf(d, 1) {
			return fmt.Errorf("site %d: demand %v requests per second", i, d)
		}
		if len(p.RTTMS[i]) != n {
			return fmt.Errorf("site %d: %d round trips, want %d", i, len(p.RTTMS[i]), n)
		}
		for j, r := range p.RTTMS[i] {
			if !(r >= 0) || i == j && math.IsInf(r, 1) {
				return fmt.Errorf("round trip from site %d to site %d is %v ms", i, j, r)
			}
		}
		if !(p.Queues[i].CapacityPerS() > 0) {
			return fmt.Errorf("site %d has no queue", i)
		}
	}
	return nil
}

// filler gives one site its best answer; its slices are reused.
type filler struct {
	p     *Problem
	base  []float64 // cost of the first request there
	order []int
}

// site water-fills the demand of site i over what the others send.
func (f *filler) site(s *Solution, i int) {
	demand, row := f.p.DemandPerS[i], s.PerS[i]
	if demand == 0 {
		return
	}
	lo, hi := math.Inf(1), math.Inf(1)
	options := f.order[:0]
	for j := range row {
		if math.IsInf(f.p.RTTMS[i][j], 1) {
			continue
		}
		q := f.p.Queues[j]
		s.LoadPerS[j] = math.Max(0, s.LoadPerS[j]-row[j])
		f.base[j] = f.p.RTTMS[i][j] + q.MarginalMS(s.LoadPerS[j])
		lo = math.Min(lo, f.base[j])
		// Alone at j everything costs this much, so the level is no higher.
		hi = math.Min(hi, f.p.RTTMS[i][j]+q.MarginalMS(s.LoadPerS[j]+demand))
		options = append(options, j)
	}
	few := options[:0]
	for _, j := range options {
		if f.base[j] < hi {
			few = append(few, j)
		} else {
			row[j] = 0
		}
	}
	amount := func(level float64) float64 {
		sum := 0.0
		for _, j := range few {
			row[j] = 0
			if level > f.base[j] {
				row[j] = math.Max(0, f.p.Queues[j].RatePerS(level-f.p.RTTMS[i][j])-s.LoadPerS[j])
				sum += row[j]
			}
		}
		return sum
	}
	for range 52 {
		if mid := (lo + hi) / 2; amount(mid) < demand {
			lo = mid
		} else {
			hi = mid
		}
	}
	sum := amount(hi)
	if sum == 0 { // one option, at a level that rounding lost
		for _, j := range few {
			row[j] = 1
		}
		sum = float64(len(few))
	}
	for _, j := range few {
		row[j] *= demand / sum
		s.LoadPerS[j] += row[j]
	}
}

// gap is the Frank-Wolfe gap as a part of the total cost.
func gap(p *Problem, s *Solution) float64 {
	marginal := make([]float64, len(p.Queues))
	for j := range marginal {
		marginal[j] = p.Queues[j].MarginalMS(s.LoadPerS[j])
	}
	over, cost := 0.0, 0.0
	for i, row := range s.PerS {
		least := math.Inf(1)
		for j := range row {
			least = math.Min(least, p.RTTMS[i][j]+marginal[j])
		}
		for j, x := range row {
			if x > 0 {
				over += x * (p.RTTMS[i][j] + marginal[j] - least)
				cost += x * (p.RTTMS[i][j] + p.Queues[j].SojournMS(s.LoadPerS[j]))
			}
		}
	}
	if cost == 0 {
		return 0
	}
	return over / cost
}
