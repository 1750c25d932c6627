package route

import (
	"bytes"
	"cmp"
	"regexp"
	"slices"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// Request is what of a request decides which rule serves it. One may be used for
// many requests in turn, whose scratch memory it then keeps.
type Request struct {
	Host   []byte // the Host field's value, with or without port
	Path   []byte // as Normalize made it
	Query  []byte // without "?"
	Method []byte
	Fields []stream.Field

	buf []byte
}

// place is the rules at one path of one host.
type place struct {
	guarded []guarded // in their precedence
	open    *Rule     // the first that asks for no more than the path
}

// guarded is a rule under conditions.
type guarded struct {
	conditions
	rule *Rule
}

// conditions are what a match asks for besides the path.
type conditions struct {
	method  string
	headers []valueMatch // names in lower case
	params  []valueMatch
}

func (c *conditions) none() bool {
	return c.method == "" && len(c.headers) == 0 && len(c.params) == 0
}

// before orders by precedence: a method, then the most headers, then the most
// query parameters.
func (c *conditions) before(o *conditions) bool {
	method := func(c *conditions) int { return min(len(c.method), 1) }
	return cmp.Or(cmp.Compare(method(c), method(o)), cmp.Compare(len(c.headers), len(o.headers)), cmp.Compare(len(c.params), len(o.params))) > 0
}

// add registers a rule after all that have precedence over it: those before it in
// conditions, and of equal ones those that came first.
func (p *place) add(c conditions, r *Rule) {
	if c.none() {
		p.open = cmp.Or(p.open, r)
		return
	}
	at := slices.IndexFunc(p.guarded, func(g guarded) bool { return c.before(&g.conditions) })
	if at < 0 {
		at = len(p.guarded)
	}
	p.guarded = slices.Insert(p.guarded, at, guarded{c, r})
}

func (p *place) match(q *Request) *Rule {
	for i := range p.guarded {
		if p.guarded[i].hold(q) {
			return p.guarded[i].rule
		}
	}
	return p.open
}

func (c *conditions) hold(q *Request) bool {
	if c.method != "" && string(q.Method) != c.method {
		return false
	}
	for i := range c.headers {
		v, ok := q.header(c.headers[i].name)
		if !ok || !c.headers[i].holds(v) {
			return false
		}
	}
	for i := range c.params {
		v, ok := q.param(c.params[i].name)
		if !ok || !c.params[i].holds(v) {
			return false
		}
	}
	return true
}

// valueMatch asks for a value, or one that an expression matches.
type valueMatch struct {
	name, value string
	expression  *regexp.Regexp
}

func (m *valueMatch) holds(v []byte) bool {
	if m.expression != nil {
		return m.expression.Match(v)
	}
	return string(v) == m.value
}

// header returns a field's value; those of repeated lines are joined by commas
// (RFC 9110 5.3).
func (q *Request) header(lower string) (v []byte, ok bool) {
	joined := false
	for i := range q.Fields {
		f := &q.Fields[i]
		switch {
		case !f.Is(lower):
		case !ok:
			v, ok = f.Value, true
		default:
			if !joined {
				q.buf, joined = append(q.buf[:0], v...), true
			}
			q.buf = append(append(q.buf, ','), f.Value...)
			v = q.buf
		}
	}
	return v, ok
}

// param returns the first query parameter of the name, percent-decoded.
func (q *Request) param(name string) (v []byte, ok bool) {
	for rest := q.Query; len(rest) > 0; {
		var pair []byte
		pair, rest, _ = bytes.Cut(rest, ampersand)
		key, value, _ := bytes.Cut(pair, equals)
		if string(q.decoded(key)) == name {
			return q.decoded(value), true
		}
	}
	return nil, false
}

var ampersand, equals = []byte("&"), []byte("=")

// decoded returns a form-encoded value as it was meant; a broken escape stands
// for itself.
func (q *Request) decoded(b []byte) []byte {
	if bytes.IndexByte(b, '%') < 0 && bytes.IndexByte(b, '+') < 0 {
		return b
	}
	q.buf = q.buf[:0]
	for i := 0; i < len(b); i++ {
		switch c := b[i]; c {
		case '+':
			q.buf = append(q.buf, ' ')
		case '%':
			if v, n := escape(b[i:]); n > 0 {
				q.buf = append(q.buf, v)
				i += n - 1
				continue
			}
			fallthrough
		default:
			q.buf = append(q.buf, c)
		}
	}
	return q.buf
}

// compile makes the conditions of a match. Of several for one header or parameter
// the first counts (Gateway API, HTTPHeaderMatch.name). field says what is wrong
// where err is not nil.
func compile(m *mesh.HTTPRouteMatch) (c conditions, field string, err error) {
	c.method = m.Method
	for i := range m.Headers {
		h := &m.Headers[i]
		if c.headers, err = appendMatch(c.headers, h.Type, strings.ToLower(h.Name), h.Value); err != nil {
			return c, "headers", err
		}
	}
	for i := range m.QueryParams {
		p := &m.QueryParams[i]
		if c.params, err = appendMatch(c.params, p.Type, p.Name, p.Value); err != nil {
			return c, "queryParams", err
		}
	}
	return c, "", nil
}

func appendMatch(list []valueMatch, kind, name, value string) ([]valueMatch, error) {
	if slices.ContainsFunc(list, func(m valueMatch) bool { return m.name == name }) {
		return list, nil
	}
	m := valueMatch{name: name, value: value}
	if kind == mesh.MatchRegularExpression {
		var err error
		if m.expression, err = mesh.CompileRegexp(value); err != nil {
			return nil, err
		}
	}
	return append(list, m), nil
}
