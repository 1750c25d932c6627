package price

import (
	"math"
	"math/rand/v2"
	"testing"
)

// chain solves the birth-death chain of an M/M/c queue by summing its states:
// the dumb twin of inSystem. It returns the mean number and the state weights.
func chain(c, a float64) (mean float64, p []float64) {
	w, sum := 1.0, 0.0
	for n := 0; ; n++ {
		p = append(p, w)
		sum += w
		mean += float64(n) * w
		if float64(n) > c && w < sum*1e-18 {
			break
		}
		w *= a / math.Min(float64(n+1), c)
	}
	for i := range p {
		p[i] /= sum
	}
	return mean / sum, p
}

func near(t *testing.T, what string, got, want, rel float64) {
	t.Helper()
	if !(math.Abs(got-want) <= rel*math.Abs(want)) {
		t.Errorf("%s: got %v, want %v (relative error %.2g, allowed %.2g)", what, got, want, got/want-1, rel)
	}
}

func TestInSystem_knownErlangC(t *testing.T) {
	// Probability of waiting from published Erlang C tables; mean = a + C*rho/(1-rho).
	for _, k := range []struct{ c, a, wait float64 }{
		{1, 0.5, 0.5}, {2, 1, 1.0 / 3}, {3, 2, 4.0 / 9}, {4, 2, 4.0 / 23}, {10, 8, 0.4091803},
	} {
		rho := k.a / k.c
		got, _ := inSystem(k.c, k.a)
		near(t, "mean in system", got, k.a+k.wait*rho/(1-rho), 1e-6)
	}
}

func TestInSystem_againstChain(t *testing.T) {
	for _, c := range []float64{0.4, 1, 1.5, 2, 3.25, 4, 7.9, 16, 64, 300} {
		for _, rho := range []float64{1e-3, 0.1, 0.5, 0.8, 0.9, 0.97} {
			a := rho * c
			want, _ := chain(c, a)
			got, slope := inSystem(c, a)
			near(t, "mean", got, want, 1e-9)
			const h = 1e-5
			up, _ := chain(c, a*(1+h))
			down, _ := chain(c, a*(1-h))
			near(t, "slope", slope, (up-down)/(2*a*h), 1e-5)
		}
	}
}

