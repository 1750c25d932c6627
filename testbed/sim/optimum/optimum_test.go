package optimum

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/controller/price"
)

// erlang is a twin of the price's formula: the mean delay in ms of an M/M/c
// queue by summing its states.
func erlang(c, serviceMS, perS float64) float64 {
	a := perS * serviceMS / 1000
	w, sum, mean := 1.0, 0.0, 0.0
	for n := 0; n < 100000; n++ {
		sum += w
		mean += float64(n) * w
		w *= a / math.Min(float64(n+1), c)
		if float64(n) > c && w < sum*1e-16 {
			break
		}
	}
	return mean / sum / perS * 1000
}

func random(t *testing.T, r *rand.Rand, n int, load float64) (Problem, []float64, []float64) {
	t.Helper()
	curves := new(price.Curves)
	p := Problem{}
	var slots, service []float64
	for i := range n {
		c, s := float64(1+r.IntN(8)), 5+30*r.Float64()
		q, err := curves.Queue(c, s)
		if err != nil {
			t.Fatal(err)
		}
		slots, service = append(slots, c), append(service, s)
		p.Queues = append(p.Queues, q)
		p.DemandPerS = append(p.DemandPerS, q.CapacityPerS()*load*2*r.Float64())
		p.RTTMS = append(p.RTTMS, make([]float64, n))
		for j := range i {
			p.RTTMS[i][j] = 1 + 30*r.Float64()
			p.RTTMS[j][i] = p.RTTMS[i][j]
		}
	}
	return p, slots, service
}

func TestSolve_meetsKKT(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 9))
		p, slots, service := random(t, r, 2+r.IntN(7), 0.3+0.5*r.Float64())
		if seed%3 == 0 {
			p.RTTMS[0][1], p.RTTMS[1][0] = math.Inf(1), math.Inf(1)
		}
		s, err := Solve(p, nil, Precision, 4000)
		if err != nil {
			t.Fatal(err)
		}
		if s.Gap > 1e-5 || s.Overload {
			if !s.Overload {
				t.Errorf("seed %d: gap %g after %d rounds", seed, s.Gap, s.Rounds)
			}
			continue
		}
		// Marginal costs by differences of the twin, not by the tables.
		m := make([]float64, len(slots))
		for j := range m {
			h := 1e-4 * p.Queues[j].CapacityPerS()
			up, down := s.LoadPerS[j]+h, math.Max(h/10, s.LoadPerS[j]-h)
			m[j] = (up*erlang(slots[j], service[j], up) - down*erlang(slots[j], service[j], down)) / (up - down)
		}
		for i, row := range s.PerS {
			sum, least := 0.0, math.Inf(1)
			for j, x := range row {
				sum += x
				least = math.Min(least, p.RTTMS[i][j]+m[j])
				if x > 0 && math.IsInf(p.RTTMS[i][j], 1) {
					t.Errorf("seed %d: %d sends over a way that is not there", seed, i)
				}
			}
			if math.Abs(sum-p.DemandPerS[i]) > 1e-6*(1+p.DemandPerS[i]) {
				t.Errorf("seed %d: site %d sends %v of %v", seed, i, sum, p.DemandPerS[i])
			}
			for j, x := range row {
				if x > 1e-3*p.DemandPerS[i] && p.RTTMS[i][j]+m[j] > least*1.02+0.05 {
					t.Errorf("seed %d: %d to %d costs %.3f ms at the margin, the cheapest %.3f", seed, i, j, p.RTTMS[i][j]+m[j], least)
				}
			}
		}
	}
}

