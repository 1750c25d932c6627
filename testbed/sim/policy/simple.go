package policy

import (
	"math"

	"github.com/meridian-mesh/meridian/controller/price"
	"github.com/meridian-mesh/meridian/testbed/sim"
	"github.com/meridian-mesh/meridian/testbed/sim/optimum"
)

// none serves everybody at home.
type none struct{ base }

func (*none) Pick(_ int32, from int) int { return from }

// roundRobin takes home and the neighbours in turn, smoothly by capacity where
// that is asked for.
type roundRobin struct {
	base
	byCapacity bool
	places     [][]turn
	total      []float64
}

type turn struct {
	site           int
	weight, credit float64
}

func (p *roundRobin) Start(m *sim.Mesh) error {
	p.m = m
	p.places, p.total = make([][]turn, m.Len()), make([]float64, m.Len())
	for i := range p.places {
		add := func(j int) {
			w := 1.0
			if p.byCapacity {
				w = m.Site(j).CapacityPerS()
			}
			p.places[i] = append(p.places[i], turn{site: j, weight: w})
			p.total[i] += w
		}
		add(i)
		for _, j := range m.Nearest(i) {
			add(j)
		}
	}
	return nil
}

func (p *roundRobin) Pick(_ int32, from int) int {
	ts := p.places[from]
	best := 0
	for k := range ts {
		if ts[k].credit += ts[k].weight; ts[k].credit > ts[best].credit {
			best = k
		}
	}
	ts[best].credit -= p.total[from]
	return ts[best].site
}

// shortest knows every queue at this instant and joins the shortest expected
// delay: round trip, waiting and work.
type shortest struct{ base }

func (p *shortest) Pick(_ int32, from int) int {
	best, least := from, p.cost(from, from)
	for _, j := range p.m.Nearest(from) {
		if c := p.cost(from, j); c < least && !p.m.Cut(from, j) {
			best, least = j, c
		}
	}
	return best
}

func (p *shortest) cost(i, j int) float64 {
	_, service := p.m.Truth(j)
	c := p.m.Counters(j)
	return p.m.RTTMS(i, j) + service*math.Max(1, float64(c.InFlight+1)/c.Slots)
}

// solver keeps the optimum for what it is told.
type solver struct {
	curves price.Curves
	last   *optimum.Solution
}

// solve returns the optimum for these demands and service times; ways says
// whether a site can be reached.
func (s *solver) solve(m *sim.Mesh, demand, service []float64, way func(i, j int) bool, gap float64, rounds int) (*optimum.Solution, error) {
	n := m.Len()
	p := optimum.Problem{DemandPerS: demand, Queues: make([]price.Queue, n), RTTMS: make([][]float64, n)}
	for i := range n {
		q, err := s.curves.Queue(float64(m.Site(i).Slots), service[i])
		if err != nil {
			return nil, err
		}
		p.Queues[i] = q
		p.RTTMS[i] = make([]float64, n)
		for j := range n {
			p.RTTMS[i][j] = math.Inf(1)
		}
		p.RTTMS[i][i] = 0
		for _, j := range m.Nearest(i) {
			if way(i, j) {
				p.RTTMS[i][j] = m.RTTMS(i, j)
			}
		}
	}
	sol, err := optimum.Solve(p, s.last, gap, rounds)
	s.last = sol
	return sol, err
}

// optimal has the exact optimum's static weights, switched at the instant of
// every change, before anybody could know.
type optimal struct {
	weighted
	solver
	err error
}

func (p *optimal) Start(m *sim.Mesh) error {
	if err := p.weighted.Start(m); err != nil {
		return err
	}
	p.aim()
	if m.Scenario().Users != nil {
		m.After(1e9, kindStep, 0, 0)
	}
	return p.err
}

func (p *optimal) aim() {
	n := p.m.Len()
	demand, service := make([]float64, n), make([]float64, n)
	for i := range n {
		demand[i], service[i] = p.m.Truth(i)
	}
	sol, err := p.solve(p.m, demand, service, func(i, j int) bool { return !p.m.Cut(i, j) }, 1e-4, 400)
	if err != nil {
		p.err = err
		return
	}
	for i, row := range sol.PerS {
		p.split[i].set(i, row)
	}
}

func (p *optimal) Handle(kind uint8, _, _ int32) {
	p.aim()
	if kind == kindStep {
		p.m.After(1e9, kindStep, 0, 0)
	}
}

// slate solves for the optimum every few seconds from what was reported, for the
// whole mesh in one place, and pushes the weights (SLATE, NSDI 2026; with a price
// of nothing for bytes).
type slate struct {
	weighted
	solver
	reports
	periodS float64
}

func (p *slate) Start(m *sim.Mesh) error {
	if err := p.weighted.Start(m); err != nil {
		return err
	}
	p.start(m)
	m.After(1e9, kindStep, 0, 0)
	return nil
}

func (p *slate) Pick(r int32, from int) int { return p.weighted.Pick(r, from) }

func (p *slate) Handle(kind uint8, _, _ int32) {
	switch kind {
	case kindSample:
		p.sample()
	case kindStep:
		n := p.weighted.m.Len()
		demand, service := make([]float64, n), make([]float64, n)
		for i := range n {
			r := p.of(-1, i)
			demand[i], service[i] = r.demandPerS, math.Max(r.serviceMS, 0.01)
		}
		// A failure leaves the rules as they are, as a controller would.
		if sol, err := p.solve(p.weighted.m, demand, service, func(int, int) bool { return true }, 1e-3, 60); err == nil {
			for i, row := range sol.PerS {
				p.split[i].set(i, row)
			}
		}
		p.weighted.m.After(int64(p.periodS*1e9), kindStep, 0, 0)
	}
}
