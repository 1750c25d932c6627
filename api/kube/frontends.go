package kube

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// DefaultDomain is the DNS domain that clusters have unless they are told otherwise.
const DefaultDomain = "cluster.local"

// maxFrontends bounds the ports of Services at one Gateway: with two listeners each, and
// those that it has itself, 64 at most, they fit into what a Gateway of the mesh may have.
const maxFrontends = 480

// frontend is one port of a Service at one Gateway with [MeshLabel]: a listener for the
// Service's names, so that a request for them is answered by the routes of the Service
// and by none of the Gateway's own (Gateway API, routes whose parent is a Service: what
// no rule matches gets 404).
type frontend struct {
	g       *gateway
	service *Service
	port    *ServicePort
	name    string
	hosts   []string
	// routed says that a route has joined it: only then it is there.
	routed bool
	// redirected says that the Service's own address leads to it, too, by a listener at
	// the port to, which is for every host.
	redirected bool
	to         int
}

// refs are what routes join.
func (f *frontend) refs() []mesh.ParentRef {
	list := []mesh.ParentRef{{Namespace: f.g.Namespace, Name: f.g.Name, SectionName: f.name}}
	if f.redirected {
		list = append(list, mesh.ParentRef{Namespace: f.g.Namespace, Name: f.g.Name, SectionName: f.name + redirectSuffix})
	}
	return list
}

// redirectSuffix is what the name of the listener has more to which a Service's address
// leads.
const redirectSuffix = ".address"

func (f *frontend) listeners() []mesh.Listener {
	l := mesh.Listener{Name: f.name, Hostnames: f.hosts, Port: f.port.Port, Protocol: mesh.ProtocolHTTP,
		AllowedRoutes: &mesh.AllowedRoutes{Namespaces: &mesh.RouteNamespaces{From: mesh.NamespacesAll}}}
	list := []mesh.Listener{l}
	if f.redirected {
		l.Name, l.Hostnames, l.Port = f.name+redirectSuffix, nil, f.to
		list = append(list, l)
	}
	return list
}

// isEntry reports whether requests between services come in at the Gateway.
func (g *gateway) isEntry() bool { return g.Labels[MeshLabel] == "true" }

// entries says which Gateways with [MeshLabel] there are. Without one the routes whose
// parent is a Service are another mesh's.
func (t *translation) entries() {
	for _, g := range t.gateways {
		t.meshed = t.meshed || g.isEntry()
		t.outbound = t.outbound || g.isEntry() && g.serves() && slices.ContainsFunc(g.listeners, func(l *listener) bool {
			return l.mesh != nil && l.Protocol == mesh.ProtocolOutbound
		})
	}
}

// frontends are those of a Service's port, one for each Gateway that has a listener of
// protocol HTTP there.
func (t *translation) frontends(s *Service, p *ServicePort) (list []*frontend) {
	for _, g := range t.gateways {
		if !g.isEntry() || !g.serves() || !slices.ContainsFunc(g.listeners, func(l *listener) bool {
			return l.mesh != nil && l.Protocol == mesh.ProtocolHTTP && l.Port == p.Port
		}) {
			continue
		}
		if i := slices.IndexFunc(g.frontends, func(f *frontend) bool { return f.service == s && f.port == p }); i >= 0 {
			list = append(list, g.frontends[i])
			continue
		}
		f := &frontend{g: g, service: s, port: p, name: fmt.Sprintf("service.%s.%s.%d", s.Namespace, s.Name, p.Port), hosts: t.hosts(g, s, p)}
		for slices.ContainsFunc(g.Listeners, func(l Listener) bool { return strings.HasPrefix(l.Name, f.name) }) {
			f.name = "x" + f.name
		}
		f.redirected = t.redirectable(g, s)
		if len(f.hosts) > 0 && len(g.frontends) < maxFrontends {
			g.frontends = append(g.frontends, f)
			list = append(list, f)
		}
	}
	return list
}

// hosts are the names by which clients call a Service, as the cluster's DNS has them.
// Its name alone counts at Gateways of its own namespace, because a request does not
// say of which its client is. What a listener of the port is named stays that one's.
func (t *translation) hosts(g *gateway, s *Service, p *ServicePort) []string {
	name := s.Name + "." + s.Namespace
	list := []string{name, name + ".svc", name + ".svc." + cmp.Or(t.in.Domain, DefaultDomain)}
	if s.Namespace == g.Namespace {
		list = append(list, s.Name)
	}
	return slices.DeleteFunc(list, func(h string) bool {
		return slices.ContainsFunc(g.Listeners, func(l Listener) bool { return l.Port == p.Port && strings.EqualFold(l.Hostname, h) })
	})
}

// ConsumerRouteUnsupported is the reason for a route whose parent is a Service of
// another namespace. It would be for clients of the route's namespace alone, and a
// request does not say of which namespace its client is.
const ConsumerRouteUnsupported = "ConsumerRouteUnsupported"

