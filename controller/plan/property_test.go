package plan

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/price"
)

// Traffic is conserved, what is fenced gets nothing, and no link gets more than its
// greatest rate, while demand, loads and bounds change at random.
func TestTick_capsAndFences(t *testing.T) {
	curves := new(price.Curves)
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 5))
		p := New(svc, curves)
		in := Input{Slots: float64(1 + r.IntN(8)), ServiceMS: 5 + 30*r.Float64(), NoHome: seed%7 == 0}
		for k := range 1 + r.IntN(6) {
			o := Option{Site: fmt.Sprint("s", k), Slots: float64(1 + r.IntN(8)), ServiceMS: 5 + 30*r.Float64(), RTTMS: 1 + 30*r.Float64()}
			if r.IntN(2) == 0 {
				o.MaxPerS = 0.01 + 200*r.Float64()
			}
			if r.IntN(4) == 0 {
				o.Excluded = "fence"
			}
			in.Options = append(in.Options, o)
		}
		for tick := range 60 {
			if tick%10 == 0 {
				in.DemandPerS = 2000 * r.Float64() * r.Float64()
				for k := range in.Options {
					in.Options[k].ArrivalsPerS = 400 * r.Float64()
				}
			}
			w := p.Tick(1e9+int64(tick)*100e6, in)
			sum, bounded := w.HomeWeight, true
			for _, got := range w.Remotes {
				var o *Option
				for k := range in.Options {
					if in.Options[k].Site == got.Site {
						o = &in.Options[k]
					}
				}
				sum += got.Weight
				if o.Excluded != "" {
					if got.Weight != 0 || got.Draw != 0 || got.Excluded != "fence" {
						t.Fatalf("seed %d: a fenced site gets %+v", seed, got)
					}
					continue
				}
				bounded = bounded && o.MaxPerS > 0
				if most := o.MaxPerS; most > 0 && (got.Weight*in.DemandPerS > most*(1+1e-9) || got.Draw > most*(1+1e-9) || got.MaxRate != most) {
					t.Fatalf("seed %d: %s gets %v of %v requests/s, draw %v, at most %v", seed, got.Site, got.Weight*in.DemandPerS, in.DemandPerS, got.Draw, most)
				}
			}
			// Only where every way is bounded and nothing stays may a part be left.
			if math.Abs(sum-1) > 1e-9 && !(in.NoHome && bounded && sum < 1) {
				t.Fatalf("seed %d: shares sum to %v", seed, sum)
			}
		}
	}
}

func TestTick_shedLimit(t *testing.T) {
	p := New(svc, new(price.Curves))
	in := home(100, site("b", 10))
	if w := p.Tick(1e9, in); w.ShedLimit != 0 {
		t.Errorf("limit %d though nothing is to be shed", w.ShedLimit)
	}
	in.ShedAfterMS = 250
	want := int(math.Ceil(in.Slots * (1 + 250/in.ServiceMS)))
	if w := p.Tick(1.1e9, in); w.ShedLimit != want {
		t.Errorf("limit %d, want %d", w.ShedLimit, want)
	}
}

// A home that works slower than the others keeps next to nothing, one that is
// merely busy stays as the policy says.
func TestTick_slowHome(t *testing.T) {
	for _, k := range []struct {
		serviceMS float64
		most      int
	}{{10, 12}, {30, 1}} {
		p := New(svc, new(price.Curves))
		in := home(100, site("b", 100), site("c", 100))
		in.Slots, in.ServiceMS = 4, k.serviceMS
		var w mesh.ServiceWeights
		for i := range 20 {
			w = p.Tick(1e9+int64(i)*100e6, in)
		}
		if w.HomeLimit > k.most || k.most > 1 && w.HomeLimit < 4 {
			t.Errorf("service time %v ms: home limit %d, want at most %d", k.serviceMS, w.HomeLimit, k.most)
		}
	}
}

