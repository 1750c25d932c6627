package view

import (
	"net/netip"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// workloadOf is who serves at an endpoint: the workload that it names, else the
// service itself.
func workloadOf(m *mesh.MeshService, e *mesh.Endpoint) mesh.Workload {
	if e.Workload != nil {
		return *e.Workload
	}
	return mesh.Workload{Namespace: m.Metadata.Namespace, Name: m.Metadata.Name}
}

// workloadAt is who serves at another site, whose proxy picks the endpoint: the
// workload of all its endpoints, and where they are of several the service itself.
func workloadAt(m *mesh.MeshService, site string) (w mesh.Workload) {
	for i := range m.Spec.Endpoints {
		e := &m.Spec.Endpoints[i]
		if e.Site != site {
			continue
		}
		switch is := workloadOf(m, e); {
		case w == (mesh.Workload{}):
			w = is
		case w != is:
			return mesh.Workload{Namespace: m.Metadata.Namespace, Name: m.Metadata.Name}
		}
	}
	return w
}

// machine are the addresses from which every process of this machine calls by default.
var machine = [...]netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

// caller notes whose address it is. One that several workloads have, as on a node's
// own network, is nobody's: a wrong name would be worse than none.
func (b *builder) caller(a netip.Addr, w mesh.Workload) {
	a = a.Unmap()
	if a == machine[0] || a == machine[1] {
		return
	}
	known, taken := b.view.callers[a]
	switch {
	case !taken:
		c := b.callers[w]
		if c == nil {
			c = b.reg.NewCaller(w)
			b.callers[w] = c
		}
		b.view.callers[a] = c
	case known != nil && known.Workload != w:
		b.view.callers[a] = nil
	}
}

// named notes the addresses of a workload that serves nothing.
func (b *builder) named(c *mesh.Caller) {
	for _, text := range c.Spec.Addresses {
		a, err := netip.ParseAddr(text)
		if err != nil {
			b.problem("Caller/%s/%s: address %q is no IP address, who calls from there is not known", c.Metadata.Namespace, c.Metadata.Name, text)
			continue
		}
		b.caller(a, c.Who())
	}
}
