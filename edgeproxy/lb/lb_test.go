package lb

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

type fakeEndpoints struct {
	down     []bool
	inFlight []int
	latency  []float64
}

func (f *fakeEndpoints) Usable(i int) bool  { return !f.down[i] }
func (f *fakeEndpoints) InFlight(i int) int { return f.inFlight[i] }

func (f *fakeEndpoints) Latency(i int) float64 { return f.latency[i] }

func newFake(n int) *fakeEndpoints {
	return &fakeEndpoints{down: make([]bool, n), inFlight: make([]int, n), latency: make([]float64, n)}
}

// exactLeastRequest is the distribution that LeastRequest stands for: all ordered
// pairs of different candidates, the second drawn by weight among the rest.
func exactLeastRequest(weights []int, f *fakeEndpoints, tried []int) []float64 {
	p := make([]float64, len(weights))
	var may []int
	sum := 0
	for i, w := range weights {
		if w > 0 && !f.down[i] && !slices.Contains(tried, i) {
			may = append(may, i)
			sum += w
		}
	}
	for _, a := range may {
		pa := float64(weights[a]) / float64(sum)
		if len(may) == 1 {
			p[a] = 1
		}
		for _, b := range may {
			if a == b {
				continue
			}
			win := a
			if float64(f.inFlight[b])/float64(weights[b]) < float64(f.inFlight[a])/float64(weights[a]) {
				win = b
			}
			p[win] += pa * float64(weights[b]) / float64(sum-weights[a])
		}
	}
	return p
}

func TestLeastRequestDistribution(t *testing.T) {
	for name, c := range map[string]struct {
		weights, inFlight, down, tried []int
	}{
		"one":                      {weights: []int{1}},
		"idle, even":               {weights: []int{1, 1, 1}},
		"idle, weighted":           {weights: []int{5, 1, 3, 0}},
		"loaded, even":             {weights: []int{1, 1, 1, 1}, inFlight: []int{3, 0, 1, 1}},
		"loaded, weighted":         {weights: []int{4, 1, 2}, inFlight: []int{4, 2, 1}},
		"level by weight":          {weights: []int{2, 1}, inFlight: []int{4, 2}},
		"down":                     {weights: []int{1, 1, 1}, down: []int{1}},
		"tried":                    {weights: []int{1, 2, 3}, tried: []int{2}},
		"nearly all down":          {weights: make64(1), down: from(2, 64)},
		"nearly all down, weights": {weights: make64(3), down: from(1, 63), inFlight: make64(7)},
		"heavy one is down":        {weights: []int{1, 1, 1000}, down: []int{2}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(len(c.weights))
			copy(f.inFlight, c.inFlight)
			for _, i := range c.down {
				f.down[i] = true
			}
			p, want := NewLeastRequest(c.weights), exactLeastRequest(c.weights, f, c.tried)
			const n = 40000
			got := make([]int, len(c.weights))
			rnd := rand.New(rand.NewPCG(1, 2))
			for range n {
				i, ok := p.Pick(f, c.tried, rnd.Uint64())
				if !ok {
					t.Fatal("nothing picked")
				}
				got[i]++
			}
			for i, w := range want {
				// five standard deviations of a binomial count
				if d := math.Abs(float64(got[i]) - n*w); d > 5*math.Sqrt(n*w*(1-w))+1e-9 {
					t.Errorf("endpoint %d got %d of %d, want %.1f", i, got[i], n, n*w)
				}
			}
		})
	}
}

func make64(v int) []int { return slices.Repeat([]int{v}, 64) }

func from(lo, hi int) (s []int) {
	for i := lo; i < hi; i++ {
		s = append(s, i)
	}
	return s
}

// naiveRoundRobin computes every credit anew on each pick.
type naiveRoundRobin struct {
	weights, credit []int
	start           int
}

func (p *naiveRoundRobin) pick(f *fakeEndpoints, tried []int) int {
	sum, best := 0, -1
	for k := range p.weights {
		i := (p.start + k) % len(p.weights)
		if p.weights[i] > 0 && !f.down[i] && !slices.Contains(tried, i) {
			sum += p.weights[i]
			p.credit[i] += p.weights[i]
			if best < 0 || p.credit[i] > p.credit[best] {
				best = i
			}
		}
	}
	if best >= 0 {
		p.credit[best] -= sum
	}
	return best
}

func TestRoundRobinTwin(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		n := 1 + rnd.IntN(8)
		weights := make([]int, n)
		for i := range weights {
			weights[i] = rnd.IntN(5)
		}
		weights[0] = 2 // not all 1: the cursor has its own test
		start := rnd.Uint64()
		p := NewRoundRobin(weights, start)
		twin := naiveRoundRobin{weights, make([]int, n), int(start % uint64(n))}
		f := newFake(n)
		for k := range 100 {
			f.down[rnd.IntN(n)] = rnd.IntN(4) == 0
			var tried []int
			if rnd.IntN(3) == 0 {
				tried = []int{rnd.IntN(n)}
			}
			got, ok := p.Pick(f, tried, rnd.Uint64())
			if want := twin.pick(f, tried); ok != (want >= 0) || ok && got != want {
				t.Fatalf("pick %d of weights %v: got %d %v, want %d", k, weights, got, ok, want)
			}
		}
	}
}

