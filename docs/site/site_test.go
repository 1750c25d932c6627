package main

import (
	"encoding/xml"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// write makes a small repository.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for _, name := range []string{"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/guide/a.md"} {
		if _, ok := files[name]; !ok {
			files[name] = "# " + name + "\n"
		}
	}
	for name, text := range files {
		path := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestDeadLinks(t *testing.T) {
	root := write(t, map[string]string{
		"README.md": `# Start

[good](docs/guide/a.md#two-words), [here](#start), [file](deploy/x.yaml), [folder](deploy),
[elsewhere](https://example.com/gone), ![picture](docs/p.png)

| a | table |
| --- | --- |
| [gone](docs/guide/gone.md) | [no such heading](docs/guide/a.md#three) |

` + "```\n[in a block](nowhere.md)\n```" + `

- [out](../secret.md) and [none](#nowhere)
- ![no picture](docs/none.png)
- [a file has no headings](deploy/x.yaml#top)
`,
		"docs/guide/a.md": "# A\n\n## Two words\n\n## Two words\n\n[back](../../README.md) [second](#two-words-1)\n\n[gone](b.md)\n",
		"deploy/x.yaml":   "a: 1\n", "docs/p.png": "x",
	})
	_, err := build(root, t.TempDir())
	var dead deadLinks
	if !errors.As(err, &dead) {
		t.Fatalf("%v, want dead links", err)
	}
	want := []string{
		"README.md:8: docs/guide/gone.md: there is no such file",
		"README.md:8: docs/guide/a.md#three: docs/guide/a.md has no heading with that anchor",
		"README.md:14: ../secret.md: it leads out of the repository; give a path from this file",
		"README.md:14: #nowhere: README.md has no heading with that anchor",
		"README.md:15: docs/none.png: there is no such file",
		"README.md:16: deploy/x.yaml#top: only pages have headings",
		"docs/guide/a.md:9: b.md: there is no such file",
	}
	if !slices.Equal(dead, want) {
		t.Errorf("dead links\n%s\nwant\n%s", strings.Join(dead, "\n"), strings.Join(want, "\n"))
	}
}

// Anchors are those of GitHub, where the same links have to work.
func TestAnchors(t *testing.T) {
	for heading, want := range map[string]string{
		"Changes of a mesh's configuration":       "changes-of-a-meshs-configuration",
		"Backup, and a hub that is lost for good": "backup-and-a-hub-that-is-lost-for-good",
		"`meridian top`: 10 ms, _now_":            "meridian-top-10-ms-now",
		"HTTP/2 & gRPC":                           "http2--grpc",
		"Größe":                                   "größe",
	} {
		p := parse("x.md", []byte("# "+heading+"\n"))
		if !p.anchors[want] {
			t.Errorf("%q: anchors %v, want %s", heading, p.anchors, want)
		}
	}
}

var attribute = regexp.MustCompile(`(?:href|src)="([^"]*)"`)

// The repository's own documentation has no dead link, and what it is rendered to
// stands by itself: every link and picture leads to a file of the site and to an anchor
// that is there, no script, nothing from elsewhere.
func TestSite(t *testing.T) {
	out := t.TempDir()
	n, err := build("../..", out)
	if err != nil {
		t.Fatal(err)
	}
	if n < 50 {
		t.Fatalf("%d pages only", n)
	}
	checked := 0
	err = filepath.WalkDir(out, func(path string, d fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".go" {
			t.Errorf("%s would be a package of this module", path)
		}
		if err != nil || d.IsDir() || filepath.Ext(path) != ".html" {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		body := string(data)
		if strings.Contains(body, "<script") {
			t.Errorf("%s has a script in it", path)
		}
		for _, m := range attribute.FindAllStringSubmatch(body, -1) {
			if strings.HasPrefix(m[1], "https://") || strings.HasPrefix(m[1], "http://") || strings.HasPrefix(m[1], "mailto:") {
				if strings.HasPrefix(m[0], "src") {
					t.Errorf("%s takes %s from elsewhere", path, m[1])
				}
				continue
			}
			name, anchor, _ := strings.Cut(m[1], "#")
			target := path
			if name != "" {
				target = filepath.Join(filepath.Dir(path), filepath.FromSlash(name))
			}
			text, err := os.ReadFile(target)
			if err != nil {
				t.Errorf("%s: %s: %v", path, m[1], err)
				continue
			}
			if anchor != "" && !strings.Contains(string(text), `id="`+anchor+`"`) {
				t.Errorf("%s: %s: no such anchor", path, m[1])
			}
			checked++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if checked < 1000 {
		t.Errorf("found only %d links", checked)
	}
}

// Pages are well-formed, as a strict reader sees it.
func TestWellFormed(t *testing.T) {
	out := t.TempDir()
	if _, err := build(write(t, map[string]string{
		"README.md": "# A <b> & \"c\"\n\n[x](docs/guide/a.md) `<script>` <script>alert(1)</script>\n\n<img src=x onerror=alert(1)>\n\n<!-- run -->\n```sh\na && b\n```\n",
	}), out); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(out, "index.html"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), "<script>") || strings.Contains(string(data), "onerror") {
		t.Errorf("raw HTML is passed on:\n%s", data)
	}
	d := xml.NewDecoder(strings.NewReader(strings.ReplaceAll(string(data), "<!doctype html>", "")))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	for {
		if _, err := d.Token(); err == io.EOF {
			return
		} else if err != nil {
			t.Fatalf("%v\n%s", err, data)
		}
	}
}
