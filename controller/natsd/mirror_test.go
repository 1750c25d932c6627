package natsd_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/natsd"
	"github.com/meridian-mesh/meridian/controller/natsd/natstest"
	"github.com/meridian-mesh/meridian/internal/bus"
	"github.com/nats-io/nats.go/jetstream"
)

func key(i int) mesh.Key {
	return mesh.Key{Kind: "Site", Namespace: "default", Name: fmt.Sprintf("s.%d", i)}
}

// watch collects a bucket's entries.
func watch(t *testing.T, c *bus.Config) func() map[mesh.Key]string {
	t.Helper()
	ch := make(chan bus.Entry, 1024)
	if err := c.Watch(t.Context(), func(e bus.Entry) { ch <- e }); err != nil {
		t.Fatal(err)
	}
	have := map[mesh.Key]string{}
	return func() map[mesh.Key]string {
		for {
			select {
			case e := <-ch:
				if e.Value == nil {
					delete(have, e.Key)
				} else {
					have[e.Key] = string(e.Value)
				}
			default:
				return have
			}
		}
	}
}

func TestConfigOfTheHubReachesSites(t *testing.T) {
	hub := startHub(t)
	relay := natstest.NewRelay(t, hub.srv.LeafAddr())
	a := startLeaf(t, "a", relay.Addr(), hub.dir)
	own, err := hub.conn.OpenHubConfig(short(t))
	if err != nil {
		t.Fatal(err)
	}
	mirror, err := a.conn.MirrorHubConfig(short(t))
	if err != nil {
		t.Fatal(err)
	}
	have := watch(t, mirror)
	if _, err := own.Put(short(t), key(1), []byte("one"), bus.AnyRevision); err != nil {
		t.Fatal(err)
	}
	within(t, 5*time.Second, "link", func() bool { return a.srv.Links() == 1 && hub.srv.Links() == 1 })
	within(t, 10*time.Second, "entry", func() bool { _, _ = mirror.Refresh(short(t), false); return have()[key(1)] == "one" })
	if _, err := own.Delete(short(t), key(1), bus.AnyRevision); err != nil {
		t.Fatal(err)
	}
	within(t, 10*time.Second, "deletion", func() bool { _, _ = mirror.Refresh(short(t), false); return len(have()) == 0 })

	if _, err := mirror.Put(short(t), key(2), nil, bus.AnyRevision); !errors.Is(err, bus.ErrReadOnly) {
		t.Fatalf("write through the mirror: %v", err)
	}
	// What a site writes for itself stays there.
	mine, err := a.conn.OpenSiteConfig(short(t), "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mine.Put(short(t), key(3), []byte("three"), bus.AnyRevision); err != nil {
		t.Fatal(err)
	}
}

// A mirror that never had anything when its site was cut off has to get what was
// written, and overwritten, meanwhile.
func TestMirrorThatWasEmptyWhenCutOffConverges(t *testing.T) {
	hub := startHub(t)
	relay := natstest.NewRelay(t, hub.srv.LeafAddr())
	own, err := hub.conn.OpenHubConfig(short(t))
	if err != nil {
		t.Fatal(err)
	}
	a := startLeaf(t, "a", relay.Addr(), hub.dir)
	within(t, 5*time.Second, "link", func() bool { return a.srv.Links() == 1 })
	mirror, err := a.conn.MirrorHubConfig(short(t))
	if err != nil {
		t.Fatal(err)
	}
	have := watch(t, mirror)
	within(t, 5*time.Second, "mirror to hear the hub", func() bool {
		m, err := mirror.Mirror(short(t))
		return err == nil && m.Active >= 0
	})
	relay.Cut()
	within(t, 5*time.Second, "cut", func() bool { return a.srv.Links() == 0 })
	for i := range 3 {
		if _, err := own.Put(short(t), key(i%2), fmt.Appendf(nil, "v%d", i), bus.AnyRevision); err != nil {
			t.Fatal(err)
		}
	}
	ctx, done := context.WithTimeout(t.Context(), 300*time.Millisecond)
	if _, err := mirror.Refresh(ctx, false); err == nil {
		t.Fatal("the hub answered over a cut link")
	}
	done()
	relay.Heal()
	healed := time.Now()
	within(t, 5*time.Second, "link again", func() bool { return a.srv.Links() == 1 })
	// The refresh brings it at once...
	within(t, 3*time.Second, "both entries by refresh", func() bool {
		_, _ = mirror.Refresh(short(t), false)
		h := have()
		return h[key(0)] == "v2" && h[key(1)] == "v1"
	})
	t.Logf("refreshed %s after the heal", time.Since(healed))
	// ... and the mirror itself, which a restart reads, must get there too.
	within(t, 15*time.Second, "both entries in the mirror", func() bool {
		again, err := a.conn.MirrorHubConfig(short(t))
		if err != nil {
			return false
		}
		seen := map[mesh.Key]string{}
		_ = again.Watch(short(t), func(e bus.Entry) { seen[e.Key] = string(e.Value) })
		return seen[key(0)] == "v2" && seen[key(1)] == "v1"
	})
	t.Logf("mirrored %s after the heal", time.Since(healed))
}

