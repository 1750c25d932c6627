package share

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/price"
	"github.com/meridian-mesh/meridian/edgeproxy/inband"
)

func newTestNode(t *testing.T) *Node {
	t.Helper()
	n := NewNode(Identity{Site: "a", Node: "edge-a", Epoch: 7}, new(price.Curves), new(Ledger))
	err := n.Configure([]Service{{Key: echo, DeclaredMS: 10}}, []Peer{{Site: "b", RTTMS: 5}, {Site: "c", RTTMS: 8}})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func heard(site string, seq uint64) *inband.Report {
	return &inband.Report{
		Site: []byte(site), Reporter: []byte("edge-" + site), Service: []byte(echo), Epoch: 3, Seq: seq,
		Slots: 4, ServiceMS: 10, ArrivalsPerS: 20, FromYouPerS: 5, InFlight: 1,
	}
}

func weights(seq uint64, homeLimit int) *mesh.Weights {
	at := time.Unix(1000, 0)
	return &mesh.Weights{
		Site: "a", Epoch: 1, Seq: seq, IssuedAt: at, ExpiresAt: at.Add(2 * time.Second),
		Services: []mesh.ServiceWeights{{
			Service: echo, HomeLimit: homeLimit, HomeWeight: 0.5,
			Remotes: []mesh.RemoteWeight{{Site: "b", Weight: 0.3, Draw: 30, Limit: 9}, {Site: "x", Weight: 0.2, Draw: 20, Limit: 9}},
		}},
	}
}

func count(demand uint64) map[mesh.ServiceKey]*Counters {
	return map[mesh.ServiceKey]*Counters{echo: {Demand: demand, Served: demand, Completed: demand, FreeStarts: demand, Slots: 4, Up: true}}
}

// TestNode_sources walks a plan from the controller through its end to the
// node's own, and back.
func TestNode_sources(t *testing.T) {
	n := newTestNode(t)
	now, seq, demand := int64(1e9), uint64(0), uint64(0)
	tick := func() Share {
		now += 100e6
		demand += 10
		seq++
		n.Hear(now, heard("b", seq))
		return n.Tick(now, count(demand)).Shares[0]
	}
	if s := tick(); s.Source != SourceStandby || len(s.Weights.Remotes) != 1 || s.Weights.Remotes[0].Excluded != "" {
		t.Fatalf("without a controller: %s %+v", s.Source, s.Weights)
	}
	if err := n.SetWeights(now, weights(1, 77)); err != nil {
		t.Fatal(err)
	}
	if s := tick(); s.Source != SourceFading {
		t.Fatalf("a first plan: %s", s.Source)
	}
	for range 12 {
		tick()
	}
	s := tick()
	if s.Source != SourceController || s.Weights.HomeLimit != 77 || s.Gate.HomeLimit() != 77 {
		t.Fatalf("1.3 s later: %s, home limit %d", s.Source, s.Weights.HomeLimit)
	}
	for _, r := range s.Weights.Remotes {
		if r.Site == "x" && (r.Excluded == "" || r.Weight != 0) {
			t.Errorf("a site without a way there: %+v", r)
		}
	}
	if s.Weights.HomeWeight != 0.7 {
		t.Errorf("its share goes home: home weight %v, want 0.7", s.Weights.HomeWeight)
	}
	var order []string
	for range 25 { // expires after 2 s
		if s = tick(); len(order) == 0 || order[len(order)-1] != s.Source {
			order = append(order, s.Source)
		}
	}
	if got := strings.Join(order, " "); got != "controller fading standby" {
		t.Errorf("nobody renews: %s", got)
	}
	if err := n.SetWeights(now, weights(1, 77)); err != nil {
		t.Errorf("an expired plan may come again: %v", err)
	}
	if s = tick(); s.Source != SourceFading {
		t.Errorf("the controller is back: %s", s.Source)
	}
}

// What is barred gets nothing by the own plan, by the controller's, by a pin, or as
// the last resort.
func TestNode_barred(t *testing.T) {
	n := newTestNode(t)
	for _, pin := range []map[string]float64{nil, {"a": 1, "b": 5}} {
		err := n.Configure([]Service{{Key: echo, DeclaredMS: 10, Pin: pin, Barred: map[string]string{"b": "fenced: out"}}}, []Peer{{Site: "b", RTTMS: 5}, {Site: "c", RTTMS: 8}})
		if err != nil {
			t.Fatal(err)
		}
		now := int64(1e9)
		for i := range uint64(40) {
			now += 100e6
			n.Hear(now, heard("b", i+1))
			if i == 20 {
				if err := n.SetWeights(now, weights(i, 1)); err != nil && pin == nil {
					t.Fatal(err)
				}
			}
			c := count(i * 50)
			c[echo].Up = i%2 == 0
			s := n.Tick(now, c).Shares[0]
			for _, r := range s.Weights.Remotes {
				if r.Site == "b" && (r.Excluded != "fenced: out" || r.Weight != 0 || r.Draw != 0) {
					t.Fatalf("tick %d, %s: %+v", i, s.Source, r)
				}
			}
			for _, inFlight := range []int{NoHome, 0, 5, 1 << 20} {
				if p := s.Gate.Pick(now, inFlight, i*0x9e3779b97f4a7c15, 0); p >= 0 && s.Gate.Site(p) == "b" {
					t.Fatalf("tick %d, %s, %d in flight: a request crosses the fence", i, s.Source, inFlight)
				}
			}
		}
	}
}

func TestNode_SetWeights_refuses(t *testing.T) {
	n := newTestNode(t)
	if err := n.SetWeights(1e9, weights(5, 7)); err != nil {
		t.Fatal(err)
	}
	for what, spoil := range map[string]func(*mesh.Weights){
		"another site": func(w *mesh.Weights) { w.Site = "b" },
		"newer reader": func(w *mesh.Weights) { w.MinReader = mesh.Version + 1 },
		"no life":      func(w *mesh.Weights) { w.ExpiresAt = w.IssuedAt },
	} {
		w := weights(6, 8)
		spoil(w)
		if err := n.SetWeights(1e9, w); err == nil {
			t.Errorf("%s accepted", what)
		}
	}
	for _, seq := range []uint64{4, 5} {
		if err := n.SetWeights(1e9, weights(seq, 8)); !errors.Is(err, ErrOld) {
			t.Errorf("sequence %d after 5: %v", seq, err)
		}
	}
}

func TestNode_Configure_refuses(t *testing.T) {
	n := newTestNode(t)
	for what, err := range map[string]error{
		"unknown policy":  n.Configure([]Service{{Key: echo, Policy: "random"}}, nil),
		"repeated":        n.Configure([]Service{{Key: echo}, {Key: echo}}, nil),
		"itself as peer":  n.Configure(nil, []Peer{{Site: "a"}}),
		"a peer repeated": n.Configure(nil, []Peer{{Site: "b"}, {Site: "b"}}),
	} {
		if err == nil {
			t.Errorf("%s accepted", what)
		}
	}
	if len(n.services) != 1 || len(n.peers) != 2 {
		t.Errorf("a refused configuration left %d services, %d peers", len(n.services), len(n.peers))
	}
}

func TestNode_report(t *testing.T) {
	n := newTestNode(t)
	c := count(0)
	n.Tick(1e9, c)
	work := func(i int64) {
		k := c[echo]
		k.Demand += 20
		k.Served += 30
		k.Completed += 30
		k.FreeStarts += 30
		k.Unqueued += 30
		k.UnqueuedMS += 30 * 12
		k.UnqueuedSqMS += 30 * 12 * 12
		k.From = map[string]uint64{"b": uint64(i) * 10}
	}
	for i := range int64(60) {
		work(i + 1)
		n.Tick(1e9+(i+1)*100*ms, c)
	}
	work(61)
	n.Hear(7.05e9, heard("b", 1))
	n.MeasureRTT("b", 6)
	n.MeasureRTT("stranger", 6)
	out := n.Tick(7.1e9, c)
	s := out.Report.Services[0]
	near := func(what string, got, want float64) {
		if got < 0.95*want || got > 1.05*want {
			t.Errorf("%s %v, want about %v", what, got, want)
		}
	}
	near("demand", s.Demand, 200)
	near("arrivals", s.Arrivals, 300)
	near("from b", s.From["b"], 100)
	near("service time", s.ServiceTimeMS, 12)
	if s.Spillers != 1 || !out.Publish || len(out.Report.Heard) != 1 || out.Report.Heard[0].Site != "b" || out.Report.Heard[0].AgeMS != 50 {
		t.Errorf("report %+v", out.Report)
	}
	if l := out.Report.Links; len(l) != 2 || l[0].RTTMS != 6 || l[1].RTTMS != 0 {
		t.Errorf("links %+v", l)
	}
	if f := out.Report.InForce; len(f) != 1 || f[0].Source != SourceStandby || f[0].Shares["a"]+f[0].Shares["b"] != 1 {
		t.Errorf("in force %+v", f)
	}

	var r inband.Report
	for asking, from := range map[string]float64{"b": 100, "c": 0} {
		if err := r.Parse(inband.Append(nil, out.Shares[0].Prefixes.For([]byte(asking)), 9)); err != nil {
			t.Fatal(err)
		}
		near("arrivals in band", r.ArrivalsPerS, 300)
		if r.InFlight != 9 || string(r.Site) != "a" || r.Spillers != 1 || r.FromYouPerS < 0.95*from || r.FromYouPerS > 1.05*from {
			t.Errorf("said to %s: %+v", asking, r)
		}
	}
	// A quiet node speaks every 500 ms.
	spoke := 0
	for i := range int64(20) {
		if n.Tick(7.2e9+i*100*ms, c).Publish {
			spoke++
		}
	}
	if spoke != 4 {
		t.Errorf("%d reports in 2 quiet seconds, want 4", spoke)
	}
}

func TestNode_saturatedServiceTime(t *testing.T) {
	n := newTestNode(t)
	c := count(0)
	k := c[echo]
	k.InFlight = 40
	for i := range int64(100) {
		k.Served += 13
		k.Demand += 13
		k.Completed += 13 // 4 slots of 30.8 ms in 100 ms
		n.Tick(1e9+i*100*ms, c)
	}
	if s := n.services[0].serviceTime.MS(); s < 29 || s > 33 {
		t.Errorf("service time %v ms of full slots, want 30.8", s)
	}
}

func TestPick_overflow(t *testing.T) {
	w := someplan(3)
	w.Remotes[1].Draw, w.Remotes[2].Draw = 0, 0 // the plan draws only 0
	w.Remotes[0].Limit = 0
	w.Remotes[2].PriceMS = 90
	g := compile(t, "", w)
	for _, k := range []struct {
		inFlight, want int
		why            string
	}{
		{4, Home, "at the limit, no remote is cheaper than the cheapest"},
		{8, 1, "twice the limit is worth a price of 21"},
	} {
		if i := g.Pick(1e9, k.inFlight, 1, 0); i != k.want {
			t.Errorf("%d in flight: picked %d, want %d: %s", k.inFlight, i, k.want, k.why)
		}
	}
	if i := g.Pick(1e9, 8, 1, Mask(0).With(1)); i != Home {
		t.Errorf("only a site at 90 ms left: picked %d, want home", i)
	}
}
