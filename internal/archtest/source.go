package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// tree is a module as the rules see it: every Go file of whatever build tag, the
// text of every other committed file, and the graph of what the module links.
type tree struct {
	dir      string
	packages []*pkg          // by path
	texts    []text          // by name
	graph    map[string]node // by import path, "" excluded
}

// pkg is one folder with Go files.
type pkg struct {
	path  string // relative to the module, "." for its root
	files []*file
}

// file is one parsed Go file.
type file struct {
	name      string // relative to the module, with slashes
	test      bool
	generated bool
	lines     int
	syntax    *ast.File
	fset      *token.FileSet
}

// text is one committed file, Go or not.
type text struct {
	name string
	body []byte
}

// node is what `go list` says of one package of the graph.
type node struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Error      *struct{ Err string }
}

// load reads the module rooted at dir.
func load(dir string) (*tree, error) {
	t := &tree{dir: dir}
	byPath := map[string]*pkg{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if rel != "." && skipDir(p, rel) {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || rel == ".git" { // a file in a linked worktree
			return nil
		}
		body, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		t.texts = append(t.texts, text{rel, body})
		if path.Ext(rel) != ".go" {
			return nil
		}
		f, err := parse(rel, body)
		if err != nil {
			return err
		}
		in := byPath[path.Dir(rel)]
		if in == nil {
			in = &pkg{path: path.Dir(rel)}
			byPath[in.path] = in
			t.packages = append(t.packages, in)
		}
		in.files = append(in.files, f)
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(t.packages, func(a, b *pkg) int { return strings.Compare(a.path, b.path) })
	t.graph, err = list(dir)
	return t, err
}

// skipDir leaves out what is not this module's committed source: hidden and
// built folders, fixtures, and nested modules.
func skipDir(p, rel string) bool {
	switch base := path.Base(rel); {
	case rel == ".ci":
		return false
	case base[0] == '.', base[0] == '_', base == "testdata", base == "node_modules", rel == "bin":
		return true
	}
	_, err := os.Stat(filepath.Join(p, "go.mod"))
	return err == nil
}

func parse(name string, body []byte) (*file, error) {
	fset := token.NewFileSet()
	syntax, err := parser.ParseFile(fset, name, body, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	return &file{
		name:      name,
		test:      strings.HasSuffix(name, "_test.go"),
		generated: ast.IsGenerated(syntax),
		lines:     bytes.Count(body, []byte{'\n'}),
		syntax:    syntax,
		fset:      fset,
	}, nil
}

// list asks the go command for the import graph of all packages of the module.
func list(dir string) (map[string]node, error) {
	cmd := exec.Command("go", "list", "-deps", "-e", "-json=ImportPath,Standard,Imports,Error", "./...")
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list in %s: %w\n%s", dir, err, stderr.Bytes())
	}
	graph := map[string]node{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var n node
		if err := dec.Decode(&n); errors.Is(err, io.EOF) {
			return graph, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list in %s: %w", dir, err)
		}
		if n.Error != nil {
			return nil, fmt.Errorf("go list in %s: %s: %s", dir, n.ImportPath, n.Error.Err)
		}
		graph[n.ImportPath] = n
	}
}

// imports returns the paths that the file imports, with their positions.
func (f *file) imports() map[string]token.Pos {
	m := map[string]token.Pos{}
	for _, spec := range f.syntax.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			m[p] = spec.Pos()
		}
	}
	return m
}

// localName is the identifier by which the file knows the import, "" when it does
// not import it, "." for a dot import.
func (f *file) localName(importPath string) string {
	for _, spec := range f.syntax.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err != nil || p != importPath {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return path.Base(importPath)
	}
	return ""
}

// at formats a position for a finding.
func (f *file) at(p token.Pos) string {
	return fmt.Sprintf("%s:%d", f.name, f.fset.Position(p).Line)
}
