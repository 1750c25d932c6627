package whatif

import (
	"fmt"
	"strings"
	"testing"
)

// TestClasses asks a mesh that is too small for more: those who may be refused are, and the
// others go on.
func TestClasses(t *testing.T) {
	d := declare(t, "policy: POLICY", "policy: cooperative, shedAfter: 2s, priorityClasses: [{name: batch, header: x-class, values: [batch], shedAfter: 50ms}]")
	w := declaredWorld(d)
	w.Sites[0].DemandPerS, w.Sites[1].DemandPerS, w.Sites[2].DemandPerS = 500, 300, 80 // 880 of 800
	w.Classes = map[string]float64{"batch": 0.4}
	a, err := Run(w, Change{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Classes) != 2 || a.Classes[0].Class != "batch" || a.Classes[1].Class != "" {
		t.Fatalf("classes %+v", a.Classes)
	}
	batch, others := a.Classes[0].After, a.Classes[1].After
	if batch.Errors < 0.15 || others.Errors > 0.01 || others.MeanMS > 200 {
		t.Errorf("with a tenth too much, batch sees %+v and others %+v", batch, others)
	}
	w.Classes = nil
	if a, err = Run(w, Change{}, 1); err != nil || len(a.Classes) != 0 {
		t.Errorf("without parts: %+v, %v", a, err)
	}
	w.Classes = map[string]float64{"batch": 1.5}
	if _, err := Run(w, Change{}, 1); err == nil || !strings.Contains(err.Error(), "batch") {
		t.Errorf("a part of 1.5: %v", err)
	}
}

// What the simulator does not know it says, before or after the change.
func TestUnknownLoad(t *testing.T) {
	sessions := declare(t, "concurrency: SLOTS", "unit: sessions, concurrency: 4", "{concurrency: 4,", "{unit: sessions, concurrency: 4,")
	if why := sessions.Unknown(); !strings.Contains(why, "sessions") {
		t.Errorf("a service of sessions: %q", why)
	}
	plain := declare(t)
	if why := plain.Unknown(); why != "" {
		t.Errorf("a plain service: %q", why)
	}
	pool := declareText(t, strings.NewReplacer("PRICE", "0", "TRAFFIC", "accept", "SLOTS", "4, pool: box", "POLICY", "cooperative").Replace(documents)+`---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: video}
spec:
  ports: [{port: 80}]
  endpoints:
  - {address: "127.0.0.1:9009", site: a, capacity: {concurrency: 4, serviceTime: 40ms, pool: box}}
`)
	if why := pool.Unknown(); !strings.Contains(why, "at site a (capacity.pool)") {
		t.Errorf("a shared machine: %q", why)
	}
	if _, err := Run(declaredWorld(plain), Change{Documents: pool}, 1); err == nil || !strings.Contains(err.Error(), "does not know") {
		t.Errorf("a change that makes it share a machine: %v", err)
	}
}

// TestFence has the simulator obey a fence, by the product's own code.
func TestFence(t *testing.T) {
	fenced := declareText(t, strings.NewReplacer("PRICE", "0", "TRAFFIC", "accept", "SLOTS", "4", "POLICY", "cooperative").Replace(documents)+`---
apiVersion: mesh.meridian.dev/v1alpha1
kind: GeoFence
metadata: {name: only-a}
spec: {targetRefs: [{kind: MeshService, name: shop}], allow: {sites: [a]}}
`)
	if got, want := fmt.Sprint(fenced.Sites), "map[a:{true false 4 10} b:{false false 4 10} c:{false false 0 0}]"; got != want {
		t.Errorf("sites %s, want %s", got, want)
	}
	a, err := Run(declaredWorld(declare(t)), Change{Documents: fenced}, 1)
	if err != nil {
		t.Fatal(err)
	}
	// 450 requests/s ask for a's 400: what it shared with b stays, and b's users come too.
	if a.Before.Errors > 0.01 || a.After.Errors < 0.2 || a.Sites[1].After != 0 || !a.Sites[1].Closed || a.Sites[0].After < 0.95 {
		t.Errorf("with a fence around a: %+v", a)
	}
}
