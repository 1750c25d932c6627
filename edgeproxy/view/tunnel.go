package view

import (
	"slices"
	"strconv"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// Tunnel is a port of a service as another site names it for a whole connection: in
// the authority of a CONNECT, as name.namespace._tcp:port. A host of HTTP has no label
// that begins with an underscore (RFC 1123 2.1, RFC 8552), and what a CONNECT names is
// looked up here and nowhere else.
type Tunnel struct {
	Service *Service
	Port    int
}

const labelTCP = "._tcp:"

// Tunnel finds what the authority of a CONNECT of another site names: a port for whole
// connections of a service that is exported to this site.
func (v *View) Tunnel(authority []byte) (Tunnel, bool) {
	t, ok := v.tunnels[string(authority)]
	return t, ok
}

// TunnelTo is how other sites know a port of the service, nil where they do not; 0
// stands for the only port.
func (s *Service) TunnelTo(port int) []byte { return s.tunnels[s.ServicePort(port)] }

// tunnelled names the ports of a service that other sites may be asked for, or ask for.
func (b *builder) tunnelled(s *Service, m *mesh.MeshService) {
	x := m.Spec.Export
	if x == nil || x.Scope != mesh.ScopeMesh {
		return
	}
	here := len(x.Sites) == 0 || slices.Contains(x.Sites, b.site)
	for _, p := range m.Spec.Ports {
		if p.Protocol != mesh.PortTCP {
			continue
		}
		name := []byte(m.Metadata.Name + "." + m.Metadata.Namespace + labelTCP + strconv.Itoa(p.Port))
		if !stream.ValidAuthority(name) {
			b.problem("MeshService/%s: its name is too long for the authority of a CONNECT (%d bytes): connections to port %d are served at home only", s.Key, len(name), p.Port)
			continue
		}
		if s.tunnels == nil {
			s.tunnels = map[int][]byte{}
		}
		s.tunnels[p.Port] = name
		if here {
			b.view.tunnels[string(name)] = Tunnel{s, p.Port}
		}
	}
}