// Two and three sites by brute force over a grid.
func TestSolve_againstBruteForce(t *testing.T) {
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 3))
		p, slots, service := random(t, r, 2, 0.35)
		// Only site 0 has users of its own besides a constant load at site 1.
		s, err := Solve(p, nil, Precision, 2000)
		if err != nil {
			t.Fatal(err)
		}
		best := math.Inf(1)
		const steps = 200
		for a := range steps + 1 {
			for b := range steps + 1 {
				x, y := p.DemandPerS[0]*float64(a)/steps, p.DemandPerS[1]*float64(b)/steps
				l0, l1 := p.DemandPerS[0]-x+y, x+p.DemandPerS[1]-y
				if l0 >= p.Queues[0].CapacityPerS()*0.99 || l1 >= p.Queues[1].CapacityPerS()*0.99 {
					continue
				}
				f := (x + y) * p.RTTMS[0][1]
				if l0 > 0 {
					f += l0 * erlang(slots[0], service[0], l0)
				}
				if l1 > 0 {
					f += l1 * erlang(slots[1], service[1], l1)
				}
				best = math.Min(best, f/(l0+l1))
			}
		}
		if math.IsInf(best, 1) {
			continue
		}
		if s.MeanMS > best*1.002 || s.MeanMS < best*0.98 {
			t.Errorf("seed %d: %.4f ms, brute force %.4f", seed, s.MeanMS, best)
		}
	}
}

// The ring of the reference: 6 sites, 4 slots of 10 ms, 5 ms a hop, one site at
// twice its capacity and the others at half. By symmetry the neighbours get more
// the nearer they are, and marginal costs differ by the round trips.
func TestSolve_ring(t *testing.T) {
	curves := new(price.Curves)
	p := Problem{}
	for i := range 6 {
		q, _ := curves.Queue(4, 10)
		p.Queues = append(p.Queues, q)
		p.DemandPerS = append(p.DemandPerS, 200)
		row := make([]float64, 6)
		for j := range row {
			row[j] = 5 * float64(min((i-j+6)%6, (j-i+6)%6))
		}
		p.RTTMS = append(p.RTTMS, row)
	}
	p.DemandPerS[0] = 800
	s, err := Solve(p, nil, Precision, 4000)
	if err != nil {
		t.Fatal(err)
	}
	if s.Gap > Precision {
		t.Errorf("gap %g after %d rounds", s.Gap, s.Rounds)
	}
	if math.Abs(s.LoadPerS[1]-s.LoadPerS[5]) > 0.5 || s.LoadPerS[0] <= s.LoadPerS[1] || s.LoadPerS[1] <= s.LoadPerS[2] {
		t.Errorf("loads %.1f", s.LoadPerS)
	}
	// The simulated static weights took 17.8 ms (reference, section 3).
	if s.MeanMS < 16.5 || s.MeanMS > 18.5 {
		t.Errorf("mean %.2f ms", s.MeanMS)
	}
	again, err := Solve(p, s, Precision, 4000)
	if err != nil || again.Rounds > 2 {
		t.Errorf("from its own solution it took %d rounds (%v)", again.Rounds, err)
	}
}

func TestSolve_refusesImpossible(t *testing.T) {
	q, _ := new(price.Curves).Queue(1, 10)
	for _, k := range []struct {
		p    Problem
		want string
	}{
		{Problem{DemandPerS: []float64{1}, Queues: []price.Queue{q}}, "as many of each"},
		{Problem{[]float64{math.NaN()}, []price.Queue{q}, [][]float64{{0}}}, "demand"},
		{Problem{[]float64{1}, []price.Queue{q}, [][]float64{{math.Inf(1)}}}, "round trip"},
		{Problem{[]float64{1}, []price.Queue{{}}, [][]float64{{0}}}, "no queue"},
		{Problem{[]float64{1}, []price.Queue{q}, [][]float64{{}}}, "want 1"},
	} {
		if _, err := Solve(k.p, nil, Precision, 1); err == nil || !strings.Contains(err.Error(), k.want) {
			t.Errorf("%+v: %v, want %q", k.p, err, k.want)
		}
	}
}

func BenchmarkSolve125(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	curves := new(price.Curves)
	p := Problem{}
	for i := range 125 {
		q, _ := curves.Queue(4, 10)
		p.Queues = append(p.Queues, q)
		p.DemandPerS = append(p.DemandPerS, 480*r.Float64())
		p.RTTMS = append(p.RTTMS, make([]float64, 125))
		for j := range i {
			p.RTTMS[i][j] = 1 + 9*r.Float64()
			p.RTTMS[j][i] = p.RTTMS[i][j]
		}
	}
	for b.Loop() {
		s, err := Solve(p, nil, Precision, 300)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(s.Gap, "gap")
		b.ReportMetric(float64(s.Rounds), "rounds")
	}
}
