//go:build root

package netns

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/testbed/emu"
	"github.com/meridian-mesh/meridian/testbed/link"
	"github.com/meridian-mesh/meridian/testbed/load"
	"github.com/meridian-mesh/meridian/testbed/reactor"
	"github.com/meridian-mesh/meridian/testbed/report"
	demand "github.com/meridian-mesh/meridian/testbed/scenario"
	"github.com/meridian-mesh/meridian/testbed/sim"
	"github.com/meridian-mesh/meridian/testbed/sim/policy"
	"github.com/meridian-mesh/meridian/testbed/sim/scenario"
)

// What simulator and real sites may differ by, shares over all seeds.
const (
	agreeMean, agreeP99, agreeShare = 0.15, 0.30, 0.05
)

// TestRootAgree runs scenario files of the simulator with real sites: the same
// requests at the same times with the same work, as the same seed makes them, through
// a proxy and a controller at each site, over lines with the scenario's round trips.
// Mean, 99th percentile and shares must be the simulator's.
//
// MERIDIAN_AGREE names scenarios, MERIDIAN_AGREE_SEEDS how many seeds each is run with
// and MERIDIAN_AGREE_SLOWER by how much service times, gaps between requests and round
// trips are stretched, in both: a machine that has other work to do adds milliseconds
// to a request that are no part of it. Without these it is one short run with twice
// the room, because CI's machine has, and delays are judged only where the generators
// themselves were in time, which is tried three times: shares say whether real sites
// decide as simulated ones do, and a stall of the whole machine does not change them.
func TestRootAgree(t *testing.T) {
	names, room, tries := []string{"./testdata/agree.yaml"}, 2.0, 3
	if v := os.Getenv("MERIDIAN_AGREE"); v != "" {
		names, room, tries = strings.Split(v, ","), 1, 1
	}
	seeds, slower := setting(t, "MERIDIAN_AGREE_SEEDS", 1), setting(t, "MERIDIAN_AGREE_SLOWER", 1)
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".yaml"), func(t *testing.T) {
			sc, err := scenario.Load(name, os.Getenv("MERIDIAN_TESTDATA"))
			if err != nil {
				t.Fatal(err)
			}
			stretch(sc, float64(slower))
			m := newRealMesh(t, sc, edgeproxies{})
			m.room, m.tries = room, tries
			m.agree(t, seeds)
		})
	}
}

// stretch makes everything but the deadline and the product's own clocks slower.
func stretch(sc *sim.Scenario, by float64) {
	for i := range sc.Network.Sites {
		s := &sc.Network.Sites[i]
		s.ServiceMS *= by
		s.DemandPerS /= by
		for j := range sc.Network.RTTMS[i] {
			sc.Network.RTTMS[i][j] *= by
		}
	}
}

// realMesh is a simulated network made of real sites, and a hub apart from them.
type realMesh struct {
	sc         *sim.Scenario
	room       float64 // factor on what may differ
	tries      int     // how often a run is repeated whose generators were late
	net        *Network
	hub        *site
	sites      []*site
	backends   []emu.Control
	generators []*load.Generator
}

// figures are what is compared.
type figures struct {
	meanMS, p99MS, errors, away float64
	// hotTo are the parts of the hot site's requests that each site serves.
	hotTo []float64
}

func (f figures) String() string {
	shares := make([]string, len(f.hotTo))
	for i, s := range f.hotTo {
		shares[i] = fmt.Sprintf("%.1f", 100*s)
	}
	return fmt.Sprintf("mean %.1f ms, p99 %.1f ms, errors %.2f %%, elsewhere %.1f %%, hot site's to %s %%",
		f.meanMS, f.p99MS, 100*f.errors, 100*f.away, strings.Join(shares, "/"))
}

// front is what users of a real mesh reach at each site.
type front interface {
	// flags are the site's controller's, start starts the proxy of the i-th site once
	// its backend listens, and ready tells whether it may send to all others.
	flags(m *realMesh, i int) []string
	start(m *realMesh, i int, backend string)
	ready(m *realMesh, i int) func() bool
}

// edgeproxies are our own.
type edgeproxies struct{}

