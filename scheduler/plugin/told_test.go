package plugin

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/natsd"
	"github.com/meridian-mesh/meridian/internal/bus"
)

// What the mesh's controllers tell over a real NATS server, with a node's own token,
// places pods; when the server is gone it grows old, and pods are placed without.
func TestTrafficOfTheMesh(t *testing.T) {
	srv, err := natsd.Start(natsd.Config{
		Site: "a", StoreDir: t.TempDir(), Listen: "127.0.0.1:0", NodeToken: "node-secret", AdminToken: "admin-secret", Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	stop := srv.Stop
	defer func() { stop() }()
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	controller, err := bus.Connect(bus.Options{InProcess: srv, TokenFile: file("admin-secret")})
	if err != nil {
		t.Fatal(err)
	}
	defer controller.Close()
	raw := fmt.Sprintf(`{"nats":{"url":%q,"tokenFile":%q},"maxAge":"1m","cluster":"east"}`, srv.ClientURL(), file("node-secret"))
	made, err := New(t.Context(), &runtime.Unknown{Raw: []byte(raw)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := made.(*Plugin)
	nodes := []*fakeNode{node("a1", "a", "cart"), node("b1", "b"), node("c1", "c")}
	try := func() (string, map[string]int64) {
		t.Helper()
		cs := &fakeCycle{}
		points, _ := cycle(t, p, cs, pod("web"), nodes...)
		s, err := stateOf(cs)
		if err != nil {
			t.Fatal(err)
		}
		return s.result(), points
	}
	if how, _ := try(); how != absent {
		t.Errorf("before anything is told: %s", how)
	}
	web, cart := mesh.Workload{Cluster: "east", Namespace: "shop", Name: "web"}, mesh.Workload{Namespace: "shop", Name: "cart"}
	rates := mesh.TrafficRates{RequestsPerS: 1, RequestBytesPerS: 1e6, ResponseBytesPerS: 1e6}
	seq := uint64(0)
	tell := func() {
		seq++
		for _, r := range []*mesh.TrafficReport{
			{Site: "a", Epoch: 1, Seq: seq, Edges: []mesh.TrafficEdge{{From: web, To: cart, Recent: rates}}, RTTMS: map[string]float64{"b": 20, "c": 60}},
			{Site: "b", Epoch: 1, Seq: seq, Edges: []mesh.TrafficEdge{{From: mesh.External, To: web, Recent: rates}}, RTTMS: map[string]float64{"c": 40}},
		} {
			if err := controller.PublishTraffic(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	var how string
	var points map[string]int64
	for until := time.Now().Add(time.Minute); how != "scored" && time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		tell() // the plugin may not be connected yet
		how, points = try()
	}
	if how != "scored" || points["a1"] != 100 || points["c1"] != 0 || points["b1"] <= points["c1"] || points["b1"] >= points["a1"] {
		t.Fatalf("%s, %v", how, points)
	}
	srv.Stop()
	stop = func() {}
	p.clock = func() time.Time { return time.Now().Add(2 * time.Minute) }
	if how, _ := try(); how != stale {
		t.Errorf("with the server gone: %s", how)
	}
}