func TestRoundRobinTurns(t *testing.T) {
	for name, c := range map[string]struct {
		weights []int
		start   uint64
		want    []int
	}{
		"even":          {[]int{1, 1, 1}, 0, []int{0, 1, 2, 0, 1, 2}},
		"even, started": {[]int{1, 1, 1}, 5, []int{2, 0, 1, 2, 0, 1}},
		"5 1 1":         {[]int{5, 1, 1}, 0, []int{0, 0, 1, 0, 2, 0, 0}},
		"zero":          {[]int{0, 1, 2}, 0, []int{2, 1, 2, 2, 1, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			p, f := NewRoundRobin(c.weights, c.start), newFake(len(c.weights))
			var got []int
			for range c.want {
				i, _ := p.Pick(f, nil, 0)
				got = append(got, i)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestRoundRobinEvenSkipsInTurn(t *testing.T) {
	p, f := NewRoundRobin([]int{1, 1, 1, 1}, 0), newFake(4)
	f.down[1] = true
	count := make([]int, 4)
	for range 300 {
		i, _ := p.Pick(f, nil, 0)
		count[i]++
	}
	if !slices.Equal(count, []int{100, 0, 100, 100}) {
		t.Errorf("got %v", count)
	}
}

// all makes a picker of every kind for the weights; loads are bounded on one ring.
func all(weights []int) map[string]Picker {
	ids := idsOf(len(weights))
	return map[string]Picker{
		"least request": NewLeastRequest(weights), "round robin": NewRoundRobin(weights, 7),
		"random": NewRandom(weights), "peak EWMA": NewPeakEWMA(weights),
		"ring hash": NewRingHash(weights, ids, 0), "bounded ring hash": NewRingHash(weights, ids, 1.25),
		"maglev": NewMaglev(weights, ids),
	}
}

// idsOf names n endpoints as a view does.
func idsOf(n int) []uint64 {
	ids := make([]uint64, n)
	for i := range ids {
		ids[i] = Hash(fmt.Sprintf("default/echo 10.0.0.%d:8080", i))
	}
	return ids
}

func TestNothingLeft(t *testing.T) {
	for name, weights := range map[string][]int{"none": nil, "zero": {0, 0}, "negative": {-1}, "down": {1, 2}, "even": {1, 1}} {
		f := newFake(len(weights))
		for i := range f.down {
			f.down[i] = true
		}
		for kind, p := range all(weights) {
			if i, ok := p.Pick(f, nil, 9); ok {
				t.Errorf("%s: %s picked %d", name, kind, i)
			}
		}
		clear(f.down)
		for kind, p := range all(weights) {
			if i, ok := p.Pick(f, []int{0, 1}, 9); ok {
				t.Errorf("%s: %s picked %d, which was tried", name, kind, i)
			}
		}
	}
}

// TestOnlyWhatMayBePicked holds every picker to health, weights and what was tried.
func TestOnlyWhatMayBePicked(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 300 {
		n := 1 + rnd.IntN(12)
		weights, f := make([]int, n), newFake(n)
		for i := range n {
			weights[i] = rnd.IntN(4)
			f.inFlight[i] = rnd.IntN(5)
			f.latency[i] = float64(rnd.IntN(3)) * 1e6
		}
		for kind, p := range all(weights) {
			for range 20 {
				left := 0
				tried := []int{rnd.IntN(n), rnd.IntN(n)}
				for i := range n {
					f.down[i] = rnd.IntN(2) == 0
					if weights[i] > 0 && !f.down[i] && !slices.Contains(tried, i) {
						left++
					}
				}
				i, ok := p.Pick(f, tried, rnd.Uint64())
				if ok != (left > 0) || ok && (weights[i] == 0 || f.down[i] || slices.Contains(tried, i)) {
					t.Fatalf("%s: picked %d %v of weights %v, down %v, tried %v", kind, i, ok, weights, f.down, tried)
				}
			}
		}
	}
}

func TestNoAllocations(t *testing.T) {
	f := newFake(100)
	for i := 10; i < 100; i++ {
		f.down[i] = true
	}
	weighted := make([]int, 100)
	for i := range weighted {
		weighted[i] = i%7 + 1
	}
	tried := []int{3, 4}
	for i := range f.latency {
		f.latency[i] = float64(i)
		f.inFlight[i] = i % 3
	}
	for kind, p := range all(weighted) {
		r := uint64(0)
		if n := testing.AllocsPerRun(1000, func() { r += golden; p.Pick(f, tried, r) }); n != 0 {
			t.Errorf("%s allocates %v times", kind, n)
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, n := range []int{4, 16, 100} {
		even := slices.Repeat([]int{1}, n)
		weighted := slices.Clone(even)
		weighted[0] = 5
		for shape, weights := range map[string][]int{"even": even, "weighted": weighted} {
			for kind, p := range all(weights) {
				b.Run(fmt.Sprintf("%s/%s/%d", kind, shape, n), func(b *testing.B) {
					f, r := newFake(n), uint64(0)
					for i := range n {
						f.inFlight[i], f.latency[i] = i%3, float64(i+1)
					}
					for b.Loop() {
						r += golden
						p.Pick(f, nil, mix(r))
					}
				})
			}
		}
	}
}