func (edgeproxies) flags(*realMesh, int) []string      { return nil }
func (edgeproxies) start(m *realMesh, i int, _ string) { m.sites[i].startProxy() }
func (edgeproxies) ready(m *realMesh, i int) func() bool {
	return m.sites[i].mayUse(len(m.sites) - 1)
}

func newRealMesh(t *testing.T, sc *sim.Scenario, f front) *realMesh {
	t.Helper()
	names := []string{"hub"}
	for i := range sc.Network.Sites {
		names = append(names, fmt.Sprintf("s%d", i))
	}
	m := &realMesh{sc: sc, net: New(t, 1, link.Shape{}, names...)}
	hub := newSite(t, m.net.Places[0], "hub")
	m.hub = hub
	for i, p := range m.net.Places[1:] {
		m.sites = append(m.sites, newSite(t, p, sc.Network.Sites[i].Name))
	}
	m.shape()
	hub.run("--data", hub.dir, "site", "init", "--name", hub.name, "--location", "144.9,-37.8",
		"--gateway", hub.Addr.String()+":15443", "--advertise", hub.Addr.String(), "--leaf-listen", "0.0.0.0:7422")
	hub.startController()
	within(t, 20*time.Second, "the hub", func() bool { _, err := hub.status(t.Context()); return err == nil })
	var doc strings.Builder
	doc.WriteString(ingress)
	addrs := make([]string, len(m.sites))
	for i, s := range m.sites {
		token, err := hub.api.CreateToken(t.Context(), siteapi.TokenRequest{Site: s.name})
		if err != nil {
			t.Fatal(err)
		}
		s.run("--data", s.dir, "join", token.Token, "--prepare", "--location", fmt.Sprintf("%g,-37.8", 144.9+float64(i)/10), "--gateway", s.Addr.String()+":15443")
		s.startController(f.flags(m, i)...)
		real := &sc.Network.Sites[i]
		file := filepath.Join(s.node, "backend.json")
		s.start("meridian", "demo-backend", "--site", s.name, "--endpoints", "1", "--slots", fmt.Sprint(real.Slots),
			"--service-time", fmt.Sprintf("%gms", real.ServiceMS), "--run-file", file)
		var run emu.RunFile
		within(t, 20*time.Second, "the backend of "+s.name, func() bool {
			text, err := os.ReadFile(file)
			return err == nil && json.Unmarshal(text, &run) == nil
		})
		addrs[i] = run.Endpoints[0]
		m.backends = append(m.backends, emu.Control{Addr: run.Control, Client: s.users})
		fmt.Fprintf(&doc, "  - {address: %q, site: %s, capacity: {concurrency: %d, serviceTime: %gms}}\n", run.Endpoints[0], s.name, real.Slots, real.ServiceMS)
	}
	doc.WriteString(patience)
	applySoon(t, hub, doc.String())
	for i, s := range m.sites {
		within(t, 20*time.Second, "the controller of "+s.name, func() bool { _, err := siteapi.ReadRunFile(s.dir); return err == nil })
		f.start(m, i, addrs[i])
	}
	for i, s := range m.sites {
		within(t, 30*time.Second, "users of "+s.name+" to be served", func() bool { return s.ask() == nil })
		within(t, 30*time.Second, s.name+" to know all others", f.ready(m, i))
		s.users.CloseIdleConnections()
	}
	m.generate(t)
	return m
}

// patience leaves it to users when to give up, as the simulator does.
const patience = `---
apiVersion: mesh.meridian.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: echo}
spec:
  targetRefs: [{group: mesh.meridian.dev, kind: MeshService, name: echo}]
  timeouts: {request: 10s}
`

// mayUse tells whether the site's proxy may send to so many others.
func (s *site) mayUse(others int) func() bool {
	return func() bool {
		resp, err := s.admin.Get("http://admin/weights")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		var v struct {
			Services []struct {
				Source  string
				Remotes []struct{ Excluded, Suspect string }
			}
		}
		if json.NewDecoder(resp.Body).Decode(&v) != nil || len(v.Services) != 1 || v.Services[0].Source != "controller" {
			return false
		}
		usable := 0
		for _, r := range v.Services[0].Remotes {
			if r.Excluded == "" && r.Suspect == "" {
				usable++
			}
		}
		return usable == others
	}
}

