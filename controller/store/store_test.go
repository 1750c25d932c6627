package store

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

func open(t *testing.T, dir string) *Folder {
	t.Helper()
	f, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func snap(n uint64) *mesh.Snapshot {
	s := &mesh.Snapshot{Site: "a", Generation: mesh.Generation{Incarnation: 1, Counter: n}}
	if err := s.Seal(nil); err != nil {
		panic(err)
	}
	return s
}

func TestSnapshotAndItsDamage(t *testing.T) {
	f := open(t, t.TempDir())
	if s, err := f.Snapshot(); s != nil || err != nil {
		t.Fatalf("empty folder: %v, %v", s, err)
	}
	for n := uint64(1); n <= 3; n++ {
		if err := f.SaveSnapshot(snap(n)); err != nil {
			t.Fatal(err)
		}
		if s, err := f.Snapshot(); err != nil || s.Generation.Counter != n {
			t.Fatalf("saved %d, have %+v, %v", n, s, err)
		}
	}
	path := f.Path(snapshotFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Whatever is wrong with the last one, it is said, and the one before is used.
	for name, bad := range map[string][]byte{
		"empty":     nil,
		"cut":       whole[:len(whole)-1],
		"bit":       append(bytes.Clone(whole[:len(whole)-5]), append([]byte{whole[len(whole)-5] ^ 4}, whole[len(whole)-4:]...)...),
		"head":      append([]byte("x"), whole...),
		"head only": whole[:bytes.IndexByte(whole, '\n')],
		"longer":    append(bytes.Clone(whole), ' '),
	} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := f.Snapshot()
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), path) || s == nil || s.Generation.Counter != 2 {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	if err := os.WriteFile(f.Path(prevSnapshotFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := f.Snapshot(); s != nil || !errors.Is(err, ErrDamaged) {
		t.Errorf("both damaged: %v, %v", s, err)
	}
	if err := f.SaveSnapshot(snap(4)); err != nil {
		t.Fatal(err)
	}
	if s, err := f.Snapshot(); err != nil || s.Generation.Counter != 4 {
		t.Errorf("after a new one: %v, %v", s, err)
	}
}

func TestGeneration(t *testing.T) {
	f := open(t, t.TempDir())
	want := mesh.Generation{Incarnation: 7, Counter: 9}
	if g, err := f.Generation(); err != nil || g != (mesh.Generation{}) {
		t.Fatalf("%v, %v", g, err)
	}
	if err := f.SaveGeneration(want); err != nil {
		t.Fatal(err)
	}
	if g, err := f.Generation(); err != nil || g != want {
		t.Fatalf("%v, %v", g, err)
	}
	if err := os.WriteFile(f.Path(generationFile), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Generation(); !errors.Is(err, ErrDamaged) {
		t.Fatalf("damaged: %v", err)
	}
}

func TestWriteFileReplacesOrLeaves(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	for _, text := range []string{"one", "two"} {
		if err := WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, _ := os.ReadFile(path); string(got) != "two" {
		t.Errorf("%s", got)
	}
	if st, _ := os.Stat(path); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	// A write that fails (the name is a folder) leaves nothing beside it.
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "d"), nil, 0o600); err == nil {
		t.Error("a folder was replaced")
	}
	if es, _ := os.ReadDir(dir); len(es) != 2 {
		t.Errorf("left behind: %v", es)
	}
}

func TestKeysAndSecrets(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	key, err := f.Key()
	if err != nil {
		t.Fatal(err)
	}
	again, err := f.Key()
	if err != nil || !again.Equal(key) {
		t.Fatalf("the key changed: %v", err)
	}
	s := snap(1)
	if err := s.Seal(key); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(key.Public().(ed25519.PublicKey)); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"site.key", "node.token"} {
		if _, err := f.Secret("node.token"); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(f.Path(name)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, st.Mode(), err)
		}
	}
	a, _ := f.Secret("node.token")
	b, _ := f.Secret("sub/other")
	if len(a) != 64 || a == b {
		t.Errorf("secrets %q %q", a, b)
	}
	for name, text := range map[string]string{"site.key": "no pem", "node.token": "short"} {
		if err := os.WriteFile(f.Path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.Key(); err == nil || !strings.Contains(err.Error(), "site.key") {
		t.Errorf("broken key: %v", err)
	}
	if _, err := f.Secret("node.token"); err == nil || strings.Contains(err.Error(), "short\n") {
		t.Errorf("short secret: %v", err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
}
