package view

import (
	"net/netip"
	"slices"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/route"
)

// outbound builds what serves connections that were redirected to a listener, by where
// they were to go: for each address and port of a service a socket that nobody listens
// at.
func (b *builder) outbound(g *mesh.Gateway, listeners []mesh.Listener, at *Socket) error {
	at.Outbound = map[netip.AddrPort]*Socket{}
	for _, m := range b.snap.Objects.Services {
		if len(m.Spec.Addresses) == 0 || b.view.Services[m.Key()] == nil {
			continue
		}
		for _, p := range m.Spec.Ports {
			if p.Protocol == mesh.PortUDP {
				continue
			}
			s, err := b.outboundPort(g, listeners, at, m, &p)
			if err != nil {
				return err
			}
			for _, text := range m.Spec.Addresses {
				a, err := netip.ParseAddr(text)
				if err != nil {
					b.problem("MeshService/%s: address %q is not an IP address, what is redirected from there is not for the service", m.Key(), text)
					continue
				}
				key := netip.AddrPortFrom(a, uint16(p.Port))
				if other := at.Outbound[key]; other != nil {
					b.problem("MeshService/%s: %s is another service's already, which has what is redirected from there", m.Key(), key)
					continue
				}
				one := *s
				one.Key = SocketKey{Addr: a, Port: key.Port()}
				at.Outbound[key] = &one
			}
		}
	}
	return nil
}

// outboundPort builds what a port of a service is served by.
func (b *builder) outboundPort(g *mesh.Gateway, listeners []mesh.Listener, at *Socket, m *mesh.MeshService, p *mesh.ServicePort) (*Socket, error) {
	s := &Socket{Gateway: at.Gateway, Listeners: slices.Clone(at.Listeners), Protocol: mesh.ProtocolHTTP}
	s.Key.Port = uint16(p.Port)
	if p.Protocol == mesh.PortTCP {
		s.Protocol, s.Streams = mesh.ProtocolTCP, route.BuildServiceTCP(m, p.Port)
		return s, b.guards(g, s)
	}
	first := listeners[0].Name
	s.Forwarding = newForwarding(mesh.ForwardingOf(&b.snap.Objects, g.Metadata, first))
	s.Slow = slowClients(mesh.SlowClientsOf(&b.snap.Objects, g.Metadata, first))
	table, faults := route.BuildService(m, p.Port, &b.snap.Objects)
	for _, f := range faults {
		b.problem("%s", f.Error())
	}
	s.Routes = table
	b.backends(table)
	b.chained(table)
	return s, b.guards(g, s)
}
