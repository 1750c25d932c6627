package archtest

import (
	"cmp"
	"fmt"
	"go/ast"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// finding is one breach: where, and what to do about it.
type finding struct {
	where string
	what  string
}

func (f finding) String() string { return f.where + ": " + f.what }

// rule is one law of the tree. Its name is that of its fixture.
type rule struct {
	name  string
	check func(*tree) []finding
}

var rules = []rule{
	{"imports", checkImports},
	{"pure", checkPure},
	{"dependencies", checkDependencies},
	{"binaries", checkBinaries},
	{"packagedoc", checkPackageDoc},
	{"filesize", checkFileSize},
	{"names", checkNames},
	{"leftovers", checkLeftovers},
}

// roomOf returns the row that speaks for a package.
func roomOf(pkgPath string) (room, bool) {
	var best room
	for _, r := range rooms {
		if under(pkgPath, r.path) && len(r.path) > len(best.path) {
			best = r
		}
	}
	return best, best.path != ""
}

// under reports whether p is dir or below it.
func under(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, dir+"/")
}

func anyUnder(p string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return under(p, d) })
}

// allows reports whether the patterns of a row let p be imported.
func allows(patterns []string, p string) bool {
	for _, pat := range patterns {
		if dir, tree := strings.CutSuffix(pat, "/..."); pat == "..." || pat == p || tree && under(p, dir) {
			return true
		}
	}
	return false
}

// checkImports enforces the table's directions between the module's own packages.
func checkImports(t *tree) (out []finding) {
	for _, p := range t.packages {
		r, ok := roomOf(p.path)
		if !ok {
			out = append(out, finding{p.path, "has no row in the import table (internal/archtest/table.go)"})
			continue
		}
		p.eachImport(func(f *file, imp, at string) {
			to, ours := strings.CutPrefix(imp, module+"/")
			if !ours || to == r.path || strings.HasPrefix(to, p.path+"/") || allows(r.may, to) {
				return
			}
			out = append(out, finding{at, fmt.Sprintf("%s may not import %s: room %s", p.path, to, describe(r))})
		})
	}
	return out
}

func describe(r room) string {
	if len(r.may) == 0 {
		return r.path + " imports no other room"
	}
	return r.path + " may import " + strings.Join(r.may, ", ")
}

// checkPure keeps clock, I/O, goroutines and logging out of the pure rooms.
func checkPure(t *tree) (out []finding) {
	for _, p := range t.packages {
		if r, _ := roomOf(p.path); !r.pure {
			continue
		}
		p.eachImport(func(f *file, imp, at string) {
			if slices.Contains(impureImports, imp) {
				out = append(out, finding{at, fmt.Sprintf("pure room %s may not import %s: pass values in, return actions", p.path, imp)})
			}
		})
		for _, f := range p.files {
			if f.test {
				continue
			}
			forbidden := map[string][]string{}
			for imp, names := range impureCalls {
				switch local := f.localName(imp); local {
				case "", "_":
				case ".":
					out = append(out, finding{f.name, fmt.Sprintf("pure room %s may not dot-import %s", p.path, imp)})
				default:
					forbidden[local] = names
				}
			}
			ast.Inspect(f.syntax, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					out = append(out, finding{f.at(n.Pos()), fmt.Sprintf("pure room %s starts a goroutine", p.path)})
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && slices.Contains(forbidden[x.Name], n.Sel.Name) {
						out = append(out, finding{f.at(n.Pos()), fmt.Sprintf("pure room %s uses %s.%s: take the time, return the text", p.path, x.Name, n.Sel.Name)})
					}
				}
				return true
			})
		}
	}
	return out
}

// checkDependencies gives every module from outside an owner.
func checkDependencies(t *tree) (out []finding) {
	for _, p := range t.packages {
		p.eachImport(func(f *file, imp, at string) {
			if first, _, _ := strings.Cut(imp, "/"); !strings.Contains(first, ".") || under(imp, module) {
				return // the standard library, or ours
			}
			switch d, owned := ownerOf(imp); {
			case !owned:
				out = append(out, finding{at, fmt.Sprintf("%s imports %s, which no room owns: a new dependency needs a row in internal/archtest/table.go", p.path, imp)})
			case len(d.rooms) == 0:
				out = append(out, finding{at, fmt.Sprintf("%s may not import %s: nobody may (%s)", p.path, imp, d.why)})
			case !anyUnder(p.path, d.rooms):
				out = append(out, finding{at, fmt.Sprintf("%s may not import %s: only %s may (%s)", p.path, imp, strings.Join(d.rooms, ", "), d.why)})
			}
		})
	}
	return out
}

// ownerOf returns the most specific row for an import.
func ownerOf(imp string) (best ownedDependency, owned bool) {
	for _, d := range dependencies {
		if under(imp, d.path) && len(d.path) > len(best.path) {
			best, owned = d, true
		}
	}
	return best, owned
}

