package world

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/membership"
	"pgregory.net/rapid"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func at(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }

// put parses YAML and sets its objects.
func put(t *testing.T, w *World, owner, doc string) {
	t.Helper()
	o, err := mesh.ParseYAML("test", []byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	for k, d := range o.All() {
		w.Set(owner, k, d)
	}
}

func siteYAML(name string, lon, lat float64) string {
	return fmt.Sprintf(`
apiVersion: mesh.meridian.dev/v1alpha1
kind: Site
metadata: {name: %s}
spec:
  location: {type: Point, coordinates: [%g, %g]}
  gateways: [{address: "127.0.0.1:1%03d"}]
---`, name, lon, lat, len(name))
}

const shop = `
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: shop}
spec:
  ports: [{port: 80}]
  export: {scope: mesh}
  endpoints:
  - {address: "127.0.0.1:9001", site: a, capacity: {concurrency: 2, serviceTime: 10ms}}
  - {address: "127.0.0.1:9002", site: a, capacity: {concurrency: 2, serviceTime: 20ms}}
  - {address: "127.0.0.1:9003", site: b, capacity: {concurrency: 8, serviceTime: 10ms}}
  - {address: "127.0.0.1:9004", site: c, capacity: {concurrency: 8, serviceTime: 10ms}}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: private}
spec:
  ports: [{port: 80}]
  endpoints: [{address: "127.0.0.1:9011", site: a}, {address: "127.0.0.1:9012", site: b}, {address: "127.0.0.1:9013"}]
`

func TestOneOwner(t *testing.T) {
	w := New("a", "a")
	k := mesh.Key{Kind: mesh.KindSite, Namespace: "default", Name: "x"}
	hubs, own := &mesh.Site{}, &mesh.Site{}
	if err := w.Claim(k); err != nil {
		t.Fatal(err)
	}
	w.Set(Hub, k, hubs)
	var owned *OwnedError
	if err := w.Claim(k); !errors.As(err, &owned) || owned.Owner != Hub || !strings.Contains(err.Error(), "owned by the hub") {
		t.Fatalf("claim of the hub's object: %v", err)
	}
	// A hub that writes what the site already had: whatever the order, the site's stands.
	for _, first := range []string{Hub, "a"} {
		w = New("a", "a")
		w.Set(first, k, map[string]any{Hub: hubs, "a": own}[first])
		w.Set(Hub, k, hubs)
		w.Set("a", k, own)
		if o, _ := w.Get(k); o.Owner != "a" || o.Doc != any(own) {
			t.Errorf("%s first: in force is %s's", first, o.Owner)
		}
		l := w.List()
		if len(l) != 2 || l[0].Shadowed || !l[1].Shadowed || l[1].Owner != Hub {
			t.Errorf("list %+v", l)
		}
		if err := w.Claim(k); err != nil {
			t.Errorf("own object: %v", err)
		}
		w.Remove("a", k)
		if o, _ := w.Get(k); o.Owner != Hub {
			t.Errorf("after removal in force is %s's", o.Owner)
		}
	}
	v := w.Version()
	w.Remove("a", k)
	if w.Version() != v {
		t.Error("removing what is not there is a change")
	}
	h := New("h", Hub)
	h.Set("a", k, own)
	if err := h.Claim(k); !errors.As(err, &owned) || owned.Owner != "a" {
		t.Errorf("%v", err)
	}
}

func TestCompile(t *testing.T) {
	w := New("a", "a")
	put(t, w, Hub, siteYAML("b", 1, 1)+siteYAML("a", 0, 0)+shop+`
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: of-b, labels: {mesh.meridian.dev/site: b}}
spec:
  gatewayClassName: meridian
  listeners: [{name: http, port: 8080, protocol: HTTP}]
`)
	put(t, w, "a", `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: in}
spec:
  gatewayClassName: meridian
  listeners: [{name: http, port: 8080, protocol: HTTP}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: mine}
spec:
  ports: [{port: 80}]
  export: {scope: mesh}
  endpoints: [{address: "127.0.0.1:9021"}]
`)
	o := w.Compile("a")
	if len(o.Sites) != 2 || o.Sites[0].Metadata.Name != "a" || len(o.Gateways) != 1 || o.Gateways[0].Metadata.Name != "in" {
		t.Errorf("sites %d, gateways %d", len(o.Sites), len(o.Gateways))
	}
	sites := map[string][]string{}
	for _, s := range o.Services {
		for _, e := range s.Spec.Endpoints {
			sites[s.Metadata.Name] = append(sites[s.Metadata.Name], e.Site)
		}
	}
	want := map[string][]string{"mine": {"a"}, "private": {"a", ""}, "shop": {"a", "a", "b", "c"}}
	if !reflect.DeepEqual(sites, want) {
		t.Errorf("endpoints by service %v, want %v", sites, want)
	}
	if got := len(w.Compile("b").Gateways); got != 2 {
		t.Errorf("%d gateways at b", got)
	}
}

// The order in which objects come must not show, or every restart would mint a
// new generation.
// While an object stays, so does the pointer to what a site gets of it: that tells
// others what they need not encode again.
func TestCompileKeepsWhatIsTheSame(t *testing.T) {
	w := New("a", "a")
	put(t, w, "a", shop)
	before := w.Compile("a")
	put(t, w, "a", `
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: another}
spec:
  ports: [{port: 80}]
  endpoints: [{address: "127.0.0.1:9021"}]
`)
	after := w.Compile("a")
	for _, s := range before.Services {
		if !slices.Contains(after.Services, s) {
			t.Errorf("%s is another object, although it did not change", s.Key())
		}
	}
	put(t, w, "a", shop)
	again := w.Compile("a")
	for _, s := range before.Services {
		if slices.Contains(again.Services, s) {
			t.Errorf("%s is the object of before, although it was set again", s.Key())
		}
	}
	w.Remove("a", mesh.Key{Kind: mesh.KindMeshService, Namespace: "default", Name: "another"})
	if n := len(w.Compile("a").Services); len(w.narrow) != n {
		t.Errorf("%d services are kept of %d", len(w.narrow), n)
	}
}

func TestCompileDependsOnTheObjectsAlone(t *testing.T) {
	docs, err := mesh.ParseYAML("test", []byte(siteYAML("b", 1, 1)+siteYAML("a", 0, 0)+siteYAML("c", 2, 2)+shop))
	if err != nil {
		t.Fatal(err)
	}
	type one struct {
		k mesh.Key
		d any
	}
	var all []one
	for k, d := range docs.All() {
		all = append(all, one{k, d})
	}
	var want []byte
	rapid.Check(t, func(t *rapid.T) {
		w := New("a", "a")
		for _, x := range rapid.Permutation(all).Draw(t, "order") {
			w.Set(Hub, x.k, x.d)
		}
		got, err := json.Marshal(w.Compile("a"))
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = got
		}
		if string(got) != string(want) {
			t.Fatalf("%s\n%s", got, want)
		}
	})
}

