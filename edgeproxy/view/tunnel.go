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

// Of a UDP session the path of an extended CONNECT names it (RFC 9298 2), in the default
// template: the host is name.namespace._udp.
const (
	packetsPath = "/.well-known/masque/udp/"
	labelUDP    = "._udp/"
)

// Tunnel finds what the authority of a CONNECT of another site names, or the path of one to
// connect-udp: a port of a service that is exported to this site.
func (v *View) Tunnel(authority []byte) (Tunnel, bool) {
	t, ok := v.tunnels[string(authority)]
	return t, ok
}

// TunnelTo is how other sites know a port of the service, nil where they do not; 0
// stands for the only port.
func (s *Service) TunnelTo(port int) []byte { return s.tunnels[s.ServicePort(port)] }

// PacketTunnelTo is TunnelTo for UDP sessions, as a path.
func (s *Service) PacketTunnelTo(port int) []byte { return s.packetTunnels[s.ServicePort(port)] }

// exported reports whether other sites may ask a site for a service.
func exported(m *mesh.MeshService, site string) bool {
	x := m.Spec.Export
	return x != nil && x.Scope == mesh.ScopeMesh && (len(x.Sites) == 0 || slices.Contains(x.Sites, site))
}

// tunnelled names the ports of a service that other sites may be asked for, or ask for.
func (b *builder) tunnelled(s *Service, m *mesh.MeshService) {
	x := m.Spec.Export
	if x == nil || x.Scope != mesh.ScopeMesh {
		return
	}
	here := exported(m, b.site)
	for _, p := range m.Spec.Ports {
		if p.Protocol == mesh.PortUDP {
			name := []byte(packetsPath + m.Metadata.Name + "." + m.Metadata.Namespace + labelUDP + strconv.Itoa(p.Port) + "/")
			if s.packetTunnels == nil {
				s.packetTunnels = map[int][]byte{}
			}
			s.packetTunnels[p.Port] = name
			if here {
				b.view.tunnels[string(name)] = Tunnel{s, p.Port}
			}
		}
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
