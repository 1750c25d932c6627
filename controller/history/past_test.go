package history

import (
	"fmt"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

var began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// noted has as many moments as are due in a time, each with some sites.
func noted(d time.Duration, sites int) *Past {
	p := new(Past)
	for at := time.Duration(0); at <= d; at += 500 * time.Millisecond {
		now := began.Add(at)
		if p.Due(now) {
			m := Moment{At: now}
			for i := range sites {
				m.Sites = append(m.Sites, SiteMoment{Site: fmt.Sprint("s", i), InFlight: int(at / Every)})
			}
			p.Note(m)
		}
	}
	return p
}

func TestPast(t *testing.T) {
	if _, ok := new(Past).At(began); ok {
		t.Error("a moment out of nothing")
	}
	p := noted(5*time.Minute, 1)
	times := p.Times()
	if len(times) != 31 || !times[0].Equal(began) {
		t.Fatalf("%d moments from %v", len(times), times[0])
	}
	for _, c := range []struct {
		at   time.Duration
		want int
	}{{-time.Hour, 0}, {0, 0}, {9 * time.Second, 0}, {10 * time.Second, 1}, {299 * time.Second, 29}, {time.Hour, 30}} {
		if m, ok := p.At(began.Add(c.at)); !ok || m.Sites[0].InFlight != c.want {
			t.Errorf("at %v: %+v, want that of step %d", c.at, m, c.want)
		}
	}
}

// The last hours are kept within the bounds, the finer the nearer, and nothing older.
func TestPastFades(t *testing.T) {
	for _, sites := range []int{1, 1000} {
		p := noted(8*time.Hour, sites)
		now := began.Add(8 * time.Hour)
		times := p.Times()
		if p.bytes > MaxBytes || len(times) > MaxMoments {
			t.Errorf("%d sites: %d moments of %d bytes", sites, len(times), p.bytes)
		}
		sum := 0
		for i := range p.moments {
			sum += p.moments[i].bytes()
		}
		if sum != p.bytes {
			t.Errorf("%d sites: %d bytes are kept, %d counted", sites, sum, p.bytes)
		}
		if back := now.Sub(times[0]); back > Keep || back < Keep*3/4 {
			t.Errorf("%d sites: it goes back %v", sites, back)
		}
		if last := now.Sub(times[len(times)-2]); last != Every {
			t.Errorf("%d sites: the last but one is %v old", sites, last)
		}
		// No gap is more than a part of its age, as many moments as there is room for.
		for i := 1; i < len(times); i++ {
			gap, age := times[i].Sub(times[i-1]), now.Sub(times[i-1])
			if most := max(2*Every, age*time.Duration(12)/time.Duration(len(times))); gap > most {
				t.Errorf("%d sites, %d moments: a gap of %v %v ago", sites, len(times), gap, age)
			}
		}
	}
}

// A clock that is set back begins anew where it stands.
func TestPastClockSetBack(t *testing.T) {
	p := noted(time.Minute, 1)
	back := began.Add(25 * time.Second)
	if !p.Due(back) {
		t.Fatal("not due")
	}
	p.Note(Moment{At: back, Sites: []SiteMoment{{Site: "new"}}})
	if times := p.Times(); len(times) != 4 || !times[3].Equal(back) {
		t.Errorf("kept %v", times)
	}
	if m, _ := p.At(back); m.Sites[0].Site != "new" {
		t.Errorf("%+v", m)
	}
	if want := p.moments[0].bytes() * 4; p.bytes != want {
		t.Errorf("%d bytes counted for %d", p.bytes, want)
	}
}

func TestSiteMoment(t *testing.T) {
	var m SiteMoment
	if m.Add(&mesh.ServiceReport{Arrivals: 10}); m.Load != nil {
		t.Errorf("load %v without slots", *m.Load)
	}
	m.Add(&mesh.ServiceReport{Arrivals: 30, ServiceTimeMS: 100, Slots: 4, InFlight: 3})
	if m.Load == nil || *m.Load != 0.75 || m.ServedPerS != 40 || m.InFlight != 3 {
		t.Errorf("%+v", m)
	}
}