// shape gives every pair of sites its round trip; the hub is next to everybody.
func (m *realMesh) shape() {
	for i, a := range m.sites {
		for j, b := range m.sites {
			if i != j {
				half := time.Duration(m.sc.Network.RTTMS[i][j] / 2 * float64(time.Millisecond))
				m.net.Wan.Shape(a.Addr, b.Addr, link.Shape{Delay: half})
			}
		}
	}
}

// generate makes a generator at every site, each on a thread in its namespace.
func (m *realMesh) generate(t *testing.T) {
	t.Helper()
	// The WAN and the generators each hold a thread of the scheduler.
	before := runtime.GOMAXPROCS(runtime.NumCPU() + 1 + len(m.sites))
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, len(m.sites))
	t.Cleanup(func() {
		stop()
		for range m.generators {
			if err := <-ended; err != nil {
				t.Errorf("generator: %v", err)
			}
		}
		runtime.GOMAXPROCS(before)
	})
	cfg := load.Config{Host: "work", Path: "/", Deadline: time.Duration(m.sc.DeadlineMS * float64(time.Millisecond))}
	for _, s := range m.sites {
		cfg.Sites = append(cfg.Sites, load.Site{Name: s.name, Proxy: netip.MustParseAddrPort("127.0.0.1:8080"), Users: []load.Position{{Lon: 144.9, Lat: -37.8}}})
	}
	for _, s := range m.sites {
		loop, err := reactor.New()
		if err != nil {
			t.Fatal(err)
		}
		go func() { ended <- s.Do(func() error { return loop.Run(ctx) }) }()
		m.generators = append(m.generators, load.New(loop, cfg))
	}
}

// agree compares so many seeds: delays in each, shares in all together.
func (m *realMesh) agree(t *testing.T, seeds int) {
	t.Helper()
	shares := func(f figures) []float64 { return append([]float64{f.away}, f.hotTo...) }
	far := make([]float64, 1+len(m.sites))
	for seed := range uint64(seeds) {
		want, got, late := m.compare(t, 700+seed)
		for try := 1; try < m.tries && late > lateMS; try++ {
			want, got, late = m.compare(t, 700+seed)
		}
		for i, s := range shares(got) {
			far[i] += (s - shares(want)[i]) / float64(seeds)
		}
		if got.errors > want.errors+0.01 {
			t.Errorf("%s, seed %d: %.1f %% of requests had no answer", m.sc.Name, 700+seed, 100*got.errors)
		}
		if m.tries > 1 && late > lateMS {
			t.Logf("%s, seed %d: delays are not judged, the machine was too busy to send requests in time", m.sc.Name, 700+seed)
			continue
		}
		if d := math.Abs(got.meanMS/want.meanMS - 1); !(d <= m.room*agreeMean) {
			t.Errorf("%s, seed %d: means differ by %.0f %%", m.sc.Name, 700+seed, 100*d)
		}
		if d := math.Abs(got.p99MS/want.p99MS - 1); !(d <= m.room*agreeP99) {
			t.Errorf("%s, seed %d: 99th percentiles differ by %.0f %%", m.sc.Name, 700+seed, 100*d)
		}
	}
	for i, d := range far {
		if !(math.Abs(d) <= m.room*agreeShare) {
			t.Errorf("%s: share %d (of all requests served elsewhere, then of the hot site's by site) differs by %.1f points", m.sc.Name, i, 100*d)
		}
	}
}

// lateMS is how late generators may be at the 99th percentile.
const lateMS = 20