// event is a report as it arrives over some way.
type event struct {
	site, reporter string
	epoch, seq     uint64
	service        mesh.ServiceKey
	at             time.Time
	inBand         bool
}

func (e event) apply(w *World, i int) {
	s := mesh.ServiceReport{Service: e.service, Slots: float64(e.seq), InFlight: int(e.epoch)}
	if e.inBand {
		w.Tell(&mesh.NodeReport{Site: "a", Node: "n", Seq: uint64(i), Heard: []mesh.HeardReport{{
			Site: e.site, Reporter: e.reporter, Epoch: e.epoch, Seq: e.seq, Service: s,
		}}}, e.at)
		return
	}
	w.Hear(&mesh.Report{Site: e.site, Reporter: e.reporter, Epoch: e.epoch, Seq: e.seq, Services: []mesh.ServiceReport{s}}, e.at)
}

func events() *rapid.Generator[[]event] {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) event {
		return event{
			site:     rapid.SampledFrom([]string{"b", "c"}).Draw(t, "site"),
			reporter: rapid.SampledFrom([]string{"ctl", "n1", "n2"}).Draw(t, "reporter"),
			epoch:    rapid.Uint64Range(1, 3).Draw(t, "epoch"),
			seq:      rapid.Uint64Range(1, 4).Draw(t, "seq"),
			service:  rapid.SampledFrom([]mesh.ServiceKey{"default/x", "default/y"}).Draw(t, "service"),
			at:       at(rapid.IntRange(0, 5).Draw(t, "ms")),
			inBand:   rapid.Bool().Draw(t, "in band"),
		}
	}), 0, 24)
}

