package route

import (
	"cmp"
	"slices"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Streams finds the backends that share the connections of one port: of a TCP or UDP
// port by nothing, of a TLS port by the server name that a client asks for.
type Streams struct {
	// ByName says that the server name has to be read.
	ByName bool
	Rules  []*Rule

	hosts hosts[*Rule]
}

// Match finds the rule for a server name, empty where none was asked for: the
// exact name before wildcards, longer wildcards before shorter ones. False means
// that no route serves it.
func (s *Streams) Match(server []byte) (*Rule, bool) {
	var buf [maxHost]byte
	name := canonical(server, &buf)
	if r := s.hosts.exact[string(name)]; r != nil {
		return r, true
	}
	for i, c := range name {
		if c != '.' || i == 0 {
			continue
		}
		if r := s.hosts.wild[string(name[i:])]; r != nil {
			return r, true
		}
	}
	return s.hosts.any, s.hosts.any != nil
}

// streamRoute is what TCPRoute, TLSRoute and UDPRoute have in common.
type streamRoute struct {
	kind      string
	meta      mesh.ObjectMeta
	parents   []mesh.ParentRef
	hostnames []string
	rules     []mesh.StreamRouteRule
}

// BuildTCP compiles the routes that join the TCP listeners of one port of a
// gateway. The first by namespace and name serves it.
func BuildTCP(gateway *mesh.Gateway, listeners []mesh.Listener, objects *mesh.Objects) *Streams {
	all := make([]streamRoute, 0, len(objects.TCPRoutes))
	for _, r := range objects.TCPRoutes {
		all = append(all, streamRoute{mesh.KindTCPRoute, r.Metadata, r.Spec.ParentRefs, nil, r.Spec.Rules})
	}
	return buildStreams(gateway, listeners, objects, all, false)
}

// BuildUDP is [BuildTCP] for UDP listeners and UDPRoutes.
func BuildUDP(gateway *mesh.Gateway, listeners []mesh.Listener, objects *mesh.Objects) *Streams {
	all := make([]streamRoute, 0, len(objects.UDPRoutes))
	for _, r := range objects.UDPRoutes {
		all = append(all, streamRoute{mesh.KindUDPRoute, r.Metadata, r.Spec.ParentRefs, nil, r.Spec.Rules})
	}
	return buildStreams(gateway, listeners, objects, all, false)
}

// BuildTLS compiles the routes that join the TLS listeners of one port of a
// gateway, TCPRoutes where sessions end. Of two for the same name the first by namespace
// and name serves it.
func BuildTLS(gateway *mesh.Gateway, listeners []mesh.Listener, objects *mesh.Objects) *Streams {
	all := make([]streamRoute, 0, len(objects.TLSRoutes))
	for _, r := range objects.TCPRoutes {
		all = append(all, streamRoute{mesh.KindTCPRoute, r.Metadata, r.Spec.ParentRefs, nil, r.Spec.Rules})
	}
	for _, r := range objects.TLSRoutes {
		all = append(all, streamRoute{mesh.KindTLSRoute, r.Metadata, r.Spec.ParentRefs, r.Spec.Hostnames, r.Spec.Rules})
	}
	return buildStreams(gateway, listeners, objects, all, true)
}

func buildStreams(gateway *mesh.Gateway, listeners []mesh.Listener, objects *mesh.Objects, routes []streamRoute, byName bool) *Streams {
	s := &Streams{ByName: byName, hosts: newHosts[*Rule]()}
	slices.SortStableFunc(routes, func(a, b streamRoute) int {
		return cmp.Or(cmp.Compare(a.meta.Namespace, b.meta.Namespace), cmp.Compare(a.meta.Name, b.meta.Name))
	})
	for i := range routes {
		s.add(gateway, listeners, objects, &routes[i])
	}
	return s
}

func (s *Streams) add(gateway *mesh.Gateway, listeners []mesh.Listener, objects *mesh.Objects, r *streamRoute) {
	hostnames := r.hostnames
	if len(hostnames) == 0 {
		hostnames = []string{""}
	}
	rule := streamRule(objects, r)
	used := false
	for i := range listeners {
		l := &listeners[i]
		if r.kind == mesh.KindTCPRoute && l.Protocol == mesh.ProtocolTLS && !l.Terminates() {
			continue
		}
		if !l.Allows(r.kind, r.meta.Namespace, gateway.Metadata.Namespace) || !slices.ContainsFunc(r.parents, func(p mesh.ParentRef) bool {
			return cmp.Or(p.Namespace, r.meta.Namespace) == gateway.Metadata.Namespace && p.Name == gateway.Metadata.Name && p.SelectsFor(l.Protocol, l)
		}) {
			continue
		}
		for _, h := range hostnames {
			pattern, ok := intersect(strings.ToLower(l.Hostname), strings.ToLower(h))
			if ok && s.hosts.get(pattern) == nil {
				s.hosts.set(pattern, rule)
				used = true
			}
		}
	}
	if used {
		rule.Index = len(s.Rules)
		s.Rules = append(s.Rules, rule)
	}
}

func streamRule(objects *mesh.Objects, r *streamRoute) *Rule {
	rule := &Rule{Key: r.meta.Namespace + "/" + r.meta.Name, Kind: r.kind, Namespace: r.meta.Namespace, Route: r.meta.Name}
	if len(r.rules) == 0 {
		return rule
	}
	for _, ref := range r.rules[0].BackendRefs {
		b := Backend{Service: mesh.ServiceKey(cmp.Or(ref.Namespace, r.meta.Namespace) + "/" + ref.Name), Port: ref.Port, Weight: 1}
		if ref.Weight != nil {
			b.Weight = max(*ref.Weight, 0)
		}
		if !objects.PermitsBackend(r.kind, r.meta.Namespace, ref.Namespace, ref.Name) {
			b.Invalid = mesh.NotPermitted(r.kind, r.meta.Namespace, b.Service)
		}
		rule.total += uint64(b.Weight)
		rule.Backends = append(rule.Backends, b)
	}
	return rule
}
