package world

import (
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/membership"
	"github.com/meridian-mesh/meridian/controller/plan"
	"github.com/meridian-mesh/meridian/controller/price"
)

// away is the part of a's demand that a plan sends to b, and why b is excluded.
func away(t *testing.T, w *World, p *plan.Planner, now time.Time, reachable bool) (float64, string) {
	t.Helper()
	for _, sh := range w.Shared(now, reachable) {
		if sh.Service != "default/shop" {
			continue
		}
		in := plan.Input{DemandPerS: sh.Home.Demand, Slots: sh.Home.Slots, ServiceMS: sh.Home.ServiceTimeMS, NoHome: sh.NoHome}
		why := ""
		for _, o := range sh.Options {
			if o.Site != "b" {
				continue
			}
			why = o.Excluded
			in.Options = append(in.Options, plan.Option{
				Site: o.Site, Slots: o.Report.Slots, ServiceMS: o.Report.ServiceTimeMS, ArrivalsPerS: o.Report.Arrivals,
				AgeMS: o.AgeMS, InBand: o.InBand, RTTMS: o.RTTMS, Excluded: o.Excluded,
			})
		}
		return 1 - p.Tick(int64(now.Sub(t0)), in).HomeWeight, why
	}
	t.Fatal("the service is not shared")
	return 0, ""
}

// life is a site a whose users ask for twice what it can do, and its neighbour b.
type life struct {
	w   *World
	p   *plan.Planner
	now time.Time
	seq uint64
}

func newLife(t *testing.T) *life {
	w := New("a", Hub)
	put(t, w, Hub, siteYAML("a", 0, 0)+siteYAML("b", 0.01, 0)+shop)
	return &life{w: w, p: plan.New("default/shop", new(price.Curves)), now: t0}
}

// step is half a second: a's node reports, and b's controller when it is heard.
func (l *life) step(heard bool, epochA, epochB uint64) {
	l.now = l.now.Add(500 * time.Millisecond)
	l.seq++
	load := mesh.ServiceReport{Service: "default/shop", Slots: 4, ServiceTimeMS: 15, InFlight: 9, Arrivals: 260}
	l.w.Tell(&mesh.NodeReport{Site: "a", Node: "n1", Epoch: epochA, Seq: l.seq, Services: []mesh.NodeServiceReport{{Demand: 500, ServiceReport: load}}}, l.now)
	if heard {
		load.Slots, load.ServiceTimeMS, load.Arrivals, load.InFlight = 8, 10, 100, 1
		l.w.Hear(&mesh.Report{Site: "b", Reporter: "controller", Epoch: epochB, Seq: l.seq, Services: []mesh.ServiceReport{load}}, l.now)
	}
	l.w.Forget(l.now, time.Minute)
}

// A day in which nothing of b comes through: a plans for itself all the time, keeps
// nothing but what it needs, and shares again within two seconds of the first report.
func TestADayApart(t *testing.T) {
	l := newLife(t)
	for range 20 {
		l.step(true, 1, 1)
		away(t, l.w, l.p, l.now, true)
	}
	if x, why := away(t, l.w, l.p, l.now, true); x < 0.3 || why != "" {
		t.Fatalf("before: %.2f away, %q", x, why)
	}
	size := func() int {
		return len(l.w.reports) + len(l.w.nodes) + len(l.w.ways) + len(l.w.doubles) + len(l.w.rhythms)
	}
	before := size()
	for k := range 24 * 60 * 60 * 2 {
		l.step(false, 1, 1)
		if k%3600 != 3599 {
			continue
		}
		if x, why := away(t, l.w, l.p, l.now, false); x > 0 || why == "" {
			t.Fatalf("after %s: %.2f away, %q", l.now.Sub(t0), x, why)
		}
	}
	if p := l.w.Peers(l.now, false); len(p) != 1 || p[0].Status != membership.Unknown || l.now.Sub(p[0].News.At) < 24*time.Hour {
		t.Errorf("a day later: %+v", p)
	}
	if n := size(); n > before {
		t.Errorf("%d things are remembered, had %d", n, before)
	}
	for range 4 {
		l.step(true, 1, 1)
		away(t, l.w, l.p, l.now, true)
	}
	x, why := away(t, l.w, l.p, l.now, true)
	if p := l.w.Peers(l.now, true); x < 0.3 || why != "" || p[0].Status != membership.Alive {
		t.Errorf("two seconds after the heal: %.2f away, %q, %+v", x, why, p)
	}
}

// A process whose clock was set back and that was started anew is believed after the
// silence in which no younger one spoke, and is not taken for a second one.
func TestClockSetBack(t *testing.T) {
	l := newLife(t)
	for range 20 {
		l.step(true, 1000, 1000)
	}
	for k := range 40 {
		l.step(true, 500, 500)
		nodes, peers := l.w.Nodes(l.now), l.w.Peers(l.now, true)
		old := nodes[0].Report.Epoch == 1000 && peers[0].News.Epoch == 1000
		switch k {
		case 5: // three seconds: it may be one that was replaced
			if !old {
				t.Errorf("believed at once: %+v, %+v", nodes[0], peers[0].News)
			}
		case 15, 39:
			if nodes[0].Report.Epoch != 500 || nodes[0].Status != membership.Alive || peers[0].News.Epoch != 500 || peers[0].Status != membership.Alive {
				t.Errorf("%d half seconds later: node %d %s, site %d %s", k+1, nodes[0].Report.Epoch, nodes[0].Status, peers[0].News.Epoch, peers[0].Status)
			}
		}
	}
	if d := l.w.Doubles(l.now); len(d) != 0 {
		t.Errorf("doubles: %v", d)
	}
}
