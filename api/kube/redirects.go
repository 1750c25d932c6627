package kube

import (
	"cmp"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
)

const (
	managedLabel = "endpointslice.kubernetes.io/managed-by"
	manager      = "gateway-controller." + mesh.MeshGroup
)

// Ports of the listeners to which addresses of Services lead: below those that
// connections go out from and those of NodePorts.
const (
	firstRedirect = 20000
	redirectPorts = 4096
)

// Redirect is an EndpointSlice that has a Service's address lead to a Gateway, so that
// kube-proxy, or what stands for it, brings to the proxies what a pod sends to the
// Service. Only a Service that selects no pods can have one: of others the cluster's own
// controller says where they lead.
type Redirect struct {
	Meta
	Service, Family string // Family is IPv4 or IPv6
	Addresses       []string
	Ports           []SlicePort
	// Changed reports whether the cluster has another one, or none.
	Changed bool
}

// Labels tell the EndpointSlice's Service and who keeps it.
func (r *Redirect) Labels() map[string]string {
	return map[string]string{serviceLabel: r.Service, managedLabel: manager}
}

// redirectable reports whether a Service's address can lead to a Gateway: to the oldest
// with [MeshLabel], from a Service for which nobody else says where it leads. A Gateway
// of one site does not count: the site that writes may be another.
func (t *translation) redirectable(g *gateway, s *Service) bool {
	i := slices.IndexFunc(t.gateways, func(g *gateway) bool { return g.isEntry() && g.serves() && g.Labels[SiteLabel] == "" })
	return i >= 0 && s.Alone && len(t.slices[s.key()]) == 0 && t.gateways[i] == g && slices.ContainsFunc(g.addresses, func(a GatewayAddress) bool { return family(a.Value) != "" })
}

// family is the addressType of an address, empty for one that an EndpointSlice may not
// have.
func family(address string) string {
	switch ip, err := netip.ParseAddr(address); {
	case err != nil || ip.IsLoopback() || ip.IsUnspecified() || ip.IsLinkLocalUnicast() || ip.IsMulticast():
		return ""
	case ip.Is4():
		return "IPv4"
	}
	return "IPv6"
}

// redirects gives the listeners their ports, and makes the EndpointSlices that lead
// there. A port stays as long as its slice is there, so that no two controllers of a
// cluster take different ones.
func (t *translation) redirects() {
	var list []*frontend
	used := map[int]bool{}
	for _, g := range t.gateways {
		for _, f := range g.frontends {
			if f.routed && f.redirected {
				list = append(list, f)
			}
		}
		for _, l := range g.Listeners {
			used[l.Port] = true
		}
	}
	slices.SortFunc(list, func(a, b *frontend) int { return cmp.Compare(a.name, b.name) })
	slices.SortFunc(t.ours, func(a, b *EndpointSlice) int { return cmp.Compare(a.key(), b.key()) })
	for _, f := range list {
		for _, s := range t.ours {
			i := slices.IndexFunc(s.Ports, func(p SlicePort) bool { return p.Name == f.port.Name })
			if s.Namespace != f.service.Namespace || s.Service != f.service.Name || i < 0 {
				continue
			}
			if p := s.Ports[i].Port; f.to == 0 && p >= firstRedirect && p < firstRedirect+redirectPorts && !used[p] {
				f.to, used[p] = p, true
			}
		}
	}
	wanted := map[string]bool{}
	for i, f := range list {
		if f.to == 0 {
			h := fnv.New32a()
			_, _ = h.Write([]byte(f.name))
			for at := int(h.Sum32() % redirectPorts); f.to == 0; at = (at + 1) % redirectPorts {
				if !used[firstRedirect+at] {
					f.to, used[firstRedirect+at] = firstRedirect+at, true
				}
			}
		}
		if i+1 == len(list) || list[i+1].service != f.service {
			first := slices.IndexFunc(list, func(o *frontend) bool { return o.service == f.service })
			t.redirect(list[first:i+1], wanted)
		}
	}
	for _, s := range t.ours {
		if !wanted[s.key()] {
			t.out.Stale = append(t.out.Stale, s.Meta)
		}
	}
}

// redirect makes the EndpointSlices of a Service from its frontends.
func (t *translation) redirect(of []*frontend, wanted map[string]bool) {
	s, g := of[0].service, of[0].g
	for _, typ := range []string{"IPv4", "IPv6"} {
		r := Redirect{Meta: Meta{Namespace: s.Namespace, Name: short(s.Name, "-meridian", s.key()+" "+typ)}, Service: s.Name, Family: typ}
		for _, a := range g.addresses {
			if family(a.Value) == typ {
				r.Addresses = append(r.Addresses, a.Value)
			}
		}
		if len(r.Addresses) == 0 {
			continue
		}
		for _, f := range of {
			r.Ports = append(r.Ports, SlicePort{f.port.Name, f.to})
		}
		i := slices.IndexFunc(t.ours, func(have *EndpointSlice) bool { return have.key() == r.key() })
		r.Changed = i < 0 || !slices.Equal(t.ours[i].Ports, r.Ports) || t.ours[i].Service != r.Service ||
			!slices.EqualFunc(t.ours[i].Endpoints, r.Addresses, func(e Endpoint, a string) bool { return strings.EqualFold(e.Address, a) && e.Ready })
		if i >= 0 {
			r.Version = t.ours[i].Version
		}
		wanted[r.key()] = true
		t.out.Redirects = append(t.out.Redirects, r)
	}
}
