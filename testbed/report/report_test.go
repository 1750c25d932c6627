package report

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/testbed/scenario"
)

const deadline = 30 * time.Second

func everything(Request) bool { return true }

func TestSummarizeByHand(t *testing.T) {
	msec := time.Millisecond
	all := []Request{
		{Latency: 10 * msec, Home: 0, Served: 0},
		{Latency: 30 * msec, Home: 0, Served: 1},
		{Latency: 20 * msec, Home: 1, Served: 1},
		{Latency: 40 * msec, Home: 1, Served: 0},
	}
	if got, want := Summarize(all, deadline, everything), (Stats{4, 0, 20, 25, 40, 0.5}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	// An error that came fast counts as if its user had waited to the deadline.
	all = append(all, Request{Latency: msec, Home: 0, Served: Nowhere, Outcome: BadStatus, Status: 503})
	if got, want := Summarize(all, deadline, everything), (Stats{5, 1, 30, 6020, 30000, 0.5}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := Summarize(all, deadline, func(r Request) bool { return r.Home == 1 }); got.Requests != 2 || got.MeanMS != 30 {
		t.Errorf("home 1: %+v", got)
	}
	if got := Summarize(nil, deadline, everything); got != (Stats{}) {
		t.Errorf("nothing: %+v", got)
	}
}

func TestNearestRanks(t *testing.T) {
	var all []Request
	for i := 1; i <= 200; i++ {
		all = append(all, Request{Latency: time.Duration(201-i) * time.Millisecond})
	}
	if got := Summarize(all, deadline, everything); got.MedianMS != 100 || got.P99MS != 198 {
		t.Errorf("median %v, p99 %v, want 100 and 198", got.MedianMS, got.P99MS)
	}
}

// timeline makes observations of site 0 every 50 ms; share(t) goes to site 1.
func timeline(share func(time.Duration) float64) []Weights {
	var out []Weights
	for at := time.Duration(0); at < 20*time.Second; at += 50 * time.Millisecond {
		v := share(at)
		out = append(out, Weights{At: at, Site: 0, Shares: []float64{1 - v, v}},
			Weights{At: at, Site: 1, Shares: []float64{0, 1}})
	}
	return out
}

func TestSharingFollowsTheStep(t *testing.T) {
	const s = time.Second
	step := Span{5 * s, 15 * s}
	over := 5*s + 10*time.Millisecond
	ptr := func(v float64) *float64 { return &v }
	for name, c := range map[string]struct {
		share            func(time.Duration) float64
		reaction, settle *float64
		reversals        int
	}{
		"never moves":       {func(time.Duration) float64 { return 0.2 }, nil, nil, 0},
		"moves in the calm": {func(t time.Duration) float64 { return 0.1 * float64(min(t, 4*s)) / float64(s) }, nil, nil, 0},
		"wobbles in the calm, then jumps": {func(t time.Duration) float64 {
			if t < 5400*time.Millisecond {
				return 0.1 + 0.03*float64(int(t/(100*time.Millisecond))%2)
			}
			return 0.5
		}, ptr(390), ptr(390), 0},
		"one jump": {func(t time.Duration) float64 {
			if t < 5300*time.Millisecond {
				return 0
			}
			return 0.5
		}, ptr(290), ptr(290), 0},
		"ramp": {func(t time.Duration) float64 { // 0.1 a second: reaches 0.4, a tenth from the end, at 9 s
			return 0.1 * min(max(t-5*s, 0), 5*s).Seconds()
		}, ptr(140), ptr(3990), 0},
		"a wobble below the threshold": {func(t time.Duration) float64 {
			if t < 5100*time.Millisecond {
				return 0
			}
			return 0.5 + 0.02*math.Sin(t.Seconds()*6)
		}, ptr(90), ptr(90), 0},
		"swings after settling": {func(t time.Duration) float64 {
			switch {
			case t < 5100*time.Millisecond:
				return 0
			case t > 11*s && t < 12*s:
				return 0.7
			}
			return 0.5
		}, ptr(90), ptr(6990), 1},
		"swings on": {func(t time.Duration) float64 { // four moves from 10 s on, so three turns
			if t < 5100*time.Millisecond {
				return 0
			}
			return 0.5 + 0.1*float64(int(t/s)%2)
		}, ptr(90), ptr(90), 3},
		"swings only in the first seconds": {func(t time.Duration) float64 {
			if t < 5100*time.Millisecond {
				return 0
			}
			if t < 9*s {
				return 0.5 + 0.3*float64(int(t/s)%2)
			}
			return 0.5
		}, ptr(90), ptr(2990), 0},
	} {
		got := MeasureSharing(timeline(c.share), 2, 0, step, over)
		if !near(got.ReactionMS, c.reaction) || !near(got.SettleMS, c.settle) || got.Reversals != c.reversals {
			t.Errorf("%s: reaction %v settle %v reversals %d, want %v %v %d", name,
				show(got.ReactionMS), show(got.SettleMS), got.Reversals, show(c.reaction), show(c.settle), c.reversals)
		}
	}
}

func TestSharingThatNeverSettles(t *testing.T) {
	seen := timeline(func(t time.Duration) float64 {
		if t < 5*time.Second {
			return 0
		}
		return 0.5 + 0.3*float64(int(t/(200*time.Millisecond))%2)
	})
	got := MeasureSharing(seen, 2, 0, Span{5 * time.Second, 15 * time.Second}, 5*time.Second)
	// The last observation may be within a tenth of the mean or not: settling at
	// the very end is no settling that anybody would call so.
	if got.SettleMS != nil && *got.SettleMS < 9700 {
		t.Errorf("settled after %v ms", *got.SettleMS)
	}
	if got.Reversals < 20 {
		t.Errorf("%d reversals", got.Reversals)
	}
	// Seen from the other site, whose weights stand still, nothing happened there.
	got = MeasureSharing(seen, 2, 1, Span{5 * time.Second, 15 * time.Second}, 5*time.Second)
	if got.ReactionMS != nil || got.Reversals != 0 || got.ReversalsAll < 20 {
		t.Errorf("%+v", got)
	}
}

func TestUnseenProxiesHoldUpNothing(t *testing.T) {
	got := MeasureSharing(nil, 3, 1, Span{0, time.Second}, 0)
	if got.ReactionMS != nil || got.SettleMS != nil || got.Reversals != 0 {
		t.Errorf("%+v from no observation", got)
	}
}

func near(a, b *float64) bool {
	if a == nil || b == nil {
		return a == b
	}
	return math.Abs(*a-*b) <= 51
}

func show(v *float64) any {
	if v == nil {
		return "none"
	}
	return *v
}

func sample(t *testing.T) *Report {
	t.Helper()
	sites := []scenario.Site{{Name: "a", Slots: 4, ServiceTime: 20e6, Users: 3}, {Name: "b", Slots: 8, ServiceTime: 20e6, Users: 3},
		{Name: "c", Slots: 8, ServiceTime: 40e6, Users: 3}, {Name: "d", Slots: 8, ServiceTime: 20e6, Users: 3}}
	sc, err := scenario.New(sites, 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	r := &Report{Seed: 7, Version: "v0", DurationS: 20, HotSite: sites[sc.Hot].Name, SlowSite: sites[sc.Slow].Name, HotFactor: 2.2, HotspotLoad: 0.7}
	for i, s := range sites {
		r.Sites = append(r.Sites, Site{Name: s.Name, Slots: s.Slots, Capacity: s.Capacity(), Users: 3, RTTMS: []float64{1, 2, 3, 4}})
		r.Sites[i].RTTMS[i] = 0
	}
	for n, policy := range Policies() {
		var all []Request
		for _, a := range sc.Arrivals(1) {
			q := Request{At: a.At, Home: a.Site, Served: a.Site, Latency: time.Duration(n+1) * 10 * time.Millisecond}
			if n == 1 && a.Site == sc.Hot && a.At > 10*time.Second {
				q.Outcome, q.Served, q.Latency = Timeout, Nowhere, deadline
			}
			all = append(all, q)
		}
		run := Run{Policy: policy, Phases: PhaseStats(sc, all, deadline), ErrorKinds: ErrorKinds(all)}
		if n == 0 {
			v := 150.0
			run.Sharing = Sharing{ReactionMS: &v, SettleMS: &v}
		}
		r.Runs = append(r.Runs, run)
	}
	return r
}

func TestJSONHasTheAgreedShape(t *testing.T) {
	b, err := json.Marshal(sample(t))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"runs", "sites", "seed", "version"} {
		if _, ok := got[k]; !ok {
			t.Errorf("no %q", k)
		}
	}
	run := got["runs"].([]any)[0].(map[string]any)
	for _, k := range []string{"policy", "phases", "reaction_ms", "settle_ms", "reversals"} {
		if _, ok := run[k]; !ok {
			t.Errorf("a run has no %q", k)
		}
	}
	names := ""
	for _, p := range run["phases"].([]any) {
		phase := p.(map[string]any)
		names += phase["name"].(string) + " "
		for _, who := range []string{"all", "hot_home"} {
			stats := phase[who].(map[string]any)
			for _, k := range []string{"requests", "errors", "median_ms", "mean_ms", "p99_ms", "away_share"} {
				if _, ok := stats[k].(float64); !ok {
					t.Errorf("%s.%s has no number %q", phase["name"], who, k)
				}
			}
		}
		for _, k := range []string{"from_s", "to_s"} {
			if _, ok := phase[k].(float64); !ok {
				t.Errorf("%s has no number %q", phase["name"], k)
			}
		}
	}
	if names != "calm hotspot hotspot-settled slow recovery " {
		t.Errorf("phases %s", names)
	}
	if got["runs"].([]any)[1].(map[string]any)["reaction_ms"] != nil {
		t.Error("a policy that moves no weight has a reaction")
	}
}

func TestPhasesShareTheRequestsOut(t *testing.T) {
	r := sample(t)
	for _, run := range r.Runs {
		sum := 0
		for _, p := range run.Phases {
			if p.Name != HotspotSettled {
				sum += p.All.Requests
			}
			if p.HotHome.Requests == 0 || p.HotHome.Requests >= p.All.Requests {
				t.Errorf("%s: %d of %d requests are the hot site's", p.Name, p.HotHome.Requests, p.All.Requests)
			}
		}
		if sum < 5000 {
			t.Errorf("%d requests in all phases", sum)
		}
	}
	if r.Runs[1].ErrorKinds["timeout"] == 0 || r.Runs[0].ErrorKinds != nil {
		t.Error("errors are not counted by kind")
	}
}

func TestTableSaysLossesToo(t *testing.T) {
	r := sample(t)
	got := r.Table()
	for _, want := range []string{"cooperative", "weighted-round-robin", "hotspot-settled", "What to see", "better", "timeout", "150 ms"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	r.Runs[0], r.Runs[3] = r.Runs[3], r.Runs[0]
	r.Runs[0].Policy, r.Runs[3].Policy = r.Runs[3].Policy, r.Runs[0].Policy
	if got := strings.Join(r.Findings(), "\n"); !strings.Contains(got, "worse") {
		t.Errorf("a loss is not called one:\n%s", got)
	}
	if strings.Contains(got, "stood still") {
		t.Error("a generator on time is called late")
	}
	r.Runs[2].GeneratorLateMS = 1650
	if got := strings.Join(r.Findings(), "\n"); !strings.Contains(got, "round-robin: one request in a hundred left the generator over 1.65 s late") {
		t.Errorf("a stall is not named:\n%s", got)
	}
	t.Log("\n" + got)
}
