package main

import (
	"bytes"
	"fmt"
	"path"
	"strings"
	"unicode"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
)

// page is one document.
type page struct {
	// source is its path in the repository, with slashes; title its first heading.
	source, title string
	body          []byte
	doc           ast.Node
	anchors       map[string]bool
}

var markdown = goldmark.New(
	goldmark.WithExtensions(extension.Table, extension.Strikethrough, extension.Linkify),
)

// parse reads a document.
func parse(source string, body []byte) *page {
	p := &page{source: source, body: body, anchors: map[string]bool{}}
	p.doc = markdown.Parser().Parse(text.NewReader(body))
	_ = ast.Walk(p.doc, func(n ast.Node, entering bool) (ast.WalkStatus, error) { // it returns what the function does: nothing
		if h, ok := n.(*ast.Heading); ok && entering {
			said := plain(h, body)
			if p.title == "" {
				p.title = said
			}
			h.SetAttributeString("id", []byte(p.anchor(said)))
			return ast.WalkSkipChildren, nil
		}
		return ast.WalkContinue, nil
	})
	if p.title == "" {
		p.title = source
	}
	return p
}

// plain is the text below a node.
func plain(n ast.Node, body []byte) string {
	var b strings.Builder
	_ = ast.Walk(n, func(c ast.Node, entering bool) (ast.WalkStatus, error) { // it returns what the function does: nothing
		if t, ok := c.(*ast.Text); ok && entering {
			b.Write(t.Segment.Value(body))
		}
		return ast.WalkContinue, nil
	})
	return b.String()
}

// anchor gives a heading the anchor that GitHub gives it, since that is where links have
// to work too: lower case, without punctuation, a dash for each space, and a number
// behind one that is there already.
func (p *page) anchor(heading string) string {
	var b strings.Builder
	for _, r := range strings.TrimSpace(heading) {
		switch {
		case r == ' ':
			b.WriteByte('-')
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			b.WriteRune(unicode.ToLower(r))
		}
	}
	id := b.String()
	for n := 1; p.anchors[id]; n++ {
		id = fmt.Sprintf("%s-%d", b.String(), n)
	}
	p.anchors[id] = true
	return id
}

// reference is a link or a picture of a page, or a place to change its target.
type reference struct {
	target string
	line   int
	set    func(string)
}

// references are the links of a page that stay in the repository.
func (p *page) references() []reference {
	var out []reference
	add := func(n ast.Node, target []byte, set func([]byte)) {
		t := string(target)
		if strings.Contains(t, "://") || strings.HasPrefix(t, "mailto:") {
			return
		}
		out = append(out, reference{t, p.line(n), func(s string) { set([]byte(s)) }})
	}
	_ = ast.Walk(p.doc, func(n ast.Node, entering bool) (ast.WalkStatus, error) { // it returns what the function does: nothing
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.Link:
			add(n, n.Destination, func(s []byte) { n.Destination = s })
		case *ast.Image:
			add(n, n.Destination, func(s []byte) { n.Destination = s })
		}
		return ast.WalkContinue, nil
	})
	return out
}

// line is the line on which a node stands, by its first text.
func (p *page) line(n ast.Node) int {
	at := -1
	_ = ast.Walk(n, func(c ast.Node, entering bool) (ast.WalkStatus, error) { // it returns what the function does: nothing
		if t, ok := c.(*ast.Text); ok && entering {
			at = t.Segment.Start
			return ast.WalkStop, nil
		}
		return ast.WalkContinue, nil
	})
	for up := n.Parent(); at < 0 && up != nil; up = up.Parent() {
		if up.Type() == ast.TypeBlock && up.Lines().Len() > 0 {
			at = up.Lines().At(0).Start
		}
	}
	return 1 + bytes.Count(p.body[:max(at, 0)], []byte("\n"))
}

// href is where a page's HTML lies in the site.
func href(source string) string {
	if source == "README.md" {
		return "index.html"
	}
	return strings.TrimSuffix(source, ".md") + ".html"
}

// relative is the way from one file of the site to another.
func relative(from, to string) string {
	up := strings.Count(path.Dir(from), "/") + 1
	if path.Dir(from) == "." {
		up = 0
	}
	return strings.Repeat("../", up) + to
}
