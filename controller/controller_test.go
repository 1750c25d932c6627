package controller_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller"
	"github.com/meridian-mesh/meridian/controller/join"
	"github.com/meridian-mesh/meridian/controller/membership"
	"github.com/meridian-mesh/meridian/controller/natsd"
	"github.com/meridian-mesh/meridian/controller/natsd/natstest"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/controller/store"
	"github.com/meridian-mesh/meridian/internal/bus"
)

// site is a running controller.
type site struct {
	t    *testing.T
	cfg  controller.Config
	run  siteapi.RunFile
	srv  *controller.Server
	api  *siteapi.Client
	stop func()
}

func start(t *testing.T, cfg controller.Config, prepare ...func(*controller.Server)) *site {
	t.Helper()
	if cfg.Data == "" {
		cfg.Data = t.TempDir()
	}
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("at", cfg.Site)
	}
	srv, err := controller.New(cfg, controller.Deps{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range prepare {
		p(srv)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	select {
	case <-srv.Ready():
	case err := <-ended:
		cancel()
		t.Fatalf("%s: %v", cfg.Site, err)
	case <-time.After(10 * time.Second):
		cancel()
		t.Fatalf("%s is not ready", cfg.Site)
	}
	s := &site{t: t, cfg: cfg, run: srv.RunFile(), srv: srv}
	var once atomic.Bool
	s.stop = func() {
		if once.Swap(true) {
			return
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%s ended: %v", cfg.Site, err)
		}
	}
	t.Cleanup(s.stop)
	if s.api, err = siteapi.Dial(s.run.API); err != nil {
		t.Fatal(err)
	}
	return s
}

// leafConfig joins a new site to a hub and returns its configuration, with the hub
// at hubURL.
func leafConfig(name, hubURL string, hub *site) controller.Config {
	hub.t.Helper()
	made, err := hub.api.CreateToken(short(hub.t), siteapi.TokenRequest{Site: name})
	if err != nil {
		hub.t.Fatal(err)
	}
	return joined(hub.t, hub.t.TempDir(), made.Token, hubURL)
}

// joined uses a token in a data folder.
func joined(t *testing.T, dir, token, hubURL string) controller.Config {
	t.Helper()
	tok, err := join.ParseToken(token)
	if err != nil {
		t.Fatal(err)
	}
	f, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := join.Join(short(t), f, tok, ""); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	sf, err := join.ReadSiteFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	return controller.Config{Site: sf.Site, Data: dir, HubURLs: []string{hubURL}, HubCA: sf.HubCA, HubKey: sf.HubKey, Version: "test"}
}

func within(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(d)
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", d, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func short(t *testing.T) context.Context {
	ctx, done := context.WithTimeout(t.Context(), 5*time.Second)
	t.Cleanup(done)
	return ctx
}

func (s *site) status() *siteapi.Status {
	s.t.Helper()
	st, err := s.api.Status(short(s.t))
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

func (s *site) apply(yaml string) *siteapi.Result {
	s.t.Helper()
	r, err := s.api.Apply(short(s.t), siteapi.ApplyRequest{Documents: []siteapi.Document{{Name: "test.yaml", YAML: yaml}}})
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func (s *site) must(yaml string) {
	s.t.Helper()
	if r := s.apply(yaml); len(r.Faults) > 0 {
		s.t.Fatalf("%v", r.Faults)
	}
}

func (s *site) has(kind, name string) bool {
	s.t.Helper()
	o, err := s.api.Get(short(s.t), siteapi.GetRequest{Kind: kind, Name: name})
	if err != nil {
		s.t.Fatal(err)
	}
	return len(o.Objects) > 0
}

// node is a proxy's side of the bus, without a proxy.
type node struct {
	bus      *bus.Node
	snapshot atomic.Pointer[mesh.Snapshot]
	weights  atomic.Pointer[mesh.Weights]
}

func (s *site) node(name string) *node {
	s.t.Helper()
	b, err := bus.DialNode(bus.Options{URL: s.run.NATS, Name: name, TokenFile: s.run.TokenFile}, s.cfg.Site)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(b.Close)
	n := &node{bus: b}
	err = b.WatchSnapshots(s.t.Context(), s.cfg.Site, func(snap *mesh.Snapshot, err error) {
		if err != nil {
			s.t.Error(err)
			return
		}
		n.snapshot.Store(snap)
	})
	if err != nil {
		s.t.Fatal(err)
	}
	w, err := b.Weights(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	go func() {
		for {
			select {
			case r := <-w:
				n.weights.Store(r.Value)
			case <-s.t.Context().Done():
				return
			}
		}
	}()
	return n
}

// report sends a load of the shop service until the test ends.
func (n *node) report(t *testing.T, site, name string, demand float64) {
	epoch := uint64(time.Now().UnixNano())
	go func() {
		for seq := uint64(1); ; seq++ {
			r := &mesh.NodeReport{Site: site, Node: name, Epoch: epoch, Seq: seq, Services: []mesh.NodeServiceReport{{
				Demand: demand,
				ServiceReport: mesh.ServiceReport{
					Service: "default/shop", Slots: 4, ServiceTimeMS: 10, InFlight: int(demand / 100), Arrivals: demand,
				},
			}}}
			if s := n.snapshot.Load(); s != nil {
				r.Applied = s.Generation
			}
			_ = n.bus.PublishReport(r)
			select {
			case <-t.Context().Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
}

func siteDoc(name string, lon float64) string {
	return fmt.Sprintf("apiVersion: mesh.meridian.dev/v1alpha1\nkind: Site\nmetadata: {name: %s}\nspec:\n  location: {type: Point, coordinates: [%g, 0]}\n  gateways: [{address: \"127.0.0.1:1\"}]\n---\n", name, lon)
}

const shopDoc = `apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: shop}
spec:
  ports: [{port: 80}]
  export: {scope: mesh}
  endpoints:
  - {address: "127.0.0.1:9001", site: a, capacity: {concurrency: 4, serviceTime: 10ms}}
  - {address: "127.0.0.1:9002", site: b, capacity: {concurrency: 4, serviceTime: 10ms}}
---
`

const gatewayDoc = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: in}
spec:
  gatewayClassName: meridian
  listeners: [{name: http, port: 8080, protocol: HTTP}]
---
`

// TestMesh is a hub and two leaves through everything they do for one another.
func TestMesh(t *testing.T) {
	hub := start(t, controller.Config{Site: "centre", Hub: true, Version: "test"})
	relay := natstest.NewRelay(t, strings.TrimPrefix(hub.run.Leaf, "tls://"))
	a := start(t, leafConfig("a", "tls://"+relay.Addr(), hub))
	b := start(t, leafConfig("b", hub.run.Leaf, hub))
	na, nb := a.node("n1"), b.node("n1")

	// Configuration written at the hub arrives at the nodes of every site.
	hub.must(siteDoc("a", 0) + siteDoc("b", 0.1) + shopDoc)
	within(t, 30*time.Second, "the hub's objects at both nodes", func() bool {
		return na.objects() == 3 && nb.objects() == 3
	})
	snap := na.snapshot.Load()
	if snap.Site != "a" || snap.Origin != "a" || snap.Verify(nil) != nil || snap.Signature == "" {
		t.Fatalf("snapshot %+v", snap)
	}

	// Reports flow: the hot site plans to send to the other one.
	na.report(t, "a", "n1", 600)
	nb.report(t, "b", "n1", 40)
	within(t, 30*time.Second, "weights of a towards b", func() bool {
		w := na.weights.Load()
		return w != nil && len(w.Services) == 1 && len(w.Services[0].Remotes) == 1 && w.Services[0].Remotes[0].Weight > 0.2
	})
	w := na.weights.Load()
	if ttl := w.ExpiresAt.Sub(w.IssuedAt); ttl != 2*time.Second || w.Services[0].HomeLimit <= 0 {
		t.Errorf("weights %+v", w)
	}
	st := hub.status()
	if len(st.Peer) != 2 || st.Peer[0].Status != membership.Alive || st.Peer[0].Said == nil || len(st.Peer[0].Said.Nodes) != 1 {
		t.Fatalf("status at the hub %+v", st.Peer)
	}
	within(t, 3*time.Second, "acknowledged generation", func() bool {
		n := a.status().Self.Nodes
		return len(n) == 1 && !n[0].Behind && n[0].Applied == snap.Generation
	})
	matrix, err := b.api.Weights(short(t))
	if err != nil || len(matrix.Rows) != 3 || matrix.Rows[0].Site != "b" || matrix.Rows[1].Site != "a" || len(matrix.Missing) != 0 {
		t.Errorf("matrix at b: %+v, %v", matrix, err)
	}

	// One owner.
	r := a.apply(siteDoc("b", 5) + gatewayDoc)
	if len(r.Faults) != 1 || !strings.Contains(r.Faults[0].Message, "owned by the hub") || r.Faults[0].Line != 1 || a.has(mesh.KindGateway, "in") {
		t.Fatalf("site writes the hub's object: %+v", r)
	}
	a.must(gatewayDoc)
	within(t, 3*time.Second, "own object at the node", func() bool { return len(na.snapshot.Load().Objects.Gateways) == 1 })
	if hub.has(mesh.KindGateway, "in") || b.has(mesh.KindGateway, "in") {
		t.Error("a site's own object left it")
	}

	// A soft-state tick makes no generation.
	before := na.snapshot.Load().Generation
	time.Sleep(700 * time.Millisecond)
	if g := na.snapshot.Load().Generation; g != before {
		t.Errorf("generation went from %s to %s by itself", before, g)
	}

	// Cut off, a serves on, and knows that it does not know.
	relay.Cut()
	within(t, 30*time.Second, "a to see the cut", func() bool { return !a.status().Link.Connected })
	hub.must(siteDoc("c", 1))
	a.must(strings.Replace(gatewayDoc, "8080", "8081", 1))
	within(t, 3*time.Second, "own change while cut off", func() bool {
		return na.snapshot.Load().Objects.Gateways[0].Spec.Listeners[0].Port == 8081
	})
	within(t, 4*time.Second, "b unknown at a", func() bool {
		p := a.status().Peer
		return p[0].Site == "b" && p[0].Status == membership.Unknown && p[0].UnknownSince != nil && p[0].Silence != ""
	})
	within(t, 3*time.Second, "a suspect at b", func() bool { return b.status().Peer[0].Status == membership.Suspect })
	if a.has(mesh.KindSite, "c") {
		t.Fatal("the cut does not cut")
	}
	relay.Heal()
	healed := time.Now()
	within(t, 30*time.Second, "the hub's change after the heal", func() bool { return a.has(mesh.KindSite, "c") })
	t.Logf("configuration converged %s after the heal", time.Since(healed))
	within(t, 30*time.Second, "b alive again at a", func() bool { return a.status().Peer[0].Status == membership.Alive })

	// The hub dies: sites serve on, and take it back.
	hub.stop()
	b.must(strings.Replace(gatewayDoc, "name: in", "name: late", 1))
	within(t, 3*time.Second, "own change without a hub", func() bool { return len(nb.snapshot.Load().Objects.Gateways) == 1 })
	cfg := hub.cfg
	cfg.LeafListen, cfg.JoinListen = strings.TrimPrefix(hub.run.Leaf, "tls://"), "127.0.0.1:0"
	hub = start(t, cfg)
	if !hub.has(mesh.KindSite, "c") {
		t.Error("the hub lost its configuration")
	}
	hub.must(siteDoc("d", 2))
	within(t, 8*time.Second, "configuration of the hub that came back", func() bool {
		return a.has(mesh.KindSite, "d") && b.has(mesh.KindSite, "d")
	})
}

// With a NATS that others run, hub and sites share one JetStream.
func TestExternalNATS(t *testing.T) {
	f, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	secret, err := f.Secret("token")
	if err != nil {
		t.Fatal(err)
	}
	external, err := natsd.Start(natsd.Config{
		Site: "external", StoreDir: f.Path("nats"), Listen: "127.0.0.1:0", AdminToken: secret, NodeToken: secret + "-none",
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer external.Stop()
	cfg := controller.Config{NATSURL: external.ClientURL(), NATSTokenFile: f.Path("token"), Version: "test"}
	hubConfig, aConfig := cfg, cfg
	hubConfig.Site, hubConfig.Hub = "centre", true
	aConfig.Site = "a"
	hub := start(t, hubConfig)
	a := start(t, aConfig)
	if a.run.NATS != external.ClientURL() {
		t.Errorf("run file %+v", a.run)
	}
	hub.must(siteDoc("a", 0) + shopDoc)
	within(t, 30*time.Second, "the hub's object at a", func() bool { return a.has(mesh.KindSite, "a") })
	a.must(gatewayDoc)
	if hub.has(mesh.KindGateway, "in") {
		t.Error("a site's own object is the hub's")
	}
	if r := a.apply(siteDoc("a", 1)); len(r.Faults) != 1 || !strings.Contains(r.Faults[0].Message, "owned by the hub") {
		t.Errorf("%+v", r)
	}
	within(t, 30*time.Second, "reports of a at the hub", func() bool {
		p := hub.status().Peer
		return len(p) == 1 && p[0].Site == "a" && p[0].Status == membership.Alive && p[0].Said != nil
	})
}

func TestRestartKeepsTheGeneration(t *testing.T) {
	cfg := controller.Config{Site: "solo", Data: t.TempDir(), Version: "test"}
	s := start(t, cfg)
	s.must(siteDoc("solo", 0) + gatewayDoc)
	n := s.node("n1")
	within(t, 3*time.Second, "snapshot", func() bool { return n.snapshot.Load() != nil })
	within(t, 3*time.Second, "publication", func() bool { return s.status().Self.Published })
	first := n.snapshot.Load()
	cfg.Listen = strings.TrimPrefix(s.run.NATS, "nats://")
	s.stop()
	if _, err := siteapi.ReadRunFile(cfg.Data); err == nil {
		t.Error("the run file stays behind")
	}

	begin := time.Now()
	s = start(t, cfg)
	if d := time.Since(begin); d > 2*time.Second {
		t.Errorf("serves again after %s", d)
	}
	if st := s.status(); st.Self.Generation == nil || *st.Self.Generation != first.Generation || st.Self.Hash != first.Hash {
		t.Errorf("generation %v, was %s", st.Self.Generation, first.Generation)
	}
	s.must(strings.Replace(gatewayDoc, "8080", "8081", 1))
	within(t, 30*time.Second, "the next generation at the old node", func() bool {
		g := n.snapshot.Load().Generation
		return g.Incarnation == first.Generation.Incarnation && g.Counter == first.Generation.Counter+1
	})
	s.stop()

	// Damage to the last snapshot, or to the record of generations, loses neither
	// the objects nor the order.
	within(t, 3*time.Second, "saved", func() bool { _, err := os.Stat(filepath.Join(cfg.Data, "snapshot.prev.json")); return err == nil })
	high := n.snapshot.Load().Generation
	for _, name := range []string{"snapshot.json", "generation.json"} {
		path := filepath.Join(cfg.Data, name)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s = start(t, cfg)
		st := s.status()
		if st.Self.Generation == nil || st.Self.Generation.Compare(high) < 0 || st.Self.Objects != 2 {
			t.Errorf("%s damaged: generation %v after %s, %d objects", name, st.Self.Generation, high, st.Self.Objects)
		}
		within(t, 3*time.Second, "publication", func() bool { return s.status().Self.Published })
		high = *s.status().Self.Generation
		s.stop()
	}
}

func TestOneControllerPerFolder(t *testing.T) {
	s := start(t, controller.Config{Site: "solo", Version: "test"})
	srv, err := controller.New(s.cfg, controller.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("second controller: %v", err)
	}
}

func TestApplyIsAllOrNothing(t *testing.T) {
	s := start(t, controller.Config{Site: "solo", Version: "test"})
	bad := siteDoc("ok", 0) + "apiVersion: mesh.meridian.dev/v1alpha1\nkind: Site\nmetadata: {name: Bad}\nspec: {locatoin: {}}\n"
	r := s.apply(bad)
	if len(r.Faults) < 2 || r.Faults[0].File != "test.yaml" || r.Faults[0].Line == 0 || len(r.Changes) != 0 || s.has(mesh.KindSite, "ok") {
		t.Fatalf("%+v", r)
	}
	dry, err := s.api.Apply(short(t), siteapi.ApplyRequest{DryRun: true, Documents: []siteapi.Document{{Name: "x", YAML: siteDoc("ok", 0)}}})
	if err != nil || len(dry.Changes) != 1 || dry.Changes[0].Action != siteapi.Created || s.has(mesh.KindSite, "ok") {
		t.Fatalf("dry run: %+v, %v", dry, err)
	}
	for _, want := range []string{siteapi.Created, siteapi.Unchanged} {
		if r = s.apply(siteDoc("ok", 0)); r.Changes[0].Action != want {
			t.Errorf("%+v, want %s", r, want)
		}
	}
	if r = s.apply(siteDoc("ok", 1)); r.Changes[0].Action != siteapi.Updated {
		t.Errorf("%+v", r)
	}
	if r = s.apply("# nothing\n"); len(r.Faults) != 1 {
		t.Errorf("empty input: %+v", r)
	}
	route := "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec: {parentRefs: [{name: none}], rules: [{backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: none, port: 80}]}]}\n"
	if r = s.apply(route); len(r.Faults) != 0 || len(r.Conditions) == 0 || r.Conditions[0].Object.Name != "r" {
		t.Errorf("dangling route: %+v", r)
	}
	ok := mesh.Key{Kind: mesh.KindSite, Namespace: mesh.DefaultNamespace, Name: "ok"}
	none := ok
	none.Name = "none"
	d, err := s.api.Delete(short(t), siteapi.DeleteRequest{Keys: []mesh.Key{ok, none}})
	if err != nil || len(d.Faults) != 1 || !s.has(mesh.KindSite, "ok") {
		t.Errorf("delete with a missing one: %+v, %v", d, err)
	}
	if d, err = s.api.Delete(short(t), siteapi.DeleteRequest{Keys: []mesh.Key{ok}}); err != nil || len(d.Faults) != 0 || s.has(mesh.KindSite, "ok") {
		t.Errorf("delete: %+v, %v", d, err)
	}
}

func TestPreload(t *testing.T) {
	cfg := controller.Config{Site: "solo", Data: t.TempDir(), Version: "test", Preload: []mesh.Source{{Name: "p.yaml", Data: []byte(siteDoc("solo", 0))}}}
	s := start(t, cfg)
	if !s.has(mesh.KindSite, "solo") || s.status().Self.Objects != 1 {
		t.Error("not loaded")
	}
	cfg.Preload = []mesh.Source{{Name: "p.yaml", Data: []byte("kind: Site\n")}}
	var faults *mesh.Faults
	if _, err := controller.New(cfg, controller.Deps{}); !errors.As(err, &faults) || faults.List[0].File != "p.yaml" {
		t.Errorf("broken file: %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, c := range []struct {
		cfg  controller.Config
		want string
	}{
		{controller.Config{Site: "Bad Name", Data: "x"}, "not a name"},
		{controller.Config{Site: "a"}, "data folder"},
		{controller.Config{Site: "a", Data: "x", Hub: true, HubURLs: []string{"tls://h:1"}, HubCA: "c", HubKey: "s"}, "one of the two"},
		{controller.Config{Site: "a", Data: "x", HubURLs: []string{"tls://h:1"}}, "join with a token"},
		{controller.Config{Site: "a", Data: "x", HubCA: "c"}, "not the hub's address"},
		{controller.Config{Site: "a", Data: "x", API: "0.0.0.0:80"}, "no login"},
		{controller.Config{Site: "a", Data: "x", NATSTokenFile: "t"}, "not its address"},
	} {
		if _, err := controller.New(c.cfg, controller.Deps{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.cfg, err, c.want)
		}
	}
}

func TestAPIIsNotForWebPages(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "api.sock")
	s := start(t, controller.Config{Site: "solo", Version: "test"})
	do := func(change func(*http.Request)) int {
		t.Helper()
		body, _ := json.Marshal(siteapi.ApplyRequest{DryRun: true, Documents: []siteapi.Document{{Name: "x", YAML: siteDoc("x", 0)}}})
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.run.API+siteapi.PathApply, strings.NewReader(string(body)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		change(r)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	if got := do(func(*http.Request) {}); got != 200 {
		t.Errorf("plain: %d", got)
	}
	if got := do(func(r *http.Request) { r.Header.Set("Origin", "http://"+r.URL.Host) }); got == 403 {
		t.Errorf("the controller's own page is refused with %d", got)
	}
	if got := do(func(r *http.Request) { r.Header.Set("Origin", "http://127.0.0.1:1") }); got != 403 {
		t.Errorf("a page of another program on this machine got %d", got)
	}
	if got := do(func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") }); got != 403 {
		t.Errorf("with an origin: %d", got)
	}
	if got := do(func(r *http.Request) { r.Host = "evil.example" }); got != 403 {
		t.Errorf("with another host: %d", got)
	}
	if got := do(func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }); got != 415 {
		t.Errorf("with a form's type: %d", got)
	}
	for _, path := range []string{"/healthz", "/readyz?verbose", "/metrics"} {
		resp, err := http.Get(s.run.API + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
	u := start(t, controller.Config{Site: "other", API: "unix:" + sock, Version: "test"})
	if st, err := os.Stat(sock); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket %v, %v", st, err)
	}
	if u.status().Self.Site != "other" {
		t.Error("wrong site over the socket")
	}
}
