package docstest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the repository, seen from this package.
const root = "../.."

// block is one fenced block of a page.
type block struct {
	page string
	line int // of its first line
	lang string
	mark string
	text string
}

func (b block) String() string { return fmt.Sprintf("%s:%d", b.page, b.line) }

// shows reports whether the block is marked as one that is not run.
func (b block) shows() bool { return strings.HasPrefix(b.mark, "shown: ") }

// pages are those whose examples are checked.
func pages(t *testing.T) []string {
	t.Helper()
	guide, err := filepath.Glob(filepath.Join(root, "docs/guide/*.md"))
	if err != nil || len(guide) == 0 {
		t.Fatalf("no guide: %v", err)
	}
	list := []string{"README.md", "CONTRIBUTING.md", "docs/benchmarks.md"}
	for _, g := range guide {
		rel, err := filepath.Rel(root, g)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, filepath.ToSlash(rel))
	}
	return list
}

func read(t *testing.T, page string) string {
	t.Helper()
	body, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(page)))
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// blocks takes a page apart.
func blocks(page, body string) []block {
	var (
		out  []block
		cur  *block
		prev string
	)
	for i, line := range strings.Split(body, "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case cur == nil && isFence:
			cur = &block{page: page, line: i + 2, lang: fence}
			if m, ok := strings.CutPrefix(prev, "<!-- "); ok {
				cur.mark = strings.TrimSuffix(m, " -->")
			}
		case cur != nil && isFence:
			out = append(out, *cur)
			cur = nil
		case cur != nil:
			cur.text += line + "\n"
		}
		prev = line
	}
	return out
}

// missingLines returns the wanted lines that are not, in their order, in output.
func missingLines(want, output string) (missing []string) {
	have := strings.Split(output, "\n")
	for line := range strings.Lines(want) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		parts := strings.Split(line, "…")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		re := regexp.MustCompile("^" + strings.Join(parts, ".*") + "$")
		i := slices.IndexFunc(have, func(h string) bool { return re.MatchString(strings.TrimSpace(h)) })
		if i < 0 {
			missing = append(missing, line)
			continue
		}
		have = have[i+1:]
	}
	return missing
}

func TestBlocks(t *testing.T) {
	got := blocks("p.md", "text\n<!-- run -->\n```sh\necho a\necho b\n```\n\n```yaml\na: 1\n```\n")
	want := []block{{"p.md", 4, "sh", "run", "echo a\necho b\n"}, {"p.md", 9, "yaml", "", "a: 1\n"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestMissingLines(t *testing.T) {
	output := "one\n  two 2\nthree\n"
	for want, missing := range map[string]int{
		"one\nthree": 0, "two …\ntwo …": 1, "two …\nthree": 0, "…": 0, "three\none": 1, "on": 1, "t…ee": 0, "four": 1,
	} {
		if got := missingLines(want, output); len(got) != missing {
			t.Errorf("%q: missing %q, want %d", want, got, missing)
		}
	}
}

// TestMarks asks every block for what its language needs.
func TestMarks(t *testing.T) {
	known := map[string]func(mark string) bool{
		"sh":   func(m string) bool { return m == runs || m == runsAsRoot || strings.HasPrefix(m, "shown: ") },
		"yaml": func(m string) bool { return m == "" || m == "fault" },
		"text": func(m string) bool { return m == "output" },
	}
	for _, page := range pages(t) {
		for _, b := range blocks(page, read(t, page)) {
			if ok := known[b.lang]; ok == nil || !ok(b.mark) {
				t.Errorf("%s: a %q block marked %q: see the doc of internal/docstest", b, b.lang, b.mark)
			}
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

func TestLinks(t *testing.T) {
	var all []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	checked := 0
	for _, page := range all {
		body, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(body), -1) {
			target, _, _ := strings.Cut(m[1], "#")
			if target == "" || strings.Contains(target, "://") {
				continue
			}
			checked++
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), target)); err != nil {
				t.Errorf("%s links to %s, which is not there", page, m[1])
			}
		}
	}
	if checked < 20 {
		t.Errorf("found only %d links: the search is broken", checked)
	}
}

var namedRoom = regexp.MustCompile("(?m)^\\| `([a-z][a-z0-9/]*)` \\|")

// TestArchitecture holds the table of rooms to the packages that exist.
func TestArchitecture(t *testing.T) {
	named := map[string]bool{}
	_, table, ok := strings.Cut(read(t, "ARCHITECTURE.md"), "\n## Rooms\n")
	table, _, ok2 := strings.Cut(table, "\n## ")
	if !ok || !ok2 {
		t.Fatal("ARCHITECTURE.md has no section Rooms")
	}
	for _, m := range namedRoom.FindAllStringSubmatch(table, -1) {
		named[m[1]] = true
		if found, err := filepath.Glob(filepath.Join(root, m[1], "*.go")); err != nil || len(found) == 0 {
			t.Errorf("ARCHITECTURE.md names %s, which is no package", m[1])
		}
	}
	for _, pkg := range packages(t) {
		if !named[pkg] {
			t.Errorf("ARCHITECTURE.md does not name %s in its table of rooms", pkg)
		}
	}
}
