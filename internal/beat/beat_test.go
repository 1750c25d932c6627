package beat

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestNext(t *testing.T) {
	for _, c := range []struct{ since, every, want time.Duration }{
		{0, time.Second, time.Second},
		{1, time.Second, time.Second - 1},
		{time.Second, time.Second, time.Second},
		{2500 * time.Millisecond, time.Second, 500 * time.Millisecond},
		{2500 * time.Millisecond, 500 * time.Millisecond, 500 * time.Millisecond},
	} {
		if got := next(c.since, c.every); got != c.want {
			t.Errorf("%v into beats of %v: %v, want %v", c.since, c.every, got, c.want)
		}
	}
}

// TestTogether has tickers that were started at odd moments fire in the same ones.
func TestTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began = time.Now()
		start := began
		at := func(tick *Ticker) time.Duration { now := <-tick.C; tick.Again(); return now.Sub(start) }
		time.Sleep(30 * time.Millisecond)
		a := Every(500 * time.Millisecond)
		defer a.Stop()
		time.Sleep(300 * time.Millisecond)
		b := Every(time.Second)
		defer b.Stop()
		for i, want := range []time.Duration{500 * time.Millisecond, time.Second, 1500 * time.Millisecond, 2 * time.Second} {
			if got := at(a); got != want {
				t.Fatalf("tick %d of the short one at %v", i, got)
			}
			if i%2 == 1 {
				if got := at(b); got != want {
					t.Fatalf("the long one ticks at %v", got)
				}
			}
		}
		b.Reset(300 * time.Millisecond)
		if got := at(b); got != 2100*time.Millisecond {
			t.Fatalf("the one that was reset ticks at %v", got)
		}
		time.Sleep(time.Second) // two beats are missed: one tick tells of them
		if got := at(a); got != 2500*time.Millisecond {
			t.Fatalf("a late one is of %v", got)
		}
		if got := at(a); got != 3500*time.Millisecond {
			t.Fatalf("after a late one at %v", got)
		}
	})
}
