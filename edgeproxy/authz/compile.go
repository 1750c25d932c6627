package authz

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/route"
)

// Bounds of one target's compiled rules, beyond which a configuration is refused.
const (
	maxCases = 1 << 18
	maxKeys  = 1 << 21
)

// Target is what policies protect. The zero Target is all of the site.
type Target struct {
	Kind, Namespace, Name string
	// Section is a listener of a Gateway, empty for all of it.
	Section string
}

// String is how people name it.
func (t Target) String() string {
	if t == (Target{}) {
		return "the site"
	}
	s := t.Kind + "/" + t.Namespace + "/" + t.Name
	if t.Section != "" {
		s += " listener " + t.Section
	}
	return s
}

// Policies are those of a snapshot, compiled.
type Policies struct {
	All []*Policy
	// Routes says that some are for routes.
	Routes bool

	sets map[Target]*Set
}

// Of is the set of a target, nil where no policy names it.
func (p *Policies) Of(t Target) *Set {
	if p == nil {
		return nil
	}
	return p.sets[t]
}

// Listeners lists the listeners of a gateway that policies name by themselves.
func (p *Policies) Listeners(namespace, gateway string) []string {
	var names []string
	for t := range p.sets {
		if t.Kind == mesh.KindGateway && t.Namespace == namespace && t.Name == gateway && t.Section != "" {
			names = append(names, t.Section)
		}
	}
	slices.Sort(names)
	return names
}

// Set is the policies of one target. It is immutable and may be read concurrently.
type Set struct {
	Target Target
	// policies of action allow, in force and as dry runs.
	allow, dryAllow []*Policy
	rules           []Rule
	requests        index
	connections     index
	denies          dims // what rules of action deny look at, in force and as dry runs
	dryDenies       dims
	paths           bool // some rule names paths, so that they are folded
}

