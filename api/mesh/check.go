package mesh

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Reasons of a [Condition]. Those that the Gateway API has keep its names.
const (
	ReasonNoMatchingParent           = "NoMatchingParent"
	ReasonNotAllowedByListeners      = "NotAllowedByListeners"
	ReasonNoMatchingListenerHostname = "NoMatchingListenerHostname"
	ReasonBackendNotFound            = "BackendNotFound"
	ReasonRefNotPermitted            = "RefNotPermitted"
	ReasonPortUnavailable            = "PortUnavailable"
	ReasonHostnameConflict           = "HostnameConflict"
	ReasonProtocolConflict           = "ProtocolConflict"
	ReasonTargetNotFound             = "TargetNotFound"
	ReasonConflicted                 = "Conflicted"
	ReasonUnknownPort                = "UnknownPort"
	ReasonUnsupportedProtocol        = "UnsupportedProtocol"
	ReasonUnknownSite                = "UnknownSite"
	ReasonNoEndpoints                = "NoEndpoints"
	ReasonFilterNotFound             = "FilterNotFound"
	ReasonShadowed                   = "Shadowed"
	ReasonInvalidCertificateRef      = "InvalidCertificateRef"
	ReasonFunctionNotFound           = "FunctionNotFound"
	ReasonUnsupportedFunction        = "UnsupportedFunction"
)

// Condition is something that is wrong between objects that are each valid. It
// refuses nothing: the share of the object that it concerns gets an error
// response, or with [ReasonShadowed] no request, the rest is served.
type Condition struct {
	Object   Key      `json:"object"`
	Path     string   `json:"path,omitempty"`
	Reason   string   `json:"reason"`
	Message  string   `json:"message"`
	Position Position `json:"position,omitzero"`
}

// String prints position: object: path: reason: message.
func (c Condition) String() string {
	parts := []string{c.Position.String(), c.Object.String(), c.Path, c.Reason, c.Message}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ": ")
}

// Check resolves the references between objects and returns what does not hold,
// in reading order. Objects must be valid and have their defaults, as
// [ParseYAML] returns them.
func Check(o *Objects) []Condition {
	c := checker{
		o:        o,
		gateways: map[string]*Gateway{},
		services: map[ServiceKey]*MeshService{},
		sites:    map[string]*Site{},

		responses: map[string]*LocalResponse{},
	}
	for _, r := range o.LocalResponses {
		c.responses[r.Metadata.Namespace+"/"+r.Metadata.Name] = r
	}
	for _, g := range o.Gateways {
		c.gateways[g.Metadata.Namespace+"/"+g.Metadata.Name] = g
	}
	for _, s := range o.Services {
		c.services[s.Key()] = s
	}
	for _, s := range o.Sites {
		c.sites[s.Metadata.Name] = s
	}
	c.listeners()
	for _, r := range o.RequestRoutes() {
		c.route(r)
	}
	c.shadowed()
	c.streamRoutes()
	for _, s := range o.Sites {
		c.site(s)
	}
	for _, s := range o.Services {
		c.service(s)
	}
	c.policies()
	c.fences()
	c.authorization()
	c.peers()
	c.certificates()
	c.chains()
	c.requirements()
	c.redirects()
	return c.found
}

type checker struct {
	o         *Objects
	gateways  map[string]*Gateway // namespace/name
	services  map[ServiceKey]*MeshService
	sites     map[string]*Site
	responses map[string]*LocalResponse // namespace/name
	found     []Condition
}

func (c *checker) add(kind string, m ObjectMeta, path, reason, message string, args ...any) {
	key := Key{kind, m.Namespace, m.Name}
	c.found = append(c.found, Condition{key, path, reason, fmt.Sprintf(message, args...), c.o.Positions[key]})
}

