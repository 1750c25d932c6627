package scenario

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/paulmach/orb"

	"github.com/meridian-mesh/meridian/geo"
)

// Node is a place of a GML network.
type Node struct {
	Name     string
	Location orb.Point
}

// ReadGML reads a network of the Internet Topology Zoo (GML, Himsolt 1996): nodes
// with Latitude and Longitude and the edges between them. Nodes without a position
// are contracted: the neighbours of each are joined. Of nodes at the same place one
// is kept. Faults name file and line.
func ReadGML(name string, text []byte) ([]Node, [][2]int, error) {
	p := gml{name: name, line: 1, rest: string(text)}
	root, err := p.list(0)
	if err != nil {
		return nil, nil, err
	}
	graph := root.first("graph")
	if graph == nil {
		return nil, nil, fmt.Errorf("%s: there is no graph", name)
	}
	var nodes []Node
	at := map[string]int{}     // by id; -1 where there is no position
	seen := map[string]int{}   // by position
	named := map[string]bool{} // names are made unique
	for i := range graph.entries {
		e := &graph.entries[i]
		if e.key != "node" || e.list == nil {
			continue
		}
		id := e.list.text("id")
		if id == "" {
			return nil, nil, fmt.Errorf("%s:%d: a node without id", name, e.line)
		}
		if _, twice := at[id]; twice {
			return nil, nil, fmt.Errorf("%s:%d: node %s is there twice", name, e.line, id)
		}
		lat, lon := e.list.text("Latitude"), e.list.text("Longitude")
		if lat == "" || lon == "" {
			at[id] = -1
			continue
		}
		pt, err := position(lat, lon)
		if err != nil {
			return nil, nil, fmt.Errorf("%s:%d: node %s: %w", name, e.line, id, err)
		}
		if k, ok := seen[lat+" "+lon]; ok {
			at[id] = k
			continue
		}
		label := siteName(e.list.text("label"), id)
		if named[label] {
			label += "-" + id
		}
		named[label] = true
		seen[lat+" "+lon], at[id] = len(nodes), len(nodes)
		nodes = append(nodes, Node{label, pt})
	}
	edges := map[string][]string{}
	for i := range graph.entries {
		e := &graph.entries[i]
		if e.key != "edge" || e.list == nil {
			continue
		}
		s, t := e.list.text("source"), e.list.text("target")
		for _, id := range []string{s, t} {
			if _, ok := at[id]; !ok {
				return nil, nil, fmt.Errorf("%s:%d: an edge to node %q, which is not there", name, e.line, id)
			}
		}
		edges[s], edges[t] = append(edges[s], t), append(edges[t], s)
	}
	return nodes, joined(at, edges), nil
}

// joined returns the links between nodes with positions; those without pass on.
func joined(at map[string]int, edges map[string][]string) [][2]int {
	have := map[[2]int]bool{}
	var out [][2]int
	for _, id := range slices.Sorted(maps.Keys(at)) {
		a := at[id]
		if a < 0 {
			continue
		}
		visited := map[string]bool{id: true}
		stack := append([]string(nil), edges[id]...)
		for len(stack) > 0 {
			n := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if visited[n] {
				continue
			}
			visited[n] = true
			if b := at[n]; b >= 0 {
				if l := [2]int{min(a, b), max(a, b)}; a != b && !have[l] {
					have[l] = true
					out = append(out, l)
				}
				continue
			}
			stack = append(stack, edges[n]...)
		}
	}
	return out
}

func position(lat, lon string) (orb.Point, error) {
	la, err := strconv.ParseFloat(lat, 64)
	if err != nil {
		return orb.Point{}, fmt.Errorf("latitude %q is not a number", lat)
	}
	lo, err := strconv.ParseFloat(lon, 64)
	if err != nil {
		return orb.Point{}, fmt.Errorf("longitude %q is not a number", lon)
	}
	p := orb.Point{lo, la}
	return p, geo.Check(p)
}

func siteName(label, id string) string {
	var b strings.Builder
	for _, c := range strings.ToLower(label) {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			b.WriteRune(c)
		} else if b.Len() > 0 && !strings.HasSuffix(b.String(), "-") {
			b.WriteByte('-')
		}
	}
	if s := strings.Trim(b.String(), "-"); s != "" {
		return s
	}
	return "node-" + id
}

// gml reads key-value lists.
type gml struct {
	name string
	line int
	rest string
}

type gmlList struct{ entries []gmlEntry }

type gmlEntry struct {
	key, value string
	list       *gmlList
	line       int
}

func (l *gmlList) first(key string) *gmlList {
	for i := range l.entries {
		if l.entries[i].key == key {
			return l.entries[i].list
		}
	}
	return nil
}

func (l *gmlList) text(key string) string {
	for i := range l.entries {
		if l.entries[i].key == key {
			return l.entries[i].value
		}
	}
	return ""
}

const maxGMLDepth = 16

func (p *gml) list(depth int) (*gmlList, error) {
	if depth > maxGMLDepth {
		return nil, fmt.Errorf("%s:%d: lists nested deeper than %d", p.name, p.line, maxGMLDepth)
	}
	out := &gmlList{}
	for {
		key, err := p.token()
		if err != nil {
			return nil, err
		}
		switch {
		case key == "" && depth == 0:
			return out, nil
		case key == "":
			return nil, fmt.Errorf("%s:%d: the file ends within a list", p.name, p.line)
		case key == "]" && depth > 0:
			return out, nil
		case key == "]" || key == "[":
			return nil, fmt.Errorf("%s:%d: %q where a key belongs", p.name, p.line, key)
		}
		e := gmlEntry{key: key, line: p.line}
		if e.value, err = p.token(); err != nil {
			return nil, err
		}
		switch e.value {
		case "[":
			e.value = ""
			if e.list, err = p.list(depth + 1); err != nil {
				return nil, err
			}
		case "", "]":
			return nil, fmt.Errorf("%s:%d: key %s has no value", p.name, p.line, key)
		default:
			e.value = strings.Trim(e.value, `"`)
		}
		out.entries = append(out.entries, e)
	}
}

// token is the next word, bracket or quoted string; empty at the end.
func (p *gml) token() (string, error) {
	for p.rest != "" {
		switch c := p.rest[0]; {
		case c == '\n':
			p.line++
			p.rest = p.rest[1:]
		case c == ' ' || c == '\t' || c == '\r':
			p.rest = p.rest[1:]
		case c == '#':
			if i := strings.IndexByte(p.rest, '\n'); i >= 0 {
				p.rest = p.rest[i:]
			} else {
				p.rest = ""
			}
		case c == '"':
			i := strings.IndexByte(p.rest[1:], '"')
			if i < 0 {
				return "", fmt.Errorf("%s:%d: a string without end", p.name, p.line)
			}
			t := p.rest[:i+2]
			p.line += strings.Count(t, "\n")
			p.rest = p.rest[i+2:]
			return t, nil
		case c == '[' || c == ']':
			p.rest = p.rest[1:]
			return string(c), nil
		default:
			i := strings.IndexAny(p.rest, " \t\r\n[]\"")
			if i < 0 {
				i = len(p.rest)
			}
			t := p.rest[:i]
			p.rest = p.rest[i:]
			return t, nil
		}
	}
	return "", nil
}