// An explicit start is what keeps a source that was cut off before its first
// message from missing messages for ever; no timing of a test shows that reliably,
// so the stream itself is looked at.
func TestMirrorStartsAtTheBeginning(t *testing.T) {
	f := open(t, t.TempDir())
	s := start(t, f, config(t, "a", f))
	if _, err := s.conn.MirrorHubConfig(short(t)); err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(raw(t, s))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(short(t), "KV_"+bus.HubBucket)
	if err != nil {
		t.Fatal(err)
	}
	m := stream.CachedInfo().Config.Mirror
	if m == nil || m.OptStartSeq != 1 || m.External == nil || m.External.APIPrefix != "$JS.hub.API" {
		t.Fatalf("mirror %+v", m)
	}
}

// A hub that lost its data must not take the sites' configuration with it.
func TestHubThatLostItsDataIsNotFollowed(t *testing.T) {
	f := open(t, t.TempDir())
	auth, err := natsd.OpenAuthority(f, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(t, "centre", f)
	cfg.Hub, cfg.LeafListen, cfg.Authority, cfg.SiteOf = true, "127.0.0.1:0", auth, members(f)
	hub := start(t, f, cfg)
	relay := natstest.NewRelay(t, hub.srv.LeafAddr())
	a := startLeaf(t, "a", relay.Addr(), f)
	own, err := hub.conn.OpenHubConfig(short(t))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := own.Put(short(t), key(i), []byte("x"), bus.AnyRevision); err != nil {
			t.Fatal(err)
		}
	}
	mirror, err := a.conn.MirrorHubConfig(short(t))
	if err != nil {
		t.Fatal(err)
	}
	have := watch(t, mirror)
	within(t, 10*time.Second, "three entries", func() bool { _, _ = mirror.Refresh(short(t), false); return len(have()) == 3 })
	hub.conn.Close()
	hub.srv.Stop()
	cfg.StoreDir = f.Path("empty")
	hub = start(t, f, cfg)
	relay.Target(hub.srv.LeafAddr())
	if own, err = hub.conn.OpenHubConfig(short(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := own.Put(short(t), key(9), []byte("new"), bus.AnyRevision); err != nil {
		t.Fatal(err)
	}
	within(t, 8*time.Second, "word of it", func() bool {
		_, err := mirror.Refresh(short(t), false)
		return errors.Is(err, bus.ErrHubBehind)
	})
	if h := have(); len(h) != 3 {
		t.Errorf("the site is left with %v", h)
	}
}

// A leaf must not go around the address it was given: servers tell each other
// their other addresses, and one that follows them crosses every cut. So neither
// side may take part in that.
func TestLeafStaysOnTheWayItWasGiven(t *testing.T) {
	hub := startHub(t)
	relay := natstest.NewRelay(t, hub.srv.LeafAddr())
	a := startLeaf(t, "a", relay.Addr(), hub.dir)
	within(t, 5*time.Second, "link", func() bool { return hub.srv.Links() == 1 })
	relay.Cut()
	within(t, 5*time.Second, "cut", func() bool { return hub.srv.Links() == 0 && a.srv.Links() == 0 })
	for range 25 { // two dials and more
		time.Sleep(100 * time.Millisecond)
		if hub.srv.Links() != 0 {
			t.Fatal("the leaf found a way around the cut")
		}
	}
	relay.Heal()
	within(t, 5*time.Second, "link again", func() bool { return hub.srv.Links() == 1 })
}