// byName orders objects as ties between them are decided: namespace, then name.
func byName(a, b ObjectMeta) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// listeners finds those that cannot be bound or told apart. Of two the later one
// loses: the later in its Gateway, or the one of the Gateway that comes later by
// namespace and name.
func (c *checker) listeners() {
	type claim struct {
		g *Gateway
		l *Listener
	}
	claims := map[transport][]claim{}
	for _, g := range slices.SortedStableFunc(slices.Values(c.o.Gateways), func(a, b *Gateway) int { return byName(a.Metadata, b.Metadata) }) {
		for i := range g.Spec.Listeners {
			l := &g.Spec.Listeners[i]
			if l.Port == 0 {
				continue
			}
			path := fmt.Sprintf("spec.listeners[%d]", i)
			for _, x := range claims[transportOf(l)] {
				if x.g != g {
					if shareAddress(x.g, g) {
						c.add(KindGateway, g.Metadata, path+".port", ReasonPortUnavailable, "port %d is taken by listener %s of Gateway %s/%s",
							l.Port, x.l.Name, x.g.Metadata.Namespace, x.g.Metadata.Name)
						break
					}
					continue
				}
				if x.l.Protocol != l.Protocol {
					c.add(KindGateway, g.Metadata, path+".protocol", ReasonProtocolConflict, "port %d already serves %s, listener %s", l.Port, x.l.Protocol, x.l.Name)
					break
				}
				if slices.ContainsFunc(l.Hosts(), func(h string) bool { return slices.Contains(x.l.Hosts(), h) }) {
					c.add(KindGateway, g.Metadata, path+".hostname", ReasonHostnameConflict, "listener %s has the same port and hostname", x.l.Name)
					break
				}
			}
			claims[transportOf(l)] = append(claims[transportOf(l)], claim{g, l})
		}
	}
}

// transport is a port of TCP or of UDP, which have nothing to do with each other.
type transport struct {
	port    int
	packets bool
}

func transportOf(l *Listener) transport { return transport{l.Port, l.Protocol == ProtocolUDP} }

func shareAddress(a, b *Gateway) bool {
	if len(a.Spec.Addresses) == 0 || len(b.Spec.Addresses) == 0 {
		return true
	}
	for _, x := range a.Spec.Addresses {
		for _, y := range b.Spec.Addresses {
			if x.Value == y.Value || x.Value == "0.0.0.0" || x.Value == "::" || y.Value == "0.0.0.0" || y.Value == "::" {
				return true
			}
		}
	}
	return false
}

func (c *checker) route(r *HTTPRoute) {
	add := func(path, reason, message string, args ...any) {
		c.add(r.RouteKind(), r.Metadata, path, reason, message, args...)
	}
	for i, p := range r.Spec.ParentRefs {
		path := fmt.Sprintf("spec.parentRefs[%d]", i)
		if p.Kind == KindMeshService {
			c.serviceParent(r, &p, path)
			continue
		}
		g := c.gateways[p.Namespace+"/"+p.Name]
		if g == nil {
			add(path, ReasonNoMatchingParent, "there is no Gateway %s/%s%s", p.Namespace, p.Name, c.perhaps(p.Name, c.gateways))
			continue
		}
		var joined, allowed, hosts bool
		for j := range g.Spec.Listeners {
			l := &g.Spec.Listeners[j]
			if !p.Selects(l) {
				continue
			}
			joined = true
			if l.Allows(r.RouteKind(), r.Metadata.Namespace, p.Namespace) {
				allowed = true
				hosts = hosts || len(r.Spec.Hostnames) == 0 || slices.ContainsFunc(r.Spec.Hostnames, func(h string) bool { return HostnamesOverlap(h, l.Hostname) })
			}
		}
		switch {
		case !joined:
			add(path, ReasonNoMatchingParent, "Gateway %s/%s has no HTTP or HTTPS listener%s", p.Namespace, p.Name, p.wanted())
		case !allowed:
			add(path, ReasonNotAllowedByListeners, notAllowed, p.Namespace, p.Name, r.RouteKind(), r.Metadata.Namespace)
		case !hosts:
			add(path, ReasonNoMatchingListenerHostname, "no listener of Gateway %s/%s has a hostname that overlaps with the route's", p.Namespace, p.Name)
		}
	}
	for i, rule := range r.Spec.Rules {
		c.filters(r, fmt.Sprintf("spec.rules[%d]", i), rule.Filters)
		for j, b := range rule.BackendRefs {
			path := fmt.Sprintf("spec.rules[%d].backendRefs[%d]", i, j)
			c.backend(r.RouteKind(), r.Metadata, path, b.Namespace, b.Name, b.Port, r.speaks())
			c.filters(r, path, b.Filters)
		}
	}
}