// attachService finds the frontends that take a route by a parentRef that names a
// Service, and the MeshServices whose addresses it is for where connections to those are
// redirected.
func (t *translation) attachService(r *Route, ref *ParentRef) ([]*frontend, []mesh.ParentRef, judgement) {
	refuse := func(reason, format string, args ...any) ([]*frontend, []mesh.ParentRef, judgement) {
		return nil, nil, judgement{Accepted, false, reason, fmt.Sprintf(format, args...)}
	}
	s := t.services[cmp.Or(ref.Namespace, r.Namespace)+"/"+ref.Name]
	switch {
	case r.Kind != mesh.KindHTTPRoute && r.Kind != mesh.KindGRPCRoute:
		return refuse("UnsupportedValue", "a %s whose parent is a Service is not served by this version: an HTTPRoute or a GRPCRoute is", r.Kind)
	case cmp.Or(ref.Namespace, r.Namespace) != r.Namespace:
		return refuse(ConsumerRouteUnsupported, "Service %s/%s is in another namespace, and routes for the clients of one namespace are not served by this version: write the route into namespace %s",
			ref.Namespace, ref.Name, ref.Namespace)
	case s == nil:
		return refuse(mesh.ReasonNoMatchingParent, "there is no Service %s/%s", r.Namespace, ref.Name)
	case s.External:
		return refuse("UnsupportedValue", "Service %s is of type ExternalName, which is not followed", s.key())
	case len(r.Hostnames) > 0:
		return refuse("UnsupportedValue", "spec.hostnames: routes of a Service are for the Service's own names: leave them out, or name a Gateway as parent")
	}
	var selected, speak int
	var list []*frontend
	var addressed []mesh.ParentRef
	var without []string
	for i := range s.Ports {
		p := &s.Ports[i]
		if ref.SectionName != "" && ref.SectionName != p.Name || ref.Port != 0 && ref.Port != p.Port {
			continue
		}
		selected++
		if _, ok := p.spoken(r.Kind); !ok {
			continue
		}
		speak++
		at := t.frontends(s, p)
		if t.outbound && len(s.Addresses) > 0 {
			addressed = append(addressed, mesh.ParentRef{Group: mesh.MeshGroup, Kind: mesh.KindMeshService, Namespace: s.Namespace, Name: t.use(s, p, p.natural()), Port: p.Port})
			list = append(list, at...)
		} else if list = append(list, at...); len(at) == 0 {
			without = append(without, itoa(p.Port))
		}
	}
	const missing = "no Gateway with label " + MeshLabel + " has a listener of protocol HTTP, and room, for port "
	switch {
	case selected == 0:
		return refuse(mesh.ReasonNoMatchingParent, "Service %s has no port with that sectionName and port", s.key())
	case speak == 0:
		return refuse(mesh.ReasonUnsupportedProtocol, "Service %s has no port there whose appProtocol a %s can be for", s.key(), r.Kind)
	case len(list)+len(addressed) == 0:
		return refuse(mesh.ReasonNoMatchingParent, missing+"%s", strings.Join(without, ", "))
	}
	message := "joined"
	if len(without) > 0 {
		message += "; " + missing + strings.Join(without, ", ")
	}
	return list, addressed, judgement{Accepted, true, "Accepted", message}
}

// plainServices has the Services with [MeshLabel] answer at the ports for which they
// have no route, by their endpoints.
func (t *translation) plainServices() {
	services := slices.DeleteFunc(slices.Clone(t.in.Services), func(s *Service) bool { return s.Labels[MeshLabel] != "true" || s.External })
	slices.SortFunc(services, func(a, b *Service) int { return cmp.Compare(a.key(), b.key()) })
	for _, s := range services {
		served := false
		for i := range s.Ports {
			p := &s.Ports[i]
			protocol, ok := p.spoken(mesh.KindHTTPRoute)
			if !ok {
				continue
			}
			at := t.frontends(s, p)
			served = served || len(at) > 0
			at = slices.DeleteFunc(at, func(f *frontend) bool { return f.routed })
			if len(at) == 0 {
				continue
			}
			route := &mesh.HTTPRoute{
				Metadata: mesh.ObjectMeta{Name: short(s.Name, "", "plain "+s.key()+":"+itoa(p.Port)), Namespace: s.Namespace},
				Spec: mesh.HTTPRouteSpec{Rules: []mesh.HTTPRouteRule{{BackendRefs: []mesh.BackendRef{
					{Group: mesh.MeshGroup, Kind: mesh.KindMeshService, Name: t.use(s, p, protocol), Port: p.Port},
				}}}},
			}
			for _, f := range at {
				f.routed = true
				route.Spec.ParentRefs = append(route.Spec.ParentRefs, f.refs()...)
			}
			t.out.Objects.HTTPRoutes = append(t.out.Objects.HTTPRoutes, route)
		}
		if !served {
			t.notice("Service %s has label %s, and no Gateway with that label has a listener of protocol HTTP for one of its ports", s.key(), MeshLabel)
		}
	}
}
