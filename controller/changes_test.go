package controller_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

func (s *site) changes() *siteapi.Changes {
	s.t.Helper()
	c, err := s.api.Changes(short(s.t), siteapi.ChangesRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *site) rollback(r siteapi.RollbackRequest) *siteapi.RolledBack {
	s.t.Helper()
	out, err := s.api.Rollback(short(s.t), r)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// What a cluster brings and whom the mesh believes stay and are named; all else is as
// it was, in one generation; a change in between is not undone unseen.
func TestRollbackLeavesWhatIsOthers(t *testing.T) {
	s := start(t, controller.Config{Site: "a", Hub: true})
	s.must(service("mine", "", "10.0.0.1:80") + service("gone", "", "10.0.0.1:80"))
	within(t, 20*time.Second, "the mesh's roots", func() bool { return s.has(mesh.KindTrustBundle, mesh.TrustBundleName) })
	then := s.changes().Owners[0].Revision
	s.bring("c1", service("pods", "c1", "10.0.0.3:80"))
	s.must(service("mine", "", "10.0.0.2:80") + service("new", "", "10.0.0.2:80"))
	if _, err := s.api.Delete(t.Context(), siteapi.DeleteRequest{Keys: []mesh.Key{{Kind: mesh.KindMeshService, Namespace: mesh.DefaultNamespace, Name: "gone"}}}); err != nil {
		t.Fatal(err)
	}
	bundle, err := s.api.Get(t.Context(), siteapi.GetRequest{Kind: mesh.KindTrustBundle})
	if err != nil || len(bundle.Objects) != 1 {
		t.Fatalf("%v %v", bundle, err)
	}
	changed := bytes.Replace(bundle.Objects[0].Object, []byte(`"spec":{`), []byte(`"spec":{"denied":[{"id":"spiffe://mesh.meridian.internal/site/b"}],`), 1)
	s.must(string(changed))

	plan := s.rollback(siteapi.RollbackRequest{Revision: then, DryRun: true})
	var skipped []string
	for _, x := range plan.Skipped {
		skipped = append(skipped, x.Key.Name+": "+x.Why)
	}
	if got := strings.Join(skipped, "\n"); len(plan.Skipped) != 2 || !strings.Contains(got, "pods: it is brought from Kubernetes cluster c1") || !strings.Contains(got, "mesh: whom the mesh believes") {
		t.Errorf("left as they are: %s", got)
	}
	// Somebody changes something between the look and the deed.
	s.must(service("meanwhile", "", "10.0.0.5:80"))
	if out := s.rollback(siteapi.RollbackRequest{Revision: then, At: plan.Revision}); !refused(&out.Result, "somebody changed the configuration meanwhile") {
		t.Errorf("%+v, want it refused", out)
	}
	before := s.status().Self.Generation
	out := s.rollback(siteapi.RollbackRequest{Revision: then})
	if len(out.Faults) > 0 || len(out.Objects) != 4 {
		t.Fatalf("%+v", out)
	}
	if after := s.status().Self.Generation; after.Counter != before.Counter+1 {
		t.Errorf("generations %s to %s, want one", before, after)
	}
	for name, want := range map[string]bool{"mine": true, "gone": true, "new": false, "meanwhile": false, "pods": true} {
		if s.has(mesh.KindMeshService, name) != want {
			t.Errorf("service %s: there %v", name, !want)
		}
	}
	if now, err := s.api.Get(t.Context(), siteapi.GetRequest{Kind: mesh.KindTrustBundle}); err != nil || !strings.Contains(string(now.Objects[0].Object), "denied") {
		t.Errorf("who is denied is forgotten: %v", err)
	}
	if out := s.rollback(siteapi.RollbackRequest{Revision: out.Revision + 1}); !refused(&out.Result, "there is no revision") {
		t.Errorf("a revision to come: %+v", out)
	}
}

// A controller that was killed before it wrote anything down finds what changed; one
// whose file is damaged keeps it aside and begins anew. Both serve.
func TestHistoryAfterCrashAndDamage(t *testing.T) {
	s := start(t, controller.Config{Site: "a"})
	s.must(service("one", "", "10.0.0.1:80"))
	s.stop()
	path := filepath.Join(s.cfg.Data, "journal.log")
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s = start(t, controller.Config{Site: "a", Data: s.cfg.Data})
	if c := s.changes().Changes; len(c) != 1 || c[0].Who != "(this machine)" {
		t.Fatalf("after a restart: %+v", c)
	}
	s.must(service("one", "", "10.0.0.2:80") + service("two", "", "10.0.0.2:80"))
	s.stop()
	// As a crash leaves it: nothing of the second change, and a torn line.
	if err := os.WriteFile(path, append(old, []byte("0000")...), 0o600); err != nil {
		t.Fatal(err)
	}
	s = start(t, controller.Config{Site: "a", Data: s.cfg.Data})
	c := s.changes().Changes
	if len(c) != 3 || c[1].Who != "" || c[1].Gap || !bytes.Contains(c[1].Before, []byte("10.0.0.1:80")) || !bytes.Contains(c[1].After, []byte("10.0.0.2:80")) {
		t.Fatalf("after a crash: %+v", c)
	}
	if out := s.rollback(siteapi.RollbackRequest{Revision: 1}); len(out.Objects) != 2 || len(out.Faults) > 0 || s.has(mesh.KindMeshService, "two") {
		t.Errorf("rolled back after a crash: %+v", out)
	}
	s.stop()
	damaged, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged[len(damaged)/2] ^= 1
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	s = start(t, controller.Config{Site: "a", Data: s.cfg.Data})
	h := s.changes()
	if len(h.Changes) != 0 || h.Owners[0].Floor != h.Owners[0].Revision || h.Owners[0].Revision == 0 {
		t.Errorf("after damage: %+v", h)
	}
	if aside, err := os.ReadFile(path + ".unreadable"); err != nil || !bytes.Equal(aside, damaged) {
		t.Errorf("the damaged file is not kept: %v", err)
	}
	if !s.has(mesh.KindMeshService, "one") {
		t.Error("the configuration is gone with its history")
	}
}