// backend checks a reference of a route whose backends have to speak protocol.
func (c *checker) backend(kind string, m ObjectMeta, path, namespace, name string, port int, protocol string) {
	add := func(path, reason, message string, args ...any) {
		c.add(kind, m, path, reason, message, args...)
	}
	key := ServiceKey(namespace + "/" + name)
	s := c.services[key]
	switch {
	case !c.o.PermitsBackend(kind, m.Namespace, namespace, name):
		add(path, ReasonRefNotPermitted, "%s", NotPermitted(kind, m.Namespace, key))
		return
	case s == nil:
		add(path, ReasonBackendNotFound, "there is no MeshService %s%s", key, c.perhaps(name, c.services))
		return
	case port == 0 && len(s.Spec.Ports) > 1:
		add(path+".port", ReasonUnknownPort, "MeshService %s has several ports (%s), name one", key, ports(s))
		return
	}
	for _, p := range s.Spec.Ports {
		if port == 0 || p.Port == port {
			if p.Protocol != protocol && (p.Protocol != PortHTTP2 || protocol != PortHTTP) {
				add(path+".port", ReasonUnsupportedProtocol, "port %d of MeshService %s speaks %s, a backend of %s has to speak %s", p.Port, key, p.Protocol, kind, protocol)
			}
			return
		}
	}
	add(path+".port", ReasonUnknownPort, "MeshService %s has no port %d, it has %s", key, port, ports(s))
}

func (c *checker) filters(r *HTTPRoute, path string, filters []HTTPRouteFilter) {
	for i, f := range filters {
		at := fmt.Sprintf("%s.filters[%d]", path, i)
		if m := f.RequestMirror; m != nil {
			c.backend(r.RouteKind(), r.Metadata, at+".requestMirror.backendRef", m.BackendRef.Namespace, m.BackendRef.Name, m.BackendRef.Port, r.speaks())
		}
		if e := f.ExtensionRef; e != nil {
			if why := c.missingFilter(r.Metadata.Namespace, e); why != "" {
				c.add(r.RouteKind(), r.Metadata, at+".extensionRef", ReasonFilterNotFound, "%s", why)
			}
		}
	}
}

const notAllowed = "no listener of Gateway %s/%s allows %ss of namespace %s (allowedRoutes)"

func ports(s *MeshService) string {
	var list []string
	for _, p := range s.Spec.Ports {
		list = append(list, fmt.Sprint(p.Port))
	}
	return strings.Join(list, ", ")
}

// Selects reports whether the reference joins the listener, which must be of
// the Gateway that it names. Hostnames are not looked at.
func (p *ParentRef) Selects(l *Listener) bool {
	return (l.Protocol == ProtocolHTTP || l.Protocol == ProtocolHTTPS) && (p.SectionName == "" || p.SectionName == l.Name) && (p.Port == 0 || p.Port == l.Port)
}

func (p *ParentRef) wanted() string {
	switch {
	case p.SectionName != "" && p.Port != 0:
		return fmt.Sprintf(" named %s at port %d", p.SectionName, p.Port)
	case p.SectionName != "":
		return " named " + p.SectionName
	case p.Port != 0:
		return fmt.Sprintf(" at port %d", p.Port)
	}
	return ""
}

// ServiceKey is the "namespace/name" of the service that the reference names.
func (b *BackendRef) ServiceKey() ServiceKey { return ServiceKey(b.Namespace + "/" + b.Name) }