// checkBinaries keeps heavy code out of the node's programs, whoever drags it in.
func checkBinaries(t *tree) (out []finding) {
	for _, limit := range binaryLimits {
		// from[x] is the package that first led to x: the chain in the finding.
		from := map[string]string{}
		var queue []string
		for _, imp := range slices.Sorted(maps.Keys(t.graph)) {
			if own, ok := strings.CutPrefix(imp, module+"/"); ok && allows(limit.roots, own) {
				from[imp] = ""
				queue = append(queue, imp)
			}
		}
		for len(queue) > 0 {
			imp := queue[0]
			queue = queue[1:]
			own, ours := strings.CutPrefix(imp, module+"/")
			for _, dep := range t.graph[imp].Imports {
				if dep == "net/http" && ours && !anyUnder(own, limit.netHTTP) {
					out = append(out, finding{imp, fmt.Sprintf("net/http is linked into %s by %s, only %s may: %s",
						limit.roots[0], chain(from, imp), strings.Join(limit.netHTTP, ", "), limit.why)})
				}
				if _, seen := from[dep]; seen {
					continue
				}
				from[dep] = imp
				if i := slices.IndexFunc(limit.refuse, func(r string) bool { return under(dep, r) }); i >= 0 {
					out = append(out, finding{dep, fmt.Sprintf("%s is linked into %s by %s: %s", limit.refuse[i], limit.roots[0], chain(from, imp), limit.why)})
					continue // one finding per way in
				}
				queue = append(queue, dep)
			}
		}
	}
	return out
}

// chain writes the imports that lead to p, first to last.
func chain(from map[string]string, p string) string {
	var steps []string
	for ; p != ""; p = from[p] {
		steps = append(steps, strings.TrimPrefix(p, module+"/"))
	}
	slices.Reverse(steps)
	return strings.Join(steps, " -> ")
}

var licenceText = regexp.MustCompile(`(?i)^(//\s*)?(copyright|licen[sc]ed? |spdx-license)`)

// checkPackageDoc asks every package to say what it is for.
func checkPackageDoc(t *tree) (out []finding) {
	for _, p := range t.packages {
		var doc string
		onlyTests := !slices.ContainsFunc(p.files, func(f *file) bool { return !f.test })
		for _, f := range p.files {
			if f.syntax.Doc != nil && f.test == onlyTests {
				doc = cmp.Or(doc, strings.TrimSpace(f.syntax.Doc.Text()))
			}
		}
		want := []string{"Package " + p.files[0].syntax.Name.Name + " "}
		if want[0] == "Package main " {
			name := path.Base(p.path)
			want = []string{"Command " + name + " ", strings.ToUpper(name[:1]) + name[1:] + " "}
		}
		startsRight := slices.ContainsFunc(want, func(w string) bool {
			return strings.HasPrefix(strings.ReplaceAll(doc, "\n", " "), w)
		})
		switch {
		case doc == "":
			out = append(out, finding{p.path, "has no package doc"})
		case licenceText.MatchString(doc):
			out = append(out, finding{p.path, "has a licence where its package doc should be: put an empty line between the licence and the package clause"})
		case !onlyTests && !startsRight:
			out = append(out, finding{p.path, fmt.Sprintf("package doc does not start with %q", want[0])})
		}
	}
	return out
}

// checkFileSize asks a long file for its reason.
func checkFileSize(t *tree) (out []finding) {
	for _, p := range t.packages {
		for _, f := range p.files {
			if f.lines > maxLines && !f.generated && !saysWhyLong(p, f) {
				out = append(out, finding{f.name, fmt.Sprintf("has %d lines, over %d: split it, or say \"long because ...\" before its first declaration or in the package doc", f.lines, maxLines)})
			}
		}
	}
	return out
}

func saysWhyLong(p *pkg, f *file) bool {
	const reason = "long because "
	for _, g := range f.syntax.Comments {
		before := len(f.syntax.Decls) == 0 || g.Pos() < f.syntax.Decls[0].Pos()
		if before && strings.Contains(strings.ReplaceAll(g.Text(), "\n", " "), reason) {
			return true
		}
	}
	return slices.ContainsFunc(p.files, func(o *file) bool {
		doc := strings.ReplaceAll(o.syntax.Doc.Text(), "\n", " ")
		return strings.Contains(doc, reason) && strings.Contains(doc, path.Base(f.name))
	})
}

// checkNames refuses packages named after nothing.
func checkNames(t *tree) (out []finding) {
	for _, p := range t.packages {
		name := strings.TrimSuffix(p.files[0].syntax.Name.Name, "_test")
		for _, n := range []string{name, path.Base(p.path)} {
			if slices.Contains(roomlessNames, n) {
				out = append(out, finding{p.path, fmt.Sprintf("a package named %s says nothing: name it by its job", n)})
				break
			}
		}
	}
	return out
}

// leftovers are what an author's desk leaves behind. The character classes keep
// this file from finding itself.
var leftovers = []struct {
	pattern *regexp.Regexp
	what    string
}{
	{regexp.MustCompile(`(^|[\s"'=:(` + "`" + `])/(work|root|home/[a-z]+|Users/[A-Za-z]+)/[\w.]`), "a path of one machine"},
	{regexp.MustCompile(`\b(TO[D]O|FIX[M]E|XX[X])\b`), "an unfinished thought: finish it, or open an issue"},
}

// checkLeftovers looks for machine paths and unfinished notes in every committed text.
func checkLeftovers(t *tree) (out []finding) {
	for _, f := range t.texts {
		for i, line := range strings.Split(string(f.body), "\n") {
			for _, l := range leftovers {
				if l.pattern.MatchString(line) {
					out = append(out, finding{fmt.Sprintf("%s:%d", f.name, i+1), l.what})
				}
			}
		}
	}
	return out
}

// eachImport calls fn for every import of the package's non-test files.
func (p *pkg) eachImport(fn func(f *file, imp, at string)) {
	for _, f := range p.files {
		if f.test {
			continue
		}
		imports := f.imports()
		for _, imp := range slices.Sorted(maps.Keys(imports)) {
			fn(f, imp, f.at(imports[imp]))
		}
	}
}
