package authz

import (
	"bytes"
	"math/bits"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// maxViews bounds the paths of one request: its own and those of fields that override it.
const maxViews = 3

// seen is a path as servers may see it.
type seen struct {
	plain         []byte
	light, folded []byte
	clear         bool
}

// Judge makes decisions for one loop. Its methods are for one goroutine, and use
// nothing of a request after they return.
type Judge struct {
	// Loop is whose counts are written.
	Loop int

	q          *Request
	identities [2]identity
	persons    int
	views      [maxViews]seen
	paths      int
	clear      bool // of all paths
	viewed     bool
	methods    [5][]byte // its own and those of fields that override it
	verbs      int
	host       []byte
	buf        []byte

	found   outcome
	audited [8]int32
	audits  int
}

// outcome are the first rules that match, -1 for none.
type outcome struct{ deny, allow, dryDeny, dryAllow int32 }

// Begin takes up a request, which must stay as it is until the next one.
func (j *Judge) Begin(q *Request) {
	j.q, j.persons, j.paths, j.viewed, j.verbs, j.host = q, 0, 0, false, 0, j.host[:0]
	for _, text := range [...][]byte{q.Client, q.Peer} {
		if len(text) > 0 && j.identities[j.persons].cut(text) {
			j.persons++
		}
	}
	if !q.HTTP {
		return
	}
	j.host = canonical(q.Host, j.host)
	j.methods[0], j.verbs = q.Method, 1
	for i := range q.Fields {
		if f := &q.Fields[i]; overridesMethod(f) && len(f.Value) > 0 {
			if j.verbs == len(j.methods) {
				j.verbs++ // more than anybody would send
				break
			}
			j.methods[j.verbs] = f.Value
			j.verbs++
		}
	}
}

// overridesMethod reports fields by which frameworks take another method than that
// of the request.
func overridesMethod(f *stream.Field) bool {
	switch len(f.Name) {
	case len("x-http-method"):
		return f.Is("x-http-method")
	case len("x-method-override"):
		return f.Is("x-method-override")
	case len("x-http-method-override"):
		return f.Is("x-http-method-override")
	}
	return false
}

// overridesPath likewise of the path.
func overridesPath(f *stream.Field) bool {
	switch len(f.Name) {
	case len("x-original-url"):
		return f.Is("x-original-url")
	case len("x-rewrite-url"):
		return f.Is("x-rewrite-url")
	}
	return false
}

// view finds out how servers may see the request's path.
func (j *Judge) view() {
	if j.viewed {
		return
	}
	j.viewed, j.clear = true, true
	j.buf = j.buf[:0]
	j.see(j.q.Path)
	for i := range j.q.Fields {
		f := &j.q.Fields[i]
		if !overridesPath(f) || len(f.Value) == 0 {
			continue
		}
		if j.paths == maxViews {
			j.clear = false
			return
		}
		j.see(withoutOrigin(f.Value))
	}
}

func (j *Judge) see(p []byte) {
	v := &j.views[j.paths]
	j.paths++
	v.plain, v.clear = p, true
	if len(p) > 0 && p[0] == '/' && plain(p) {
		v.light = bytes.TrimRight(p, "/")
		v.folded = v.light
		return
	}
	// Both are in one buffer, which grows at most by a slash: make the room first, so
	// that the first does not move.
	if need := len(j.buf) + 2*len(p) + 2; cap(j.buf) < need {
		j.buf = append(make([]byte, 0, 2*need), j.buf...)
	}
	at := len(j.buf)
	v.light = lighten(p, j.buf[at:at:cap(j.buf)])
	j.buf = j.buf[:at+len(p)]
	at = len(j.buf)
	v.folded, v.clear = fold(p, j.buf[at:at:cap(j.buf)])
	j.buf = j.buf[:min(at+len(p)+1, cap(j.buf))]
	j.clear = j.clear && v.clear
}

// withoutOrigin is the path of a URL or of a path with a query.
func withoutOrigin(v []byte) []byte {
	if i := bytes.Index(v, schemeEnd); i > 0 && bytes.IndexByte(v[:i], '/') < 0 {
		v = v[i+len(schemeEnd):]
		if i := bytes.IndexByte(v, '/'); i >= 0 {
			v = v[i:]
		} else {
			v = nil
		}
	}
	if i := bytes.IndexAny(v, "?#"); i >= 0 {
		v = v[:i]
	}
	return v
}

// Judge says what a target's policies make of the request at hand, and counts it.
func (j *Judge) Judge(s *Set) Decision {
	x := &s.connections
	if j.q.HTTP {
		x = &s.requests
		if s.paths {
			j.view()
		}
	}
	j.found, j.audits = outcome{-1, -1, -1, -1}, 0
	j.search(s, x)
	d, dry := j.unclear(s)
	out := Decision{Denied: j.found.deny >= 0}
	switch {
	case d: // rules that name what is not known were not all found
		out.Denied, out.Unclear = true, true
	case j.found.deny >= 0:
		out.Rule = &s.rules[j.found.deny]
	case j.found.allow >= 0:
		out.Rule = &s.rules[j.found.allow]
	default:
		out.Denied = len(s.allow) > 0
	}
	out.Would = out.Denied && (j.found.deny >= 0 || d || j.found.dryAllow < 0) || j.found.dryDeny >= 0 || dry ||
		len(s.dryAllow) > 0 && j.found.allow < 0 && j.found.dryAllow < 0
	j.count(s, &out)
	return out
}

// unclear reports whether policies of action deny, in force and as dry runs, look at
// what cannot be told of the request.
func (j *Judge) unclear(s *Set) (in, dry bool) {
	var d dims
	if j.q.Unclear {
		d |= 1 << dimIdentity
	}
	if !j.q.Address.IsValid() {
		d |= 1 << dimNetwork
	}
	if j.q.HTTP && s.paths && !j.clear {
		d |= 1 << dimPrefix
	}
	return s.denies&d != 0, s.dryDenies&d != 0
}

func (j *Judge) count(s *Set, d *Decision) {
	switch {
	case d.Denied && d.Rule != nil:
		d.Rule.Counts[j.Loop].Denied.Add(1)
	case d.Denied:
		for _, p := range s.allow {
			p.Counts[j.Loop].Denied.Add(1)
		}
	case d.Rule != nil:
		d.Rule.Counts[j.Loop].Allowed.Add(1)
	}
	if j.found.dryDeny >= 0 {
		s.rules[j.found.dryDeny].Counts[j.Loop].WouldDeny.Add(1)
	}
	if j.found.dryAllow >= 0 {
		s.rules[j.found.dryAllow].Counts[j.Loop].WouldAllow.Add(1)
	} else if j.found.allow < 0 {
		for _, p := range s.dryAllow {
			p.Counts[j.Loop].WouldDeny.Add(1)
		}
	}
	for _, r := range j.audited[:j.audits] {
		s.rules[r].Counts[j.Loop].Audited.Add(1)
	}
}

// search looks at all cases that may match.
func (j *Judge) search(s *Set, x *index) {
	q := j.q
	for _, i := range x.always {
		j.try(s, &x.clauses[i])
	}
	if x.used.has(dimPlain) && (len(q.Client) == 0 || q.Unclear) {
		j.look(s, x, seedOf(dimPlain))
	}
	if x.used.has(dimSite) && len(q.Site) > 0 {
		j.look(s, x, hashBytes(seedOf(dimSite), q.Site))
	}
	if x.used.has(dimPort) {
		j.look(s, x, mix(seedOf(dimPort), uint64(j.port(s))))
	}
	for k := range j.persons {
		id := &j.identities[k]
		if x.used.has(dimNamespace) {
			if ns := id.namespace(); len(ns) > 0 {
				j.look(s, x, hashBytes(seedOf(dimNamespace), ns))
			}
		}
		for _, shape := range x.shapes {
			if key, ok := id.key(shape); ok {
				j.look(s, x, key)
			}
		}
	}
	if x.used.has(dimNetwork) {
		j.networks(s, x)
	}
	if !q.HTTP {
		return
	}
	if x.used.has(dimMethod) {
		for _, m := range j.methods[:min(j.verbs, len(j.methods))] {
			j.look(s, x, hashLower(seedOf(dimMethod), m))
		}
	}
	if x.used.has(dimHost) {
		j.look(s, x, hashBytes(seedOf(dimHost), j.host))
	}
	if x.used.has(dimWildHost) {
		labels := 0
		for i := len(j.host) - 1; i > 0 && labels < x.labels; i-- {
			if j.host[i] == '.' {
				labels++
				j.look(s, x, hashBytes(seedOf(dimWildHost), j.host[i:]))
			}
		}
	}
	if x.used.has(dimPrefix) || x.used.has(dimExact) {
		for k := range j.paths {
			v := &j.views[k]
			j.path(s, x, v.light)
			if v.clear && !bytes.Equal(v.light, v.folded) {
				j.path(s, x, v.folded)
			}
		}
	}
	if len(x.headers) > 0 {
		j.fields(s, x)
	}
}

func (j *Judge) port(s *Set) int {
	if s.Target.Kind == mesh.KindMeshService {
		return j.q.ServicePort
	}
	return j.q.Port
}

func (j *Judge) networks(s *Set, x *index) {
	a := j.q.Address
	if !a.IsValid() {
		return
	}
	a = a.Unmap()
	high, low := words(a)
	if a.Is4() {
		for left := x.networks4; left != 0; left &= left - 1 {
			n := bits.TrailingZeros64(left)
			j.look(s, x, hashNetwork(n, true, 0, low&(^uint64(0)<<(32-n))))
		}
		return
	}
	for word, left := range x.networks6 {
		for ; left != 0; left &= left - 1 {
			n := 64*word + bits.TrailingZeros64(left)
			h, l := high, uint64(0)
			if n <= 64 {
				h &= ^uint64(0) << (64 - n)
			} else {
				l = low & (^uint64(0) << (128 - n))
			}
			j.look(s, x, hashNetwork(n, false, h, l))
		}
	}
}

// path looks up a path and the prefixes of it, each at the end of an element.
func (j *Judge) path(s *Set, x *index, p []byte) {
	if x.used.has(dimExact) && len(p) <= x.exactMax {
		j.look(s, x, hashBytes(seedOf(dimExact), p))
	}
	if !x.used.has(dimPrefix) {
		return
	}
	h, elements := seedOf(dimPrefix), 0
	for i := 0; ; i++ {
		if i == len(p) || p[i] == '/' {
			j.look(s, x, h)
			if elements == x.elements {
				return
			}
			elements++
		}
		if i == len(p) || i == x.prefixMax {
			return
		}
		h = mix(h, uint64(p[i]))
	}
}

func (j *Judge) fields(s *Set, x *index) {
	for i := range j.q.Fields {
		f := &j.q.Fields[i]
		name := hashName(seedOf(dimHeaderName), f.Name)
		if _, ok := x.headers[name]; !ok {
			continue
		}
		j.look(s, x, name)
		h := hashName(seedOf(dimHeader), f.Name)
		j.look(s, x, hashLower(h, f.Value))
		for rest, more := f.Value, bytes.IndexByte(f.Value, ',') >= 0; more; {
			var member []byte
			member, rest, more = bytes.Cut(rest, comma)
			j.look(s, x, hashLower(h, bytes.Trim(member, " \t")))
		}
	}
}

var comma = []byte{','}

func hashLower(h uint64, s []byte) uint64 {
	for _, c := range s {
		h = mix(h, uint64(lower(c)))
	}
	return h
}

func hashName(h uint64, s []byte) uint64 {
	for _, c := range s {
		if c = lower(c); c == '_' {
			c = '-'
		}
		h = mix(h, uint64(c))
	}
	return h
}

func (j *Judge) look(s *Set, x *index, key uint64) {
	at, ok := x.places[key]
	if !ok {
		return
	}
	for _, i := range x.order[at.from : at.from+at.n] {
		j.try(s, &x.clauses[i])
	}
}

// try notes a case that matches.
func (j *Judge) try(s *Set, c *clause) {
	r := &s.rules[c.rule]
	best := &j.found.deny
	strict := false
	switch {
	case r.Action == mesh.ActionAudit:
		if j.isAudited(s, c.rule) || !j.matches(s, c, false) {
			return
		}
		if j.audits < len(j.audited) {
			j.audited[j.audits] = c.rule
			j.audits++
		}
		return
	case r.Action == mesh.ActionAllow && r.DryRun:
		best, strict = &j.found.dryAllow, true
	case r.Action == mesh.ActionAllow:
		best, strict = &j.found.allow, true
	case r.DryRun:
		best = &j.found.dryDeny
	}
	if (*best < 0 || c.rule < *best) && j.matches(s, c, strict) {
		*best = c.rule
	}
}

// isAudited reports whether the rule's policy is counted already.
func (j *Judge) isAudited(s *Set, rule int32) bool {
	for _, r := range j.audited[:j.audits] {
		if s.rules[r].Policy == s.rules[rule].Policy {
			return true
		}
	}
	return false
}

// canonical is a host as hosts of rules are compared: in lower case, without port and
// dots at its end.
func canonical(host, buf []byte) []byte {
	if len(host) > 0 && host[0] == '[' {
		if i := bytes.IndexByte(host, ']'); i >= 0 {
			host = host[:i+1]
		}
	} else if i := bytes.IndexByte(host, ':'); i >= 0 {
		host = host[:i]
	}
	out := buf[:0]
	for _, c := range bytes.TrimRight(host, ".") {
		out = append(out, lower(c))
	}
	return out
}
