package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// template is a text with JSON paths in braces, as in kubectl: {.self.site},
// {.peers[0].site}, {.peers[*].site}, {.metadata.labels['a.b/c']}. Of several
// values one path finds, a space stands between two.
type template []part

// part is a literal text, or with steps a path.
type part struct {
	text  string
	path  bool
	steps []step
}

// step is a field, an index, or with all every element.
type step struct {
	field string
	index int
	all   bool
	isKey bool
}

// parseTemplate reads a template and says where it is wrong.
func parseTemplate(s string) (template, error) {
	var out template
	for s != "" {
		text, rest, found := strings.Cut(s, "{")
		if text != "" {
			out = append(out, part{text: strings.NewReplacer(`\n`, "\n", `\t`, "\t").Replace(text)})
		}
		if !found {
			break
		}
		inner, after, closed := strings.Cut(rest, "}")
		if !closed {
			return nil, fmt.Errorf("{%s has no closing brace", rest)
		}
		if inner == `"\n"` || inner == `"\t"` { // kubectl's way
			out = append(out, part{text: map[string]string{`"\n"`: "\n", `"\t"`: "\t"}[inner]})
			s = after
			continue
		}
		steps, err := parsePath(inner)
		if err != nil {
			return nil, fmt.Errorf("{%s}: %w", inner, err)
		}
		out = append(out, part{path: true, steps: steps})
		s = after
	}
	if len(out) == 0 {
		return nil, errors.New("it is empty: want such as {.self.site}")
	}
	return out, nil
}

func parsePath(s string) ([]step, error) {
	s = strings.TrimPrefix(strings.TrimSpace(s), "$")
	var steps []step
	for s != "" && s != "." {
		switch s[0] {
		case '.':
			end := strings.IndexAny(s[1:], ".[")
			if end < 0 {
				end = len(s) - 1
			}
			name := s[1 : 1+end]
			s = s[1+end:]
			if name == "*" {
				steps = append(steps, step{all: true})
			} else if name != "" {
				steps = append(steps, step{field: name, isKey: true})
			} else {
				return nil, errors.New("a name is missing after the dot")
			}
		case '[':
			end := strings.IndexByte(s, ']')
			if end < 0 {
				return nil, errors.New("a bracket is not closed")
			}
			in := s[1:end]
			s = s[end+1:]
			switch n, err := strconv.Atoi(in); {
			case in == "*":
				steps = append(steps, step{all: true})
			case len(in) > 1 && (in[0] == '\'' || in[0] == '"') && in[len(in)-1] == in[0]:
				steps = append(steps, step{field: in[1 : len(in)-1], isKey: true})
			case err == nil:
				steps = append(steps, step{index: n})
			default:
				return nil, fmt.Errorf("[%s]: want a number, * or a name in quotes", in)
			}
		default:
			return nil, fmt.Errorf("%q: a path begins with a dot", s)
		}
	}
	return steps, nil
}

// write prints a value by the template.
func (t template) write(w io.Writer, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var tree any
	if err := json.Unmarshal(data, &tree); err != nil {
		return err
	}
	var b strings.Builder
	for _, p := range t {
		if !p.path {
			b.WriteString(p.text)
			continue
		}
		for i, found := range find(tree, p.steps) {
			if i > 0 {
				b.WriteByte(' ')
			}
			switch x := found.(type) {
			case string:
				b.WriteString(x)
			default:
				text, err := json.Marshal(x)
				if err != nil {
					return err
				}
				b.Write(text)
			}
		}
	}
	text := b.String()
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	_, err = io.WriteString(w, text)
	return err
}

// find follows steps; what is not there is nothing.
func find(v any, steps []step) []any {
	if len(steps) == 0 {
		return []any{v}
	}
	s, rest := steps[0], steps[1:]
	switch v := v.(type) {
	case map[string]any:
		if s.all {
			var out []any
			for _, k := range slices.Sorted(maps.Keys(v)) {
				out = append(out, find(v[k], rest)...)
			}
			return out
		}
		if x, ok := v[s.field]; ok && s.isKey {
			return find(x, rest)
		}
	case []any:
		if s.all {
			var out []any
			for _, x := range v {
				out = append(out, find(x, rest)...)
			}
			return out
		}
		i := s.index
		if i < 0 {
			i += len(v)
		}
		if !s.isKey && i >= 0 && i < len(v) {
			return find(v[i], rest)
		}
	}
	return nil
}
