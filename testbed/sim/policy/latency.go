package policy

import (
	"math"

	"github.com/meridian-mesh/meridian/testbed/sim"
)

// peakTau is the decay of a peak EWMA, s.
const peakTau = 10.0

// PeakEWMA is a latency that a slower sample replaces at once and faster ones pull
// down slowly (Finagle, tower, brpc).
type PeakEWMA struct {
	MS   float64
	atNS int64
}

// Add takes a sample.
func (e *PeakEWMA) Add(nowNS int64, ms float64) {
	if ms > e.MS {
		e.MS = ms
	} else {
		e.MS += -math.Expm1(-float64(nowNS-e.atNS)/1e9/peakTau) * (ms - e.MS)
	}
	e.atNS = nowNS
}

// way is what one site sees of another by its own requests.
type way struct {
	ewma        PeakEWMA
	outstanding int
}

// ways keeps them for policies that balance by latency.
type ways struct {
	base
	at [][]way
}

func (p *ways) Start(m *sim.Mesh) error {
	p.m = m
	p.at = make([][]way, m.Len())
	for i := range p.at {
		p.at[i] = make([]way, m.Len())
		for j := range p.at[i] {
			// Known beforehand, so that nobody pays for a first look.
			p.at[i][j].ewma = PeakEWMA{m.RTTMS(i, j) + m.Site(j).ServiceMS, m.NowNS()}
		}
	}
	return nil
}

func (p *ways) Answered(r int32, _ bool) {
	q := p.m.Request(r)
	w := &p.at[q.From][q.To]
	w.outstanding--
	w.ewma.Add(p.m.NowNS(), float64(p.m.NowNS()-q.BornNS)/1e6)
}

// cost is the peak EWMA rule's: latency times what is under way, by capacity.
func (p *ways) cost(i, j int) float64 {
	w := &p.at[i][j]
	return w.ewma.MS * float64(w.outstanding+1) / float64(p.m.Site(j).Slots)
}

// two draws two places among sites by capacity and takes the cheaper.
func (p *ways) two(from int, w *weights) int {
	a, b := w.draw(p.m.Rand().Float64()), w.draw(p.m.Rand().Float64())
	if p.cost(from, b) < p.cost(from, a) {
		a = b
	}
	p.at[from][a].outstanding++
	return a
}

// p2c is P2C with peak EWMA over home and all neighbours.
type p2c struct {
	ways
	split []weights
}

func (p *p2c) Start(m *sim.Mesh) error {
	if err := p.ways.Start(m); err != nil {
		return err
	}
	p.split = make([]weights, m.Len())
	for i := range p.split {
		row := make([]float64, m.Len())
		row[i] = float64(m.Site(i).Slots)
		for _, j := range m.Nearest(i) {
			row[j] = float64(m.Site(j).Slots)
		}
		p.split[i].set(i, row)
	}
	return nil
}

func (p *p2c) Pick(_ int32, from int) int { return p.two(from, &p.split[from]) }

// HAZL's band of load per endpoint, as documented.
const (
	hazlHigh, hazlLow = 2.0, 0.8
)

// HAZLZones is how many zones are used next: one more when the load per endpoint
// (latency times throughput, which is the number under way) is above the band, one
// fewer when it is below, never fewer than the own.
func HAZLZones(zones, most int, load float64) int {
	switch {
	case load > hazlHigh && zones < most:
		return zones + 1
	case load < hazlLow && zones > 1:
		return zones - 1
	}
	return zones
}

// hazl is Linkerd's high-availability zonal load balancing: P2C over the own zone
// and as many others, the nearest first, as its load asks for. Looked at every second.
type hazl struct {
	ways
	zones []int
	load  []float64
	split []weights
}

func (p *hazl) Start(m *sim.Mesh) error {
	if err := p.ways.Start(m); err != nil {
		return err
	}
	p.zones, p.split, p.load = make([]int, m.Len()), make([]weights, m.Len()), make([]float64, m.Len())
	for i := range p.zones {
		p.zones[i] = 1
		p.use(i)
	}
	m.After(sampleNS, kindSample, 0, 0)
	m.After(1e9, kindStep, 0, 0)
	return nil
}

func (p *hazl) places(i int) []int { return append([]int{i}, p.m.Nearest(i)[:p.zones[i]-1]...) }

func (p *hazl) use(i int) {
	row := make([]float64, p.m.Len())
	for _, j := range p.places(i) {
		row[j] = float64(p.m.Site(j).Slots)
	}
	p.split[i].set(i, row)
}

func (p *hazl) Pick(_ int32, from int) int { return p.two(from, &p.split[from]) }

func (p *hazl) Handle(kind uint8, _, _ int32) {
	switch kind {
	case kindSample:
		for i := range p.zones {
			under, slots := 0, 0
			for _, j := range p.places(i) {
				under += p.at[i][j].outstanding
				slots += p.m.Site(j).Slots
			}
			p.load[i] += 0.1 * (float64(under)/float64(slots) - p.load[i]) // over a second
		}
		p.m.After(sampleNS, kindSample, 0, 0)
	case kindStep:
		for i := range p.zones {
			if n := HAZLZones(p.zones[i], 1+len(p.m.Nearest(i)), p.load[i]); n != p.zones[i] {
				p.zones[i] = n
				p.use(i)
			}
		}
		p.m.After(1e9, kindStep, 0, 0)
	}
}
