package lb

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// exactPeakEWMA is the distribution that PeakEWMA stands for.
func exactPeakEWMA(weights []int, f *fakeEndpoints) []float64 {
	cost := func(i int) float64 {
		if f.latency[i] == 0 && f.inFlight[i] > 0 {
			return math.Inf(1)
		}
		return f.latency[i] * float64(f.inFlight[i]+1) / float64(weights[i])
	}
	p := make([]float64, len(weights))
	sum := 0
	for _, w := range weights {
		sum += w
	}
	for a, wa := range weights {
		for b, wb := range weights {
			if a == b || wa == 0 || wb == 0 {
				continue
			}
			win := a
			queues := float64(f.inFlight[b])/float64(wb) < float64(f.inFlight[a])/float64(wa)
			if cost(b) < cost(a) || cost(b) == cost(a) && queues {
				win = b
			}
			p[win] += float64(wa) / float64(sum) * float64(wb) / float64(sum-wa)
		}
	}
	return p
}

func TestDistributions(t *testing.T) {
	for name, c := range map[string]struct {
		weights, inFlight []int
		latency           []float64
	}{
		"idle":              {weights: []int{1, 1, 1}, latency: []float64{1, 2, 3}},
		"loaded":            {weights: []int{1, 1, 1, 1}, inFlight: []int{3, 0, 1, 1}, latency: []float64{1, 5, 2, 2}},
		"weighted":          {weights: []int{4, 1, 2, 0}, inFlight: []int{4, 2, 1}, latency: []float64{2, 2, 2, 2}},
		"one is unknown":    {weights: []int{1, 1, 1}, latency: []float64{3, 0, 3}},
		"unknown and asked": {weights: []int{1, 1, 1}, inFlight: []int{0, 1, 0}, latency: []float64{3, 0, 3}},
		"all unknown":       {weights: []int{1, 2, 1}, inFlight: []int{1, 1, 2}, latency: []float64{0, 0, 0}},
	} {
		f := newFake(len(c.weights))
		copy(f.inFlight, c.inFlight)
		copy(f.latency, c.latency)
		sum := 0
		for _, w := range c.weights {
			sum += w
		}
		byWeight := make([]float64, len(c.weights))
		for i, w := range c.weights {
			byWeight[i] = float64(w) / float64(sum)
		}
		for kind, x := range map[string]struct {
			p    Picker
			want []float64
		}{
			"peak EWMA": {NewPeakEWMA(c.weights), exactPeakEWMA(c.weights, f)},
			"random":    {NewRandom(c.weights), byWeight},
		} {
			const n = 40000
			got := make([]int, len(c.weights))
			rnd := rand.New(rand.NewPCG(1, 2))
			for range n {
				i, _ := x.p.Pick(f, nil, rnd.Uint64())
				got[i]++
			}
			for i, w := range x.want {
				if d := math.Abs(float64(got[i]) - n*w); d > 5*math.Sqrt(n*w*(1-w))+1e-9 {
					t.Errorf("%s, %s: endpoint %d got %d of %d, want %.1f", kind, name, i, got[i], n, n*w)
				}
			}
		}
	}
}

func TestLatency(t *testing.T) {
	var l Latency
	const sec = int64(1e9)
	near := func(want float64, now int64) {
		t.Helper()
		if got := l.At(now); math.Abs(got-want) > 1e-3*want {
			t.Errorf("at %ds: %v, want %v", now/sec, got, want)
		}
	}
	if l.At(7*sec) != 0 {
		t.Error("something is known of nothing")
	}
	l.Observe(10e6, 100*sec)
	near(10e6, 100*sec)
	l.Observe(50e6, 100*sec) // a peak counts at once
	near(50e6, 100*sec)
	near(50e6/math.E, 110*sec) // and fades in silence
	l.Observe(10e6, 110*sec)   // or towards what comes
	near(10e6+40e6/math.E, 110*sec)
	for now := 111 * sec; now < 200*sec; now += sec {
		l.Observe(10e6, now)
	}
	near(10e6, 199*sec)
}

