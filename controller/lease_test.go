package controller_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller"
	"github.com/meridian-mesh/meridian/internal/bus"
)

// A snapshot that a deposed controller still puts does not land.
func TestSnapshotsAreFenced(t *testing.T) {
	s := start(t, controller.Config{Site: "solo"})
	s.must(siteDoc("solo", 0))
	within(t, 5*time.Second, "publication", func() bool { return s.status().Self.Published })
	admin := func() *bus.Snapshots {
		c, err := bus.Connect(bus.Options{URL: s.run.NATS, TokenFile: filepath.Join(s.cfg.Data, "admin.token")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		snaps, err := c.OpenSnapshots(short(t), "solo")
		if err != nil {
			t.Fatal(err)
		}
		snaps.Fence()
		return snaps
	}
	old, successor := admin(), admin()
	for _, x := range []*bus.Snapshots{old, successor} {
		if _, err := x.Get(short(t)); err != nil {
			t.Fatal(err)
		}
	}
	put := func(x *bus.Snapshots, n uint64) error {
		snap := &mesh.Snapshot{Site: "solo", Origin: "solo", Generation: mesh.Generation{Incarnation: n, Counter: 1}}
		if err := snap.Seal(nil); err != nil {
			t.Fatal(err)
		}
		return x.Put(short(t), snap)
	}
	if err := put(successor, 8); err != nil {
		t.Fatal(err)
	}
	if err := put(old, 7); err == nil || !strings.Contains(err.Error(), "has written since") {
		t.Errorf("the deposed one's snapshot: %v", err)
	}
	if err := put(successor, 9); err != nil {
		t.Errorf("the successor's next: %v", err)
	}
}