func TestHearingIsCommutativeAndIdempotent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		es := events().Draw(t, "events")
		one, two := New("a", "a"), New("a", "a")
		for i, e := range es {
			e.apply(one, i)
		}
		again := append(append([]event{}, rapid.Permutation(es).Draw(t, "order")...), rapid.Permutation(es).Draw(t, "again")...)
		for i, e := range again {
			e.apply(two, i)
		}
		if !reflect.DeepEqual(one.reports, two.reports) {
			t.Fatalf("%v\n%v", one.reports, two.reports)
		}
		// The dumb twin: of each voice the newest report, first heard when it
		// was; of the voices the youngest.
		for _, site := range []string{"b", "c"} {
			for _, svc := range []mesh.ServiceKey{"default/x", "default/y"} {
				newest := map[string]event{}
				for _, e := range es {
					o, ok := newest[e.reporter]
					if e.site != site || e.service != svc {
						continue
					}
					newer := e.epoch > o.epoch || e.epoch == o.epoch && e.seq > o.seq
					same := e.epoch == o.epoch && e.seq == o.seq
					if !ok || newer || same && e.at.Before(o.at) {
						newest[e.reporter] = e
					}
				}
				var best *event
				for _, name := range []string{"ctl", "n1", "n2"} {
					if e, ok := newest[name]; ok && (best == nil || e.at.After(best.at)) {
						best = &e
					}
				}
				got, ok := one.Freshest(site, svc)
				if ok != (best != nil) {
					t.Fatalf("%s %s: found %v", site, svc, ok)
				}
				if ok && (got.Reporter != best.reporter || !got.At.Equal(best.at) || got.Report.Slots != float64(best.seq) || got.Report.InFlight != int(best.epoch)) {
					t.Fatalf("%s %s: got %+v, want %+v", site, svc, got, *best)
				}
			}
		}
	})
}

func nodeReport(name string, seq uint64, s mesh.NodeServiceReport, links ...mesh.LinkReport) *mesh.NodeReport {
	return &mesh.NodeReport{Site: "a", Node: name, Epoch: 1, Seq: seq, Services: []mesh.NodeServiceReport{s}, Links: links}
}

func TestLoads(t *testing.T) {
	w := New("a", "a")
	load := func(slots, s float64, n int, arrivals, demand float64, from map[string]float64) mesh.NodeServiceReport {
		return mesh.NodeServiceReport{Demand: demand, ServiceReport: mesh.ServiceReport{
			Service: "default/shop", Slots: slots, ServiceTimeMS: s, InFlight: n, Arrivals: arrivals, From: from}}
	}
	tell := func(fresh bool, r *mesh.NodeReport, at time.Time) {
		t.Helper()
		if w.Tell(r, at) != fresh {
			t.Errorf("%s, report %d of %d: new is %v", r.Node, r.Seq, r.Epoch, !fresh)
		}
	}
	tell(true, nodeReport("n1", 1, load(4, 10, 3, 300, 250, map[string]float64{"b": 50})), at(0))
	tell(true, nodeReport("n2", 1, load(4, 30, 1, 100, 80, map[string]float64{"b": 10, "c": 10})), at(100))
	tell(false, nodeReport("n1", 1, load(9, 9, 9, 9, 9, nil)), at(150)) // old sequence
	tell(false, &mesh.NodeReport{Site: "b", Node: "n9", Seq: 5}, at(150))
	got := w.Loads(at(200))
	if len(got) != 1 {
		t.Fatalf("%+v", got)
	}
	g := got[0]
	if g.Slots != 4 || g.InFlight != 4 || g.Arrivals != 400 || g.Demand != 330 || g.ServiceTimeMS != 15 || g.From["b"] != 60 || g.From["c"] != 10 || g.Spillers != 2 {
		t.Errorf("%+v", g)
	}
	// A node that went silent is left out of the sum, and the rest goes on.
	tell(false, nodeReport("n2", 2, load(4, 30, 1, 100, 80, nil)), at(4000))
	if g = w.Loads(at(4000))[0]; g.Arrivals != 100 || g.ServiceTimeMS != 30 {
		t.Errorf("with n1 dead: %+v", g)
	}
	if n := w.Nodes(at(4000)); len(n) != 2 || n[0].Status != membership.Dead || n[1].Status != membership.Alive {
		t.Errorf("%+v", n)
	}
	again := nodeReport("n2", 1, load(4, 30, 1, 100, 80, nil))
	again.Epoch = 2
	tell(true, again, at(4100))
	w.Forget(at(60000), 30*time.Second)
	if len(w.Nodes(at(60000))) != 0 {
		t.Error("not forgotten")
	}
}