func TestSlowStart(t *testing.T) {
	const sec = int64(1e9)
	for name, c := range map[string]struct {
		s    SlowStart
		age  int64
		want float64 // of the full share
	}{
		"off":             {SlowStart{}, 0, 1},
		"start":           {SlowStart{Window: 10 * sec}, 0, 0},
		"least":           {SlowStart{Window: 10 * sec, Least: 0.1}, 0, 0.1},
		"half":            {SlowStart{Window: 10 * sec, Least: 0.1}, 5 * sec, 0.5},
		"straight":        {SlowStart{Window: 10 * sec, Aggression: 1}, 5 * sec, 0.5},
		"early":           {SlowStart{Window: 10 * sec, Aggression: 2}, 5 * sec, math.Sqrt(0.5)},
		"late":            {SlowStart{Window: 10 * sec, Aggression: 0.5}, 5 * sec, 0.25},
		"over":            {SlowStart{Window: 10 * sec}, 10 * sec, 1},
		"not yet existed": {SlowStart{Window: 10 * sec}, -sec, 0},
	} {
		missing := c.s.Missing(c.age)
		if got := 1 - float64(missing)/65536; math.Abs(got-c.want) > 2.0/65536 {
			t.Errorf("%s: takes %v of its share, want %v", name, got, c.want)
		}
	}
}

// warming has an endpoint that takes part in some picks only.
type warming struct {
	*fakeEndpoints
	missing []uint16
	draw    uint64
}

func (w *warming) Usable(i int) bool {
	return w.fakeEndpoints.Usable(i) && Warm(w.missing[i], w.draw, i)
}

// TestSlowStartOfEveryAlgorithm has one of four endpoints warm up: it gets as much
// of its full share as the ramp says, under each picker.
func TestSlowStartOfEveryAlgorithm(t *testing.T) {
	weights := []int{1, 1, 1, 1}
	const n = 40000
	for kind, p := range all(weights) {
		w := &warming{newFake(4), make([]uint16, 4), 0}
		rnd := rand.New(rand.NewPCG(8, 9))
		share := func(missing uint16) float64 {
			w.missing[2] = missing
			got := 0
			for range n {
				w.draw = rnd.Uint64()
				if i, _ := p.Pick(w, nil, w.draw); i == 2 {
					got++
				}
			}
			return float64(got) / n
		}
		full := share(0)
		for _, f := range []float64{0.1, 0.5, 0.9} {
			want := f * full
			if kind == "round robin" {
				want = f / (3 + f) // a turn that is left out makes the next one come sooner
			}
			if got := share(uint16((1 - f) * 65536)); math.Abs(got-want) > 0.015 {
				t.Errorf("%s: at %v of the ramp it takes %.3f, want %.3f", kind, f, got, want)
			}
		}
	}
}

// TestWarmIsMonotone: a key that an endpoint has got it keeps while it warms up.
func TestWarmIsMonotone(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	for range 1000 {
		draw, had := rnd.Uint64(), false
		for m := 65535; m >= 0; m -= 257 {
			has := Warm(uint16(m), draw, 5)
			if had && !has {
				t.Fatal("a key went back")
			}
			had = has
		}
		if !had {
			t.Fatal("a warm endpoint does not take part")
		}
	}
}

func TestToken(t *testing.T) {
	for _, id := range []uint64{0, 1, 0xdeadbeef, math.MaxUint64} {
		token := AppendToken([]byte("x="), id)[2:]
		if got, ok := ParseToken(token); !ok || got != id {
			t.Errorf("%q: %x %v, want %x", token, got, ok, id)
		}
	}
	for _, bad := range []string{"", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF", "0123456789abcdeg", "0x23456789abcdef", "               1"} {
		if id, ok := ParseToken([]byte(bad)); ok {
			t.Errorf("%q is taken for %x", bad, id)
		}
	}
}

func TestCookie(t *testing.T) {
	for field, want := range map[string]string{
		"":                          "none",
		"sid=1":                     "1",
		"a=b; sid=1; c=d":           "1",
		"a=b;sid=1":                 "1",
		"sid=1; sid=2":              "1",
		"asid=1; sid2=2":            "none",
		"sid":                       "none",
		"sid=":                      "",
		"a=sid=1":                   "none",
		"a=b;  \t sid=1 \t; c":      "1",
		"SID=1":                     "none",
		";;;sid=x":                  "x",
		`sid="quoted"`:              `"quoted"`,
		"sid=a=b":                   "a=b",
		"other=1; sid=last; x=y; z": "last",
	} {
		got := "none"
		if v := Cookie([]byte(field), "sid"); v != nil {
			got = string(v)
		}
		if got != want {
			t.Errorf("%q: %q, want %q", field, got, want)
		}
	}
}

func FuzzCookie(f *testing.F) {
	f.Add([]byte("a=b; sid=0123456789abcdef; c"))
	f.Add([]byte(";= sid=;sid"))
	f.Fuzz(func(t *testing.T, field []byte) {
		v := Cookie(field, "sid")
		if id, ok := ParseToken(v); ok && !slices.Equal(AppendToken(nil, id), v) {
			t.Errorf("%q is another token than %q", AppendToken(nil, id), v)
		}
	})
}
