package mesh

import (
	"fmt"
	"strings"
)

// KindAuthorizationPolicy is the kind of [AuthorizationPolicy].
const KindAuthorizationPolicy = "AuthorizationPolicy"

// AuthorizationPolicy says who may call what. A target that has policies of action
// allow takes only what one of them allows; one of action deny refuses whatever
// else allows it. What several targets of a request say must all let it pass.
// edgeproxy/authz decides.
type AuthorizationPolicy struct {
	TypeMeta
	Metadata ObjectMeta              `json:"metadata"`
	Spec     AuthorizationPolicySpec `json:"spec"`
}

// Actions of an [AuthorizationPolicy].
const (
	ActionAllow = "allow"
	ActionDeny  = "deny"
	ActionAudit = "audit" // counts and logs, decides nothing
)

// AuthorizationPolicySpec is the content of an AuthorizationPolicy.
type AuthorizationPolicySpec struct {
	// TargetRefs are what it protects; none is all that comes into the site.
	TargetRefs []AuthorizationTargetRef `json:"targetRefs,omitempty"`
	Action     string                   `json:"action"`
	// DryRun counts what the policy would decide and decides nothing.
	DryRun bool `json:"dryRun,omitempty"`
	// Rules are alternatives. With action allow and none, nobody is allowed.
	Rules []AuthorizationRule `json:"rules,omitempty"`
}

// AuthorizationTargetRef names a MeshService, a Gateway or a route of the policy's
// namespace.
type AuthorizationTargetRef struct {
	Group string `json:"group,omitempty"`
	Kind  string `json:"kind"`
	Name  string `json:"name"`
	// SectionName names a listener of a Gateway; empty means all.
	SectionName string `json:"sectionName,omitempty"`
}

// AuthorizationRule matches what comes from one of From and asks for one of To; an
// empty list is anybody and anything.
type AuthorizationRule struct {
	// Name is for logs and explanations; without one it is the rule's index.
	Name string                `json:"name,omitempty"`
	From []AuthorizationSource `json:"from,omitempty"`
	To   []AuthorizationAccess `json:"to,omitempty"`
}

// AuthorizationSource is who asks. Of each list that is there one item must match. A
// client without a certificate has no identity, and nothing that needs one matches it.
type AuthorizationSource struct {
	// Identities are patterns of the identity of the client or of the proxy that
	// handed its request over: a URI in which an asterisk stands for one segment, as
	// the last one for all that follow.
	Identities []string `json:"identities,omitempty"`
	// Sites are those of the proxies that handed requests over, by their certificates.
	Sites []string `json:"sites,omitempty"`
	// Namespaces are what follows /ns/ in an identity.
	Namespaces []string `json:"namespaces,omitempty"`
	// Sources are networks of the client's address.
	Sources []string `json:"sources,omitempty"`
	// Unauthenticated are clients that have no identity.
	Unauthenticated bool `json:"unauthenticated,omitempty"`
}

// AuthorizationAccess is what is asked for. Of each list that is there one item must
// match, of Headers all. Only Ports can be told of a connection that is passed on whole.
type AuthorizationAccess struct {
	// Ports are the service's for targets of kind MeshService, else the listener's.
	Ports   []int                 `json:"ports,omitempty"`
	Methods []string              `json:"methods,omitempty"`
	Hosts   []string              `json:"hosts,omitempty"`
	Paths   []AuthorizationPath   `json:"paths,omitempty"`
	Headers []AuthorizationHeader `json:"headers,omitempty"`
}

// AuthorizationPath is a path, or the beginning of paths in whole elements.
type AuthorizationPath struct {
	Type  string `json:"type,omitempty"`
	Value string `json:"value"`
}

// AuthorizationHeader is a field of a request and what it holds.
type AuthorizationHeader struct {
	Name string `json:"name"`
	// Value is the whole value; empty is any.
	Value string `json:"value,omitempty"`
}

// Title is how a rule is called: its name, or its index in the policy.
func (r *AuthorizationRule) Title(index int) string {
	if r.Name != "" {
		return r.Name
	}
	return fmt.Sprint(index)
}

// OfRequests reports whether it asks for what only requests have.
func (a *AuthorizationAccess) OfRequests() bool {
	return len(a.Methods)+len(a.Hosts)+len(a.Paths)+len(a.Headers) > 0
}

// maxAuthorizationCases bounds the combinations of From and To in one policy, each
// of which is a case of its own when it is compiled.
const maxAuthorizationCases = 65536

func authorizationRelations(s *AuthorizationPolicySpec, fault faultFunc) {
	if len(s.Rules) == 0 && s.Action != ActionAllow {
		fault("rules", "are missing", "a policy of action "+s.Action+" needs some; - {} matches everything")
	}
	cases := 0
	named := map[string]int{}
	for i := range s.Rules {
		r := &s.Rules[i]
		cases += max(1, len(r.From)) * max(1, len(r.To))
		if first, twice := named[r.Name]; twice && r.Name != "" {
			fault(fmt.Sprintf("rules[%d]", i), fmt.Sprintf("has the name of rules[%d], %s", first, r.Name), "")
		} else {
			named[r.Name] = i
		}
	}
	if cases > maxAuthorizationCases {
		fault("rules", fmt.Sprintf("have %d combinations of from and to, at most %d are allowed", cases, maxAuthorizationCases), "split the policy, or write lists inside of one from or to")
	}
}

func authorizationSourceRelations(s *AuthorizationSource, fault faultFunc) {
	if len(s.Identities)+len(s.Sites)+len(s.Namespaces)+len(s.Sources) == 0 && !s.Unauthenticated {
		fault("", "says nobody", "leave from out for anybody")
	}
}