func TestForget(t *testing.T) {
	w := New("a", "a")
	put(t, w, Hub, siteYAML("b", 1, 0))
	for _, site := range []string{"b", "stranger"} {
		for i, reporter := range []string{"n1", "ctl", "n2"} {
			w.Hear(&mesh.Report{Site: site, Reporter: reporter, Seq: 1, Services: []mesh.ServiceReport{{Service: "default/shop"}}}, at(10*(i%2)))
		}
	}
	w.Forget(at(50), time.Second)
	if len(w.ReportedSites()) != 2 {
		t.Fatal("forgot too early")
	}
	w.Forget(at(5000), time.Second)
	if got := w.ReportedSites(); len(got) != 1 || got[0] != "b" || len(w.reports[topic{site: "b"}]) != 1 {
		t.Errorf("left: %v, %v", got, w.reports)
	}
	if heard, ok := w.Freshest("b", ""); !ok || !heard.At.Equal(at(10)) {
		t.Errorf("b was last heard of at %+v, %v", heard, ok)
	}
	if _, ok := w.Freshest("b", "default/shop"); ok {
		t.Error("old load is still there")
	}
	if p := w.Peers(at(5000), true); len(p) != 1 || p[0].Status != membership.Suspect {
		t.Errorf("%+v", p)
	}
}