// HostnamesOverlap reports whether a host can match both names. Either may be
// empty (every host) or a wildcard: *.example.com stands for one or more labels
// before example.com (Gateway API).
func HostnamesOverlap(a, b string) bool {
	if a == "" || b == "" || a == b {
		return true
	}
	wa, wb := strings.HasPrefix(a, "*."), strings.HasPrefix(b, "*.")
	return wa && strings.HasSuffix(b, a[1:]) || wb && strings.HasSuffix(a, b[1:])
}

// perhaps suggests a name out of a map's keys, with or without namespace.
func (c *checker) perhaps(name string, known any) string {
	var names []string
	switch m := known.(type) {
	case map[string]*Gateway:
		for _, g := range m {
			names = append(names, g.Metadata.Name)
		}
	case map[ServiceKey]*MeshService:
		for _, s := range m {
			names = append(names, s.Metadata.Name)
		}
	case map[string]*LocalResponse:
		for _, r := range m {
			names = append(names, r.Metadata.Name)
		}
	case map[string]*Certificate:
		for _, x := range m {
			names = append(names, x.Metadata.Name)
		}
	case map[string]*Site:
		for n := range m {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	if near := nearest(name, names); near != "" && near != name {
		return ", did you mean " + near + "?"
	}
	return ""
}

func (c *checker) site(s *Site) {
	unknown := func(path, name string) {
		if c.sites[name] == nil {
			c.add(KindSite, s.Metadata, path, ReasonUnknownSite, "there is no Site %s%s", name, c.perhaps(name, c.sites))
		}
	}
	if s.Spec.Parent != "" {
		unknown("spec.parent", s.Spec.Parent)
		up := s
		for range c.sites {
			if up = c.sites[up.Spec.Parent]; up == nil {
				break
			}
			if up == s {
				c.add(KindSite, s.Metadata, "spec.parent", ReasonConflicted, "the site is its own ancestor")
				break
			}
		}
	}
	for i, l := range s.Spec.Links {
		path := fmt.Sprintf("spec.links[%d].to", i)
		if l.To == s.Metadata.Name {
			c.add(KindSite, s.Metadata, path, ReasonConflicted, "the link leads to the site itself")
			continue
		}
		unknown(path, l.To)
	}
}

func (c *checker) service(s *MeshService) {
	for i, e := range s.Spec.Endpoints {
		if e.Site != "" && c.sites[e.Site] == nil {
			c.add(KindMeshService, s.Metadata, fmt.Sprintf("spec.endpoints[%d].site", i), ReasonUnknownSite, "there is no Site %s%s", e.Site, c.perhaps(e.Site, c.sites))
		}
	}
	first := -1
	for i, e := range s.Spec.Endpoints {
		switch {
		case e.Capacity == nil || e.Capacity.Unit == "":
		case first < 0:
			first = i
		case e.Capacity.Unit != s.Spec.Endpoints[first].Capacity.Unit:
			c.add(KindMeshService, s.Metadata, fmt.Sprintf("spec.endpoints[%d].capacity.unit", i), ReasonConflicted, "endpoints[%d] counts %s, which then is the service's unit", first, s.Spec.Endpoints[first].Capacity.Unit)
		}
	}
	if x := s.Spec.Export; x != nil {
		for i, name := range x.Sites {
			if c.sites[name] == nil {
				c.add(KindMeshService, s.Metadata, fmt.Sprintf("spec.export.sites[%d]", i), ReasonUnknownSite, "there is no Site %s%s", name, c.perhaps(name, c.sites))
			}
		}
	}
	switch {
	case len(s.Spec.Endpoints) == 0:
		c.add(KindMeshService, s.Metadata, "spec.endpoints", ReasonNoEndpoints, "the service has no endpoint, requests to it get 503")
	case !slices.ContainsFunc(s.Spec.Endpoints, func(e Endpoint) bool { return e.Weight == nil || *e.Weight > 0 }):
		c.add(KindMeshService, s.Metadata, "spec.endpoints", ReasonNoEndpoints, "every endpoint has weight 0, requests to the service get 503")
	}
}
