// Package route compiles the HTTPRoutes of a port into a table that answers, for
// a host and a path, which rule serves the request. It is pure: [Build] is called
// when a snapshot comes, [Table.Match] on every request, where it allocates
// nothing and costs a few hash look-ups whatever the number of routes.
//
// Precedence is the Gateway API's. Of a port's listeners the one with the most
// specific hostname that matches takes the request. Among the rules that match,
// the more specific hostname wins (a name before the longest wildcard before
// none), then an Exact path before the longest PathPrefix, then the route first
// in namespace/name order, then the first rule. A request that matches no rule of
// its most specific hostname falls through to the next one, because the Gateway
// API orders matching rules and not hosts.
//
// Paths are compared in the form of [Normalize], configured ones too.
package route

import (
	"math/bits"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Table is immutable after Build and may be read concurrently.
type Table struct {
	// Rules are all rules of the table; Rules[i].Index is i.
	Rules     []*Rule
	listeners hosts[*listener]
}

// listener is the rules of one listener by host pattern.
type listener struct {
	hosts hosts[*paths]
}

// paths is the rules of one host pattern by path.
type paths struct {
	exact  map[string]*Rule
	prefix map[string]*Rule // without trailing slash: "" is every path
	// Bounds of the prefixes, so that a long path costs no more look-ups than
	// the deepest prefix needs.
	elements, length int
}

// Rule is one rule of an HTTPRoute.
type Rule struct {
	// Key names the rule in counters and explanations: namespace/route/rule, the
	// rule by name or by index. It is the same as long as the rule is.
	Key string
	// Index is the rule's place in Table.Rules.
	Index    int
	Backends []Backend
	// Request bounds the whole exchange with the client, BackendRequest one
	// attempt; 0 means no bound here.
	Request, BackendRequest time.Duration

	total uint64 // of the backends' weights
}

// Backend is a share of a rule's requests.
type Backend struct {
	Service mesh.ServiceKey
	// Port is the service's port, 0 when the reference names none.
	Port   int
	Weight int
	// Invalid says why the share cannot be served (answer 500), empty otherwise.
	// Whether the service exists is for the caller to find.
	Invalid string
}

// Pick chooses a backend by weight; random is uniform over all uint64. It returns
// nil when the rule has no backend that takes requests (answer 500).
func (r *Rule) Pick(random uint64) *Backend {
	at, _ := bits.Mul64(random, r.total)
	for i := range r.Backends {
		w := uint64(r.Backends[i].Weight)
		if at < w {
			return &r.Backends[i]
		}
		at -= w
	}
	return nil
}

// Match finds the rule for a Host field's value (with or without port) and a path
// that Normalize made; false means no rule matches (answer 404).
func (t *Table) Match(host, path []byte) (*Rule, bool) {
	var buf [maxHost]byte
	name := canonical(host, &buf)
	l := t.listener(name)
	if l == nil {
		return nil, false
	}
	if r := l.hosts.exact[string(name)].match(path); r != nil {
		return r, true
	}
	if len(l.hosts.wild) > 0 {
		for i, c := range name {
			if c != '.' || i == 0 {
				continue
			}
			if r := l.hosts.wild[string(name[i:])].match(path); r != nil {
				return r, true
			}
		}
	}
	r := l.hosts.any.match(path)
	return r, r != nil
}

func (t *Table) listener(name []byte) *listener {
	if l := t.listeners.exact[string(name)]; l != nil {
		return l
	}
	if len(t.listeners.wild) > 0 {
		for i, c := range name {
			if c != '.' || i == 0 {
				continue
			}
			if l := t.listeners.wild[string(name[i:])]; l != nil {
				return l
			}
		}
	}
	return t.listeners.any
}

func (p *paths) match(path []byte) *Rule {
	if p == nil {
		return nil
	}
	if len(p.exact) > 0 {
		if r := p.exact[string(path)]; r != nil {
			return r
		}
	}
	best := p.prefix[""]
	elements := 0
	for i := 1; i <= len(path) && i <= p.length && elements < p.elements; i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		elements++
		if r := p.prefix[string(path[:i])]; r != nil {
			best = r
		}
	}
	return best
}
