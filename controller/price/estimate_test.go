package price

import (
	"math"
	"math/rand/v2"
	"testing"
)

const tickNS = 100e6

// poisson draws a count of the given mean.
func poisson(r *rand.Rand, mean float64) float64 {
	if mean > 500 {
		return math.Max(0, math.Round(mean+math.Sqrt(mean)*r.NormFloat64()))
	}
	n, p, limit := 0.0, r.Float64(), math.Exp(-mean)
	for ; p > limit; n++ {
		p *= r.Float64()
	}
	return n
}

func TestRate_noiseRarelySnaps(t *testing.T) {
	const ticks = 20000 // 2,000 s
	for _, perS := range []float64{1, 5, 20, 100, 400, 3200, 50000} {
		rnd := rand.New(rand.NewPCG(1, uint64(perS)))
		var r Rate
		r.Observe(0, 0)
		var sum, sq float64
		for i := 1; i <= ticks; i++ {
			r.Observe(int64(i)*tickNS, poisson(rnd, perS/10))
			if i > 100 {
				sum += r.PerS()
				sq += r.PerS() * r.PerS()
			}
		}
		mean := sum / (ticks - 100)
		sd := math.Sqrt(sq/(ticks-100) - mean*mean)
		// The stated bound: one false snap in 40 s, and twice the noise of a
		// pure 5 s mean, sqrt(rate/10).
		if max := uint64(ticks / 10 / 40); r.Snaps() > max {
			t.Errorf("%v/s: %d false snaps in 2000 s, want at most %d", perS, r.Snaps(), max)
		}
		near(t, "mean rate", mean, perS, 0.05)
		if sd > 2*math.Sqrt(perS/10) {
			t.Errorf("%v/s: sd %.3g, want at most %.3g", perS, sd, 2*math.Sqrt(perS/10))
		}
	}
}

func TestRate_steps(t *testing.T) {
	for _, k := range []struct{ before, after float64 }{{200, 800}, {800, 200}, {0, 300}, {300, 0}, {20, 80}, {3200, 12800}} {
		rnd := rand.New(rand.NewPCG(2, uint64(k.before)))
		var r Rate
		r.Observe(0, 0)
		for i := 1; i <= 100; i++ {
			r.Observe(int64(i)*tickNS, poisson(rnd, k.before/10))
		}
		for i := 101; i <= 105; i++ {
			r.Observe(int64(i)*tickNS, poisson(rnd, k.after/10))
		}
		if moved := (r.PerS() - k.before) / (k.after - k.before); moved < 0.6 {
			t.Errorf("%v to %v/s: %.0f %% of the step seen after 0.5 s (%v/s)", k.before, k.after, moved*100, r.PerS())
		}
		for i := 106; i <= 130; i++ {
			r.Observe(int64(i)*tickNS, poisson(rnd, k.after/10))
		}
		if math.Abs(r.PerS()-k.after) > 0.03*(k.after+k.before)+4*math.Sqrt(k.after/4) {
			t.Errorf("%v to %v/s: %v/s after 3 s", k.before, k.after, r.PerS())
		}
	}
}

func TestRate_badInput(t *testing.T) {
	var r Rate
	r.Observe(5e9, 1e9) // what was counted before the first look has no span
	for i := int64(1); i <= 50; i++ {
		r.Observe(5e9+i*tickNS, 10)
	}
	want := r.PerS()
	r.Observe(1e9, 5) // backwards
	r.Observe(5e9+50*tickNS, 5)
	for _, n := range []float64{math.NaN(), -3, math.Inf(1)} {
		r.Observe(5e9+60*tickNS, n)
	}
	if r.PerS() != want {
		t.Errorf("impossible input moved the rate from %v to %v", want, r.PerS())
	}
	near(t, "rate", want, 100, 1e-6)
}

