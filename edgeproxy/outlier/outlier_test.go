package outlier

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

const (
	tick   = int64(100e6)
	second = int64(1e9)
)

// site drives a Detector: each tick adds outcomes per endpoint.
type site struct {
	d      Detector
	eps    []Endpoint
	now    int64
	events []string
}

func newSite(n int, c Config) *site {
	s := &site{d: Detector{Config: c}, now: 7 * second}
	for range n {
		s.eps = append(s.eps, Endpoint{State: new(State)})
	}
	s.run(1, func(int) (uint64, uint64) { return 0, 0 })
	return s
}

// run ticks for the given number of times and records changes as
// "<tick>:<endpoint>=<health>".
func (s *site) run(ticks int, outcome func(i int) (success, failure uint64)) {
	for range ticks {
		s.now += tick
		before := make([]Health, len(s.eps))
		for i := range s.eps {
			before[i] = s.eps[i].Health()
			ok, bad := outcome(i)
			s.eps[i].Counts.Success += ok
			s.eps[i].Counts.Failure += bad
		}
		changed, really := s.d.Tick(s.now, s.eps), false
		for i, e := range s.eps {
			if e.Health() != before[i] {
				really = true
				s.events = append(s.events, fmt.Sprintf("%.1f:%d=%d", float64(s.now-7*second-tick)/1e9, i, e.Health()))
			}
		}
		if changed != really {
			s.events = append(s.events, fmt.Sprintf("changed said %v", changed))
		}
	}
}

func (s *site) expect(t *testing.T, want string) {
	t.Helper()
	if got := strings.Join(s.events, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	s.events = nil
}

func failing(which ...int) func(int) (uint64, uint64) {
	return func(i int) (uint64, uint64) {
		for _, w := range which {
			if i == w {
				return 0, 1
			}
		}
		return 1, 0
	}
}

func TestFailuresInARow(t *testing.T) {
	s := newSite(3, DefaultConfig)
	s.run(4, failing(1))
	s.expect(t, "")
	s.run(1, failing(1))
	s.expect(t, "0.5:1=1")
	// It is back after 10 s, and out again for 20 s after five more failures: those
	// before and during the ejection do not count.
	s.run(105, failing(1))
	s.expect(t, "10.5:1=0 11.0:1=1")
	s.run(210, failing(1))
	s.expect(t, "31.0:1=0 31.5:1=1")
}

func TestSuccessStartsOver(t *testing.T) {
	s := newSite(2, Config{Failures: 5, Interval: 10 * second, Ejection: 10 * second, MaxEjection: 10 * second})
	for range 50 {
		s.run(4, failing(0))
		s.run(1, failing())
		// more failures than the limit in one tick, with a success among them
		s.run(1, func(i int) (uint64, uint64) { return 1, 9 })
	}
	s.expect(t, "")
}

func TestEjectionTimeGrowsAndShrinks(t *testing.T) {
	c := Config{Failures: 1, Interval: 10 * second, Ejection: second, MaxEjection: 4 * second}
	s := newSite(2, c)
	spans := func(n int) (out []int) {
		for range n {
			s.run(1, failing(0))
			k := 0
			for ; s.eps[0].Health() != 0; k++ {
				s.run(1, failing())
			}
			out = append(out, k)
		}
		return out
	}
	if got := fmt.Sprint(spans(5)); got != "[10 20 40 40 40]" {
		t.Errorf("got %s ticks", got)
	}
	// each quiet second takes one doubling back
	s.run(11, failing())
	if got := fmt.Sprint(spans(1)); got != "[20]" {
		t.Errorf("after a quiet second: %s ticks", got)
	}
	s.run(25, failing())
	if got := fmt.Sprint(spans(1)); got != "[10]" {
		t.Errorf("after two more: %s ticks", got)
	}
}

func TestMaxEjected(t *testing.T) {
	for _, c := range []struct {
		n     int
		share float64
		want  int
	}{{1, 1, 0}, {2, 0, 1}, {2, 0.5, 1}, {3, 0.5, 1}, {4, 0.5, 2}, {10, 0.3, 3}, {4, 1, 4}} {
		config := DefaultConfig
		config.MaxEjected = c.share
		s := newSite(c.n, config)
		s.run(60, func(int) (uint64, uint64) { return 0, 10 })
		out := 0
		for _, e := range s.eps {
			if e.Health() != 0 {
				out++
			}
		}
		if out != c.want {
			t.Errorf("%d endpoints, share %v: %d ejected, want %d", c.n, c.share, out, c.want)
		}
	}
}

// TestWaitsForItsTurn: an endpoint that cannot be ejected because enough are out
// already is ejected when one returns.
func TestWaitsForItsTurn(t *testing.T) {
	s := newSite(2, DefaultConfig)
	s.run(5, failing(0))
	s.run(95, failing(0, 1))
	s.expect(t, "0.5:0=1")
	s.run(6, func(i int) (uint64, uint64) { return 1 - uint64(i), uint64(i) })
	s.expect(t, "10.5:0=0 10.5:1=1")
}

func TestSuccessRate(t *testing.T) {
	rates := func(perTick uint64, failures ...uint64) func(int) (uint64, uint64) {
		return func(i int) (uint64, uint64) { return perTick - failures[i], failures[i] }
	}
	for _, c := range []struct {
		name    string
		outcome func(int) (uint64, uint64)
		n       int
		want    string
	}{
		{"all well", rates(10, 0, 0, 1), 3, ""},
		{"one of two is bad", rates(10, 0, 5), 2, "10.0:1=2"},
		{"one of two is a little worse", rates(10, 0, 3), 2, ""},
		{"all are bad alike", rates(10, 6, 6, 6), 3, ""},
		{"the worst goes, the other is bad too but must stay", rates(10, 8, 7, 0), 3, "10.0:0=2"},
		{"two of four", rates(10, 8, 0, 9, 0), 4, "10.0:0=2 10.0:2=2"},
		{"too few requests to judge", func(i int) (uint64, uint64) { return 0, 0 }, 2, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(c.n, DefaultConfig)
			s.run(105, c.outcome)
			s.expect(t, c.want)
		})
	}
	t.Run("good times do not make up for bad ones", func(t *testing.T) {
		s := newSite(2, DefaultConfig)
		s.run(1000, rates(10, 0, 0))
		s.run(105, rates(10, 0, 5))
		s.expect(t, "110.0:1=2")
	})
	t.Run("few requests", func(t *testing.T) {
		s := newSite(2, DefaultConfig)
		for k := range 105 {
			s.run(1, func(i int) (uint64, uint64) {
				switch {
				case i == 0:
					return 10, 0
				case k%10 == 0 && k < 90: // 18 requests, half of them bad
					return 1, 1
				}
				return 0, 0
			})
		}
		s.expect(t, "")
	})
}

