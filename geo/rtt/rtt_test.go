package rtt

import (
	"math/rand/v2"
	"testing"
	"time"
)

var start = time.Unix(1e9, 0)

const ms = time.Millisecond

func near(got, want, tolerance time.Duration) bool { return (got - want).Abs() <= tolerance }

func TestPrior(t *testing.T) {
	// 1000 km: 20 ms by the rule of thumb of 100 km per ms one way.
	if got := Prior(1e6, 0, 0); !near(got, 20*ms, ms/2) {
		t.Errorf("1000 km: %v", got)
	}
	if got := Prior(0, DefaultAccess, 3*ms); got != DefaultAccess+3*ms {
		t.Errorf("no distance: %v", got)
	}
}

func TestBlend(t *testing.T) {
	e := NewEstimate(10 * ms)
	if e.RTT(start) != 10*ms || e.Confidence(start) != 0 {
		t.Fatalf("without samples: %v, confidence %v", e.RTT(start), e.Confidence(start))
	}
	if _, ok := e.Measured(); ok {
		t.Error("measured without samples")
	}
	e.Observe(start, 4*ms)
	if got := e.RTT(start); !near(got, 8*ms, ms/100) { // 1 sample against a trust of 2
		t.Errorf("one sample: %v", got)
	}
	before := e.Confidence(start)
	now := start
	for range 50 {
		now = now.Add(200 * ms)
		e.Observe(now, 4*ms)
		if c := e.Confidence(now); c < before-1e-9 {
			t.Fatalf("confidence fell from %v to %v with a sample", before, c)
		}
		before = e.Confidence(now)
	}
	if got := e.RTT(now); !near(got, 4*ms, ms/2) {
		t.Errorf("50 samples: %v", got)
	}
	// Silence: back towards the prior, monotonously.
	last := e.RTT(now)
	for range 20 {
		now = now.Add(time.Minute)
		if got := e.RTT(now); got < last {
			t.Fatalf("fell from %v to %v in silence", last, got)
		} else {
			last = got
		}
	}
	if !near(last, 10*ms, ms/10) {
		t.Errorf("after 20 minutes of silence: %v", last)
	}
}

// Queues add to samples; the way itself is the least of them.
func TestQueuesAreFiltered(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	e := NewEstimate(10 * ms)
	now := start
	for range 600 {
		now = now.Add(100 * ms)
		sample := 5 * ms
		if r.IntN(10) > 0 {
			sample += time.Duration(r.ExpFloat64() * 20 * float64(ms))
		}
		e.Observe(now, sample)
	}
	if got := e.RTT(now); !near(got, 5*ms, ms/2) {
		t.Errorf("got %v, the way takes 5 ms", got)
	}
}

func TestRouteChanges(t *testing.T) {
	e := NewEstimate(5 * ms)
	now := start
	feed := func(rtt, span time.Duration) {
		for end := now.Add(span); now.Before(end); {
			now = now.Add(500 * ms)
			e.Observe(now, rtt)
		}
	}
	feed(5*ms, 30*time.Second)
	feed(25*ms, 16*time.Second)
	if got := e.RTT(now); got < 20*ms {
		t.Errorf("16 s after the way became 25 ms: %v", got)
	}
	feed(3*ms, 5*time.Second)
	if got := e.RTT(now); got > 6*ms {
		t.Errorf("5 s after the way became 3 ms: %v", got)
	}
}

// The least sample is remembered for at least half a window, whatever the phase.
func TestLeastSampleOutlivesTheWindow(t *testing.T) {
	for phase := range 20 {
		e := NewEstimate(5 * ms)
		now := start
		for range 40 + phase {
			now = now.Add(500 * ms)
			e.Observe(now, 5*ms)
		}
		for range 8 {
			now = now.Add(500 * ms)
			e.Observe(now, 50*ms)
		}
		if got := e.RTT(now); !near(got, 5*ms, ms) {
			t.Errorf("phase %d: 4 s of queues made 5 ms %v", phase, got)
		}
	}
}

func TestOddInput(t *testing.T) {
	e := NewEstimate(5 * ms)
	e.Observe(start, 0)
	e.Observe(start, -ms)
	if _, ok := e.Measured(); ok {
		t.Error("counted a sample that is not above zero")
	}
	e.Observe(start, 7*ms)
	e.Observe(start.Add(-time.Hour), 6*ms) // time runs backwards
	if c := e.Confidence(start.Add(-time.Hour)); c != 0.5 {
		t.Errorf("confidence %v after two samples, want 0.5", c)
	}
	if got := e.RTT(start); got < 5*ms || got > 7*ms {
		t.Errorf("got %v", got)
	}
	var zero Estimate
	zero.Observe(start, ms)
	if got := zero.RTT(start); got <= 0 || got > ms {
		t.Errorf("zero estimate: %v", got)
	}
}

func TestObserveAllocates0(t *testing.T) {
	e := NewEstimate(ms)
	now := start
	if n := testing.AllocsPerRun(1000, func() {
		now = now.Add(ms)
		e.Observe(now, 3*ms)
		e.RTT(now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
