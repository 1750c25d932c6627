package limit

import (
	"math/rand/v2"
	"testing"
)

const second = int64(1e9)

func TestRetryBudget(t *testing.T) {
	type step struct {
		at       int64 // seconds
		requests int
		retries  int // tried
		want     int // allowed
	}
	for name, c := range map[string]struct {
		budget RetryBudget
		steps  []step
	}{
		"zero allows none":                {RetryBudget{}, []step{{0, 100, 5, 0}, {9, 0, 5, 0}}},
		"one in five":                     {RetryBudget{Ratio: 0.2}, []step{{0, 100, 100, 20}}},
		"paid in one by one":              {RetryBudget{Ratio: 0.2}, []step{{0, 4, 1, 0}, {0, 1, 2, 1}, {1, 5, 2, 1}}},
		"a tenth, added up":               {RetryBudget{Ratio: 0.1}, []step{{0, 10, 2, 1}, {0, 10, 2, 1}, {0, 10, 2, 1}}},
		"trickle at the start":            {RetryBudget{MinPerSecond: 3}, []step{{0, 1, 50, 30}}},
		"trickle over time":               {RetryBudget{MinPerSecond: 3}, []step{{0, 0, 50, 30}, {2, 0, 50, 6}, {3, 0, 50, 3}}},
		"trickle is not saved for ever":   {RetryBudget{MinPerSecond: 3}, []step{{0, 0, 50, 30}, {3600, 0, 50, 30}}},
		"requests long ago pay no longer": {RetryBudget{Ratio: 0.5}, []step{{0, 100, 0, 0}, {60, 0, 50, 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			b := c.budget
			for _, s := range c.steps {
				for range s.requests {
					b.Request(s.at * second)
				}
				got := 0
				for range s.retries {
					if b.Retry(s.at * second) {
						got++
					}
				}
				if got != s.want {
					t.Errorf("at %d s: %d allowed, want %d", s.at, got, s.want)
				}
			}
		})
	}
}

// TestRetryBudgetBound: whatever the order of events, retries stay within what
// requests and time have paid.
func TestRetryBudgetBound(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		b := RetryBudget{Ratio: rnd.Float64(), MinPerSecond: float64(rnd.IntN(5))}
		now, requests, retries := int64(0), 0, 0
		for range 5000 {
			now += rnd.Int64N(second / 20)
			if rnd.IntN(3) == 0 {
				b.Request(now)
				requests++
			} else if b.Retry(now) {
				retries++
			}
			most := b.Ratio*float64(requests) + b.MinPerSecond*(window+float64(now)/1e9)
			if float64(retries) > most+1e-3 {
				t.Fatalf("%+v: %d retries, %.1f paid", b, retries, most)
			}
		}
		if b.Ratio > 0.1 && retries == 0 {
			t.Errorf("%+v: no retry at all", b)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	b, now := RetryBudget{Ratio: 0.2, MinPerSecond: 1}, int64(0)
	if n := testing.AllocsPerRun(100, func() {
		now += second
		b.Request(now)
		b.Retry(now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
