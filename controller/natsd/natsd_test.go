package natsd_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/natsd"
	"github.com/meridian-mesh/meridian/controller/store"
	"github.com/meridian-mesh/meridian/internal/bus"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
)

// site is a running server with its controller's connection.
type site struct {
	name string
	dir  *store.Folder
	srv  *natsd.Server
	conn *bus.Conn
}

func open(t *testing.T, dir string) *store.Folder {
	t.Helper()
	f, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func config(t *testing.T, name string, f *store.Folder) natsd.Config {
	t.Helper()
	node, err := f.Secret("node.token")
	if err != nil {
		t.Fatal(err)
	}
	admin, err := f.Secret("admin.token")
	if err != nil {
		t.Fatal(err)
	}
	return natsd.Config{
		Site: name, StoreDir: f.Path("nats"), Listen: "127.0.0.1:0",
		NodeToken: node, AdminToken: admin, Log: slog.New(slog.DiscardHandler),
	}
}

func start(t *testing.T, f *store.Folder, cfg natsd.Config) *site {
	t.Helper()
	srv, err := natsd.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Kill)
	conn, err := bus.Connect(bus.Options{Name: "controller " + cfg.Site, Site: cfg.Site, InProcess: srv, TokenFile: f.Path("admin.token")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return &site{cfg.Site, f, srv, conn}
}

func startHub(t *testing.T) *site {
	t.Helper()
	f := open(t, t.TempDir())
	a, err := natsd.OpenAuthority(f, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(t, "centre", f)
	cfg.Hub, cfg.LeafListen, cfg.Authority, cfg.SiteOf = true, "127.0.0.1:0", a, members(f)
	return start(t, f, cfg)
}

// members lets the sites in whose public keys are files of a hub's folder.
func members(hub *store.Folder) func(string) (string, bool) {
	return func(nkey string) (string, bool) {
		site, err := os.ReadFile(hub.Path("hub", nkey))
		return string(site), err == nil && nkey != ""
	}
}

// admit makes a site a member and returns its seed's file.
func admit(t *testing.T, name string, f, hub *store.Folder) string {
	t.Helper()
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, _ := key.Seed()
	public, _ := key.PublicKey()
	for path, data := range map[string][]byte{f.Path("site.nk"): seed, hub.Path("hub", public): []byte(name)} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f.Path("site.nk")
}

func startLeaf(t *testing.T, name, hubAddr string, hub *store.Folder) *site {
	t.Helper()
	f := open(t, t.TempDir())
	cfg := config(t, name, f)
	cfg.HubURLs = []string{"tls://" + hubAddr}
	cfg.HubCA, cfg.HubKey = hub.Path("hub", "ca.pem"), admit(t, name, f, hub)
	return start(t, f, cfg)
}

// raw is a connection with the controller's rights and nothing of package bus.
func raw(t *testing.T, s *site) *nats.Conn {
	t.Helper()
	token, err := s.dir.Secret("admin.token")
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect("", nats.InProcessServer(s.srv), nats.Token(token))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
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
	ctx, done := context.WithTimeout(t.Context(), 3*time.Second)
	t.Cleanup(done)
	return ctx
}

func sealed(t *testing.T, site string, n uint64) *mesh.Snapshot {
	t.Helper()
	s := &mesh.Snapshot{Site: site, Generation: mesh.Generation{Incarnation: 1, Counter: n}}
	if err := s.Seal(nil); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSoftStateCrossesTheHub(t *testing.T) {
	hub := startHub(t)
	a := startLeaf(t, "a", hub.srv.LeafAddr(), hub.dir)
	b := startLeaf(t, "b", hub.srv.LeafAddr(), hub.dir)
	in, err := b.conn.Reports(t.Context(), 4)
	if err != nil {
		t.Fatal(err)
	}
	seq := uint64(0)
	within(t, 5*time.Second, "report of a at b", func() bool {
		seq++
		_ = a.conn.PublishReport(&mesh.Report{Site: "a", Reporter: "ctl", Seq: seq})
		select {
		case r := <-in:
			return r.Value.Site == "a" && r.Value.Reporter == "ctl"
		default:
			return false
		}
	})
	// A full queue keeps the newest and counts the rest.
	for range 50 {
		seq++
		if err := a.conn.PublishReport(&mesh.Report{Site: "a", Seq: seq}); err != nil {
			t.Fatal(err)
		}
	}
	within(t, 3*time.Second, "newest report", func() bool {
		select {
		case r := <-in:
			return r.Value.Seq == seq
		default:
			return false
		}
	})
	if b.conn.State().Dropped == 0 {
		t.Error("nothing counted as dropped")
	}
	// Messages that this build must not read.
	_ = a.conn.PublishReport(&mesh.Report{Compat: mesh.Compat{MinReader: 99}, Site: "a"})
	within(t, 3*time.Second, "fault counted", func() bool { return b.conn.State().Faults == 1 })
	// One site cannot speak for another: a subject carries only its own site's word.
	nc := raw(t, a)
	if err := nc.Publish(bus.ReportSubject("a"), []byte(`{"site":"b","reporter":"x","services":[]}`)); err != nil {
		t.Fatal(err)
	}
	within(t, 3*time.Second, "imposture counted", func() bool { return b.conn.State().Faults == 2 })
	select {
	case r := <-in:
		t.Errorf("taken: %+v", r.Value)
	default:
	}
}

func TestNodeWatchesItsSiteAndMayDoNothingElse(t *testing.T) {
	hub := startHub(t)
	snaps, err := hub.conn.OpenSnapshots(short(t), "centre")
	if err != nil {
		t.Fatal(err)
	}
	put := func(n uint64) {
		t.Helper()
		if err := snaps.Put(short(t), sealed(t, "centre", n)); err != nil {
			t.Fatal(err)
		}
	}
	put(1)
	node, err := bus.DialNode(bus.Options{URL: hub.srv.ClientURL(), Name: "n1", TokenFile: hub.dir.Path("node.token")}, "centre")
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	got := make(chan *mesh.Snapshot, 16)
	err = node.WatchSnapshots(t.Context(), "centre", func(s *mesh.Snapshot, err error) {
		if err != nil {
			t.Error(err)
			return
		}
		got <- s
	})
	if err != nil {
		t.Fatal(err)
	}
	next := func(n uint64) {
		t.Helper()
		select {
		case s := <-got:
			if s.Generation.Counter != n {
				t.Fatalf("got %s, want counter %d", s.Generation, n)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("no snapshot %d; %+v", n, node.State())
		}
	}
	next(1)
	put(2)
	next(2)

	in, err := hub.conn.NodeReports(t.Context(), "centre", 4)
	if err != nil {
		t.Fatal(err)
	}
	if err := hub.conn.Flush(time.Second); err != nil {
		t.Fatal(err)
	}
	if err := node.PublishReport(&mesh.NodeReport{Site: "centre", Node: "n1"}); err != nil {
		t.Fatal(err)
	}
	select {
	case r := <-in:
		if r.Value.Node != "n1" {
			t.Fatalf("%+v", r.Value)
		}
	case <-time.After(3 * time.Second):
		t.Fatal("no node report")
	}
	all, err := hub.conn.Reports(t.Context(), 4)
	if err != nil {
		t.Fatal(err)
	}
	if err := node.PublishReport(&mesh.NodeReport{Site: "elsewhere", Node: "n1"}); err != nil {
		t.Fatal(err)
	}
	if err := node.Conn.PublishReport(&mesh.Report{Site: "centre"}); err != nil {
		t.Fatal(err)
	}
	within(t, 3*time.Second, "refusal", func() bool { return strings.Contains(node.State().LastError, "ermissions") })
	refused, done := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer done()
	if own, err := node.OpenHubConfig(refused); err == nil {
		t.Errorf("a node opened the hub's configuration: %v", own)
	}
	select {
	case r := <-all:
		t.Errorf("a node spoke as a site: %+v", r.Value)
	default:
	}

	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte(strings.Repeat("0", 64)), 0o600); err != nil {
		t.Fatal(err)
	}
	stranger, err := bus.Connect(bus.Options{URL: hub.srv.ClientURL(), TokenFile: bad})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	time.Sleep(200 * time.Millisecond)
	if stranger.Connected() {
		t.Error("a wrong token was let in")
	}
}

// The node's watch has to outlive its server, on the same address and data.
func TestWatchOutlivesTheServer(t *testing.T) {
	f := open(t, t.TempDir())
	cfg := config(t, "solo", f)
	s := start(t, f, cfg)
	snaps, err := s.conn.OpenSnapshots(short(t), "solo")
	if err != nil {
		t.Fatal(err)
	}
	node, err := bus.DialNode(bus.Options{URL: s.srv.ClientURL(), TokenFile: f.Path("node.token")}, "solo")
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	got := make(chan uint64, 16)
	_ = node.WatchSnapshots(t.Context(), "solo", func(s *mesh.Snapshot, err error) {
		if err == nil {
			got <- s.Generation.Counter
		}
	})
	expect := func(n uint64) {
		t.Helper()
		end := time.After(5 * time.Second)
		for {
			select {
			case have := <-got:
				if have == n {
					return
				}
			case <-end:
				t.Fatalf("no snapshot %d; %+v", n, node.State())
			}
		}
	}
	snap := func(n uint64) *mesh.Snapshot { return sealed(t, "solo", n) }
	if err := snaps.Put(short(t), snap(1)); err != nil {
		t.Fatal(err)
	}
	expect(1)
	cfg.Listen = strings.TrimPrefix(s.srv.ClientURL(), "nats://")
	s.conn.Close()
	s.srv.Stop()
	within(t, 3*time.Second, "node to notice", func() bool { return !node.Connected() })
	if err := node.PublishReport(&mesh.NodeReport{Site: "solo"}); !errors.Is(err, bus.ErrNotConnected) {
		t.Errorf("publish without a server: %v", err)
	}
	s = start(t, f, cfg)
	if snaps, err = s.conn.OpenSnapshots(short(t), "solo"); err != nil {
		t.Fatal(err)
	}
	if err := snaps.Put(short(t), snap(2)); err != nil {
		t.Fatal(err)
	}
	expect(2)
	if node.State().Reconnects == 0 {
		t.Error("reconnect not counted")
	}
}

func TestLeafNeedsAKeyTheHubKnowsAndItsCA(t *testing.T) {
	hub := startHub(t)
	other := open(t, t.TempDir())
	if _, err := natsd.OpenAuthority(other, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		ca, key *store.Folder
	}{{"wrong CA", other, hub.dir}, {"unknown key", hub.dir, other}} {
		t.Run(c.name, func(t *testing.T) {
			f := open(t, t.TempDir())
			cfg := config(t, "x", f)
			cfg.HubURLs = []string{"tls://" + hub.srv.LeafAddr()}
			cfg.HubCA, cfg.HubKey = c.ca.Path("hub", "ca.pem"), admit(t, "x", f, c.key)
			s := start(t, f, cfg)
			time.Sleep(400 * time.Millisecond)
			if n := hub.srv.Links(); n != 0 {
				t.Errorf("%d leaf links", n)
			}
			// Alone it serves all the same.
			if _, err := s.conn.OpenSiteConfig(short(t), "x"); err != nil {
				t.Error(err)
			}
		})
	}
	for _, c := range []struct {
		name string
		set  func(*natsd.Config)
		want string
	}{
		{"plain", func(c *natsd.Config) { c.HubURLs = []string{"nats://127.0.0.1:1"} }, "want tls://host:port"},
		{"secret in address", func(c *natsd.Config) { c.HubURLs = []string{"tls://leaf:pw@127.0.0.1:1"} }, "--hub-key"},
		{"no seed", func(c *natsd.Config) { c.HubKey = c.HubCA }, "no NKey seed"},
		{"no CA", func(c *natsd.Config) { c.HubCA = "/nonexistent" }, "hub's CA"},
		{"domain", func(c *natsd.Config) { c.Site = "hub" }, "another name"},
		{"port", func(c *natsd.Config) { c.Listen = "127.0.0.1:x" }, "port"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := open(t, t.TempDir())
			cfg := config(t, "x", f)
			cfg.HubURLs = []string{"tls://" + hub.srv.LeafAddr()}
			cfg.HubCA, cfg.HubKey = hub.dir.Path("hub", "ca.pem"), admit(t, "x", f, hub.dir)
			c.set(&cfg)
			if _, err := natsd.Start(cfg); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "pw") {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	t.Run("busy port", func(t *testing.T) {
		cfg := config(t, "y", open(t, t.TempDir()))
		cfg.Listen = strings.TrimPrefix(hub.srv.ClientURL(), "nats://")
		if _, err := natsd.Start(cfg); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("error %v", err)
		}
	})
}

func TestAPIOverTheBus(t *testing.T) {
	hub := startHub(t)
	a := startLeaf(t, "a", hub.srv.LeafAddr(), hub.dir)
	err := a.conn.ServeAPI(t.Context(), "a", "0.0.1", map[string]bus.Verb{
		"echo": func(_ context.Context, in []byte) ([]byte, error) { return in, nil },
		"fail": func(context.Context, []byte) ([]byte, error) { return nil, errors.New("two\nlines") },
	})
	if err != nil {
		t.Fatal(err)
	}
	within(t, 5*time.Second, "answer through the hub", func() bool {
		out, err := hub.conn.Call(short(t), "a", "echo", []byte(`{"x":1}`))
		return err == nil && json.Valid(out)
	})
	if _, err := hub.conn.Call(short(t), "a", "fail", nil); err == nil || err.Error() != "two\nlines" {
		t.Errorf("error %v", err)
	}
	if _, err := hub.conn.Call(short(t), "b", "echo", nil); err == nil || !strings.Contains(err.Error(), "site b") {
		t.Errorf("error %v", err)
	}
}

// A site speaks for itself and reads what it needs; whoever has its key can do
// nothing more at the hub, and nothing at all once the key is withdrawn.
func TestSiteMayDoWhatASiteDoesAndNothingMore(t *testing.T) {
	hub := startHub(t)
	a := startLeaf(t, "a", hub.srv.LeafAddr(), hub.dir)
	b := startLeaf(t, "b", hub.srv.LeafAddr(), hub.dir)
	own, err := hub.conn.OpenHubConfig(short(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := own.Put(short(t), key(1), []byte("one"), bus.AnyRevision); err != nil {
		t.Fatal(err)
	}
	within(t, 5*time.Second, "links", func() bool { return hub.srv.Links() == 2 })
	for _, s := range []*site{hub, b} {
		if err := s.conn.ServeAPI(t.Context(), s.name, "test", map[string]bus.Verb{
			"status": func(context.Context, []byte) ([]byte, error) { return []byte(s.name), nil },
			"apply": func(context.Context, []byte) ([]byte, error) {
				t.Errorf("%s was told to apply", s.name)
				return nil, nil
			},
		}); err != nil {
			t.Fatal(err)
		}
	}
	// What a site does.
	for _, peer := range []string{"centre", "b"} {
		within(t, 5*time.Second, "answer of "+peer, func() bool {
			got, err := a.conn.Call(short(t), peer, "status", nil)
			return err == nil && string(got) == peer
		})
	}
	nc := raw(t, a)
	heard := make(chan *nats.Msg, 16)
	spy := raw(t, hub)
	for _, subject := range []string{bus.AllReports, "mesh.weights.>", "mesh.node.>", "$KV.>"} {
		if _, err := spy.ChanSubscribe(subject, heard); err != nil {
			t.Fatal(err)
		}
	}
	if err := spy.Flush(); err != nil {
		t.Fatal(err)
	}
	within(t, 5*time.Second, "own report at the hub", func() bool {
		_ = nc.Publish(bus.ReportSubject("a"), []byte("{}"))
		select {
		case m := <-heard:
			return m.Subject == bus.ReportSubject("a")
		case <-time.After(50 * time.Millisecond):
			return false
		}
	})
	// What it must not: speak as b, command others, write the hub's bucket or read
	// what others are answered.
	for len(heard) > 0 {
		<-heard
	}
	for _, subject := range []string{bus.ReportSubject("b"), bus.WeightsSubject("centre"), bus.NodeSubject("centre", "n"), "$KV." + bus.HubBucket + ".Site.default.s_2e1"} {
		if err := nc.Publish(subject, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	ctx, done := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer done()
	for _, peer := range []string{"centre", "b"} {
		if _, err := a.conn.Call(ctx, peer, "apply", nil); err == nil {
			t.Errorf("a commanded %s", peer)
		}
	}
	if _, err := nc.Request("$JS."+bus.HubDomain+".API.STREAM.DELETE.KV_"+bus.HubBucket, nil, 300*time.Millisecond); err == nil {
		t.Error("a deleted the hub's bucket, or was at least answered")
	}
	overheard, err := nc.SubscribeSync("_INBOX.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if got, err := b.conn.Call(short(t), "centre", "status", nil); err != nil || string(got) != "centre" {
		t.Fatalf("b asks the hub: %s, %v", got, err)
	}
	if m, err := overheard.NextMsg(200 * time.Millisecond); err == nil {
		t.Errorf("a overheard %s: %s", m.Subject, m.Data)
	}
	for len(heard) > 0 {
		// Its own reports of before may have been late.
		if m := <-heard; m.Subject != bus.ReportSubject("a") {
			t.Errorf("a wrote %s at the hub", m.Subject)
		}
	}
	js, err := jetstream.New(spy)
	if err != nil {
		t.Fatal(err)
	}
	if stream, err := js.Stream(short(t), "KV_"+bus.HubBucket); err != nil || stream.CachedInfo().State.LastSeq != 1 {
		t.Errorf("the hub's bucket: %+v, %v", stream, err)
	}

	// Withdrawn: the link ends and stays so; b's goes on.
	for _, e := range must(os.ReadDir(hub.dir.Path("hub"))) {
		if who, _ := os.ReadFile(hub.dir.Path("hub", e.Name())); string(who) == "a" {
			if err := os.Remove(hub.dir.Path("hub", e.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := hub.srv.Disconnect("a"); err != nil {
		t.Fatal(err)
	}
	within(t, 5*time.Second, "end of the link", func() bool { return a.srv.Links() == 0 && hub.srv.Links() == 1 })
	time.Sleep(1500 * time.Millisecond) // it dials again each second
	if hub.srv.Links() != 1 || b.srv.Links() != 1 {
		t.Errorf("links: hub %d, b %d", hub.srv.Links(), b.srv.Links())
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
