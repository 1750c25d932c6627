package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSummary_realRuns feeds what the go command really writes: a small module is
// tested for each case.
func TestSummary_realRuns(t *testing.T) {
	cases := []struct {
		name    string
		source  string
		noSkips bool
		allow   string
		good    bool
		last    string
		contain []string
	}{
		{
			name:   "pass with subtests",
			source: `func TestA(t *testing.T) { t.Run("x", func(*testing.T) {}); t.Run("y", func(*testing.T) {}) }`,
			good:   true, last: "3 passed, 0 failed", contain: []string{"ok  \texample.org/m"},
		},
		{
			name: "one fails", source: `func TestA(t *testing.T) {}; func TestB(t *testing.T) { t.Error("boom") }`,
			last: "1 passed, 1 failed", contain: []string{"boom", "failed: example.org/m TestB", "FAIL\texample.org/m"},
		},
		{
			name: "does not compile", source: `func TestA(t *testing.T) { undefined() }`,
			last: "0 passed, 1 failed", contain: []string{"undefined: undefined", "failed: example.org/m"},
		},
		{
			name: "panics", source: `func TestA(t *testing.T) {}; func TestB(t *testing.T) { panic("bang") }`,
			last: "1 passed, 1 failed", contain: []string{"bang"},
		},
		{
			name: "exits", source: `func TestA(t *testing.T) {}; func TestMain(m *testing.M) { m.Run(); os.Exit(3) }`,
			last: "1 passed, 1 failed", contain: []string{"failed: example.org/m\n"},
		},
		{
			name: "skip allowed", source: `func TestA(t *testing.T) {}; func TestB(t *testing.T) { t.Skip("needs a moon") }`,
			good: true, last: "1 passed, 0 failed", contain: []string{"skipped: example.org/m TestB: m_test.go:4: needs a moon\n1 skipped\n"},
		},
		{
			name: "skip refused", source: `func TestA(t *testing.T) {}; func TestB(t *testing.T) { t.Skip("needs a moon") }`, noSkips: true,
			last: "1 passed, 0 failed", contain: []string{"a skipped test fails this run"},
		},
		{
			name: "skip refused but for another", source: `func TestA(t *testing.T) { t.Skip("needs a moon") }; func TestB(t *testing.T) { t.Skip("needs a sun") }; func TestC(t *testing.T) {}`, noSkips: true, allow: "a moon",
			last: "1 passed, 0 failed", contain: []string{"a skipped test fails this run", "2 skipped"},
		},
		{
			name: "skip refused but for this one", source: `func TestA(t *testing.T) { t.Skip("needs a moon") }; func TestC(t *testing.T) {}`, noSkips: true, allow: "a moon",
			good: true, last: "1 passed, 0 failed", contain: []string{"skipped: example.org/m TestA", "1 skipped"},
		},
		{name: "nothing ran", source: ``, last: "0 passed, 0 failed", contain: []string{"no test ran"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, filepath.Join(dir, "go.mod"), "module example.org/m\n\ngo 1.26\n")
			write(t, filepath.Join(dir, "m_test.go"), "package m\n\nimport (\"os\"; \"testing\"); var _ = os.Args; var _ *testing.T\n"+c.source+"\n")
			cmd := exec.Command("go", "test", "-json", "./...")
			cmd.Dir = dir
			stream, _ := cmd.Output() // its exit status says what the stream says
			var out strings.Builder
			s, err := summarise(strings.NewReader(string(stream)), &out)
			if err != nil {
				t.Fatal(err)
			}
			if good := s.print(&out, c.noSkips, c.allow); good != c.good {
				t.Errorf("good = %v, want %v", good, c.good)
			}
			if !strings.HasSuffix(out.String(), "\n"+c.last+"\n") && out.String() != c.last+"\n" {
				t.Errorf("want last line %q in\n%s", c.last, out.String())
			}
			for _, want := range c.contain {
				if !strings.Contains(out.String(), want) {
					t.Errorf("want %q in\n%s", want, out.String())
				}
			}
		})
	}
}

func write(t *testing.T, name, body string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
}
