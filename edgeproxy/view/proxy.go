package view

import (
	"net/netip"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// balancers finds who begins connections to a port with a PROXY header. The
// listeners of a port share its connections, so any of them may say so.
func (b *builder) balancers(g *mesh.Gateway, listeners []mesh.Listener) (from []netip.Prefix) {
	seen := map[netip.Prefix]bool{}
	for _, l := range listeners {
		for _, s := range mesh.ProxyProtocolFrom(&b.snap.Objects, g.Metadata, l.Name) {
			p, err := netip.ParsePrefix(s)
			if err != nil {
				b.problem("Gateway/%s/%s: %q is not a network, nobody is trusted by it", g.Metadata.Namespace, g.Metadata.Name, s)
				continue
			}
			if !seen[p] {
				seen[p] = true
				from = append(from, p)
			}
		}
	}
	return from
}

// sendProxy is the version of the PROXY header that a service's TCP endpoints get.
func (b *builder) sendProxy(key mesh.ServiceKey) int {
	switch p := mesh.EffectivePolicy(&b.snap.Objects, key).SendProxyProtocol; {
	case p == nil:
		return 0
	case p.Version == mesh.ProxyV1:
		return 1
	}
	return 2
}
