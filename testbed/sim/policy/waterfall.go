package policy

import (
	"math"

	"github.com/meridian-mesh/meridian/testbed/sim"
)

// Waterfall fills every site with its own users' requests up to its target rate,
// then what is left of each into its nearest site that has room, and so on
// outwards (Google's WATERFALL_BY_REGION; Furusawa et al., LANMAN 2022). near[i]
// lists sites from i outwards without i. Where sites of the same rank compete the
// room is divided by what they have left. What is left over when all are full is
// spread by target. The result has rates.
func Waterfall(demand, target []float64, near [][]int) [][]float64 {
	n := len(demand)
	out, left, room := make([][]float64, n), make([]float64, n), make([]float64, n)
	ranks, total := 0, 0.0
	for i := range n {
		out[i] = make([]float64, n)
		out[i][i] = math.Min(demand[i], target[i])
		left[i], room[i] = demand[i]-out[i][i], target[i]-out[i][i]
		ranks = max(ranks, len(near[i]))
		total += target[i]
	}
	asked := make([]float64, n)
	for k := range ranks {
		clear(asked)
		for i := range n {
			if k < len(near[i]) {
				asked[near[i][k]] += left[i]
			}
		}
		for i := range n {
			if k >= len(near[i]) || left[i] <= 0 {
				continue
			}
			j := near[i][k]
			take := left[i] * math.Min(1, room[j]/asked[j])
			out[i][j] += take
			left[i] -= take
		}
		for j := range n {
			room[j] -= math.Min(asked[j], room[j])
		}
	}
	for i := range n {
		if left[i] <= 0 {
			continue
		}
		sum := target[i]
		for _, j := range near[i] {
			sum += target[j]
		}
		out[i][i] += left[i] * target[i] / sum
		for _, j := range near[i] {
			out[i][j] += left[i] * target[j] / sum
		}
	}
	return out
}

// waterfall is decided in one place from reports every half second, at the same
// utilisation target for every site. Deciding at every site by itself was tried:
// hot sites then swing against their own requests in late reports.
type waterfall struct {
	weighted
	reports
	target float64
}

func (p *waterfall) Start(m *sim.Mesh) error {
	if err := p.weighted.Start(m); err != nil {
		return err
	}
	p.start(m)
	m.After(publishNS, kindStep, 0, 0)
	return nil
}

func (p *waterfall) Pick(r int32, from int) int { return p.weighted.Pick(r, from) }

func (p *waterfall) Handle(kind uint8, _, _ int32) {
	if kind == kindSample {
		p.sample()
		return
	}
	if kind != kindStep {
		return
	}
	m := p.weighted.m
	n := m.Len()
	demand, target, near := make([]float64, n), make([]float64, n), make([][]int, n)
	for i := range n {
		r := p.of(-1, i)
		demand[i], near[i] = r.demandPerS, m.Nearest(i)
		target[i] = p.target * float64(m.Site(i).Slots) / math.Max(r.serviceMS, 0.01) * 1000
	}
	for i, row := range Waterfall(demand, target, near) {
		p.split[i].set(i, row)
	}
	m.After(publishNS, kindStep, 0, 0)
}
