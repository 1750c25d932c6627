package policy

import (
	"github.com/meridian-mesh/meridian/controller/price"
	"github.com/meridian-mesh/meridian/testbed/sim"
)

// base is a policy that needs to hear of nothing.
type base struct{ m *sim.Mesh }

func (b *base) Start(m *sim.Mesh) error { b.m = m; return nil }

func (*base) Left(int32)                 {}
func (*base) Answered(int32, bool)       {}
func (*base) Handle(uint8, int32, int32) {}

// weights are a division of one site's requests, drawn at random.
type weights struct {
	to  []int32
	sum []float64
}

func (w *weights) set(i int, row []float64) {
	w.to, w.sum = w.to[:0], w.sum[:0]
	total := 0.0
	for j, x := range row {
		if x > 0 {
			total += x
			w.to, w.sum = append(w.to, int32(j)), append(w.sum, total)
		}
	}
	if total == 0 {
		w.to, w.sum = append(w.to, int32(i)), append(w.sum, 1)
	}
}

func (w *weights) draw(unit float64) int {
	x := unit * w.sum[len(w.sum)-1]
	for k, s := range w.sum {
		if x < s {
			return int(w.to[k])
		}
	}
	return int(w.to[len(w.to)-1])
}

// weighted is a policy of random splits; what embeds it writes the rows.
type weighted struct {
	base
	split []weights
}

func (w *weighted) Start(m *sim.Mesh) error {
	w.m = m
	w.split = make([]weights, m.Len())
	for i := range w.split {
		w.split[i].set(i, nil)
	}
	return nil
}

func (w *weighted) Pick(_ int32, from int) int { return w.split[from].draw(w.m.Rand().Float64()) }

// report is what a site says of itself.
type report struct {
	atNS                            int64
	demandPerS, loadPerS, serviceMS float64
	utilisation                     float64
	ownPerS                         float64 // of load
}

// reports are what baselines know of sites: the product's estimators, published
// every 500 ms, as late as the product's over the bus.
type reports struct {
	delay   float64
	m       *sim.Mesh
	sites   []reporter
	samples int
}

type reporter struct {
	demand, load, others price.Rate
	service              price.ServiceTime
	lastDemand, lastLoad uint64
	lastOthers, lastFree uint64
	lastFlight           int
	lastDone, lastUnq    uint64
	sumMS, sqMS          float64
	busy, looks          float64
	past                 [64]report
	next                 int
}

// kinds of events.
const (
	kindSample = sim.KindFirst + iota
	kindTick
	kindPublish
	kindProbe
	kindProbed
	kindProbeBack
	kindDeliver
	kindStep
)

const (
	sampleNS  = 100e6
	publishNS = 500e6
)

func (r *reports) start(m *sim.Mesh) {
	r.m = m
	r.sites = make([]reporter, m.Len())
	for i := range r.sites {
		s := &r.sites[i]
		s.service = price.NewServiceTime(m.Site(i).ServiceMS)
		demand, _ := m.Truth(i)
		s.past[0] = report{atNS: 0, demandPerS: demand, loadPerS: demand, ownPerS: demand, serviceMS: m.Site(i).ServiceMS}
		s.next = 1
		s.demand.Observe(m.NowNS(), 0)
		s.load.Observe(m.NowNS(), 0)
		s.others.Observe(m.NowNS(), 0)
	}
	m.After(sampleNS, kindSample, 0, 0)
}

// sample looks at every site's counters; every fifth time they report.
func (r *reports) sample() {
	now := r.m.NowNS()
	r.samples++
	for i := range r.sites {
		s, c := &r.sites[i], r.m.Counters(i)
		var others uint64
		for _, n := range c.From {
			others += n
		}
		s.demand.Observe(now, float64(c.Demand-s.lastDemand))
		s.load.Observe(now, float64(c.Served-s.lastLoad))
		s.others.Observe(now, float64(others-s.lastOthers))
		full := c.FreeStarts == s.lastFree && float64(min(c.InFlight, s.lastFlight)) >= c.Slots
		if full {
			s.service.ObserveFull(c.Slots, sampleNS/1e6, c.Completed-s.lastDone)
		} else {
			s.service.Observe(c.Unqueued-s.lastUnq, c.UnqueuedMS-s.sumMS, c.UnqueuedSqMS-s.sqMS)
		}
		s.lastDemand, s.lastLoad, s.lastOthers, s.lastFree = c.Demand, c.Served, others, c.FreeStarts
		s.lastFlight, s.lastDone, s.lastUnq, s.sumMS, s.sqMS = c.InFlight, c.Completed, c.Unqueued, c.UnqueuedMS, c.UnqueuedSqMS
		s.busy += min(1, float64(c.InFlight)/c.Slots)
		s.looks++
		if r.samples%5 == 0 && !r.m.BusDown() {
			s.past[s.next%len(s.past)] = report{now, s.demand.PerS(), s.load.PerS(), s.service.MS(), s.busy / s.looks, s.load.PerS() - s.others.PerS()}
			s.next++
			s.busy, s.looks = 0, 0
		}
	}
	r.m.After(sampleNS, kindSample, 0, 0)
}

// of is the youngest report of site j that site i has; its own is never late. An i
// below zero is the middle of the mesh, at no distance.
func (r *reports) of(i, j int) *report {
	s := &r.sites[j]
	until := r.m.NowNS()
	if i != j {
		until -= int64(r.delay * publishNS)
		if i >= 0 {
			until -= r.m.HalfNS(j, i)
		}
	}
	for k := s.next - 1; k > s.next-len(s.past) && k > 0; k-- {
		if p := &s.past[k%len(s.past)]; p.atNS <= until {
			return p
		}
	}
	return &s.past[max(0, s.next-len(s.past))%len(s.past)]
}