// TestNewEndpointAndReload: history from before the first tick does not count,
// and a State goes on in another Detector.
func TestNewEndpointAndReload(t *testing.T) {
	s := newSite(2, DefaultConfig)
	s.eps = append(s.eps, Endpoint{State: new(State), Counts: Counts{Failure: 1000}})
	s.run(4, failing(2))
	s.expect(t, "")
	s.d = Detector{Config: DefaultConfig}
	s.eps[0], s.eps[2] = s.eps[2], s.eps[0]
	s.run(2, failing(0))
	s.expect(t, "0.6:0=1")
}

func TestSwitchedOff(t *testing.T) {
	s := newSite(4, Config{Interval: second, Ejection: second, MaxEjection: second, MaxEjected: 1})
	s.run(100, failing(0))
	s.expect(t, "")
}

// TestBounds: whatever happens, no more than the share is out, and every ejection
// ends within its longest time.
func TestBounds(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 30 {
		n := 1 + rnd.IntN(6)
		c := DefaultConfig
		c.MaxEjection = 20 * second
		s := newSite(n, c)
		out := make([]int64, n)
		for range 3000 {
			s.run(1, func(i int) (uint64, uint64) { return rnd.Uint64N(2) * rnd.Uint64N(3), rnd.Uint64N(4) / 3 * uint64(i+1) })
			held := 0
			for i, e := range s.eps {
				if e.Health() == 0 {
					out[i] = 0
					continue
				}
				held++
				if out[i]++; out[i]*tick > c.MaxEjection {
					t.Fatalf("endpoint %d is out for %d ticks", i, out[i])
				}
			}
			if most := n / 2; held > max(most, min(1, n-1)) {
				t.Fatalf("%d of %d are out", held, n)
			}
		}
	}
}

func TestNoAllocations(t *testing.T) {
	s := newSite(8, DefaultConfig)
	if n := testing.AllocsPerRun(1000, func() {
		s.now += tick
		s.eps[3].Counts.Failure++
		s.d.Tick(s.now, s.eps)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
