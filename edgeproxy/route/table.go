// Package route compiles the HTTPRoutes of a port into a table that answers, for
// a request, which rule serves it and what is done to it there. It is pure: [Build]
// is called when a snapshot comes, [Table.Match] on every request, where it
// allocates nothing and costs a few hash look-ups whatever the number of routes.
//
// Precedence is the Gateway API's. Of a port's listeners the one with the most
// specific hostname that matches takes the request. Among the rules that match,
// the more specific hostname wins (a name before the longest wildcard before
// none), then an Exact path before the longest RegularExpression before the longest
// PathPrefix (where the Gateway API leaves expressions to the implementation),
// then a match with a method, that with the most headers, that with the most query
// parameters, then the route first in namespace/name order, then the first rule. A
// request that matches no rule of its most specific hostname falls through to the
// next one, because the Gateway API orders matching rules and not hosts.
//
// Paths are compared in the form of [Normalize], configured ones too.
package route

import (
	"bytes"
	"math/bits"
	"regexp"
	"slices"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Table is immutable after Build and may be read concurrently.
type Table struct {
	// Rules are all rules of the table; Rules[i].Index is i.
	Rules []*Rule
	// Port is the listeners', 0 where the kernel chose it.
	Port      int
	listeners hosts[*listener]
}

// listener is the rules of one listener by host pattern.
type listener struct {
	hosts hosts[*paths]
}

// paths is the rules of one host pattern by path.
type paths struct {
	exact       map[string]*place
	expressions []expression      // the longest first
	prefix      map[string]*place // without trailing slash: "" is every path
	// Bounds of the prefixes, so that a long path costs no more look-ups than
	// the deepest prefix needs.
	elements, length int
}

// expression is a regular expression of paths.
type expression struct {
	*regexp.Regexp
	text string
	place
}

// Rule is one rule of an HTTPRoute.
type Rule struct {
	// Key names the rule in counters and explanations: namespace/route/rule, the
	// rule by name or by index. It is the same as long as the rule is.
	Key string
	// Kind is that of the route's document.
	Kind string
	// Index is the rule's place in Table.Rules.
	Index    int
	Backends []Backend
	// Request bounds the whole exchange with the client, BackendRequest one
	// attempt; 0 where the rule does not say, [Unbounded] where it says none.
	Request, BackendRequest time.Duration
	// Filters are for requests that no backend takes, nil for none.
	Filters *Filters
	// Retry is nil where the rule says nothing of it.
	Retry *Retry

	// Namespace and Route name the route's document.
	Namespace, Route string

	total uint64 // of the backends' weights
}

// Mirrors lists the mirrors of the rule and of its backends.
func (r *Rule) Mirrors() []Mirror {
	var all []Mirror
	add := func(f *Filters) {
		for i := range f.Mirrors {
			if !slices.Contains(all, f.Mirrors[i]) {
				all = append(all, f.Mirrors[i])
			}
		}
	}
	if r.Filters != nil {
		add(r.Filters)
	}
	for i := range r.Backends {
		if f := r.Backends[i].Filters; f != nil {
			add(f)
		}
	}
	return all
}

// Retry says when a rule's requests are sent again, beyond what the service's
// policy does.
type Retry struct {
	// Attempts may follow the first, -1 as many as the policy says.
	Attempts int
	// Backoff is the least wait before an attempt.
	Backoff time.Duration

	codes [(maxCode-minCode)/64 + 1]uint64
}

const (
	minCode = 400
	maxCode = 599
	// defaultBackoff is the wait where a rule says none.
	defaultBackoff = 25 * time.Millisecond
	// maxBackoff is how many times the least wait doubling goes.
	maxBackoff = 10
)

func compileRetry(spec *mesh.RouteRetry) *Retry {
	if spec == nil {
		return nil
	}
	r := &Retry{Attempts: -1, Backoff: defaultBackoff}
	if spec.Attempts != nil {
		r.Attempts = *spec.Attempts
	}
	if spec.Backoff != nil {
		r.Backoff = spec.Backoff.D()
	}
	for _, c := range spec.Codes {
		if minCode <= c && c <= maxCode {
			r.codes[(c-minCode)/64] |= 1 << ((c - minCode) % 64)
		}
	}
	return r
}

// On reports whether a response of the status is asked for again.
func (r *Retry) On(status int) bool {
	return minCode <= status && status <= maxCode && r.codes[(status-minCode)/64]&(1<<((status-minCode)%64)) != 0
}

// Wait is how long to wait before the nth retry, from 1: the backoff, doubled each
// time up to ten times as much, and at random up to half of that on top, so that
// requests which failed together do not come back together. random is uniform over
// all uint64.
func (r *Retry) Wait(n int, random uint64) time.Duration {
	d := r.Backoff
	for ; n > 1 && d < maxBackoff*r.Backoff; n-- {
		d *= 2
	}
	d = min(d, maxBackoff*r.Backoff)
	more, _ := bits.Mul64(random, uint64(d/2)+1)
	return d + time.Duration(more)
}

// Unbounded is a timeout that is written as zero.
const Unbounded time.Duration = -1

// Backend is a share of a rule's requests.
type Backend struct {
	Service mesh.ServiceKey
	// Port is the service's port, 0 when the reference names none.
	Port   int
	Weight int
	// Invalid says why the share cannot be served (answer 500), empty otherwise.
	// Whether the service exists is for the caller to find.
	Invalid string
	// Filters are the rule's and then the backend's own, nil for none.
	Filters *Filters
	// Target is the caller's, to keep what it has found for Service and Port.
	Target any
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

// Names reports whether the rule sends anything to a service.
func (r *Rule) Names(service mesh.ServiceKey) bool {
	for i := range r.Backends {
		if r.Backends[i].Service == service && r.Backends[i].Weight > 0 {
			return true
		}
	}
	return false
}

// Match finds the rule for a request; false means no rule matches (answer 404).
func (t *Table) Match(q *Request) (*Rule, bool) {
	var buf [maxHost]byte
	name := canonical(q.Host, &buf)
	l := t.listener(name)
	if l == nil {
		return nil, false
	}
	if r := l.hosts.exact[string(name)].match(q); r != nil {
		return r, true
	}
	if len(l.hosts.wild) > 0 {
		for i, c := range name {
			if c != '.' || i == 0 {
				continue
			}
			if r := l.hosts.wild[string(name[i:])].match(q); r != nil {
				return r, true
			}
		}
	}
	r := l.hosts.any.match(q)
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

func (p *paths) match(q *Request) *Rule {
	if p == nil {
		return nil
	}
	path := q.Path
	if len(p.exact) > 0 {
		if at := p.exact[string(path)]; at != nil {
			if r := at.match(q); r != nil {
				return r
			}
		}
	}
	for i := range p.expressions {
		if e := &p.expressions[i]; e.Match(path) {
			if r := e.match(q); r != nil {
				return r
			}
		}
	}
	for end := p.deepest(path); end >= 0; end = bytes.LastIndexByte(path[:end], '/') {
		if at := p.prefix[string(path[:end])]; at != nil {
			if r := at.match(q); r != nil {
				return r
			}
		}
	}
	return nil
}

// deepest returns where the longest prefix that the path can have ends.
func (p *paths) deepest(path []byte) int {
	end := 0
	for i, elements := 1, 0; i <= len(path) && i <= p.length && elements < p.elements; i++ {
		if path[0] == '/' && (i == len(path) || path[i] == '/') {
			end = i
			elements++
		}
	}
	return end
}
