package source

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// numbered is a snapshot that differs from the others by its number.
func numbered(t *testing.T, n int) *mesh.Snapshot {
	t.Helper()
	o, err := mesh.ParseSources([]mesh.Source{{Name: "x.yaml", Data: fmt.Appendf(nil, `apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: s%d}
spec:
  ports: [{name: http, port: 80, protocol: http}]
`, n)}})
	if err != nil {
		t.Fatal(err)
	}
	s := &mesh.Snapshot{Origin: OriginFile, Generation: mesh.Generation{Incarnation: 5, Counter: uint64(n)}, Objects: *o}
	if err := s.Seal(nil); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestHistory(t *testing.T) {
	dir := t.TempDir()
	st := NewStore(dir, "file:/x")
	clock := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	st.now = func() time.Time { return clock }
	if kept, err := st.History(); err != nil || len(kept) != 0 {
		t.Fatalf("at the start: %v %v", kept, err)
	}
	for n := 1; n <= 13; n++ {
		switch n {
		case 7:
			clock = clock.Add(-time.Hour) // set back: the order must hold
		default:
			clock = clock.Add(time.Second)
		}
		for range 2 { // the same again is no other configuration
			if err := st.Save(numbered(t, n)); err != nil {
				t.Fatal(err)
			}
		}
		if n == 3 {
			put(t, filepath.Join(dir, historyDir, "notes.yaml"), "a person's own")
		}
	}
	kept, err := st.History()
	if err != nil {
		t.Fatal(err)
	}
	if len(kept) != historyLength {
		t.Fatalf("%d kept: %v", len(kept), kept)
	}
	for i, k := range kept {
		n := 13 - i
		if k.Generation != (mesh.Generation{Incarnation: 5, Counter: uint64(n)}) || k.Hash != short(numbered(t, n).Hash) {
			t.Errorf("%d: %+v, want number %d", i, k, n)
		}
		o, err := Read(k.Path)
		if err != nil {
			t.Fatal(err)
		}
		if len(o.Services) != 1 || o.Services[0].Metadata.Name != fmt.Sprintf("s%d", n) {
			t.Errorf("%s holds another configuration", k.Path)
		}
	}
	entries, err := os.ReadDir(filepath.Join(dir, historyDir))
	if err != nil || len(entries) != historyLength+1 {
		t.Errorf("%d files (%v), want ten and a person's own", len(entries), err)
	}
}