func queue(t testing.TB, slots, serviceMS float64) Queue {
	t.Helper()
	q, err := new(Curves).Queue(slots, serviceMS)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestQueue_tableIsExact(t *testing.T) {
	for _, c := range []float64{0.5, 1, 2, 2.5, 4, 16, 200} {
		q := queue(t, c, 20)
		for rho := 0.001; rho < 0.994; rho += 0.0037 {
			perS := rho * q.CapacityPerS()
			mean, slope := inSystem(c, rho*c)
			near(t, "marginal", q.MarginalMS(perS), slope*20, 2e-3)
			near(t, "sojourn", q.SojournMS(perS), mean/perS*1000, 2e-3)
		}
	}
}

func TestQueue_inverse(t *testing.T) {
	for _, c := range []float64{0.3, 1, 4, 4.5, 16, 1000, 1e5} {
		q := queue(t, c, 7)
		low := q.MarginalMS(0)
		if got := q.RatePerS(low * 0.999); got != 0 {
			t.Errorf("c=%v: rate %v at a price under an idle queue's", c, got)
		}
		last := -1.0
		for _, f := range []float64{1.0001, 1.01, 1.3, 2, 5, 30, 1e3, 1e5, 1e8} {
			l := q.RatePerS(low * f)
			near(t, "price of the rate", q.MarginalMS(l), low*f, 1e-9)
			if l <= last {
				t.Errorf("c=%v: rate %v at %v times the idle price does not grow", c, l, f)
			}
			last = l
		}
	}
}

func TestQueue_refuses(t *testing.T) {
	var cs Curves
	nan, inf := math.NaN(), math.Inf(1)
	for _, k := range [][2]float64{{0, 1}, {-1, 1}, {nan, 1}, {inf, 1}, {2e6, 1}, {1, 0}, {1, -3}, {1, nan}, {1, inf}, {1, 4e6}} {
		if _, err := cs.Queue(k[0], k[1]); err == nil {
			t.Errorf("slots %v, service time %v ms accepted", k[0], k[1])
		}
	}
	if len(cs.shape) != 0 {
		t.Errorf("%d tables built for refused queues", len(cs.shape))
	}
}

func TestCurves_bounded(t *testing.T) {
	var cs Curves
	for c := 1.0; c < 1e6; c *= 1.01 {
		cs.get(math.Min(c, 300))
	}
	for c := 0.01; c < 64; c += 0.01 {
		cs.get(c)
	}
	if n := len(cs.shape); n > maxCurves {
		t.Errorf("%d tables kept, want at most %d", n, maxCurves)
	}
}

func TestAdmission_meanIsMarginal(t *testing.T) {
	for _, c := range []float64{1, 2, 2.5, 4, 16, 60} {
		for _, rho := range []float64{0.05, 0.3, 0.6, 0.9, 0.97} {
			q := queue(t, c, 10)
			a := q.Admission(rho * q.CapacityPerS())
			_, p := chain(c, rho*c)
			mean := 0.0
			for n, w := range p {
				mean += w * a.PriceMS(n)
			}
			_, want := inSystem(c, rho*c)
			near(t, "E[D(n)]", mean, want*10, 1e-8)
		}
	}
}

func TestAdmission_shape(t *testing.T) {
	for _, c := range []float64{0.5, 1, 4, 16, 300, 4000} {
		q := queue(t, c, 10)
		for _, rho := range []float64{0, 0.001, 0.5, 0.9, 0.99, 1, 7} {
			a := q.Admission(rho * q.CapacityPerS())
			if d, alone := a.PriceMS(0), 10/math.Min(c, 1); d < alone*(1-1e-6) {
				t.Errorf("c=%v rho=%v: D(0) = %v ms, under one request alone (%v ms)", c, rho, d, alone)
			}
			for n := 1; n < int(c)+50; n++ {
				if a.PriceMS(n) < a.PriceMS(n-1)*(1-1e-9) {
					t.Fatalf("c=%v rho=%v: D(%d) = %v falls below D(%d) = %v", c, rho, n, a.PriceMS(n), n-1, a.PriceMS(n-1))
				}
			}
			for _, ms := range []float64{1, 9.99, 10.01, 14, 33.01, 200.3, 1e4 + 0.1} {
				n := a.Limit(ms, 1<<20)
				if n > 0 && a.PriceMS(n-1) > ms || n < 1<<20 && a.PriceMS(n) <= ms {
					t.Errorf("c=%v rho=%v: Limit(%v ms) = %d with D = %v, %v", c, rho, ms, n, a.PriceMS(n-1), a.PriceMS(n))
				}
			}
		}
	}
	if n := queue(t, 4, 10).Admission(0).Limit(math.MaxFloat64, 77); n != 77 {
		t.Errorf("Limit past its bound: %d, want 77", n)
	}
}

func TestAdmission_bigSitesAreCut(t *testing.T) {
	q := queue(t, 4000, 10)
	a := q.Admission(0.9 * q.CapacityPerS())
	from, ms, _ := a.Table()
	if len(ms) != maxAdmission || from != 4000-maxAdmission {
		t.Fatalf("table from %d with %d entries", from, len(ms))
	}
	if flat := ms[0]; flat > 10.5 {
		t.Errorf("price where the table is cut is %v ms, want about one service time", flat)
	}
}

// TestUtilisation_againstSearch holds the inverse by buckets to a search through all
// points.
func TestUtilisation_againstSearch(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, c := range []float64{1, 1.125, 4, 16, 64, 300, maxShape} {
		curve := newCurve(c)
		var ask []float64
		for i := range curve.point {
			ask = append(ask, curve.point[i].marginal)
		}
		for range 20000 {
			// By the logarithm of the excess: every bucket is met.
			ask = append(ask, curve.point[0].marginal*(1+math.Exp(-12+24*r.Float64())))
		}
		for _, m := range ask {
			want := kneeRho
			if top := curve.point[curvePoints-1].marginal; m >= top {
				want += (m - top) / curve.slope
			} else {
				hi := 1
				for curve.point[hi].marginal <= m {
					hi++
				}
				f := (m - curve.point[hi-1].marginal) / (curve.point[hi].marginal - curve.point[hi-1].marginal)
				want = curve.point[hi-1].rho + f*(curve.point[hi].rho-curve.point[hi-1].rho)
			}
			if got := curve.utilisation(m); got != want {
				t.Fatalf("%g slots, price %v: utilisation %v, want %v", c, m, got, want)
			}
		}
	}
}
