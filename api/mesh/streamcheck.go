package mesh

import (
	"fmt"
	"slices"
)

// defaultRefs fills in the namespaces that references leave out.
func defaultRefs(namespace string, parents []ParentRef, rules []StreamRouteRule) {
	for i := range parents {
		if parents[i].Namespace == "" {
			parents[i].Namespace = namespace
		}
	}
	for i := range rules {
		for j := range rules[i].BackendRefs {
			if b := &rules[i].BackendRefs[j]; b.Namespace == "" {
				b.Namespace = namespace
			}
		}
	}
}

// SelectsFor reports whether the reference joins the listener as the parent of a
// route for the listener protocol; see [ParentRef.Selects]. What comes out of a TLS
// session that ends at a listener is TCP.
func (p *ParentRef) SelectsFor(protocol string, l *Listener) bool {
	serves := l.Protocol == protocol || protocol == ProtocolTCP && l.Protocol == ProtocolTLS && l.Terminates()
	return serves && (p.SectionName == "" || p.SectionName == l.Name) && (p.Port == 0 || p.Port == l.Port)
}

// streamRoutes checks the routes for connections.
func (c *checker) streamRoutes() {
	for _, r := range c.o.TCPRoutes {
		c.streamRoute(KindTCPRoute, ProtocolTCP, PortTCP, r.Metadata, r.Spec.ParentRefs, nil, r.Spec.Rules)
	}
	for _, r := range c.o.TLSRoutes {
		c.streamRoute(KindTLSRoute, ProtocolTLS, PortTCP, r.Metadata, r.Spec.ParentRefs, r.Spec.Hostnames, r.Spec.Rules)
	}
	for _, r := range c.o.UDPRoutes {
		c.streamRoute(KindUDPRoute, ProtocolUDP, PortUDP, r.Metadata, r.Spec.ParentRefs, nil, r.Spec.Rules)
	}
}

func (c *checker) streamRoute(kind, protocol, port string, m ObjectMeta, parents []ParentRef, hostnames []string, rules []StreamRouteRule) {
	for i, p := range parents {
		path := fmt.Sprintf("spec.parentRefs[%d]", i)
		if p.Kind == KindMeshService {
			c.add(kind, m, path, ReasonNoMatchingParent, "a %s whose parent is a MeshService is not served: connections to its ports of protocol tcp go to its endpoints; only an HTTPRoute or a GRPCRoute can have one", kind)
			continue
		}
		g := c.gateways[p.Namespace+"/"+p.Name]
		if g == nil {
			c.add(kind, m, path, ReasonNoMatchingParent, "there is no Gateway %s/%s%s", p.Namespace, p.Name, c.perhaps(p.Name, c.gateways))
			continue
		}
		joined, allowed, hosts := false, false, false
		for j := range g.Spec.Listeners {
			l := &g.Spec.Listeners[j]
			if !p.SelectsFor(protocol, l) {
				continue
			}
			joined = true
			if l.Allows(kind, m.Namespace, p.Namespace) {
				allowed = true
				hosts = hosts || len(hostnames) == 0 || slices.ContainsFunc(hostnames, func(h string) bool { return HostnamesOverlap(h, l.Hostname) })
			}
		}
		switch {
		case !joined:
			c.add(kind, m, path, ReasonNoMatchingParent, "Gateway %s/%s has no %s listener%s", p.Namespace, p.Name, protocol, p.wanted())
		case !allowed:
			c.add(kind, m, path, ReasonNotAllowedByListeners, notAllowed, p.Namespace, p.Name, kind, m.Namespace)
		case !hosts:
			c.add(kind, m, path, ReasonNoMatchingListenerHostname, "no listener of Gateway %s/%s has a hostname that overlaps with the route's", p.Namespace, p.Name)
		}
	}
	for i, rule := range rules {
		for j, b := range rule.BackendRefs {
			c.backend(kind, m, fmt.Sprintf("spec.rules[%d].backendRefs[%d]", i, j), b.Namespace, b.Name, b.Port, port)
		}
	}
}
