package price

import (
	"math"
	"testing"
)

func TestSessions(t *testing.T) {
	for _, c := range []float64{0.5, 1, 7, 200, 1e6} {
		q, err := NewSessions(c, 5)
		if err != nil {
			t.Fatal(err)
		}
		near(t, "price of the first", q.MarginalMS(0), 5, 1e-12)
		// The price is the slope of what all of them wait together.
		total := func(n float64) float64 { return n * 5 / (1 - n/c) }
		for use := 0.0; use < 0.97; use += 0.05 {
			n, h := use*c, 1e-5*c
			near(t, "slope", q.MarginalMS(n), (total(n+h)-total(n-h))/(2*h), 1e-4)
		}
		last := 0.0
		for _, ms := range []float64{5.001, 6, 20, 1000, 12499, 12501, 1e5, 1e9} {
			n := q.Open(ms)
			near(t, "price of the inverse", q.MarginalMS(n), ms, 1e-9)
			if n <= last {
				t.Errorf("c=%v: %v sessions at %v ms, not more than at less", c, n, ms)
			}
			last = n
		}
		if q.Open(5) != 0 || q.Open(1) != 0 {
			t.Errorf("c=%v: sessions at the price of none", c)
		}
		// A message that waits 15 ms beyond its 5: the delay is 20, a quarter is free.
		near(t, "open within 15 ms", q.OpenWithin(15), 0.75*c, 1e-12)
	}
	for _, k := range [][2]float64{{0, 5}, {math.NaN(), 5}, {5, 0}, {5, math.Inf(1)}, {1e7, 5}} {
		if _, err := NewSessions(k[0], k[1]); err == nil {
			t.Errorf("slots %v, %v ms accepted", k[0], k[1])
		}
	}
}
