package mesh

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Position is a place in a document: lines and columns count from 1, columns in
// characters. The zero Position is unknown.
type Position struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
}

// String prints file:line:column, or as much of it as is known.
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return p.File + ":" + strconv.Itoa(p.Line) + ":" + strconv.Itoa(p.Column)
}

// Fault is one thing that is wrong with a document: what stands where, and what
// to do about it. Object is the document's kind/namespace/name as far as it was
// read; Path is the field inside it ("spec.rules[0].backendRefs[1].weight").
type Fault struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Object  string `json:"object,omitempty"`
	Path    string `json:"path,omitempty"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// String prints file:line:column: path: message (hint). A fault without a
// position (see [Validate]) starts with its object.
func (f Fault) String() string {
	var b strings.Builder
	where := Position{f.File, f.Line, f.Column}.String()
	if f.Line == 0 && f.Object != "" {
		where = f.Object
	}
	for _, s := range []string{where, f.Path} {
		if s != "" {
			b.WriteString(s)
			b.WriteString(": ")
		}
	}
	b.WriteString(f.Message)
	if f.Hint != "" {
		b.WriteString(" (")
		b.WriteString(f.Hint)
		b.WriteString(")")
	}
	return b.String()
}

// maxFaults bounds a report: past it a person fixes the first ones and asks again.
const maxFaults = 1000

// Faults is the error of [ParseYAML] and [Validate]: all that is wrong, in
// reading order.
type Faults struct {
	List []Fault `json:"faults"`
	// More counts faults that were found but are not in List.
	More int `json:"more,omitempty"`
}

// Error prints one fault a line.
func (f *Faults) Error() string {
	lines := make([]string, 0, len(f.List)+1)
	for _, x := range f.List {
		lines = append(lines, x.String())
	}
	if f.More > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", f.More))
	}
	return strings.Join(lines, "\n")
}

func (f *Faults) add(x Fault) {
	if len(f.List) >= maxFaults {
		f.More++
		return
	}
	f.List = append(f.List, x)
}

// err sorts the faults of each file by position and returns nil when there are none.
func (f *Faults) err() error {
	if len(f.List) == 0 {
		return nil
	}
	files := map[string]int{}
	for _, x := range f.List {
		if _, ok := files[x.File]; !ok {
			files[x.File] = len(files)
		}
	}
	slices.SortStableFunc(f.List, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(files[a.File], files[b.File]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return f
}

// path is the way to a field, kept as a list so that nothing is printed for
// fields that are in order.
type path struct {
	up   *path
	step string
}

func (p *path) field(name string) *path { return &path{p, "." + name} }
func (p *path) item(i int) *path        { return &path{p, "[" + strconv.Itoa(i) + "]"} }
func (p *path) key(k string) *path      { return &path{p, "[" + k + "]"} }

func (p *path) String() string {
	var steps []string
	for ; p != nil; p = p.up {
		steps = append(steps, p.step)
	}
	slices.Reverse(steps)
	return strings.TrimPrefix(strings.Join(steps, ""), ".")
}

// nearest returns the candidate that a mistyped word most likely meant, "" when
// none is close.
func nearest(word string, candidates []string) string {
	best, bestD := "", len(word)/3+1
	for _, c := range candidates {
		if strings.EqualFold(word, c) {
			return c
		}
		if d := editDistance(strings.ToLower(word), strings.ToLower(c), bestD); d <= bestD && (best == "" || d < bestD) {
			best, bestD = c, d
		}
	}
	return best
}

// editDistance counts insertions, deletions, replacements and swaps of
// neighbours; it gives up with limit+1 when the lengths alone say more.
func editDistance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	before, prev, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, prev, row = prev, row, before
	}
	return prev[len(b)]
}