// compare runs one seed in both, and says how late the generators were.
func (m *realMesh) compare(t *testing.T, seed uint64) (want, got figures, lateMS float64) {
	t.Helper()
	p, err := policy.New(policy.NameMeridian, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	virtual, err := sim.New(m.sc, p, seed)
	if err != nil {
		t.Fatal(err)
	}
	stats, _ := virtual.Run(nil)
	want = m.simulated(stats)
	arrivals, err := sim.Arrivals(m.sc, seed)
	if err != nil {
		t.Fatal(err)
	}
	requests, lateMS := m.run(t, arrivals)
	got = m.measured(requests)
	t.Logf("%s, seed %d, %d requests (generators' 99th percentile %.2f ms late)\n  simulator: %s\n  real:      %s", m.sc.Name, seed, len(arrivals), lateMS, want, got)
	return want, got, lateMS
}

func (m *realMesh) simulated(s *sim.Stats) figures {
	n := float64(s.Window.Requests)
	f := figures{s.Window.MeanMS(), s.QuantileMS(0.99), float64(s.Window.Errors()) / n, float64(s.Window.Away) / n, make([]float64, len(m.sites))}
	sum := 0.0
	for _, row := range s.Sent[int(m.sc.MeasureFromS):int(m.sc.ForS)] {
		for j, x := range row {
			f.hotTo[j] += float64(x)
			sum += float64(x)
		}
	}
	for j := range f.hotTo {
		f.hotTo[j] /= sum
	}
	return f
}

func (m *realMesh) measured(all []report.Request) figures {
	f := figures{hotTo: make([]float64, len(m.sites))}
	deadline := m.sc.DeadlineMS
	var took []float64
	hot := 0.0
	for i := range all {
		r := &all[i]
		if r.At.Seconds() < m.sc.MeasureFromS {
			continue
		}
		ms := float64(r.Latency) / float64(time.Millisecond)
		if r.Outcome != report.OK {
			f.errors++
			ms = deadline // as the simulator counts
		}
		took = append(took, ms)
		f.meanMS += ms
		if r.Served != report.Nowhere {
			if r.Served != r.Home {
				f.away++
			}
			if r.Home == m.sc.Hot {
				f.hotTo[r.Served]++
				hot++
			}
		}
	}
	slices.Sort(took)
	n := float64(len(took))
	f.meanMS, f.errors, f.away, f.p99MS = f.meanMS/n, f.errors/n, f.away/n, took[int(0.99*(n-1))]
	for j := range f.hotTo {
		f.hotTo[j] /= hot
	}
	return f
}

// run sends the arrivals, has the scenario's changes happen and returns what became
// of every request, and how late generators were in ms.
func (m *realMesh) run(t *testing.T, arrivals []sim.Arrival) ([]report.Request, float64) {
	t.Helper()
	bySite := make([][]demand.Arrival, len(m.sites))
	for _, a := range arrivals {
		bySite[a.Site] = append(bySite[a.Site], demand.Arrival{At: seconds(a.AtS), Site: a.Site, Work: a.Work})
	}
	ctx, stop := context.WithTimeout(t.Context(), seconds(m.sc.ForS)+time.Minute)
	defer stop()
	start := time.Now().Add(200 * time.Millisecond)
	results, errs := make([]*load.Result, len(m.sites)), make([]error, len(m.sites)+1)
	var wg sync.WaitGroup
	for i, g := range m.generators {
		wg.Go(func() { results[i], errs[i] = g.Run(ctx, bySite[i], start) })
	}
	errs[len(m.sites)] = m.direct(ctx, start)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	var all []report.Request
	var late []time.Duration
	for _, r := range results {
		all, late = append(all, r.Requests...), append(late, r.Late...)
	}
	m.shape() // heals what is cut
	for _, b := range m.backends {
		if err := b.SetFactor(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(late)
	return all, report.LateP99MS(late)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// direct has happen what the scenario changes besides demand, which is in the arrivals.
func (m *realMesh) direct(ctx context.Context, start time.Time) error {
	changes := slices.SortedStableFunc(slices.Values(m.sc.Changes), func(a, b sim.Change) int { return cmp.Compare(a.AtS, b.AtS) })
	for _, c := range changes {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Until(start.Add(seconds(c.AtS)))):
		}
		for i, b := range m.backends {
			if c.Service > 0 && (c.Site < 0 || c.Site == i) {
				if err := b.SetFactor(ctx, c.Service); err != nil {
					return err
				}
			}
		}
		for cut, pairs := range map[bool][]sim.Pair{true: c.Cut, false: c.Heal} {
			for _, p := range pairs {
				m.sites[p.A].CutTo(m.sites[p.B].Place, cut)
				m.sites[p.B].CutTo(m.sites[p.A].Place, cut)
			}
		}
		if c.Bus != 0 {
			for _, s := range m.sites {
				s.CutTo(m.net.Places[0], c.Bus < 0)
				m.net.Places[0].CutTo(s.Place, c.Bus < 0)
			}
		}
	}
	return nil
}
