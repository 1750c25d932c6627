package view

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/authz"
	"github.com/meridian-mesh/meridian/edgeproxy/route"
)

// ParseAddress reads an address as X-Forwarded-For has them, with or without a port.
func ParseAddress(b []byte) (netip.Addr, bool) { return parseNode(b) }

// ServicePort is the port of the service that a reference means, 0 where that is not
// known: it names none and there are several.
func (s *Service) ServicePort(port int) int {
	if port == 0 && len(s.ports) == 1 {
		for only := range s.ports {
			return only
		}
	}
	return port
}

// authorize compiles the policies. What is not compiled must not be served: it would
// be open to everybody.
func (b *builder) authorize(counts *authz.Registry) error {
	var err error
	b.view.Policies, err = authz.Compile(&b.snap.Objects, counts)
	return err
}

// guards are the policies of a socket: those of the site, of its gateway, and of its
// listener.
func (b *builder) guards(g *mesh.Gateway, s *Socket) error {
	p := b.view.Policies
	gateway := authz.Target{Kind: mesh.KindGateway, Namespace: g.Metadata.Namespace, Name: g.Metadata.Name}
	targets := []authz.Target{{}, gateway}
	for _, name := range p.Listeners(g.Metadata.Namespace, g.Metadata.Name) {
		if !slices.Contains(s.Listeners, name) {
			continue
		}
		if b.shared(g, s, name) {
			return fmt.Errorf("AuthorizationPolicy for listener %s of Gateway %s: it shares its port with %d others, and a policy cannot be for one of them: name the whole Gateway, or its routes", name, s.Gateway, len(s.Listeners)-1)
		}
		section := gateway
		section.Section = name
		targets = append(targets, section)
	}
	for _, t := range targets {
		if set := p.Of(t); set != nil {
			s.Guards = append(s.Guards, set)
		}
	}
	if p.Routes {
		s.policies = p
	}
	return nil
}

// shared reports whether a policy cannot be for the listener, because of others at its
// port. Those that have Hostnames are no hindrance: a bridge adds them to a listener for
// services, and the policy is for them too.
func (b *builder) shared(g *mesh.Gateway, s *Socket, name string) bool {
	for _, l := range g.Spec.Listeners {
		if !slices.Contains(s.Listeners, l.Name) {
			continue
		}
		if l.Name == name && len(l.Hostnames) > 0 || l.Name != name && len(l.Hostnames) == 0 {
			return len(s.Listeners) > 1
		}
	}
	return false
}

// Guard is the policies of a route, nil without any. The rule may be of a table before
// this one.
func (s *Socket) Guard(r *route.Rule) *authz.Set {
	if s.policies == nil || r == nil {
		return nil
	}
	return s.policies.Of(authz.Target{Kind: r.Kind, Namespace: r.Namespace, Name: r.Route})
}
