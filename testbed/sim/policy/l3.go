package policy

import (
	"math"

	"github.com/meridian-mesh/meridian/testbed/sim"
)

// L3's constants, as published with its code.
const (
	l3FastTau, l3SlowTau = 5.0, 10.0 // s: latency and in flight; success and rate
	l3StartS, l3StartIn  = 5.0, 100.0
	l3FailureS           = 1.0
)

// L3Weight is L3's weight of a backend before rate control: p99 in seconds,
// success as a part, inflight and perS as smoothed.
func L3Weight(p99S, success, inflight, perS float64) float64 {
	l := p99S
	if success < 1 {
		l += l3FailureS * (1/math.Max(success, 1e-3) - 1)
	}
	q := inflight/math.Max(perS, 1e-9) + 1
	return math.Max(1, 100/(q*q*l))
}

// L3Rate is L3's rate control: weights come together as the rate rises by the part
// r and move apart as it falls. mean is the mean weight. The exponent is 1, as in
// the code that was measured (3/2 in whole numbers), not the 1.5 of the paper.
func L3Rate(w, mean, r float64) float64 {
	switch {
	case r > 0:
		f := 1 + r*r
		return mean - mean/f + w/f
	case w <= mean:
		return w / (1 + 4*r*r)
	default:
		return 2*w - mean - (w-mean)/(1+9*r*r)
	}
}

// l3 computes weights every second from what each site saw of the others.
type l3 struct {
	weighted
	seen [][]l3way
	rate []l3rate
}

type l3way struct {
	hist             [90]float64 // of latencies, by factors of 1.1 from 1 ms, fading
	sent, done, lost float64
	outstanding      int
	p99, inflight    float64
	success, perS    float64
}

type l3rate struct{ count, ewma float64 }

func (p *l3) Start(m *sim.Mesh) error {
	if err := p.weighted.Start(m); err != nil {
		return err
	}
	p.seen, p.rate = make([][]l3way, m.Len()), make([]l3rate, m.Len())
	for i := range p.seen {
		p.seen[i] = make([]l3way, m.Len())
		row := make([]float64, m.Len())
		for _, j := range append([]int{i}, m.Nearest(i)...) {
			p.seen[i][j] = l3way{p99: l3StartS, inflight: l3StartIn, success: 1}
			row[j] = 1
		}
		p.split[i].set(i, row)
	}
	m.After(1e9, kindStep, 0, 0)
	return nil
}

func (p *l3) Pick(r int32, from int) int {
	to := p.weighted.Pick(r, from)
	w := &p.seen[from][to]
	w.sent++
	w.outstanding++
	p.rate[from].count++
	return to
}

func (p *l3) Answered(r int32, lost bool) {
	q := p.m.Request(r)
	w := &p.seen[q.From][q.To]
	w.outstanding--
	w.done++
	ms := float64(p.m.NowNS()-q.BornNS) / 1e6
	if lost || q.Dropped() || ms > p.m.Scenario().DeadlineMS {
		w.lost++
		return
	}
	w.hist[min(max(int(math.Log(math.Max(ms, 1))/math.Log(1.1)), 0), len(w.hist)-1)]++
}

func (p *l3) Handle(kind uint8, _, _ int32) {
	if kind != kindStep {
		return
	}
	fast, slow := -math.Expm1(-1/l3FastTau), -math.Expm1(-1/l3SlowTau)
	for i := range p.seen {
		sites := append([]int{i}, p.m.Nearest(i)...)
		row := make([]float64, p.m.Len())
		mean := 0.0
		for _, j := range sites {
			w := &p.seen[i][j]
			w.step(fast, slow)
			row[j] = L3Weight(w.p99, w.success, w.inflight, w.perS)
			mean += row[j] / float64(len(sites))
		}
		rate := &p.rate[i]
		r := 0.0
		if rate.ewma > 0 {
			r = (rate.count - rate.ewma) / rate.ewma
		}
		for _, j := range sites {
			row[j] = math.Max(1, L3Rate(row[j], mean, r))
		}
		rate.ewma += slow * (rate.count - rate.ewma)
		rate.count = 0
		p.split[i].set(i, row)
	}
	p.m.After(1e9, kindStep, 0, 0)
}

// step takes in one second's counts.
func (w *l3way) step(fast, slow float64) {
	total := 0.0
	for _, n := range w.hist {
		total += n
	}
	if total > 0 {
		sum, at := 0.0, 0
		for k, n := range w.hist {
			if sum += n; sum >= 0.99*total {
				at = k
				break
			}
		}
		w.p99 += fast * (math.Pow(1.1, float64(at)+0.5)/1000 - w.p99)
	}
	for k := range w.hist {
		w.hist[k] *= 1 - fast
	}
	w.inflight += fast * (float64(w.outstanding) - w.inflight)
	w.perS += slow * (w.sent - w.perS)
	if w.done > 0 {
		w.success += slow * ((w.done-w.lost)/w.done - w.success)
	}
	w.sent, w.done, w.lost = 0, 0, 0
}
