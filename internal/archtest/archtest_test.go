package archtest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// TestRepository runs every rule on this repository.
func TestRepository(t *testing.T) {
	repo, err := load(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if len(repo.packages) < 3 || len(repo.graph) < 50 {
		t.Fatalf("read only %d packages and %d nodes: the walk is broken", len(repo.packages), len(repo.graph))
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, f := range r.check(repo) {
				t.Error(f)
			}
		})
	}
}

// TestFixtures runs each rule on a module made to break it. The archive's
// comment lists, after "want: ", the start of every finding that the rule must
// report, and it must report no other: the innocent half of each fixture proves
// that the rule does not cry wolf.
func TestFixtures(t *testing.T) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(filepath.Join("testdata", r.name+".txtar"))
			if err != nil {
				t.Fatalf("every rule has a fixture: %v", err)
			}
			dir := t.TempDir()
			for _, f := range archive.Files {
				name := filepath.Join(dir, filepath.FromSlash(f.Name))
				if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, expand(f.Data), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			tree, err := load(dir)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for line := range strings.Lines(string(archive.Comment)) {
				if w, ok := strings.CutPrefix(line, "want: "); ok {
					want = append(want, strings.TrimSpace(w))
				}
			}
			if len(want) == 0 {
				t.Fatal("the fixture wants nothing: it cannot fail")
			}
			for _, f := range r.check(tree) {
				i := slices.IndexFunc(want, func(w string) bool { return strings.HasPrefix(f.String(), w) })
				if i < 0 {
					t.Errorf("unwanted finding: %s", f)
					continue
				}
				want = slices.Delete(want, i, i+1)
			}
			for _, w := range want {
				t.Errorf("missing finding: %s", w)
			}
		})
	}
}

// expand replaces a line "LONG" by enough lines to pass maxLines.
func expand(data []byte) []byte {
	return []byte(strings.ReplaceAll(string(data), "LONG\n", strings.Repeat("// line\n", maxLines)))
}

// TestTable keeps the data itself sound: no row twice, and every row that is
// named as a target exists as a row or below one.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rooms {
		if seen[r.path] {
			t.Errorf("room %s has two rows", r.path)
		}
		seen[r.path] = true
		for _, m := range r.may {
			if m == "..." {
				continue
			}
			target := strings.TrimSuffix(m, "/...")
			to, ok := roomOf(target)
			if !ok {
				t.Errorf("room %s may import %s, which is in no room", r.path, m)
			}
			if r.pure && !to.pure && !slices.Contains([]string{r.path}, to.path) {
				t.Errorf("pure room %s may import %s, which is not pure", r.path, m)
			}
		}
	}
}
