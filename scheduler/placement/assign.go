package placement

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// Options of [Assign].
type Options struct {
	// Seed decides the restarts; the same seed gives the same assignment.
	Seed uint64
	// Steps of annealing after the first descent; 0 chooses by the problem's size so
	// that 30 units on 50 nodes take a few milliseconds, and a negative number means
	// none.
	Steps int
	// MoveCosts is what each unit costs that leaves its node, in bytes on the wire;
	// nil means nothing.
	MoveCosts []float64
}

// Result is an assignment and what it took.
type Result struct {
	At Assignment
	// Cost does not hold the cost of moves.
	Cost Cost
	// Moves counts the units that had a place and have another.
	Moves int
}

// How many steps are chosen by size: fewer where each costs more, some for each pair
// of unit and node, and so many at most. Temperatures are parts of a unit's typical
// cost. Tuned on the measured social network and generated graphs (testbed/sim/placement).
const (
	stepNodes  = 13_000_000
	smallSteps = 400_000
	stepsEach  = 40
	mostSteps  = 6_000_000
	hotShare   = 1
	coldShare  = 1e-3
)

func (o Options) steps(units, nodes int) int {
	if o.Steps != 0 {
		return o.Steps
	}
	few := min(smallSteps, int(stepNodes/math.Pow(float64(nodes+1), 1.5)))
	return min(max(few, stepsEach*units*nodes), mostSteps)
}

// Assign places all units: those of current that have no node, and those that
// have one where moving them is worth [Options.MoveCosts]. Pinned units stay. A node
// is over its capacity afterwards only when nothing that the search tries fits;
// [Result.Cost] tells.
func Assign(p *Problem, current Assignment, o Options) (*Result, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	if err := p.CheckAssignment(current); err != nil {
		return nil, err
	}
	if o.MoveCosts != nil && len(o.MoveCosts) != len(p.Units) {
		return nil, fmt.Errorf("placement: %d units but %d costs of moves", len(p.Units), len(o.MoveCosts))
	}
	s := newSearch(p, current, o.MoveCosts)
	return s.run(current, o), nil
}

func (s *search) run(current Assignment, o Options) *Result {
	rounds := 50
	s.set(current)
	s.greedy()
	s.descend(rounds)
	best, bestCost := append(Assignment(nil), s.at...), s.value()
	keep := func() {
		if s.value().Less(bestCost) {
			copy(best, s.at)
			bestCost = s.value()
		}
	}
	// From nothing the greedy order may lead elsewhere than from what runs.
	fresh := make(Assignment, len(current))
	placed := false
	for u := range current {
		fresh[u] = Unplaced
		if s.p.Units[u].Pinned {
			fresh[u] = current[u]
		} else if current[u] >= 0 {
			placed = true
		}
	}
	if placed {
		s.set(fresh)
		s.greedy()
		s.descend(rounds)
		keep()
	}
	s.set(best)
	if steps := o.steps(len(s.at), s.nodes); steps > 0 {
		rng := rand.New(rand.NewPCG(o.Seed, 0x6d657269))
		// From about what a unit costs anywhere down to what does not matter.
		hot := s.typical()
		s.anneal(rng, steps, hot*hotShare, hot*coldShare)
		s.descend(rounds)
		keep()
	}
	r := &Result{At: best, Cost: s.p.Cost(best)}
	for u := range best {
		if current[u] >= 0 && best[u] != current[u] {
			r.Moves++
		}
	}
	return r
}
