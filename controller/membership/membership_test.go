package membership

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	l := Limits{Suspect: time.Second, Dead: 3 * time.Second}
	for _, c := range []struct {
		heard     bool
		age       time.Duration
		reachable bool
		want      Status
	}{
		{true, 0, true, Alive},
		{true, time.Second, true, Alive},
		{true, time.Second + 1, true, Suspect},
		{true, 3 * time.Second, true, Suspect},
		{true, 3*time.Second + 1, true, Dead},
		// In-band news counts without the bus.
		{true, time.Second, false, Alive},
		{true, time.Hour, false, Unknown},
		{false, 0, true, Unknown},
		{false, 0, false, Unknown},
	} {
		if got := l.Judge(c.heard, c.age, c.reachable); got != c.want {
			t.Errorf("Judge(%v, %s, %v) = %s, want %s", c.heard, c.age, c.reachable, got, c.want)
		}
	}
	if Sites.Suspect >= Sites.Dead || Nodes.Suspect >= Nodes.Dead {
		t.Error("a peer is suspect before it is dead")
	}
}

// play lets a peer send every 500 ms over a way that delays and loses, and
// returns how often it was wrongly suspected, how often wrongly called dead, and
// the limits at the end. fixed judges by the limits alone.
func play(seed uint64, jitter time.Duration, loss float64, fixed bool) (suspected, dead int, l Limits) {
	rng := rand.New(rand.NewPCG(seed, 1))
	var r Rhythm
	last := time.Duration(0)
	for i := 1; i <= 20000; i++ {
		if rng.Float64() < loss {
			continue
		}
		at := time.Duration(i)*500*time.Millisecond + time.Duration(rng.ExpFloat64()*float64(jitter))
		if at <= last {
			continue // overtaken: the later report is known already
		}
		l = Sites
		if !fixed {
			l = Sites.For(r)
		}
		switch l.Judge(true, at-last, true) {
		case Suspect:
			suspected++
		case Dead:
			dead++
		}
		r.Beat(at-last, l)
		last = at
	}
	return suspected, dead, l
}

func TestRhythm(t *testing.T) {
	for seed := range uint64(4) {
		for _, c := range []struct {
			jitter   time.Duration
			loss     float64
			mayGrow  time.Duration
			suspects int // wrong ones allowed in 20,000 reports
		}{
			{0, 0, Sites.Suspect, 0},
			{20 * time.Millisecond, 0, Sites.Suspect + 200*time.Millisecond, 0},
			{400 * time.Millisecond, 0, 4 * time.Second, 60},
			{50 * time.Millisecond, 0.2, 4500 * time.Millisecond, 30},
		} {
			got, dead, l := play(seed, c.jitter, c.loss, false)
			fixed, _, _ := play(seed, c.jitter, c.loss, true)
			if got > c.suspects || dead > 0 {
				t.Errorf("seed %d, jitter %s, loss %g: %d wrong suspicions (fixed limits: %d), %d wrong deaths", seed, c.jitter, c.loss, got, fixed, dead)
			}
			if c.suspects > 0 && fixed < 5*max(1, got) {
				t.Errorf("seed %d, jitter %s, loss %g: measured limits suspect %d times, fixed ones %d: they earn nothing", seed, c.jitter, c.loss, got, fixed)
			}
			if l.Suspect > c.mayGrow {
				t.Errorf("seed %d, jitter %s, loss %g: suspect only after %s", seed, c.jitter, c.loss, l.Suspect)
			}
		}
	}
}

func TestRhythm_bounds(t *testing.T) {
	var r Rhythm
	if got := Sites.For(r); got != Sites {
		t.Errorf("nothing known: %v", got)
	}
	for range 100 {
		r.Beat(500*time.Millisecond, Sites)
	}
	before := r
	r.Beat(time.Hour, Sites) // an outage
	r.Beat(-time.Second, Sites)
	r.Beat(0, Sites)
	if r != before {
		t.Errorf("an outage is taken for the rhythm: %v", r)
	}
	for i := range 1000 {
		r.Beat([]time.Duration{10 * time.Millisecond, 5 * time.Second}[i%2], Sites.For(r))
	}
	l := Sites.For(r)
	if l.Suspect != patience*Sites.Suspect || l.Dead != patience*Sites.Dead {
		t.Errorf("the worst rhythm: %v", l)
	}
}
