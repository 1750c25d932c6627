package manifest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"b.yaml": "b", "a.yml": "a", "c.json": "c", ".d.yaml": "d", "e.txt": "e", "sub.yaml/f.yaml": "f"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Read([]string{filepath.Join(dir, "e.txt"), dir, Stdin}, strings.NewReader("in"))
	if err != nil {
		t.Fatal(err)
	}
	var names, texts []string
	for _, s := range got {
		names = append(names, filepath.Base(s.Name))
		texts = append(texts, string(s.Data))
	}
	if n, x := strings.Join(names, " "), strings.Join(texts, " "); n != "e.txt a.yml b.yaml c.json <stdin>" || x != "e a b c in" {
		t.Errorf("%s: %s", n, x)
	}
	if _, err := Read([]string{t.TempDir()}, nil); err == nil || !strings.Contains(err.Error(), "no *.yaml") {
		t.Errorf("empty folder: %v", err)
	}
	if _, err := Read([]string{filepath.Join(dir, "none")}, nil); !os.IsNotExist(err) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := Read([]string{Stdin}, strings.NewReader(strings.Repeat("x", maxBytes+1))); err == nil || !strings.Contains(err.Error(), "32 MiB") {
		t.Errorf("flood: %v", err)
	}
}
