package route

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// BuildService compiles the routes whose parent is a port of the service, for requests
// to its own address. Their hostnames are not looked at: what comes there is for the
// service. Without any route all requests are for the service itself (Gateway API, GAMMA).
func BuildService(s *mesh.MeshService, port int, objects *mesh.Objects) (*Table, []Fault) {
	b := newBuilder(&mesh.Gateway{Metadata: s.Metadata}, []mesh.Listener{{Port: port, Protocol: mesh.ProtocolHTTP}}, objects)
	b.service = true
	b.all(slices.DeleteFunc(slices.Clone(objects.RequestRoutes()), func(r *mesh.HTTPRoute) bool { return !b.joins(r, &b.listeners[0]) }))
	if len(b.table.Rules) == 0 && len(b.faults) == 0 {
		b.all([]*mesh.HTTPRoute{itself(s, port)})
	}
	return b.table, b.faults
}

// itself is a route to the port for all that comes to it. No route of a document has its
// name.
func itself(s *mesh.MeshService, port int) *mesh.HTTPRoute {
	return &mesh.HTTPRoute{
		Metadata: mesh.ObjectMeta{Namespace: s.Metadata.Namespace, Name: s.Metadata.Name + ":" + strconv.Itoa(port)},
		Spec: mesh.HTTPRouteSpec{
			ParentRefs: []mesh.ParentRef{{Group: mesh.MeshGroup, Kind: mesh.KindMeshService, Name: s.Metadata.Name}},
			Rules: []mesh.HTTPRouteRule{{BackendRefs: []mesh.BackendRef{
				{Group: mesh.MeshGroup, Kind: mesh.KindMeshService, Namespace: s.Metadata.Namespace, Name: s.Metadata.Name, Port: port},
			}}},
		},
	}
}

// isParent reports whether the reference is to the service whose requests are routed.
func (b *builder) isParent(r *mesh.HTTPRoute, p *mesh.ParentRef, port int) bool {
	s := b.gateway.Metadata
	return p.Group == mesh.MeshGroup && p.Kind == mesh.KindMeshService &&
		cmp.Or(p.Namespace, r.Metadata.Namespace) == s.Namespace && p.Name == s.Name && cmp.Or(p.Port, port) == port
}

// BuildServiceTCP sends all connections to the service's port to its endpoints.
func BuildServiceTCP(s *mesh.MeshService, port int) *Streams {
	rule := &Rule{
		Key: string(s.Key()) + ":" + strconv.Itoa(port), Namespace: s.Metadata.Namespace,
		Backends: []Backend{{Service: s.Key(), Port: port, Weight: 1}}, total: 1,
	}
	out := &Streams{Rules: []*Rule{rule}, hosts: newHosts[*Rule]()}
	out.hosts.set("", rule)
	return out
}
