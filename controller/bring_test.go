package controller_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/kube"
	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

// service is a MeshService as text, of a cluster where it has one.
func service(name, cluster, address string) string {
	labels := ""
	if cluster != "" {
		labels = fmt.Sprintf(", labels: {%s: %s}", kube.ClusterLabel, cluster)
	}
	return fmt.Sprintf("apiVersion: mesh.meridian.dev/v1alpha1\nkind: MeshService\nmetadata: {name: %s%s}\nspec:\n  ports: [{port: 80}]\n  endpoints: [{address: %q}]\n---\n", name, labels, address)
}

// bring has a site take over the objects of a cluster.
func (s *site) bring(cluster, text string) []mesh.Fault {
	s.t.Helper()
	objects, err := mesh.ParseYAML("cluster", []byte(text))
	if err != nil {
		s.t.Fatal(err)
	}
	faults, err := s.srv.Bring(s.t.Context(), cluster, objects)
	if err != nil {
		s.t.Fatal(err)
	}
	return faults
}

// refused reports whether a change was, by all its faults, for what the text says.
func refused(out *siteapi.Result, text string) bool {
	for _, f := range out.Faults {
		if !strings.Contains(f.Message, text) {
			return false
		}
	}
	return len(out.Faults) > 0 && len(out.Changes) == 0
}

func TestBroughtObjectsAreNotChangedByHand(t *testing.T) {
	s := start(t, controller.Config{Site: "a"})
	if faults := s.bring("c1", service("one", "c1", "10.0.0.1:80")+service("two", "c1", "10.0.0.2:80")); len(faults) > 0 {
		t.Fatalf("%v", faults)
	}
	label := kube.ClusterLabel + ": c1"
	for what, text := range map[string]string{
		"in the place of a brought one":      service("one", "", "10.6.6.6:80"),
		"a brought one, changed":             service("one", "c1", "10.6.6.6:80"),
		"the same again":                     service("one", "c1", "10.0.0.1:80"),
		"a new one that passes for brought":  service("three", "c1", "10.6.6.6:80"),
		"one's own and a brought one":        service("mine", "", "10.0.0.9:80") + service("two", "", "10.6.6.6:80"),
		"a brought one and another document": service("two", "c1", "10.6.6.6:80") + service("other", "", "10.0.0.9:80"),
	} {
		if out := s.apply(text); !refused(out, label) {
			t.Errorf("%s: %+v, want it refused with %q", what, out, label)
		}
	}
	key := func(name string) mesh.Key {
		return mesh.Key{Kind: mesh.KindMeshService, Namespace: mesh.DefaultNamespace, Name: name}
	}
	out, err := s.api.Delete(t.Context(), siteapi.DeleteRequest{Keys: []mesh.Key{key("one")}})
	if err != nil || !refused(out, label) {
		t.Errorf("removed by hand: %+v, %v", out, err)
	}
	for _, name := range []string{"mine", "other", "three"} {
		if s.has(mesh.KindMeshService, name) {
			t.Errorf("%s is there, though its documents were refused", name)
		}
	}
	// What carries the label of a cluster that nobody bridges here is anybody's.
	s.must(service("elsewhere", "c2", "10.0.0.9:80"))
	// Once the cluster has it no more, the name is free.
	s.bring("c1", service("two", "c1", "10.0.0.2:80"))
	s.must(service("one", "", "10.0.0.9:80"))
}

func TestBringIsOneGenerationForWhatBelongsTogether(t *testing.T) {
	s := start(t, controller.Config{Site: "a"})
	s.must(service("hand", "", "10.0.0.9:80"))
	generation := func() mesh.Generation {
		t.Helper()
		g := s.status().Self.Generation
		if g == nil {
			t.Fatal("there is no snapshot")
		}
		return *g
	}
	s.bring("c1", service("zero", "c1", "10.0.0.1:80"))
	first := generation()
	var many strings.Builder
	for i := range 400 {
		many.WriteString(service(fmt.Sprintf("s%d", i), "c1", fmt.Sprintf("10.0.%d.1:%d", i/200+1, i%200+1)))
	}
	// One is by hand: it stays, is said, and keeps nothing else from being brought.
	faults := s.bring("c1", many.String()+service("hand", "c1", "10.6.6.6:80"))
	if len(faults) != 1 || !strings.Contains(faults[0].Object, "hand") || !strings.Contains(faults[0].Message, "stays") {
		t.Errorf("faults %v", faults)
	}
	second := generation()
	if second.Counter != first.Counter+1 {
		t.Errorf("400 objects came and one went in generations %s to %s", first, second)
	}
	if s.has(mesh.KindMeshService, "zero") || !s.has(mesh.KindMeshService, "s39") || !s.has(mesh.KindMeshService, "hand") {
		t.Error("what the cluster has no more stays, or what it has is not there, or what was by hand went")
	}
	s.bring("c1", many.String())
	if g := generation(); g != second {
		t.Errorf("the same again made generation %s of %s", g, second)
	}
	// Another cluster's are apart.
	s.bring("c2", service("of-c2", "c2", "10.0.2.1:80"))
	if faults := s.bring("c2", service("of-c2", "c2", "10.0.2.1:80")+service("s1", "c2", "10.6.6.6:80")); len(faults) != 1 {
		t.Errorf("a name of another cluster's object: %v", faults)
	}
	if !s.has(mesh.KindMeshService, "s1") {
		t.Error("bringing one cluster took back what came from another")
	}
	s.bring("c1", "")
	if s.has(mesh.KindMeshService, "s1") || !s.has(mesh.KindMeshService, "of-c2") || !s.has(mesh.KindMeshService, "hand") {
		t.Error("an empty cluster keeps objects, or takes those of others")
	}
}