// When nobody is heard any more the last that was known stays in force, for a
// minute; a single site that falls silent is given up within seconds.
func TestTick_silence(t *testing.T) {
	p := New(svc, new(price.Curves))
	in := home(300, site("b", 10), site("c", 10))
	in.Slots, in.ServiceMS = 4, 10
	tick := func(i int) mesh.ServiceWeights { return p.Tick(1e9+int64(i)*100e6, in) }
	for i := range 50 {
		tick(i)
	}
	before := share(tick(50), "b").Weight
	for i := range 300 { // 30 s without any report
		for k := range in.Options {
			in.Options[k].AgeMS = float64(i) * 100
		}
		tick(51 + i)
	}
	if w := share(tick(400), "b"); w.Excluded != "" || math.Abs(w.Weight-before) > 0.1 {
		t.Errorf("after 30 s without any report b has %v (%q), had %v", w.Weight, w.Excluded, before)
	}
	in.Options[0].AgeMS, in.Options[1].AgeMS = 30_000, 100
	if w := share(tick(401), in.Options[0].Site); !strings.Contains(w.Excluded, "stale") {
		t.Errorf("the only silent one of two is %+v", w)
	}
	in.Options[0].AgeMS, in.Options[1].AgeMS = 80_000, 80_000
	if w := share(tick(402), "b"); !strings.Contains(w.Excluded, "stale") {
		t.Errorf("after 80 s without any report b is %+v", w)
	}
}

// fluid is a mesh of planners whose requests are rates: no gate, no noise. Reports
// come late by delay periods.
type fluid struct {
	planners  []*Planner
	slots, ms []float64
	demand    []float64
	rtt       [][]float64
	share     [][]float64 // by site and place
	past      []report
	delayMS   float64
	inBand    bool
}

type report struct {
	arrivals []float64
	from     [][]float64
}

func (f *fluid) tick(now int) {
	n := len(f.planners)
	r := report{arrivals: make([]float64, n), from: make([][]float64, n)}
	for j := range n {
		r.from[j] = make([]float64, n)
		for i := range n {
			x := f.share[i][j] * f.demand[i]
			r.from[j][i] = x
			r.arrivals[j] += x
		}
	}
	f.past = append(f.past, r)
	every := 5 // ticks between reports
	if f.inBand {
		every = 1
	}
	for i := range n {
		last := (now - int(f.delayMS/100)) / every * every
		age := float64(now-last) * 100
		old := f.past[max(0, last)]
		in := Input{DemandPerS: f.demand[i], Slots: f.slots[i], ServiceMS: f.ms[i], OthersPerS: r.arrivals[i] - r.from[i][i]}
		for j := range n {
			if j == i {
				continue
			}
			spillers := 0
			for k := range n {
				if k != j && old.from[j][k] > 0.01*f.demand[k] {
					spillers++
				}
			}
			in.Options = append(in.Options, Option{
				Site: fmt.Sprint(j), Slots: f.slots[j], ServiceMS: f.ms[j], ArrivalsPerS: old.arrivals[j], FromUsPerS: old.from[j][i],
				Spillers: spillers, AgeMS: age, UsualMS: f.delayMS, InBand: f.inBand, RTTMS: f.rtt[i][j],
			})
		}
		w := f.planners[i].Tick(int64(now+10)*100e6, in)
		f.share[i][i] = w.HomeWeight
		for _, o := range w.Remotes {
			var j int
			fmt.Sscan(o.Site, &j)
			f.share[i][j] = o.Weight
		}
	}
}

// cost is the mean delay in ms of shares as in history.
func (f *fluid) cost(curves *price.Curves, share []float64) float64 {
	n := len(f.planners)
	load, sum, total := make([]float64, n), 0.0, 0.0
	for i := range n {
		for j := range n {
			load[j] += share[i*n+j] * f.demand[i]
		}
	}
	for i := range n {
		for j := range n {
			q, err := curves.Queue(f.slots[j], f.ms[j])
			if err != nil {
				panic(err)
			}
			x := share[i*n+j] * f.demand[i]
			delay := q.SojournMS(load[j])
			if load[j] > 0.98*q.CapacityPerS() {
				delay = 1000 // a queue grows there
			}
			sum += x * (f.rtt[i][j] + delay)
			total += x
		}
	}
	return sum / total
}