func authorizationAccessRelations(a *AuthorizationAccess, fault faultFunc) {
	if len(a.Ports) == 0 && !a.OfRequests() {
		fault("", "says nothing", "leave to out for anything")
	}
}

func authorizationTargetRelations(t *AuthorizationTargetRef, fault faultFunc) {
	if own := t.Kind == KindMeshService; own == (t.Group == GatewayGroup) {
		fault("group", "is not that of kind "+t.Kind, "write group: "+map[bool]string{true: MeshGroup, false: GatewayGroup}[own])
	}
	if t.SectionName != "" && t.Kind != KindGateway {
		fault("sectionName", "is not served for kind "+t.Kind, "name the paths or the port in the rules")
	}
}

// Wildcard stands for a segment of an identity, as the last one for all that follow.
const Wildcard = "*"

func checkIdentityPattern(s string) (message, hint string) {
	const example = "such as spiffe://mesh.meridian.internal/site/north/*, spiffe://*/ns/shop/sa/web"
	scheme, rest, ok := strings.Cut(s, "://")
	switch {
	case len(s) > 2048:
		return fmt.Sprintf("is %d bytes long", len(s)), "at most 2048"
	case !ok || scheme == "" || rest == "" || strings.Trim(scheme, "abcdefghijklmnopqrstuvwxyz") != "":
		return fmt.Sprintf("%q is not a pattern of identities", s), example
	}
	for segment := range strings.SplitSeq(rest, "/") {
		switch {
		case segment == Wildcard:
		case segment == "":
			return fmt.Sprintf("%q has an empty segment", s), example
		case strings.Contains(segment, "*"):
			return fmt.Sprintf("%q: an asterisk stands for a whole segment", s), example
		}
		for i := range len(segment) {
			if c := segment[i]; c <= ' ' || c > '~' || strings.IndexByte(`"\,;`, c) >= 0 {
				return fmt.Sprintf("%q has bytes that no identity has", s), example
			}
		}
	}
	return "", ""
}

func checkMethod(s string) (message, hint string) {
	if !reToken.MatchString(s) || len(s) > 64 {
		return fmt.Sprintf("%q is not a method", s), "such as GET"
	}
	if s != strings.ToUpper(s) {
		return fmt.Sprintf("method %q is not in capitals", s), "write " + strings.ToUpper(s)
	}
	return "", ""
}

// authorization finds targets that there are not, and rules that cannot be judged
// where they are to hold.
func (c *checker) authorization() {
	for _, p := range c.o.AuthorizationPolicies {
		add := func(path, reason, message string, args ...any) {
			c.add(KindAuthorizationPolicy, p.Metadata, path, reason, message, args...)
		}
		for i := range p.Spec.TargetRefs {
			c.authorizationTarget(p, &p.Spec.TargetRefs[i], fmt.Sprintf("spec.targetRefs[%d]", i), add)
		}
	}
}

func (c *checker) authorizationTarget(p *AuthorizationPolicy, t *AuthorizationTargetRef, path string, add func(path, reason, message string, args ...any)) {
	key := p.Metadata.Namespace + "/" + t.Name
	opaque := ""
	switch t.Kind {
	case KindMeshService:
		s := c.services[ServiceKey(key)]
		if s == nil {
			add(path, ReasonTargetNotFound, "there is no MeshService %s%s", key, c.perhaps(t.Name, c.services))
			return
		}
		for _, port := range s.Spec.Ports {
			if port.Protocol == PortTCP || port.Protocol == PortUDP {
				opaque = fmt.Sprintf("port %d of MeshService %s speaks %s", port.Port, key, port.Protocol)
			}
		}
	case KindGateway:
		g := c.gateways[key]
		if g == nil {
			add(path, ReasonTargetNotFound, "there is no Gateway %s%s", key, c.perhaps(t.Name, c.gateways))
			return
		}
		found := t.SectionName == ""
		for i := range g.Spec.Listeners {
			l := &g.Spec.Listeners[i]
			if t.SectionName != "" && l.Name != t.SectionName {
				continue
			}
			found = true
			if l.Protocol == ProtocolTCP || l.Protocol == ProtocolTLS || l.Protocol == ProtocolUDP {
				opaque = fmt.Sprintf("listener %s of Gateway %s is for %s", l.Name, key, l.Protocol)
			}
		}
		if !found {
			add(path+".sectionName", ReasonTargetNotFound, "Gateway %s has no listener %s", key, t.SectionName)
		}
	default:
		if !c.hasRoute(t.Kind, p.Metadata.Namespace, t.Name) {
			add(path, ReasonTargetNotFound, "there is no %s %s", t.Kind, key)
			return
		}
		if t.Kind != KindHTTPRoute && t.Kind != KindGRPCRoute {
			opaque = t.Kind + " " + key + " passes connections on whole"
		}
	}
	if opaque == "" {
		return
	}
	for i := range p.Spec.Rules {
		for j := range p.Spec.Rules[i].To {
			if p.Spec.Rules[i].To[j].OfRequests() {
				what := "is never matched there"
				if p.Spec.Action == ActionDeny {
					what = "refuses everything there"
				}
				add(fmt.Sprintf("spec.rules[%d].to[%d]", i, j), ReasonUnsupportedProtocol, "looks into requests, but %s: what cannot be looked into %s; give connections rules of from and ports in a policy of their own", opaque, what)
				return
			}
		}
	}
}

func (c *checker) hasRoute(kind, namespace, name string) bool {
	want := Key{kind, namespace, name}
	for key := range c.o.All() {
		if key == want {
			return true
		}
	}
	return false
}
