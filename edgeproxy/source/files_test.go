package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

const service = `apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: %s}
spec:
  ports: [{name: http, port: 80, protocol: http}]
  endpoints: [{address: "127.0.0.1:9001"}]
`

const broken = `apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: echo}
spec:
  ports: [{name: http, port: 80, protocol: http}]
  endpoints: [{adress: "127.0.0.1:9001"}]
`

// applied records what came into force; fail, when set, refuses.
type applied struct {
	mu   sync.Mutex
	got  []*mesh.Snapshot
	fail error
}

func (a *applied) apply(s *mesh.Snapshot) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fail != nil {
		return a.fail
	}
	a.got = append(a.got, s)
	return nil
}

func (a *applied) len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.got)
}

// names are the services in force, in reading order.
func names(s *mesh.Snapshot) string {
	var out []string
	for _, svc := range s.Objects.Services {
		out = append(out, svc.Metadata.Name)
	}
	return strings.Join(out, " ")
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what another goroutine does; the bound is for a machine
// that is busy, not for the code.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// following starts a Files over path and follows it until the test ends.
func following(t *testing.T, path, state string, a *applied) *Files {
	t.Helper()
	f, err := NewFiles(path, "", state, a.apply, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return f
}

func TestFiles_change(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "mesh.yaml")
	put(t, path, fmt.Sprintf(service, "one"))
	var a applied
	f := following(t, path, "", &a)
	first := f.State().Snapshot
	if first.Origin != OriginFile || first.Generation.Counter != 1 || names(first) != "one" {
		t.Fatalf("first snapshot: origin %q generation %s services %q", first.Origin, first.Generation, names(first))
	}
	inForce := func(want string) func() bool { return func() bool { return names(f.State().Snapshot) == want } }

	put(t, path, fmt.Sprintf(service, "two"))
	eventually(t, "file written in place", inForce("two"))
	if g := f.State().Snapshot.Generation; g.Incarnation != first.Generation.Incarnation || g.Counter != 2 {
		t.Errorf("generation after one change is %s, the first was %s", g, first.Generation)
	}

	put(t, path+".new", fmt.Sprintf(service, "three"))
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "file replaced by rename", inForce("three"))

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "file removed is refused", func() bool { return f.State().Refused != nil })
	if got := names(f.State().Snapshot); got != "three" {
		t.Errorf("in force without the file: %q", got)
	}
	put(t, path, fmt.Sprintf(service, "four"))
	eventually(t, "file there again", inForce("four"))
	if r := f.State().Refused; r != nil {
		t.Errorf("refusal stays after success: %+v", r)
	}
}

func TestFiles_broken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mesh.yaml")
	put(t, path, fmt.Sprintf(service, "echo"))
	var a applied
	f := following(t, path, "", &a)
	put(t, path, broken)
	eventually(t, "broken file refused", func() bool { return f.State().Refused != nil })
	s := f.State()
	if all := strings.Join(s.Refused.Faults, "\n"); !strings.Contains(all, path+":6:16: spec.endpoints[0]: unknown field \"adress\"") {
		t.Errorf("no fault names file, line and field:\n%s", all)
	}
	if names(s.Snapshot) != "echo" || s.Refusals != 1 {
		t.Errorf("in force %q after %d refusals", names(s.Snapshot), s.Refusals)
	}
	// Back to what is in force: no new generation, no refusal left.
	put(t, path, fmt.Sprintf(service, "echo"))
	eventually(t, "undone edit clears the refusal", func() bool { return f.State().Refused == nil })
	if a.len() != 1 || f.State().Snapshot.Generation.Counter != 1 {
		t.Errorf("%d snapshots applied, generation %s: an undone edit is no change", a.len(), f.State().Snapshot.Generation)
	}
}

// An editor cuts the file to nothing and writes it a moment later, while another
// file of the folder has just changed and so is read.
func TestFiles_instant(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	put(t, path, fmt.Sprintf(service, "echo"))
	put(t, filepath.Join(dir, "b.yaml"), fmt.Sprintf(service, "b"))
	var a applied
	f := following(t, dir, "", &a)
	for i := range 5 {
		put(t, filepath.Join(dir, "b.yaml"), fmt.Sprintf(service, fmt.Sprint("b", i)))
		time.Sleep(quiet - 20*time.Millisecond)
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		if _, err := fmt.Fprintf(file, service, fmt.Sprint("echo", i)); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("echo%d b%d", i, i)
		eventually(t, want, func() bool { return names(f.State().Snapshot) == want })
		if s := f.State(); s.Refusals != 0 {
			t.Fatalf("a file that is being written is refused: %+v", s.Refused)
		}
	}
	for _, s := range a.got {
		if !strings.Contains(names(s), "echo") {
			t.Errorf("a file that is being written passed for an empty one: %s in force", names(s))
		}
	}
	put(t, path, "")
	put(t, filepath.Join(dir, "b.yaml"), "")
	eventually(t, "files that stay empty are a fault", func() bool { return f.State().Refused != nil })
}

