package authz

import (
	"bytes"
	"net/netip"
)

// matches compares a case with the request in full. With strict, for action allow,
// all that servers may see must match, else any of it.
func (j *Judge) matches(s *Set, c *clause, strict bool) bool {
	return (c.from == nil || j.comesFrom(c.from, strict)) && (c.to == nil || j.asksFor(s, c.to, strict))
}

func (j *Judge) comesFrom(f *source, strict bool) bool {
	q := j.q
	unclear := q.Unclear && !strict
	if f.unauthenticated && (len(q.Client) > 0 || q.Unclear) && !unclear {
		return false
	}
	if len(f.sites) > 0 && !contains(f.sites, q.Site) {
		return false
	}
	if len(f.identities) > 0 && !unclear && !j.isOneOf(f.identities) {
		return false
	}
	if len(f.namespaces) > 0 && !unclear && !j.isOf(f.namespaces) {
		return false
	}
	return len(f.networks) == 0 || !q.Address.IsValid() && !strict || within(f.networks, q.Address)
}

func (j *Judge) isOneOf(patterns []pattern) bool {
	for k := range j.persons {
		for i := range patterns {
			if patterns[i].match(&j.identities[k]) {
				return true
			}
		}
	}
	return false
}

func (j *Judge) isOf(namespaces []string) bool {
	for k := range j.persons {
		if ns := j.identities[k].namespace(); len(ns) > 0 && contains(namespaces, ns) {
			return true
		}
	}
	return false
}

func within(networks []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, n := range networks {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

func (j *Judge) asksFor(s *Set, a *access, strict bool) bool {
	if len(a.ports) > 0 {
		if port := j.port(s); port == 0 && strict || port != 0 && !has(a.ports, port) {
			return false
		}
	}
	if !j.q.HTTP {
		return !strict || !a.ofRequests()
	}
	return (len(a.methods) == 0 || j.isMethod(a.methods, strict)) &&
		(len(a.hosts) == 0 || j.isHost(a.hosts)) &&
		(len(a.paths) == 0 || j.isPath(a.paths, strict)) &&
		j.hasAll(a.headers, strict)
}

func (j *Judge) isMethod(methods []string, strict bool) bool {
	if j.verbs > len(j.methods) {
		return !strict
	}
	for _, m := range j.methods[:j.verbs] {
		ok := false
		for _, want := range methods {
			ok = ok || string(m) == want || !strict && equalFold(m, want)
		}
		if ok != strict {
			return ok
		}
	}
	return strict
}

func (j *Judge) isHost(hosts []string) bool {
	for _, h := range hosts {
		if h[0] != '.' {
			if string(j.host) == h {
				return true
			}
		} else if n := len(j.host) - len(h); n > 0 && string(j.host[n:]) == h {
			return true
		}
	}
	return false
}

func (j *Judge) isPath(paths []path, strict bool) bool {
	if !j.clear {
		return !strict
	}
	for k := range j.paths {
		ok := false
		for i := range paths {
			if ok = paths[i].match(&j.views[k], strict); ok {
				break
			}
		}
		if ok != strict {
			return ok
		}
	}
	return strict
}

func (p *path) match(v *seen, strict bool) bool {
	if !strict {
		return p.holds(v.light, p.light) || p.holds(v.folded, p.folded)
	}
	return p.holds(v.plain, p.plain) && p.holds(v.folded, p.folded)
}

func (p *path) holds(have []byte, want string) bool {
	if p.exact {
		return string(have) == want
	}
	return len(have) >= len(want) && string(have[:len(want)]) == want && (len(have) == len(want) || have[len(want)] == '/' || want == "")
}

func (j *Judge) hasAll(headers []header, strict bool) bool {
	for i := range headers {
		if !j.has(&headers[i], strict) {
			return false
		}
	}
	return true
}

// has reports whether the request has a field. With strict it has it once, as its
// name is written, and nothing that could be taken for it.
func (j *Judge) has(h *header, strict bool) bool {
	n := 0
	for i := range j.q.Fields {
		f := &j.q.Fields[i]
		if len(f.Name) != len(h.name) || !sameName(f.Name, h.name) {
			continue
		}
		if !strict {
			if h.value == "" || holds(f.Value, h.folded) {
				return true
			}
			continue
		}
		if h.value == "" {
			if bytes.IndexByte(f.Name, '_') < 0 {
				n++
			}
			continue
		}
		if n++; n > 1 || string(f.Value) != h.value || bytes.IndexByte(f.Name, '_') >= 0 {
			return false
		}
	}
	return n > 0
}

// holds reports whether a field's value, or a member of it as a list, is the one.
func holds(v []byte, folded string) bool {
	if equalFold(v, folded) {
		return true
	}
	for rest, more := v, bytes.IndexByte(v, ',') >= 0; more; {
		var member []byte
		member, rest, more = bytes.Cut(rest, comma)
		if equalFold(bytes.Trim(member, " \t"), folded) {
			return true
		}
	}
	return false
}

func sameName(name []byte, want string) bool {
	for i, c := range name {
		if c = lower(c); c == '_' {
			c = '-'
		}
		if c != want[i] {
			return false
		}
	}
	return true
}

func equalFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		if lower(c) != lower(s[i]) {
			return false
		}
	}
	return true
}

func contains(list []string, b []byte) bool {
	for _, s := range list {
		if s == string(b) {
			return true
		}
	}
	return false
}

func has(list []int, n int) bool {
	for _, x := range list {
		if x == n {
			return true
		}
	}
	return false
}