func TestShared(t *testing.T) {
	w := New("a", "a")
	put(t, w, Hub, siteYAML("a", 0, 0)+siteYAML("b", 1, 0)+siteYAML("c", 2, 0)+siteYAML("d", 3, 0)+shop+`
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: Site
metadata: {name: e}
spec: {location: {type: Point, coordinates: [4, 0]}}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: p}
spec:
  targetRefs: [{kind: MeshService, name: shop}]
  siteSharing: {stayHome: 1.5}
`)
	report := func(site string, seq uint64, when time.Time) {
		w.Hear(&mesh.Report{Site: site, Reporter: "ctl", Epoch: 1, Seq: seq, Services: []mesh.ServiceReport{
			{Service: "default/shop", Slots: 4, ServiceTimeMS: 10, Arrivals: 7},
		}}, when)
	}
	report("b", 1, at(0))
	report("e", 1, at(0))
	got := w.Shared(at(200), true)
	if len(got) != 1 || got[0].Service != "default/shop" {
		t.Fatalf("%+v", got)
	}
	s := got[0]
	if s.Sharing.StayHome != 1.5 || s.Sharing.Policy != mesh.SharingCooperative {
		t.Errorf("sharing %+v", s.Sharing)
	}
	if s.Home.Slots != 4 || s.Home.ServiceTimeMS != 15 {
		t.Errorf("home before the first node report: %+v", s.Home)
	}
	by := map[string]Option{}
	for _, o := range s.Options {
		by[o.Site] = o
	}
	if _, ok := by["d"]; ok || len(by) != 3 {
		t.Errorf("options %+v", s.Options)
	}
	if b := by["b"]; b.Excluded != "" || b.AgeMS != 200 || b.Report.Arrivals != 7 || s.Options[0].Site != "b" {
		t.Errorf("b: %+v", b)
	}
	if c := by["c"]; !strings.Contains(c.Excluded, "no report") || c.Report.Slots != 8 {
		t.Errorf("c: %+v", c)
	}
	if e := by["e"]; !strings.Contains(e.Excluded, "no route") {
		t.Errorf("e: %+v", e)
	}
	// The prior of 111 km is 1 ms for the aggregation hops and 2.2 for the way.
	if rtt := by["b"].RTTMS; rtt < 2 || rtt > 5 {
		t.Errorf("prior %g ms", rtt)
	}
	for i := range 60 {
		w.Tell(nodeReport("n", uint64(i), mesh.NodeServiceReport{}, mesh.LinkReport{Site: "b", RTTMS: 20}), at(300+100*i))
	}
	report("b", 2, at(6200))
	b := option(w, "b", at(6300))
	if b.RTTMS < 17 || b.RTTMS > 20 {
		t.Errorf("measured 20 ms, blended %g", b.RTTMS)
	}
	w.Tell(nodeReport("n", 99, mesh.NodeServiceReport{}, mesh.LinkReport{Site: "b", RTTMS: 20, Suspect: "no response for 300ms"}), at(6400))
	if b = option(w, "b", at(6400)); b.Excluded != "suspect: no response for 300ms" {
		t.Errorf("%+v", b)
	}
	w.Tell(nodeReport("n", 100, mesh.NodeServiceReport{}, mesh.LinkReport{Site: "b", RTTMS: 20}), at(6450))
	if b = option(w, "b", at(9300)); b.AgeMS != 3100 || b.InBand {
		t.Errorf("%+v", b)
	}
	status := map[string]membership.Status{}
	for _, p := range w.Peers(at(6500), true) {
		status[p.Site] = p.Status
	}
	if want := map[string]membership.Status{"b": "alive", "c": "unknown", "d": "unknown", "e": "dead"}; !reflect.DeepEqual(status, want) {
		t.Errorf("peers %v, want %v", status, want)
	}
	for _, p := range w.Peers(at(60000), false) {
		if p.Status != membership.Unknown {
			t.Errorf("cut off, %s is %s", p.Site, p.Status)
		}
	}
}

func option(w *World, site string, now time.Time) Option {
	for _, o := range w.Shared(now, true)[0].Options {
		if o.Site == site {
			return o
		}
	}
	return Option{}
}

func TestFencedSites(t *testing.T) {
	w := New("a", "a")
	put(t, w, Hub, siteYAML("a", 0, 0)+siteYAML("b", 1, 0)+siteYAML("c", 2, 0)+shop+`
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: GeoFence
metadata: {name: f, labels: {mesh.meridian.dev/site: elsewhere}}
spec:
  targetRefs: [{kind: MeshService, name: shop}]
  allow: {sites: [c]}
`)
	s := w.Shared(at(0), true)[0]
	if !s.NoHome {
		t.Error("home is outside and serves")
	}
	for _, o := range s.Options {
		if strings.Contains(o.Excluded, "fenced: site b is outside of GeoFence default/f") != (o.Site == "b") {
			t.Errorf("%+v", o)
		}
	}
	if n := len(w.Compile("b").GeoFences); n != 1 {
		t.Errorf("site b gets %d fences: no label takes one away", n)
	}
	w.Remove(Hub, mesh.Key{Kind: mesh.KindGeoFence, Namespace: "default", Name: "f"})
	if s := w.Shared(at(0), true)[0]; s.NoHome || strings.Contains(s.Options[0].Excluded, "fenced") {
		t.Errorf("the fence is gone: %+v", s)
	}
}