// feed sends n completions, each time drawn by draw, in batches.
func feed(s *ServiceTime, n, batch int, draw func() float64) {
	for ; n > 0; n -= batch {
		var sum, sq float64
		for range batch {
			x := draw()
			sum += x
			sq += x * x
		}
		s.Observe(uint64(batch), sum, sq)
	}
}

func TestServiceTime_noiseAndStep(t *testing.T) {
	for _, batch := range []int{1, 7, 40, 400} {
		rnd := rand.New(rand.NewPCG(3, uint64(batch)))
		exp := func(mean float64) func() float64 { return func() float64 { return mean * rnd.ExpFloat64() } }
		s := NewServiceTime(10)
		feed(&s, 20000, batch, exp(10))
		near(t, "mean", s.MS(), 10, 0.25)
		if s.Snaps() > 3 { // the stated bound: one in 5,000 samples
			t.Errorf("batch %d: %d false snaps in 20000 samples", batch, s.Snaps())
		}
		feed(&s, max(100, batch), batch, exp(30))
		near(t, "after a step up", s.MS(), 30, 0.4)
		feed(&s, 2000, batch, exp(30))
		feed(&s, max(100, batch), batch, exp(10))
		near(t, "after a step down", s.MS(), 10, 0.5)
	}
	var s ServiceTime
	feed(&s, 500, 5, func() float64 { return 4 })
	if s.MS() != 4 || s.Snaps() != 0 {
		t.Errorf("constant 4 ms: %v ms with %d snaps", s.MS(), s.Snaps())
	}
	feed(&s, 20, 5, func() float64 { return 5 })
	near(t, "constant step", s.MS(), 5, 0.1)
}

func TestServiceTime_full(t *testing.T) {
	s := NewServiceTime(10)
	// 2.5 slots of 30 ms give 8.33 completions per 100 ms.
	done := 0.0
	for i := 1; i <= 40; i++ {
		n := math.Floor(float64(i)*100*2.5/30) - done
		done += n
		s.ObserveFull(2.5, 100, uint64(n))
	}
	near(t, "slots over throughput", s.MS(), 30, 0.05)

	hung := NewServiceTime(10)
	feed(&hung, 1000, 10, func() float64 { return 10 })
	hung.ObserveFull(4, 10, 0)
	near(t, "short silence", hung.MS(), 10, 1e-6)
	for range 20 {
		hung.ObserveFull(4, 100, 0)
	}
	if hung.MS() < 1000 {
		t.Errorf("4 full slots silent for 2 s: still %v ms", hung.MS())
	}
	hung.Observe(1, 10, 100)
	if hung.MS() > 20 {
		t.Errorf("the first completion ends the silence, got %v ms", hung.MS())
	}
}

func TestServiceTime_badInput(t *testing.T) {
	for _, declared := range []float64{math.NaN(), -1, 0, math.Inf(1), 1e9} {
		s := NewServiceTime(declared)
		if s.MS() != 0 {
			t.Errorf("declared %v ms taken as %v", declared, s.MS())
		}
	}
	s := NewServiceTime(10)
	nan, inf := math.NaN(), math.Inf(1)
	s.Observe(3, nan, 1)
	s.Observe(3, 1, nan)
	s.Observe(3, inf, inf)
	s.Observe(3, -1, 1)
	s.Observe(0, 5, 5)
	s.ObserveFull(nan, 1, 1)
	s.ObserveFull(1, inf, 1)
	s.ObserveFull(-1, 1, 1)
	if s.MS() != 10 {
		t.Errorf("impossible input moved the estimate to %v", s.MS())
	}
}

func BenchmarkQueue_MarginalMS(b *testing.B) {
	q := queue(b, 16, 5)
	for b.Loop() {
		q.MarginalMS(2900)
	}
}

func BenchmarkAdmission(b *testing.B) {
	q := queue(b, 16, 5)
	for b.Loop() {
		q.Admission(2900)
	}
}

func BenchmarkNewCurve(b *testing.B) {
	for b.Loop() {
		newCurve(16)
	}
}
