package placement

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/meridian-mesh/meridian/scheduler/placement"
	"github.com/meridian-mesh/meridian/scheduler/traffic"
)

// Row is one rule's result over the cases.
type Row struct {
	Rule string
	// Ratio is the cost (traffic times delay) over that of the annealed placement,
	// mean over the cases, and Worst the largest.
	Ratio, Worst float64
	// CrossNode is the part of traffic that leaves its node.
	CrossNode float64
	// SequentialMS and ParallelMS are what delays add to a request.
	SequentialMS, ParallelMS float64
	// Overfull counts the cases in which a node is over its capacity.
	Overfull int
}

// Moves compares how many services move, from the default placement, for the gain
// that TraDE makes.
type Moves struct {
	// TraDE and Ours are means over the cases in which we reach TraDE's cost, of
	// which there are Reached.
	TraDE, Ours       float64
	Reached           int
	Fewer, Same, More int
}

// Result of [Compare].
type Result struct {
	Title string
	Cases int
	Rows  []Row
	Moves Moves
}

// Compare runs every rule on cases of a network made from seeds. delays gives the
// nodes for a seed.
func Compare(n *Network, delays func(seed uint64) (*traffic.Delays, error), seeds int) (*Result, error) {
	out := &Result{Title: n.Title, Cases: seeds, Rows: make([]Row, len(Rules))}
	for seed := range uint64(seeds) {
		d, err := delays(seed)
		if err != nil {
			return nil, err
		}
		c, err := NewCase(n, d, seed)
		if err != nil {
			return nil, err
		}
		start, err := Rules[0].Place(c, nil, seed)
		if err != nil {
			return nil, err
		}
		at := make([]placement.Assignment, len(Rules))
		costs := make([]placement.Cost, len(Rules))
		for i, r := range Rules {
			if at[i], err = r.Place(c, start, seed); err != nil {
				return nil, fmt.Errorf("%s: %w", r.Name, err)
			}
			if err := c.Problem.CheckAssignment(at[i]); err != nil {
				return nil, fmt.Errorf("%s: %w", r.Name, err)
			}
			costs[i] = c.Problem.Cost(at[i])
		}
		reference := costs[len(costs)-1].WireBytes
		total := 0.0
		for _, f := range c.Problem.Flows {
			total += f.Forward + f.Backward
		}
		for i := range Rules {
			row := &out.Rows[i]
			row.Rule = Rules[i].Name
			ratio := costs[i].WireBytes / math.Max(reference, 1e-9)
			_, nodes := c.Problem.CrossBytesPerS(at[i])
			seq, par := c.LatencyMS(at[i])
			row.Ratio += ratio / float64(seeds)
			row.Worst = math.Max(row.Worst, ratio)
			row.CrossNode += nodes / total / float64(seeds)
			row.SequentialMS += seq / float64(seeds)
			row.ParallelMS += par / float64(seeds)
			if costs[i].Over > 0 {
				row.Overfull++
			}
		}
		if err := out.Moves.add(c, start, at[trade], costs[trade], seed); err != nil {
			return nil, err
		}
	}
	m := &out.Moves
	m.TraDE /= math.Max(1, float64(m.Reached))
	m.Ours /= math.Max(1, float64(m.Reached))
	return out, nil
}

// trade is TraDE's place among the rules.
var trade = slices.IndexFunc(Rules, func(r Rule) bool { return r.From })

func (m *Moves) add(c *Case, start, theirs placement.Assignment, cost placement.Cost, seed uint64) error {
	r, ok, err := placement.Reach(c.Problem, start, cost.WireBytes, seed)
	if err != nil || !ok {
		return err
	}
	moved := 0
	for u := range start {
		if theirs[u] != start[u] {
			moved++
		}
	}
	m.Reached++
	m.TraDE += float64(moved)
	m.Ours += float64(r.Moves)
	switch {
	case r.Moves < moved:
		m.Fewer++
	case r.Moves == moved:
		m.Same++
	default:
		m.More++
	}
	return nil
}

// Markdown writes the table.
func (r *Result) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d cases:\n\n", r.Title, r.Cases)
	b.WriteString("| rule | cost / annealed | worst | leaves its node | one after another | all at once | cases over capacity |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	for _, x := range r.Rows {
		fmt.Fprintf(&b, "| %s | %.3f | %.3f | %.0f %% | %.1f ms | %.1f ms | %d |\n", x.Rule, x.Ratio, x.Worst, 100*x.CrossNode, x.SequentialMS, x.ParallelMS, x.Overfull)
	}
	m := r.Moves
	fmt.Fprintf(&b, "\nMoves from the default placement to TraDE's cost, in the %d cases where we reach it: TraDE %.1f, ours %.1f (fewer in %d, the same in %d, more in %d).\n",
		m.Reached, m.TraDE, m.Ours, m.Fewer, m.Same, m.More)
	return b.String()
}