// A ConfigMap volume: the file is a link into ..data, which is a link to a dated
// folder; an update renames a new link over ..data and removes the old folder.
func TestFiles_linkSwap(t *testing.T) {
	dir := t.TempDir()
	publish := func(stamp, name string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, stamp), 0o700); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(dir, stamp, "mesh.yaml"), fmt.Sprintf(service, name))
		if err := os.Symlink(stamp, filepath.Join(dir, "..tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	publish("..1", "one")
	if err := os.Symlink("..data/mesh.yaml", filepath.Join(dir, "mesh.yaml")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "mesh.yaml"), dir} {
		t.Run(filepath.Base(path), func(t *testing.T) {
			var a applied
			f := following(t, path, "", &a)
			was := names(f.State().Snapshot)
			next := was + "x"
			publish("..to-"+next, next)
			eventually(t, "swap of ..data", func() bool { return names(f.State().Snapshot) == next })
			publish("..to-"+next+"y", next+"y")
			eventually(t, "second swap of ..data", func() bool { return names(f.State().Snapshot) == next+"y" })
		})
	}
}

func TestFiles_folder(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "b.yaml"), fmt.Sprintf(service, "b"))
	put(t, filepath.Join(dir, ".hidden.yaml"), broken)
	put(t, filepath.Join(dir, "notes.txt"), broken)
	var a applied
	f := following(t, dir, "", &a)
	put(t, filepath.Join(dir, "a.yml"), fmt.Sprintf(service, "a"))
	eventually(t, "file added", func() bool { return names(f.State().Snapshot) == "a b" })
	put(t, filepath.Join(dir, "c.yaml"), fmt.Sprintf(service, "a"))
	eventually(t, "same object in two files refused", func() bool { return f.State().Refused != nil })
	if err := os.Remove(filepath.Join(dir, "a.yml")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "file removed", func() bool { return names(f.State().Snapshot) == "b a" })
}

func TestFiles_reload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mesh.yaml")
	put(t, path, fmt.Sprintf(service, "echo"))
	var a applied
	f := following(t, path, "", &a)
	a.mu.Lock()
	a.fail = errors.New("address in use")
	a.mu.Unlock()
	put(t, path, fmt.Sprintf(service, "next"))
	eventually(t, "what the proxy refuses is refused", func() bool { return f.State().Refused != nil })
	a.mu.Lock()
	a.fail = nil
	a.mu.Unlock()
	f.Reload()
	eventually(t, "reload tries again", func() bool { return names(f.State().Snapshot) == "next" })
}

func TestFiles_startBroken(t *testing.T) {
	dir, state := t.TempDir(), t.TempDir()
	path := filepath.Join(dir, "mesh.yaml")
	start := func(path string) (*Files, *applied, error) {
		a := &applied{}
		f, err := NewFiles(path, "", state, a.apply, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return f, a, f.Start(t.Context())
	}
	put(t, path, broken)
	var faults *mesh.Faults
	if _, _, err := start(path); !errors.As(err, &faults) {
		t.Fatalf("first start with a broken file: %v", err)
	}
	put(t, path, fmt.Sprintf(service, "echo"))
	if _, _, err := start(path); err != nil {
		t.Fatal(err)
	}
	put(t, path, broken)
	f, a, err := start(path)
	if err != nil {
		t.Fatalf("start with a last good copy: %v", err)
	}
	s := f.State()
	if a.len() != 1 || names(s.Snapshot) != "echo" || !s.Restored || s.Refused == nil {
		t.Errorf("restored=%v refused=%v after start from the last good copy", s.Restored, s.Refused)
	}
	other := filepath.Join(dir, "other.yaml")
	put(t, other, broken)
	if _, _, err := start(other); err == nil {
		t.Error("another file was served from this one's last good copy")
	}
}

func TestRead_refuses(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.yaml")
	put(t, empty, "# nothing\n")
	pipe := filepath.Join(dir, "none")
	for path, want := range map[string]string{
		empty:       "no document",
		pipe:        "no such file",
		t.TempDir(): "no *.yaml",
		"/dev/zero": "not a regular file",
	} {
		if _, err := Read(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Read(%s) = %v, want %q", path, err, want)
		}
	}
}
