package whatif

import (
	"fmt"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/world"
)

// three sites in a row, a service at all of them.
const documents = `apiVersion: mesh.meridian.dev/v1alpha1
kind: Site
metadata: {name: a}
spec: {location: {type: Point, coordinates: [0, 0]}, gateways: [{address: "10.0.0.1:1"}], links: [{to: b, rtt: 4ms}, {to: c, rtt: 8ms, price: PRICE}]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: Site
metadata: {name: b}
spec: {location: {type: Point, coordinates: [0, 0]}, gateways: [{address: "10.0.0.2:1"}], links: [{to: c, rtt: 4ms}], traffic: TRAFFIC}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: Site
metadata: {name: c}
spec: {location: {type: Point, coordinates: [0, 0]}, gateways: [{address: "10.0.0.3:1"}]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: shop}
spec:
  ports: [{port: 80}]
  export: {scope: mesh}
  objective: {p99Latency: 200ms, errorPercent: 1}
  endpoints:
  - {address: "127.0.0.1:9001", site: a, capacity: {concurrency: SLOTS, serviceTime: 10ms}}
  - {address: "127.0.0.1:9002", site: b, capacity: {concurrency: 4, serviceTime: 10ms}}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: shop}
spec: {targetRefs: [{kind: MeshService, name: shop}], siteSharing: {policy: POLICY}}
`

// declare reads the documents with some words replaced.
func declare(t *testing.T, words ...string) *Declared {
	t.Helper()
	return declareText(t, strings.NewReplacer(append(words, "PRICE", "0", "TRAFFIC", "accept", "SLOTS", "4", "POLICY", "cooperative")...).Replace(documents))
}

func declareText(t *testing.T, text string) *Declared {
	t.Helper()
	objects, err := mesh.ParseYAML("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var all []world.Object
	for key, doc := range objects.All() {
		all = append(all, world.Object{Key: key, Owner: world.Hub, Doc: doc})
	}
	d := Declare(all)["default/shop"]
	if d == nil {
		t.Fatal("the service is not shared")
	}
	return d
}

func TestDeclare(t *testing.T) {
	d := declare(t, "PRICE", "7", "TRAFFIC", "drained")
	if got, want := fmt.Sprint(d.Sites), "map[a:{true false 4 10} b:{true true 4 10} c:{false false 0 0}]"; got != want {
		t.Errorf("sites %s, want %s", got, want)
	}
	if w := d.Ways[[2]string{"a", "b"}]; w.RTTMS != 4 || !strings.Contains(w.Excluded, "drained") {
		t.Errorf("way to a drained site: %+v", w)
	}
	if w := d.Ways[[2]string{"a", "c"}]; w.PriceMS != 7 || w.RTTMS != 8 {
		t.Errorf("way with a price: %+v", w)
	}
	if d.Objective == nil || d.Objective.P99Latency.D().Milliseconds() != 200 {
		t.Errorf("objective %+v", d.Objective)
	}
}

// declaredWorld is a with too many users, b with room and c without endpoints.
func declaredWorld(d *Declared) World {
	w := World{
		Sites: []Site{
			{Name: "a", Slots: 4, ServiceMS: 10, DemandPerS: 300}, {Name: "b", Slots: 4, ServiceMS: 10, DemandPerS: 100},
			{Name: "c", DemandPerS: 50, Closed: true},
		},
		RTTMS: map[[2]string]float64{{"a", "b"}: 4, {"b", "c"}: 4, {"a", "c"}: 8}, Declared: d,
	}
	for i := range w.Sites {
		w.Sites[i].Past = []float64{w.Sites[i].DemandPerS / 2, w.Sites[i].DemandPerS}
	}
	return w
}

func TestRunDocuments(t *testing.T) {
	before := declare(t)
	run := func(words ...string) *Answer {
		t.Helper()
		a, err := Run(declaredWorld(before), Change{Documents: declare(t, words...)}, 1)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	same := run()
	// The users of c are served elsewhere, all of them.
	if same.Before != same.After || same.Before.Errors > 0 || !same.Sites[2].Closed || same.Before.Away < 0.11 {
		t.Errorf("no change: %+v", same)
	}
	if a := run("SLOTS", "8"); a.After.MeanMS >= a.Before.MeanMS || a.Sites[0].After > 0.6*a.Sites[0].Before {
		t.Errorf("twice the slots at a: %+v", a)
	}
	if a := run("TRAFFIC", "drained"); a.Sites[1].After > 0.2 || a.Sites[0].After < 1 || len(a.Overloaded) != 1 {
		t.Errorf("b drained: %+v", a)
	}
	if a := run("POLICY", "none"); a.After.Away > a.Before.Away || a.Sites[0].After < 0.7 {
		t.Errorf("nothing shared: %+v", a)
	}
}

func TestProve(t *testing.T) {
	before := declare(t)
	prove := func(change ...string) *Proof {
		t.Helper()
		p, err := Prove(declaredWorld(before), Change{Documents: declare(t, change...)}, 1)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if p := prove("SLOTS", "6"); len(p.Broken)+len(p.Standing) != 0 {
		t.Errorf("more slots break something: %+v", p)
	}
	// Half the time demand is half: the mean over the replay is between.
	if p := prove(); p.Sites[0].Before > 0.75 || p.Sites[0].Before < 0.4 {
		t.Errorf("a is %.2f busy over the replay", p.Sites[0].Before)
	}
	p := prove("SLOTS", "1", "TRAFFIC", "drained")
	if len(p.Broken) != 2 || !strings.Contains(p.Broken[0], "99th percentile would be") || !strings.Contains(p.Broken[1], "part of errors would be") {
		t.Errorf("a mesh that is too small: %q", p.Broken)
	}
	tight := declare(t)
	tight.Objective.P99Latency = new(mesh.Duration)
	*tight.Objective.P99Latency = 1e6
	if p, err := Prove(declaredWorld(before), Change{Documents: tight}, 1); err != nil || len(p.Broken) != 0 || len(p.Standing) != 1 {
		t.Errorf("a promise that is broken anyway: %+v, %v", p, err)
	}
	w := declaredWorld(before)
	for i := range w.Sites {
		w.Sites[i].Past = nil
	}
	if _, err := Prove(w, Change{}, 1); err == nil || !strings.Contains(err.Error(), "no site has recorded any load") {
		t.Errorf("nothing recorded: %v", err)
	}
}
