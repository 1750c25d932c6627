package controller_test

import (
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller"
	"github.com/meridian-mesh/meridian/internal/bus"
)

// TestPlansAtRest has a site that shares nothing send its plan every two seconds, for
// six, and to a node that starts at once.
func TestPlansAtRest(t *testing.T) {
	s := start(t, controller.Config{Site: "a", Hub: true})
	s.must(siteDoc("a", 0) + shopDoc)
	n, err := bus.DialNode(bus.Options{URL: s.run.NATS, Name: "n1", TokenFile: s.run.TokenFile}, "a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	weights, err := n.Weights(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	report := func(epoch uint64) {
		t.Helper()
		r := &mesh.NodeReport{Site: "a", Node: "n1", Epoch: epoch, Seq: 1, Services: []mesh.NodeServiceReport{{ServiceReport: mesh.ServiceReport{Service: "default/shop", Slots: 4, ServiceTimeMS: 10}}}}
		within(t, 10*time.Second, "a report", func() bool { return n.PublishReport(r) == nil })
	}
	next := func() *mesh.Weights {
		t.Helper()
		select {
		case r := <-weights:
			w := r.Value
			if len(w.Services) == 1 && len(w.Services[0].Remotes) > 0 {
				t.Fatalf("it shares with %+v", w.Services[0].Remotes)
			}
			return w
		case <-time.After(20 * time.Second):
			t.Fatal("no plan comes")
			return nil
		}
	}
	report(1)
	was := next()
	for n := 0; ; n++ {
		w := next()
		gap := w.IssuedAt.Sub(was.IssuedAt)
		if was = w; gap >= 1900*time.Millisecond {
			if ttl := w.ExpiresAt.Sub(w.IssuedAt); ttl != 6*time.Second {
				t.Errorf("a plan that is sent after %v is in force for %v", gap, ttl)
			}
			break
		}
		if n == 5 { // the shop's endpoints, its capacity: each may be a plan of its own at first
			t.Fatalf("plans are %v apart", gap)
		}
	}
	for epoch := uint64(2); ; epoch++ { // it was started anew
		report(epoch)
		w := next()
		gap := w.IssuedAt.Sub(was.IssuedAt)
		if was = w; gap < 1500*time.Millisecond {
			break
		}
		if epoch == 6 { // one look may be a slow machine's
			t.Fatalf("a node that starts waits %v for a plan", gap)
		}
	}
}
