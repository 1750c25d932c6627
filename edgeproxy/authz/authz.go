// Package authz decides who may call what, by the AuthorizationPolicies of a mesh. It
// is pure: [Compile] is called when a snapshot comes, [Judge.Judge] for every request
// and connection, where it allocates nothing and costs a few hash look-ups whatever
// the number of rules.
//
// What is judged is what the backend will see: the path after normalisation and
// rewriting, the fields after filters and functions. Where servers read the same bytes
// in different ways, a rule of action deny matches if any of them could see what it
// names, and one of action allow only if all of them must: paths in any case, with
// parameters, encoded once more than they should be; fields written twice, in lists,
// or with an underscore; methods and paths that a field overrides. See [fold].
//
// What a rule asks for and nobody can tell - a path inside of a connection that is
// passed on whole, an identity that cannot be read - counts against the caller: deny
// matches, allow does not.
package authz

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// Caller is who asks.
type Caller struct {
	// Address is the client's.
	Address netip.Addr
	// Peer is the identity of the mesh's proxy that handed the request over, and Site
	// its site; empty for clients of this proxy's own.
	Peer, Site []byte
	// Client is the client's identity, a URI; empty without one.
	Client []byte
	// Unclear says that the client may have an identity that cannot be read.
	Unclear bool
}

// Request is what is asked for.
type Request struct {
	Caller
	// Port is the listener's, ServicePort the service's; 0 is not known.
	Port, ServicePort int
	// HTTP says that it is a request; else it is a connection or a session of which
	// nothing below is known.
	HTTP         bool
	Method, Host []byte
	// Path is normal (package route) and without its query.
	Path   []byte
	Fields []stream.Field
}

// Counts are one loop's counts of what a policy decided, or would if it were not a
// dry run. A default is what a policy of action allow refused by not matching.
type Counts struct {
	Allowed, Denied, Audited, WouldAllow, WouldDeny atomic.Uint64

	_ [24]byte
}

// Policy is a policy in force.
type Policy struct {
	mesh.Key
	Action string
	DryRun bool
	// Counts are by loop.
	Counts []Counts
}

// Rule is one rule of a policy.
type Rule struct {
	*Policy
	Name string
	// Details say it in the access log, in the words of Envoy.
	Details string
}

// String is Policy/namespace/name rule name.
func (r *Rule) String() string { return r.Key.String() + " rule " + r.Name }

// DetailsDefault are the details where no policy allows a request, DetailsUnclear
// where a policy of action deny names paths or callers that cannot be told.
const (
	DetailsDefault = "rbac_access_denied_matched_policy[none]"
	DetailsUnclear = "rbac_access_denied_unclear"
)

// Decision is what the policies of one target say.
type Decision struct {
	Denied bool
	// Rule is the one that denied or allowed; nil where none did.
	Rule *Rule
	// Unclear says that it was denied because what rules name cannot be told.
	Unclear bool
	// Would is the same with dry runs in force.
	Would bool
}

// Details say a refusal in the access log.
func (d *Decision) Details() string {
	switch {
	case d.Unclear:
		return DetailsUnclear
	case d.Rule != nil:
		return d.Rule.Details
	}
	return DetailsDefault
}

// Registry keeps counts by policy across reloads.
type Registry struct {
	loops int
	mu    sync.Mutex
	known map[mesh.Key][]Counts
}

// NewRegistry makes one for a number of loops.
func NewRegistry(loops int) *Registry {
	return &Registry{loops: loops, known: map[mesh.Key][]Counts{}}
}

func (r *Registry) counts(key mesh.Key) []Counts {
	if r == nil {
		return make([]Counts, 1)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.known[key]
	if c == nil {
		c = make([]Counts, r.loops)
		r.known[key] = c
	}
	return c
}

// Retain forgets the counts of policies that are not in force.
func (r *Registry) Retain(p *Policies) {
	used := map[mesh.Key]bool{}
	for _, x := range p.All {
		used[x.Key] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range r.known {
		if !used[key] {
			delete(r.known, key)
		}
	}
}
