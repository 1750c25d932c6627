//go:build root

package controller_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/controller"
	"github.com/meridian-mesh/meridian/controller/natsd/natstest"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/internal/bus"
)

// TestRootTwoControllers needs no root, but minutes of a busy machine, so it runs with
// those that do. It has one site run by either of two controllers, on a NATS of
// three servers, through the loss of a server and of the controller that runs it.
func TestRootTwoControllers(t *testing.T) {
	nats := natstest.NewCluster(t, 3)
	conn, err := bus.Connect(bus.Options{URL: nats.URL, TokenFile: nats.TokenFile, Replicas: 3, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	within(t, 60*time.Second, "the cluster to elect a leader", func() bool {
		ctx, done := context.WithTimeout(t.Context(), 2*time.Second)
		defer done()
		_, err := conn.OpenHubConfig(ctx)
		return err == nil
	})
	cfg := controller.Config{Site: "a", NATSURL: nats.URL, NATSTokenFile: nats.TokenFile, NATSReplicas: 3, Data: t.TempDir()}
	one := start(t, cfg)
	within(t, 20*time.Second, "the first controller to run the site", func() bool { return one.status().Self.Standby == "" })
	one.mustSoon(siteDoc("a", 0) + shopDoc)
	n := dial(t, one, nats.TokenFile)
	within(t, 20*time.Second, "its snapshot", func() bool { return n.objects() == 2 })

	// The second one has the site's key, and stands by.
	cfg.Data = t.TempDir()
	for _, name := range []string{"site.key", "site.pub"} {
		data, err := os.ReadFile(filepath.Join(one.cfg.Data, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(cfg.Data, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	two := start(t, cfg)
	if st := two.status().Self; !strings.Contains(st.Standby, "pid") {
		t.Errorf("the second one is not standing by: %+v", st)
	}
	if _, err := two.api.Apply(short(t), siteapi.ApplyRequest{Documents: []siteapi.Document{{Name: "x", YAML: gatewayDoc}}}); err == nil || !strings.Contains(err.Error(), "stands by") {
		t.Errorf("a change at the one that stands by: %v", err)
	}

	// One server of three dies: nothing is lost, and changes go on. Where it led the
	// lease's stream, electing another one may outlast the tenure, and the lease moves.
	nats.Kill(0)
	runs, other := one, two
	within(t, 60*time.Second, "a change with two servers", func() bool {
		if runs.trySoon(siteDoc("b", 1)) {
			return true
		}
		runs, other = other, runs
		return false
	})
	within(t, 30*time.Second, "it at the node", func() bool { return n.objects() == 3 })
	first := n.snapshot.Load().Generation
	nats.Start(0)

	// The active controller goes in order: the other one begins at once.
	runs.stop()
	within(t, 20*time.Second, "the other controller to run the site", func() bool { return !other.standby() })
	two = other
	two.mustSoon(gatewayDoc)
	within(t, 20*time.Second, "its snapshot at the node", func() bool { return n.objects() == 4 })
	second := n.snapshot.Load().Generation
	if second.Incarnation <= first.Incarnation || second.Compare(first) <= 0 {
		t.Errorf("generation went from %s to %s: no new incarnation", first, second)
	}
	weights := n.weights.Load()
	within(t, 20*time.Second, "its weights", func() bool {
		w := n.weights.Load()
		return w != nil && (weights == nil || w.Epoch > weights.Epoch || w.Epoch == weights.Epoch && w.Seq > weights.Seq)
	})

	// The lease is lost to somebody else, as after a long stop of the process: it
	// lets go, and its writes are refused.
	lease, err := conn.OpenLease(short(t), "a")
	if err != nil {
		t.Fatal(err)
	}
	stolen := false
	within(t, 10*time.Second, "the lease to be taken over its head", func() bool {
		held, rev, err := lease.Read(short(t))
		if err != nil {
			return false
		}
		_, err = lease.Write(short(t), bus.Tenure{Holder: "thief", Incarnation: held.Incarnation + 1}, rev)
		stolen = stolen || err == nil
		return stolen
	})
	within(t, 10*time.Second, "the second one to let go", func() bool { return two.status().Self.Standby == "thief" })
	if _, err := two.api.Apply(short(t), siteapi.ApplyRequest{Documents: []siteapi.Document{{Name: "x", YAML: siteDoc("c", 1)}}}); err == nil || !strings.Contains(err.Error(), "run by thief") {
		t.Errorf("a change after the loss: %v", err)
	}
	// The thief never renews, so it comes back, as a further incarnation.
	within(t, 30*time.Second, "the lease again", func() bool { return two.status().Self.Standby == "" })
	two.mustSoon(siteDoc("c", 1))
	within(t, 20*time.Second, "its snapshot", func() bool { return n.objects() == 5 })
	if g := n.snapshot.Load().Generation; g.Incarnation <= second.Incarnation {
		t.Errorf("generation went from %s to %s", second, g)
	}
	// All servers stop for longer than the tenure: nobody runs the site, and then
	// the same one does.
	for i := range 3 {
		nats.Signal(i, syscall.SIGSTOP)
	}
	within(t, 20*time.Second, "nobody to run the site", func() bool { return two.standby() })
	for i := range 3 {
		nats.Signal(i, syscall.SIGCONT)
	}
	within(t, 60*time.Second, "the site to be run again", func() bool { return !two.standby() })
}

func (s *site) standby() bool {
	ctx, done := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer done()
	st, err := s.api.Status(ctx)
	return err == nil && st.Self.Standby != ""
}

// trySoon applies once and reports whether it was stored.
func (s *site) trySoon(yaml string) bool {
	ctx, done := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer done()
	r, err := s.api.Apply(ctx, siteapi.ApplyRequest{Documents: []siteapi.Document{{Name: "test.yaml", YAML: yaml}}})
	return err == nil && len(r.Faults) == 0
}

// mustSoon applies, again while the cluster elects.
func (s *site) mustSoon(yaml string) {
	s.t.Helper()
	within(s.t, 40*time.Second, "a change to be stored", func() bool { return s.trySoon(yaml) })
}

// dial is site.node for an external NATS.
func dial(t *testing.T, s *site, tokenFile string) *node {
	s.run.TokenFile = tokenFile
	return s.node("n1")
}
