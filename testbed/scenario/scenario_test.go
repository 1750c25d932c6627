package scenario

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

func six() []Site {
	ms := time.Millisecond
	return []Site{
		{"a", 4, 25 * ms, 10}, {"b", 6, 30 * ms, 20}, {"c", 4, 20 * ms, 5},
		{"d", 8, 40 * ms, 10}, {"e", 2, 20 * ms, 7}, {"f", 6, 24 * ms, 9},
	}
}

func TestPhasesFollowEachOtherAndFit(t *testing.T) {
	for _, d := range []time.Duration{MinDuration, 20 * time.Second, 30 * time.Second, 2 * time.Minute} {
		s, err := New(six(), d)
		if err != nil {
			t.Fatal(err)
		}
		at := time.Duration(0)
		for _, p := range s.Phases {
			if p.From != at || p.To <= p.From {
				t.Fatalf("%v: phase %s is %v..%v after %v", d, p.Name, p.From, p.To, at)
			}
			at = p.To
			total := 0.0
			for _, r := range p.Rates {
				total += r
			}
			if total > 0.8*s.Capacity() {
				t.Errorf("%v: %s offers %.0f of %.0f requests/s", d, p.Name, total, s.Capacity())
			}
		}
		if at != d || s.Duration() != d {
			t.Errorf("phases end at %v of %v", at, d)
		}
		hot := s.Phase(Hotspot)
		if hot.To-hot.From < MinHotspot {
			t.Errorf("%v: hotspot of %v", d, hot.To-hot.From)
		}
		if f := hot.Rates[s.Hot] / s.Sites[s.Hot].Capacity(); f < 1.8 || f > 2.5 {
			t.Errorf("hot site at %.2f of its capacity", f)
		}
		slow := s.Phase(Slow)
		if slow.Slow != s.Slow || s.Slow == s.Hot {
			t.Errorf("slow %d, hot %d, phase's %d", s.Slow, s.Hot, slow.Slow)
		}
		if slow.Rates[s.Slow] != s.Phase(Calm).Rates[s.Slow] {
			t.Error("the slow site's rate changes")
		}
		if f := SlowFactor * slow.Rates[s.Slow] / s.Sites[s.Slow].Capacity(); f < 1.1 {
			t.Errorf("the slow site is at %.2f of what it can do: alone it would cope", f)
		}
	}
}

func TestRefusals(t *testing.T) {
	bad := six()
	bad[2].Users = 0
	big := six()[:3]
	big[0].Slots, big[1].Slots, big[2].Slots = 1, 400, 400
	for name, c := range map[string]struct {
		sites    []Site
		duration time.Duration
		want     string
	}{
		"short":    {six(), 14 * time.Second, "at least 15s"},
		"few":      {six()[:2], time.Minute, "too few"},
		"no users": {bad, time.Minute, "site c"},
		"no fit":   {big, time.Minute, "more sites"},
	} {
		if _, err := New(c.sites, c.duration); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestThreeEqualSitesStillFit(t *testing.T) {
	s, err := New([]Site{{"a", 4, 20e6, 1}, {"b", 4, 20e6, 1}, {"c", 4, 20e6, 1}}, MinDuration)
	if err != nil {
		t.Fatal(err)
	}
	if s.HotFactor < 1.8 || s.Load < 0.15 {
		t.Errorf("hot factor %.2f, load %.2f", s.HotFactor, s.Load)
	}
}

func TestArrivalsAreAFunctionOfTheSeed(t *testing.T) {
	s, err := New(six(), 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	a, b, c := s.Arrivals(7), s.Arrivals(7), s.Arrivals(8)
	if !reflect.DeepEqual(a, b) {
		t.Error("the same seed gave other arrivals")
	}
	if reflect.DeepEqual(a, c) {
		t.Error("another seed gave the same arrivals")
	}
}

func TestArrivalsFollowTheRates(t *testing.T) {
	s, err := New(six(), 4*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	all := s.Arrivals(1)
	last := time.Duration(0)
	work := 0.0
	count := map[[2]int]int{}
	for _, a := range all {
		if a.At < last || a.At >= s.Duration() {
			t.Fatalf("arrival at %v after %v", a.At, last)
		}
		if a.User < 0 || a.User >= s.Sites[a.Site].Users {
			t.Fatalf("user %d of %d", a.User, s.Sites[a.Site].Users)
		}
		last = a.At
		work += a.Work
		for i, p := range s.Phases {
			if a.At >= p.From && a.At < p.To {
				count[[2]int{i, a.Site}]++
			}
		}
	}
	if mean := work / float64(len(all)); math.Abs(mean-1) > 5/math.Sqrt(float64(len(all))) {
		t.Errorf("mean work %.3f over %d requests, want 1", mean, len(all))
	}
	for i, p := range s.Phases {
		for site, rate := range p.Rates {
			want := rate * (p.To - p.From).Seconds()
			if got := float64(count[[2]int{i, site}]); math.Abs(got-want) > 5*math.Sqrt(want) {
				t.Errorf("%s, site %d: %v arrivals, want %.0f", p.Name, site, got, want)
			}
		}
	}
}