func TestExportSites(t *testing.T) {
	w := New("a", "a")
	put(t, w, Hub, siteYAML("a", 0, 0)+siteYAML("b", 1, 0)+siteYAML("c", 2, 0)+strings.Replace(shop, "{scope: mesh}", "{scope: mesh, sites: [a, c]}", 1))
	s := w.Shared(at(0), true)
	if len(s) != 1 || len(s[0].Options) != 1 || s[0].Options[0].Site != "c" {
		t.Errorf("%+v", s)
	}
}

// BenchmarkShared is what a tick costs a site of a mesh of 125 sites and 10
// services.
func BenchmarkShared(b *testing.B) {
	w := New("s0", "s0")
	var endpoints []mesh.Endpoint
	for i := range 125 {
		name := fmt.Sprintf("s%d", i)
		w.Set(Hub, mesh.Key{Kind: mesh.KindSite, Namespace: "default", Name: name}, &mesh.Site{
			Metadata: mesh.ObjectMeta{Name: name, Namespace: "default"},
			Spec:     mesh.SiteSpec{Location: mesh.Location{Lon: float64(i) / 10}, Gateways: []mesh.SiteGateway{{Address: "127.0.0.1:1"}}},
		})
		endpoints = append(endpoints, mesh.Endpoint{Address: "127.0.0.1:1", Site: name, Capacity: &mesh.Capacity{Concurrency: 4, ServiceTime: mesh.Duration(10 * time.Millisecond)}})
	}
	for i := range 10 {
		name := fmt.Sprintf("svc%d", i)
		w.Set(Hub, mesh.Key{Kind: mesh.KindMeshService, Namespace: "default", Name: name}, &mesh.MeshService{
			Metadata: mesh.ObjectMeta{Name: name, Namespace: "default"},
			Spec:     mesh.MeshServiceSpec{Endpoints: endpoints, Export: &mesh.Export{Scope: mesh.ScopeMesh}},
		})
		for j := range 125 {
			w.Hear(&mesh.Report{Site: fmt.Sprintf("s%d", j), Reporter: "controller", Seq: uint64(i + 1), Services: []mesh.ServiceReport{{Service: mesh.ServiceKey("default/" + name), Slots: 4, ServiceTimeMS: 10}}}, t0)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if n := len(w.Shared(t0, true)); n != 10 {
			b.Fatal(n)
		}
	}
}

// A site that is heard irregularly is given more time than one that is not, and
// of both it is known who said it.
func TestPeersByRhythm(t *testing.T) {
	w := New("a", "a")
	regular, irregular := 0, 0
	for seq := range uint64(41) {
		w.Hear(&mesh.Report{Site: "b", Reporter: "controller", Epoch: 7, Seq: seq}, at(regular))
		w.Hear(&mesh.Report{Site: "c", Reporter: "controller", Epoch: 8, Seq: seq}, at(irregular))
		// Neither repeats nor what comes in band is a beat.
		w.Hear(&mesh.Report{Site: "c", Reporter: "controller", Epoch: 8, Seq: seq}, at(irregular+1))
		w.hear(&mesh.HeardReport{Site: "b", Reporter: "n1", Epoch: 9, Seq: seq}, at(regular/9))
		regular += 500
		irregular += []int{150, 850}[seq%2]
	}
	last := max(regular-500, irregular-150)
	for _, c := range []struct {
		ms   int
		b, c membership.Status
	}{
		{last + 1000, membership.Alive, membership.Alive},
		{last + 2000, membership.Suspect, membership.Alive},
		{last + 5100, membership.Dead, membership.Suspect},
		{last + 20000, membership.Dead, membership.Dead},
	} {
		p := w.Peers(at(c.ms), true)
		if p[0].Status != c.b || p[1].Status != c.c {
			t.Errorf("after %d ms b is %s, want %s; c is %s, want %s (limits %v, %v)", c.ms-last, p[0].Status, c.b, p[1].Status, c.c, p[0].Limits, p[1].Limits)
		}
		if n := p[1].News; n.Reporter != "controller" || n.Epoch != 8 || n.Seq != 40 {
			t.Errorf("news %+v", n)
		}
	}
}
