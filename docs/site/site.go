package main

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed style.css
var style []byte

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// deadLinks are all links that lead nowhere, as FILE:LINE: what is wrong.
type deadLinks []string

// Error lists them.
func (d deadLinks) Error() string { return "links that lead nowhere:\n" + strings.Join(d, "\n") }

// builder makes one site.
type builder struct {
	root, out string
	pages     map[string]*page
	// copied are files and folders of the repository that pages link to.
	copied map[string]bool
	dead   deadLinks
}

// build renders the documentation below root to out, which it replaces, and returns the
// number of pages. With dead links it writes nothing.
func build(root, out string) (int, error) {
	b := &builder{root: root, out: out, pages: map[string]*page{}, copied: map[string]bool{}}
	if err := b.read(); err != nil {
		return 0, err
	}
	for _, source := range b.sources() {
		b.check(b.pages[source])
	}
	if len(b.dead) > 0 {
		return 0, b.dead
	}
	if err := os.RemoveAll(out); err != nil {
		return 0, err
	}
	for _, source := range b.sources() {
		if err := b.render(b.pages[source]); err != nil {
			return 0, err
		}
	}
	for name := range b.copied {
		if err := b.copy(name); err != nil {
			return 0, err
		}
	}
	return len(b.pages), b.write("style.css", style)
}

func (b *builder) sources() []string {
	var list []string
	for s := range b.pages {
		list = append(list, s)
	}
	slices.Sort(list)
	return list
}

// read parses all pages.
func (b *builder) read() error {
	take := func(source string) error {
		body, err := os.ReadFile(filepath.Join(b.root, filepath.FromSlash(source)))
		if err != nil {
			return err
		}
		b.pages[source] = parse(source, body)
		return nil
	}
	for _, source := range []string{"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"} {
		if err := take(source); err != nil {
			return err
		}
	}
	return filepath.WalkDir(filepath.Join(b.root, "docs"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(p) != ".md" {
			return err
		}
		rel, err := filepath.Rel(b.root, p)
		if err != nil {
			return err
		}
		return take(filepath.ToSlash(rel))
	})
}

// check looks where each link of a page leads and turns it to where that lies in the site.
func (b *builder) check(p *page) {
	fault := func(r reference, format string, args ...any) {
		b.dead = append(b.dead, fmt.Sprintf("%s:%d: %s: %s", p.source, r.line, r.target, fmt.Sprintf(format, args...)))
	}
	for _, r := range p.references() {
		name, anchor, anchored := strings.Cut(r.target, "#")
		to := p
		if name != "" {
			name = path.Join(path.Dir(p.source), name)
			if path.IsAbs(r.target) || name == ".." || strings.HasPrefix(name, "../") {
				fault(r, "it leads out of the repository; give a path from this file")
				continue
			}
			st, err := os.Stat(filepath.Join(b.root, filepath.FromSlash(name)))
			if err != nil {
				fault(r, "there is no such file")
				continue
			}
			to = b.pages[name]
			if to == nil {
				if anchored {
					fault(r, "only pages have headings")
					continue
				}
				b.copied[name] = true
				if name = inSite(name); st.IsDir() {
					name = path.Join(name, "index.html")
				}
				r.set(relative(href(p.source), name))
				continue
			}
		}
		if anchored && !to.anchors[anchor] {
			fault(r, "%s has no heading with that anchor", to.source)
			continue
		}
		target := ""
		if name != "" {
			target = relative(href(p.source), href(to.source))
		}
		if anchored {
			target += "#" + anchor
		}
		r.set(target)
	}
}

// group is one part of the list of pages.
type group struct {
	Name  string
	Pages []item
}

type item struct {
	Title, Href string
	Here        bool
}

// list is the list of pages as one of them shows it. Decisions are reached by theirs.
func (b *builder) list(of *page) []group {
	groups := []group{{Name: "Meridian"}, {Name: "Guide"}, {Name: "Reference"}}
	for _, source := range b.sources() {
		to := 0
		switch {
		case strings.HasPrefix(source, "docs/adr/") && source != "docs/adr/README.md":
			continue
		case strings.HasPrefix(source, "docs/guide/"):
			to = 1
		case strings.HasPrefix(source, "docs/reference/"):
			to = 2
		}
		it := item{b.pages[source].title, relative(href(of.source), href(source)), source == of.source}
		if source == "README.md" {
			groups[to].Pages = slices.Insert(groups[to].Pages, 0, it)
			continue
		}
		groups[to].Pages = append(groups[to].Pages, it)
	}
	return groups
}

func (b *builder) render(p *page) error {
	var body bytes.Buffer
	if err := markdown.Renderer().Render(&body, p.body, p.doc); err != nil {
		return fmt.Errorf("%s: %w", p.source, err)
	}
	var out bytes.Buffer
	err := pageTemplate.Execute(&out, map[string]any{
		"Title": p.title, "Style": relative(href(p.source), "style.css"), "Groups": b.list(p),
		"Body": template.HTML(body.String()), //nolint:gosec // of the repository's own pages, and without raw HTML
	})
	if err != nil {
		return fmt.Errorf("%s: %w", p.source, err)
	}
	return b.write(href(p.source), out.Bytes())
}

func (b *builder) write(name string, data []byte) error {
	to := filepath.Join(b.out, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil { //nolint:gosec // pages are for everybody
		return err
	}
	return os.WriteFile(to, data, 0o644) //nolint:gosec // pages are for everybody
}

// copy takes a file of the repository into the site, or a folder as a list of its files.
func (b *builder) copy(name string) error {
	from := filepath.Join(b.root, filepath.FromSlash(name))
	st, err := os.Stat(from)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return b.copyFile(name)
	}
	files, err := b.files(name, "")
	if err != nil {
		return err
	}
	var out bytes.Buffer
	at := &page{source: name + "/index.md"}
	err = pageTemplate.Execute(&out, map[string]any{
		"Title": name, "Style": relative(href(at.source), "style.css"), "Groups": b.list(at), "Files": files,
	})
	return errors.Join(err, b.write(name+"/index.html", out.Bytes()))
}

// files copies what is below a folder, and what links there lead to.
func (b *builder) files(folder, below string) (list []item, err error) {
	entries, err := os.ReadDir(filepath.Join(b.root, filepath.FromSlash(path.Join(folder, below))))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		rel := path.Join(below, e.Name())
		st, err := os.Stat(filepath.Join(b.root, filepath.FromSlash(path.Join(folder, rel))))
		if err != nil {
			return nil, err
		}
		if st.IsDir() {
			more, err := b.files(folder, rel)
			if err != nil {
				return nil, err
			}
			list = append(list, more...)
			continue
		}
		list = append(list, item{Title: rel, Href: inSite(rel)})
		if err := b.copyFile(path.Join(folder, rel)); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (b *builder) copyFile(name string) error {
	if b.pages[name] != nil {
		return nil // it is there as a page
	}
	data, err := os.ReadFile(filepath.Join(b.root, filepath.FromSlash(name)))
	if err != nil {
		return err
	}
	return b.write(inSite(name), data)
}

// inSite is the name of a file in the site. Go's tools take every folder with Go files
// below the module for a package of it, the site's too.
func inSite(name string) string {
	if path.Ext(name) == ".go" {
		return name + ".txt"
	}
	return name
}