// From any start, for reports up to 5 periods late, plans settle within 2 s (in
// band) or 4 s (bus only): what they cost is within a tenth of where it stays, and
// no share turns by over 5 points once what everybody did has come round again.
func TestPlans_convergeFromAnyStart(t *testing.T) {
	curves := new(price.Curves)
	for _, delay := range []float64{-1, 0, 1, 3, 5} {
		late, turned, worst := 0, 0, 0.0
		const networks = 40
		for seed := range uint64(networks) {
			r := rand.New(rand.NewPCG(seed, 11))
			n := 2 + r.IntN(5)
			f := &fluid{delayMS: math.Max(0, delay) * periodMS, inBand: delay < 0}
			for i := range n {
				f.planners = append(f.planners, New(svc, curves))
				f.slots, f.ms = append(f.slots, float64(1+r.IntN(8))), append(f.ms, 5+20*r.Float64())
				f.demand = append(f.demand, (0.1+0.5*r.Float64())*f.slots[i]/f.ms[i]*1000)
				f.share = append(f.share, make([]float64, n))
				f.rtt = append(f.rtt, make([]float64, n))
				for j := range i {
					f.rtt[i][j] = 1 + 24*r.Float64()
					f.rtt[j][i] = f.rtt[i][j]
				}
			}
			for i := range n { // any start
				sum := 0.0
				for j := range n {
					f.share[i][j] = r.ExpFloat64()
					sum += f.share[i][j]
				}
				p := f.planners[i]
				for j := range n {
					f.share[i][j] /= sum
					if j == i {
						p.home = f.share[i][j]
					} else {
						p.share[fmt.Sprint(j)] = f.share[i][j]
					}
				}
			}
			hot := r.IntN(n)
			f.demand[hot] *= 1 + 2*r.Float64()
			total, capacity := 0.0, 0.0
			for i := range n {
				total += f.demand[i]
				capacity += f.slots[i] / f.ms[i] * 1000
			}
			if total > 0.85*capacity {
				continue // nothing settles where everything is full
			}
			settleTicks := 20
			if delay >= 0 {
				settleTicks = 40
			}
			const end = 300
			history := make([][]float64, 0, end)
			for now := range end {
				f.tick(now)
				row := make([]float64, 0, n*n)
				for i := range n {
					row = append(row, f.share[i]...)
				}
				history = append(history, row)
			}
			if x := f.cost(curves, history[settleTicks]) / f.cost(curves, history[end-1]); x > 1.1 {
				late++
				worst = math.Max(worst, x)
			}
			for k := range history[0] {
				xs := make([]float64, 0, end)
				for _, row := range history[settleTicks+2*int(f.delayMS/100):] {
					xs = append(xs, row[k])
				}
				turned += turns(xs, 0.05)
			}
		}
		if late > 0 || turned > 0 {
			t.Errorf("report delay %v: %d of %d networks not settled in time (worst at %.2f), %d turns by over 5 points afterwards", delay, late, networks, worst, turned)
		}
	}
}

// turns counts opposite moves, each of at least by.
func turns(xs []float64, by float64) int {
	count, trend, low, high := 0, 0, xs[0], xs[0]
	for _, x := range xs {
		low, high = math.Min(low, x), math.Max(high, x)
		switch {
		case high-x >= by && trend >= 0:
			if trend > 0 {
				count++
			}
			trend, low, high = -1, x, x
		case x-low >= by && trend <= 0:
			if trend < 0 {
				count++
			}
			trend, low, high = 1, x, x
		}
		if trend > 0 {
			low = x
		} else if trend < 0 {
			high = x
		}
	}
	return count
}

// fill against plain halving.
func TestFill_againstBisection(t *testing.T) {
	curves := new(price.Curves)
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 3))
		all := make([]candidate, 1+r.IntN(12))
		total := 0.0
		for k := range all {
			q, err := curves.Queue(float64(1+r.IntN(16)), 1+50*r.Float64())
			if err != nil {
				t.Fatal(err)
			}
			all[k] = candidate{Queue: q, costMS: 40 * r.Float64(), others: 1.2 * q.CapacityPerS() * r.Float64(), most: math.Inf(1)}
			if r.IntN(4) == 0 {
				all[k].most = 50 * r.Float64()
			}
			total += q.CapacityPerS()
		}
		all[0].most = math.Inf(1)
		perS := total * math.Pow(10, -4+4.5*r.Float64())
		fill(all, perS)
		lo, hi := 0.0, 1e12
		for range 200 {
			mid, sum := (lo+hi)/2, 0.0
			for k := range all {
				sum += clamp(all[k].RatePerS(mid-all[k].costMS)-all[k].others, 0, all[k].most)
			}
			if sum < perS {
				lo = mid
			} else {
				hi = mid
			}
		}
		// Where a price is flat the amount jumps, and what is too much is scaled down.
		got, scale := 0.0, 0.0
		for k := range all {
			scale += clamp(all[k].RatePerS(hi-all[k].costMS)-all[k].others, 0, all[k].most) / perS
		}
		for k := range all {
			want := clamp(all[k].RatePerS(hi-all[k].costMS)-all[k].others, 0, all[k].most) / scale
			if got += all[k].fill; math.Abs(all[k].fill-want) > 1e-4*perS+1e-6 {
				t.Errorf("seed %d: candidate %d of %d gets %v of %v, want %v", seed, k, len(all), all[k].fill, perS, want)
			}
		}
		if math.Abs(got-perS) > 1e-6*perS {
			t.Errorf("seed %d: %v of %v given", seed, got, perS)
		}
	}
}