// Compile compiles the policies of the objects. Of a policy that cannot be compiled it
// says why, and then nothing of the objects must be served.
func Compile(o *mesh.Objects, counts *Registry) (*Policies, error) {
	out := &Policies{sets: map[Target]*Set{}}
	sorted := slices.SortedStableFunc(slices.Values(o.AuthorizationPolicies), func(a, b *mesh.AuthorizationPolicy) int {
		return cmp.Or(cmp.Compare(a.Metadata.Namespace, b.Metadata.Namespace), cmp.Compare(a.Metadata.Name, b.Metadata.Name))
	})
	builders := map[Target]*builder{}
	for _, m := range sorted {
		key := mesh.Key{Kind: mesh.KindAuthorizationPolicy, Namespace: m.Metadata.Namespace, Name: m.Metadata.Name}
		p := &Policy{Key: key, Action: m.Spec.Action, DryRun: m.Spec.DryRun, Counts: counts.counts(key)}
		out.All = append(out.All, p)
		rules, err := compileRules(p, m)
		if err != nil {
			return nil, err
		}
		for _, t := range targetsOf(m) {
			out.Routes = out.Routes || mesh.IsRoute(t.Kind)
			b := builders[t]
			if b == nil {
				b = &builder{set: &Set{Target: t}}
				builders[t] = b
				out.sets[t] = b.set
			}
			b.add(p, rules)
		}
	}
	for _, b := range builders {
		if err := b.finish(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func targetsOf(m *mesh.AuthorizationPolicy) []Target {
	if len(m.Spec.TargetRefs) == 0 {
		return []Target{{}}
	}
	var ts []Target
	for _, r := range m.Spec.TargetRefs {
		t := Target{Kind: r.Kind, Namespace: m.Metadata.Namespace, Name: r.Name, Section: r.SectionName}
		if !slices.Contains(ts, t) {
			ts = append(ts, t)
		}
	}
	return ts
}

// compiledRule is a rule before it is known for which target.
type compiledRule struct {
	rule Rule
	from []*source // nil for anybody
	to   []*access // nil for anything
}

func compileRules(p *Policy, m *mesh.AuthorizationPolicy) ([]compiledRule, error) {
	if p.Action != mesh.ActionAllow && p.Action != mesh.ActionDeny && p.Action != mesh.ActionAudit {
		return nil, fmt.Errorf("%s: spec.action: %q is not known to this build: upgrade it", p.Key, p.Action)
	}
	out := make([]compiledRule, 0, len(m.Spec.Rules))
	for i := range m.Spec.Rules {
		r := &m.Spec.Rules[i]
		name := r.Title(i)
		c := compiledRule{rule: Rule{p, name, "rbac_access_denied_matched_policy[" + p.Namespace + "/" + p.Name + "/" + name + "]"}}
		fail := func(list string, k int, err error) error {
			return fmt.Errorf("%s: spec.rules[%d].%s[%d]: %w", p.Key, i, list, k, err)
		}
		for k := range r.From {
			s, err := compileSource(&r.From[k])
			if err != nil {
				return nil, fail("from", k, err)
			}
			c.from = append(c.from, s)
		}
		for k := range r.To {
			a, err := compileAccess(&r.To[k])
			if err != nil {
				return nil, fail("to", k, err)
			}
			c.to = append(c.to, a)
		}
		out = append(out, c)
	}
	return out, nil
}

// source is a compiled [mesh.AuthorizationSource].
type source struct {
	identities      []pattern
	sites           []string
	namespaces      []string
	networks        []netip.Prefix
	unauthenticated bool
}

// access is a compiled [mesh.AuthorizationAccess].
type access struct {
	ports   []int
	methods []string
	hosts   []string // of wildcards without the asterisk: .example.com
	paths   []path
	headers []header
}

func (a *access) ofRequests() bool {
	return len(a.methods)+len(a.hosts)+len(a.paths)+len(a.headers) > 0
}

// path is an exact path or a prefix, which has no slash at its end. light and folded
// are what [lighten] and [fold] make of it.
type path struct {
	exact         bool
	plain         string
	light, folded string
}

// header is a field's name and value in lower case, and the value as it is written.
type header struct{ name, value, folded string }

func compileSource(m *mesh.AuthorizationSource) (*source, error) {
	s := &source{sites: m.Sites, namespaces: m.Namespaces, unauthenticated: m.Unauthenticated}
	for _, text := range m.Identities {
		p, err := parsePattern(text)
		if err != nil {
			return nil, err
		}
		s.identities = append(s.identities, p)
	}
	for _, text := range m.Sources {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not a network: %w", text, err)
		}
		if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 { // as clients' addresses are compared
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		s.networks = append(s.networks, p.Masked())
	}
	if len(s.identities)+len(s.sites)+len(s.namespaces)+len(s.networks) == 0 && !s.unauthenticated {
		return nil, fmt.Errorf("says nobody this build knows of: upgrade it, or leave from out for anybody")
	}
	return s, nil
}

func compileAccess(m *mesh.AuthorizationAccess) (*access, error) {
	a := &access{ports: m.Ports, methods: m.Methods}
	for _, h := range m.Hosts {
		a.hosts = append(a.hosts, strings.ToLower(strings.TrimPrefix(h, "*")))
	}
	for _, p := range m.Paths {
		normal, _, ok := route.Normalize([]byte(p.Value), nil)
		if !ok || strings.ContainsAny(p.Value, "?#") {
			return nil, fmt.Errorf("path %q cannot be in a request", p.Value)
		}
		x := path{exact: p.Type == mesh.PathExact, plain: string(normal)}
		if p.Type != mesh.PathExact && p.Type != mesh.PathPrefix && p.Type != "" {
			return nil, fmt.Errorf("path of type %q is not known to this build: upgrade it", p.Type)
		}
		if !x.exact {
			x.plain = strings.TrimRight(x.plain, "/")
		}
		folded, clear := fold(normal, nil)
		if !clear {
			return nil, fmt.Errorf("path %q means different things to different servers: write it without escapes", p.Value)
		}
		x.light, x.folded = string(lighten(normal, nil)), string(folded)
		a.paths = append(a.paths, x)
	}
	for _, h := range m.Headers {
		a.headers = append(a.headers, header{strings.ReplaceAll(strings.ToLower(h.Name), "_", "-"), h.Value, strings.ToLower(h.Value)})
	}
	if len(a.ports) == 0 && !a.ofRequests() {
		return nil, fmt.Errorf("says nothing this build knows of: upgrade it, or leave to out for anything")
	}
	return a, nil
}
