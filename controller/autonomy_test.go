package controller_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller"
	"github.com/meridian-mesh/meridian/controller/backup"
	"github.com/meridian-mesh/meridian/controller/natsd/natstest"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/controller/store"
)

// take backs a running site up as the command line does.
func (s *site) take() *backup.Backup {
	s.t.Helper()
	b, err := backup.Take(s.cfg.Data)
	if err != nil {
		s.t.Fatal(err)
	}
	o, err := s.api.Get(short(s.t), siteapi.GetRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	b.Site, b.Revision = o.Site, o.Revision
	for _, x := range o.Objects {
		if x.Owner == o.Owner {
			b.Objects = append(b.Objects, backup.Object{Key: x.Key, Value: x.Object})
		}
	}
	return b
}

// TestLostHub is the rehearsal: the hub's machine burns, its sites go on, a new
// machine takes its place from a backup, and everybody follows it, although they
// heard of later things than the backup has.
func TestLostHub(t *testing.T) {
	hubDir := filepath.Join(t.TempDir(), "hub")
	hub := start(t, controller.Config{Site: "centre", Hub: true, Data: hubDir})
	relay := natstest.NewRelay(t, strings.TrimPrefix(hub.run.Leaf, "tls://"))
	a := start(t, leafConfig("a", "tls://"+relay.Addr(), hub))
	na, nc := a.node("n1"), hub.node("n1")
	hub.must(siteDoc("a", 0) + siteDoc("b", 1) + shopDoc)
	within(t, 8*time.Second, "configuration at both nodes", func() bool {
		return na.objects() == 3 && nc.objects() == 3
	})
	b := hub.take()
	data, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, damaged := range [][]byte{data[:len(data)-1], append([]byte("x"), data...), nil} {
		if _, err := backup.Decode(damaged); err == nil {
			t.Error("a damaged backup is taken")
		}
	}
	if b, err = backup.Decode(data); err != nil {
		t.Fatal(err)
	}
	// What comes after the backup is lost with the hub, and that is a fact too.
	hub.must(siteDoc("late", 5))
	for i := range 20 {
		hub.must(siteDoc("b", float64(i)))
	}
	within(t, 8*time.Second, "the late object at the site", func() bool { return na.objects() == 4 && nc.objects() == 4 })
	oldHub, oldSite := nc.snapshot.Load().Generation, na.snapshot.Load().Generation
	hub.stop()
	if err := os.RemoveAll(hubDir); err != nil {
		t.Fatal(err)
	}
	relay.Cut()
	// The site goes on alone, its own changes included.
	a.must(gatewayDoc)
	within(t, 5*time.Second, "own change without a hub", func() bool { return na.objects() == 5 })

	if err := b.Restore(a.cfg.Data, time.Now()); err == nil {
		t.Fatal("restored over a site")
	}
	newDir := filepath.Join(t.TempDir(), "new")
	if err := b.Restore(newDir, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := b.Restore(newDir, time.Now()); err == nil {
		t.Error("restored twice")
	}
	relay.Heal()
	healed := time.Now()
	hub = start(t, controller.Config{Site: "centre", Hub: true, Data: newDir})
	relay.Target(strings.TrimPrefix(hub.run.Leaf, "tls://"))
	nc = hub.node("n1")
	within(t, 10*time.Second, "the site to follow the restored hub", func() bool {
		return a.status().Link.Connected && !a.has(mesh.KindSite, "late") && a.has(mesh.KindSite, "b") && na.objects() == 4
	})
	t.Logf("followed %s after the heal", time.Since(healed))
	hub.must(siteDoc("c", 7))
	within(t, 8*time.Second, "a change of the restored hub at the site's node", func() bool { return na.objects() == 5 && nc.objects() == 4 })
	if g := nc.snapshot.Load(); g.Generation.Compare(oldHub) <= 0 || g.Generation.Incarnation == oldHub.Incarnation || g.Signature == "" {
		t.Errorf("the restored hub's generation is %s after %s, signature %q", g.Generation, oldHub, g.Signature)
	}
	if g := na.snapshot.Load().Generation; g.Compare(oldSite) <= 0 {
		t.Errorf("the site's generation went from %s to %s", oldSite, g)
	}
	// After a restart it is so from disk, the ghost stays away.
	a.stop()
	relay.Cut()
	a = start(t, a.cfg)
	if a.has(mesh.KindSite, "late") || !a.has(mesh.KindSite, "c") || !a.has(mesh.KindGateway, "in") {
		t.Error("after a restart without the hub the site has another configuration")
	}
}

// objects counts what the node was given, but for the mesh's roots.
func (n *node) objects() int {
	if s := n.snapshot.Load(); s != nil {
		return s.Objects.Len() - len(s.Objects.TrustBundles)
	}
	return 0
}

// A site that restarts without its hub has what the hub said last, even when that
// came straight from the hub and the mirror on disk has not got it.
func TestRestartHasWhatTheHubSaidLast(t *testing.T) {
	hub := start(t, controller.Config{Site: "centre", Hub: true})
	relay := natstest.NewRelay(t, strings.TrimPrefix(hub.run.Leaf, "tls://"))
	a := start(t, leafConfig("a", "tls://"+relay.Addr(), hub))
	within(t, 5*time.Second, "link", func() bool { return a.status().Link.Connected })
	for i := range 3 {
		relay.Cut()
		within(t, 8*time.Second, "cut", func() bool { return !a.status().Link.Connected })
		name := fmt.Sprintf("s%d", i)
		hub.must(siteDoc(name, float64(i)))
		relay.Heal()
		within(t, 8*time.Second, "the change", func() bool { return a.has(mesh.KindSite, name) })
		// At once: the mirror, which backs off, has no time.
		relay.Cut()
		a.stop()
		a = start(t, a.cfg)
		if !a.has(mesh.KindSite, name) {
			t.Fatalf("round %d: the restarted site has forgotten what it served", i)
		}
		relay.Heal()
	}
}

// A store that lost its content does not take it from the nodes.
func TestDamagedStoreIsNotServed(t *testing.T) {
	hub := start(t, controller.Config{Site: "centre", Hub: true})
	relay := natstest.NewRelay(t, strings.TrimPrefix(hub.run.Leaf, "tls://"))
	a := start(t, leafConfig("a", "tls://"+relay.Addr(), hub))
	na := a.node("n1")
	hub.must(siteDoc("a", 0) + siteDoc("b", 1) + shopDoc)
	within(t, 8*time.Second, "configuration", func() bool { return na.objects() == 3 })
	before := na.snapshot.Load()
	settledOnDisk(t, a)
	a.stop()
	relay.Cut()
	if err := os.RemoveAll(filepath.Join(a.cfg.Data, "nats")); err != nil {
		t.Fatal(err)
	}
	a = start(t, a.cfg)
	na = a.node("n1")
	within(t, 5*time.Second, "the last snapshot at a node that starts", func() bool { return na.objects() == 3 })
	if g := na.snapshot.Load(); g.Generation != before.Generation || g.Hash != before.Hash {
		t.Errorf("the node got %s, had %s", g.Generation, before.Generation)
	}
	// Nothing is lost where the mirror had not got it yet and it was kept beside.
	_, err := os.Stat(filepath.Join(a.cfg.Data, "hub-ahead.json"))
	if p := a.status().Self.Problem; !strings.Contains(p, "until the hub answers") && err != nil {
		t.Errorf("problem %q", p)
	}
	relay.Heal()
	within(t, 20*time.Second, "the hub's configuration again", func() bool { return a.has(mesh.KindMeshService, "shop") && a.status().Self.Problem == "" })
	hub.must(siteDoc("c", 2))
	within(t, 8*time.Second, "a change after that", func() bool { return na.objects() == 4 })

	// The hub's own store: nobody else has it, so a person decides.
	settledOnDisk(t, hub)
	nc := hub.node("n1")
	within(t, 5*time.Second, "configuration at the hub's node", func() bool { return nc.objects() == 4 })
	hub.stop()
	if err := os.RemoveAll(filepath.Join(hub.cfg.Data, "nats", "jetstream", "$G", "streams", "KV_cfg_hub", "msgs")); err != nil {
		t.Fatal(err)
	}
	hub = start(t, hub.cfg)
	nc = hub.node("n1")
	within(t, 5*time.Second, "the last snapshot at the hub's node", func() bool { return nc.objects() == 4 })
	if p := hub.status().Self.Problem; !strings.Contains(p, "restore a backup") {
		t.Errorf("problem %q", p)
	}
	if _, err := hub.api.Apply(short(t), siteapi.ApplyRequest{Documents: []siteapi.Document{{Name: "x", YAML: siteDoc("x", 1)}}}); err == nil || !strings.Contains(err.Error(), "lost or damaged") {
		t.Errorf("a change over a damaged store: %v", err)
	}
	if na.objects() != 4 {
		t.Errorf("the site's node is left with %d objects", na.objects())
	}
	// Decided: go on with what is left.
	hub.stop()
	if err := os.Remove(filepath.Join(hub.cfg.Data, "buckets.json")); err != nil {
		t.Fatal(err)
	}
	hub = start(t, hub.cfg)
	hub.must(siteDoc("x", 1))
}

// settledOnDisk waits until the record of the buckets is that of the snapshot in
// force.
func settledOnDisk(t *testing.T, s *site) {
	t.Helper()
	within(t, 5*time.Second, "the snapshot to be published and recorded", func() bool {
		if !s.status().Self.Published {
			return false
		}
		_, err := os.Stat(filepath.Join(s.cfg.Data, "buckets.json"))
		return err == nil
	})
}

// Load that changes twice a second writes nothing to disk.
func TestSoftStateIsNotWritten(t *testing.T) {
	s := start(t, controller.Config{Site: "a"})
	n := s.node("n1")
	s.must(siteDoc("a", 0) + shopDoc)
	within(t, 5*time.Second, "snapshot", func() bool { return n.objects() == 2 })
	n.report(t, "a", "n1", 100)
	within(t, 5*time.Second, "weights", func() bool { return n.weights.Load() != nil })
	time.Sleep(300 * time.Millisecond) // what the snapshot wrote is written
	look := func() map[string]string {
		out := map[string]string{}
		err := filepath.WalkDir(s.cfg.Data, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			st, err := d.Info()
			if err == nil {
				out[path] = fmt.Sprint(st.ModTime(), st.Size())
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	before := look()
	seq := n.weights.Load().Seq
	within(t, 10*time.Second, "five plans", func() bool { return n.weights.Load().Seq >= seq+5 })
	for path, now := range look() {
		if before[path] != now {
			t.Errorf("%s was written", path)
		}
	}
	if len(before) < 8 {
		data, _ := json.Marshal(before)
		t.Errorf("looked at %s only", data)
	}
}

// A controller whose clock jumps back, as far as generations know of it, goes on
// above what it used: the clock only names the first incarnation.
func TestClockJumpsBack(t *testing.T) {
	dir := t.TempDir()
	f, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	// What a run whose clock was a day ahead left behind.
	ahead := mesh.Generation{Incarnation: uint64(time.Now().Add(24 * time.Hour).UnixNano()), Counter: 7}
	if err := errors.Join(f.SaveGeneration(ahead), f.Close()); err != nil {
		t.Fatal(err)
	}
	s := start(t, controller.Config{Site: "solo", Data: dir})
	n := s.node("n1")
	s.must(siteDoc("solo", 0))
	within(t, 5*time.Second, "a snapshot", func() bool { return n.objects() == 1 })
	if g := n.snapshot.Load().Generation; g.Compare(ahead) <= 0 {
		t.Errorf("generation %s after %s", g, ahead)
	}
}
