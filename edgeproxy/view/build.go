package view

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/fence"
	"github.com/meridian-mesh/meridian/edgeproxy/authz"
	"github.com/meridian-mesh/meridian/edgeproxy/lb"
	"github.com/meridian-mesh/meridian/edgeproxy/limit"
	"github.com/meridian-mesh/meridian/edgeproxy/route"
	"github.com/meridian-mesh/meridian/edgeproxy/tlsio"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
)

type builder struct {
	snap    *mesh.Snapshot
	site    string
	reg     *upstream.Registry
	sharing upstream.Sharing
	loops   int
	names   func(string) ([]Target, error)
	view    *View

	certificates Certificates
	fences       *fence.Fences

	proxies  *tlsio.Mesh               // nil where nothing between proxies is encrypted
	gateways map[string]netip.AddrPort // of other sites, by the way from here
	weights  map[mesh.ServiceKey][]int // of the home endpoints
	callers  map[mesh.Workload]*upstream.Caller
	bound    map[SocketKey]string
	err      error // of what must not be served at all
}

func (b *builder) problem(format string, args ...any) {
	b.view.Problems = append(b.view.Problems, fmt.Sprintf(format, args...))
}

// sites finds how each other site is reached: by the address of the own site's
// link to it, else by the first it advertises.
func (b *builder) sites() {
	b.gateways = map[string]netip.AddrPort{}
	b.weights = map[mesh.ServiceKey][]int{}
	b.callers = map[mesh.Workload]*upstream.Caller{}
	b.bound = map[SocketKey]string{}
	b.view.PeerMode = b.snap.Objects.SitePeerMode(b.site)
	links := map[string]string{}
	for _, s := range b.snap.Objects.Sites {
		if s.Metadata.Name == b.site {
			for _, l := range s.Spec.Links {
				links[l.To] = l.Address
			}
		}
	}
	for _, s := range b.snap.Objects.Sites {
		name := s.Metadata.Name
		if name == b.site {
			continue
		}
		b.view.Sites[name] = b.reg.Source(name)
		b.view.Peers[name] = b.peerTLS(name)
		address := links[name]
		if address == "" && len(s.Spec.Gateways) > 0 {
			address = s.Spec.Gateways[0].Address
		}
		if address == "" {
			continue
		}
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			b.problem("Site/%s: gateway address %q is not ip:port, nothing is sent there", name, address)
			continue
		}
		b.gateways[name] = to
	}
}

func (b *builder) service(m *mesh.MeshService) {
	key := m.Key()
	if b.view.Services[key] != nil {
		b.problem("MeshService/%s: declared twice, the first counts", key)
		return
	}
	s := &Service{
		of:      b.view,
		Service: b.reg.Service(key),
		Connect: ConnectTimeout, Silence: SilenceTimeout, Idle: TunnelIdle, PacketIdle: SessionIdle, Retries: Retries, MaxAge: MaxAge,
		ports: map[int]string{},
	}
	b.view.Services[key] = s
	s.Peers = map[int]mesh.PeerMode{}
	for _, p := range m.Spec.Ports {
		s.ports[p.Port] = p.Protocol
		s.Peers[p.Port] = b.snap.Objects.PeerModeOf(b.site, m.Metadata.Namespace, p.Port)
	}
	if exported(m, b.site) {
		for _, p := range m.Spec.Ports {
			b.view.named[string(key)+":"+strconv.Itoa(p.Port)] = s
		}
		b.view.named[string(key)] = s
	}
	s.Name = []byte(key)
	s.Guard = b.view.Policies.Of(authz.Target{Kind: mesh.KindMeshService, Namespace: m.Metadata.Namespace, Name: m.Metadata.Name})
	b.affinity(s, m)
	b.endpoints(s, m)
	b.sessions(s, m)
	b.tunnelled(s, m)
}

func (b *builder) endpoints(s *Service, m *mesh.MeshService) {
	abroad := map[string]bool{}
	var weighted time.Duration
	s.Fenced = b.fences.Bars(s.Key, b.site)
	for i := range m.Spec.Endpoints {
		e := &m.Spec.Endpoints[i]
		if e.Site != "" && e.Site != b.site {
			// A way across a fence is not even known.
			abroad[e.Site] = b.fences.Bars(s.Key, e.Site) == ""
			continue
		}
		if s.Fenced != "" {
			continue
		}
		weight := 1
		if e.Weight != nil {
			weight = max(0, *e.Weight)
		}
		slots := 0
		var took time.Duration
		if c := e.Capacity; c != nil {
			slots, took = c.Concurrency, c.ServiceTime.D()
		}
		host, found, err := b.resolve(e.Address)
		if err != nil {
			b.problem("MeshService/%s: spec.endpoints[%d].address: %q gets no requests: %v", s.Key, i, e.Address, err)
		}
		for _, t := range found {
			handle := b.reg.Endpoint(upstream.EndpointKey{Service: s.Key, Addr: t.Addr})
			if slices.Contains(s.Home, handle) {
				continue // behind two names, or written as an address too
			}
			s.Concurrency += slots
			b.pooled(s, e.Capacity, slots)
			weighted += took * time.Duration(slots)
			b.weights[s.Key] = append(b.weights[s.Key], weight*t.Weight)
			s.Home = append(s.Home, handle)
			s.Slots = append(s.Slots, slots)
			s.Hosts = append(s.Hosts, host)
			w := workloadOf(m, e)
			handle.Workload.Store(&w)
			b.caller(t.Addr.Addr(), w)
			s.IDs = append(s.IDs, endpointID(s.Key, b.site, t.Addr.String()))
		}
	}
	if s.Concurrency > 0 {
		s.ServiceTime = weighted / time.Duration(s.Concurrency)
	}
	b.remotes(s, m, abroad)
	if s.Fenced != "" && len(s.Remotes) == 0 {
		b.problem("MeshService/%s: %s, and no site inside serves it for this one: its requests get 503", s.Key, s.Fenced)
	}
}

// remotes lists the sites abroad to which requests may go.
func (b *builder) remotes(s *Service, m *mesh.MeshService, abroad map[string]bool) {
	if m.Spec.Export == nil || m.Spec.Export.Scope != mesh.ScopeMesh {
		return
	}
	for _, site := range sorted(abroad) {
		if !abroad[site] {
			continue
		}
		if allowed := m.Spec.Export.Sites; len(allowed) > 0 && !slices.Contains(allowed, site) {
			continue
		}
		gateway, ok := b.gateways[site]
		if !ok {
			b.problem("MeshService/%s: site %q has no gateway address, nothing is sent there", s.Key, site)
			continue
		}
		handle := b.reg.Gateway(upstream.EndpointKey{Service: s.Key, Site: site, Addr: gateway}, b.meter(site))
		w := workloadAt(m, site)
		handle.Workload.Store(&w)
		s.Remotes = append(s.Remotes, Remote{Site: site, Endpoint: handle, TLS: b.view.Peers[site]})
	}
}

func (b *builder) meter(site string) *limit.Meter {
	if b.sharing == nil {
		return nil
	}
	return b.sharing.Meter(site)
}

// resolve finds what is behind an endpoint's address, and its DNS name if it is one.
func (b *builder) resolve(address string) (host string, found []Target, err error) {
	addr, err := netip.ParseAddrPort(address)
	switch {
	case err == nil:
		return "", []Target{{addr, 1}}, nil
	case b.names == nil:
		return address, nil, errors.New("it is not ip:port")
	}
	found, err = b.names(address)
	return address, found, err
}

// endpointID names an endpoint to every proxy that knows it by this address.
func endpointID(s mesh.ServiceKey, site, addr string) uint64 {
	return lb.Hash(string(s) + " " + site + " " + addr)
}

// sessions says where the sessions of each endpoint live, also of those abroad,
// whose cookies come back to this site.
func (b *builder) sessions(s *Service, m *mesh.MeshService) {
	if s.Cookie == nil {
		return
	}
	s.places = map[uint64]Place{}
	for k, r := range s.Remotes {
		for _, e := range m.Spec.Endpoints {
			if e.Site == r.Site {
				s.places[endpointID(s.Key, e.Site, e.Address)] = atRemote(k)
			}
		}
	}
	for i, id := range s.IDs {
		s.places[id] = atHome(i)
	}
}

func sorted(set map[string]bool) []string {
	names := make([]string, 0, len(set))
	for n := range set {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// complete adds what depends on policies.
func (b *builder) complete(s *Service) {
	b.policy(s)
	s.SendProxy = b.sendProxy(s.Key)
	b.clientTLS(s)
	if b.sharing == nil {
		return
	}
	if len(s.Remotes) > 0 {
		sites := make([]string, len(s.Remotes))
		for i, r := range s.Remotes {
			sites[i] = r.Site
		}
		s.Gate = b.sharing.Gate(s.Key, sites)
	}
	s.Report = b.sharing.Report(s.Key)
}

func (b *builder) gateway(g *mesh.Gateway) {
	name := g.Metadata.Namespace + "/" + g.Metadata.Name
	if g.Spec.GatewayClassName != mesh.GatewayClass {
		return // somebody else's
	}
	addresses := []netip.Addr{{}}
	if len(g.Spec.Addresses) > 0 {
		addresses = nil
	}
	for i, a := range g.Spec.Addresses {
		ip, err := netip.ParseAddr(a.Value)
		if err != nil || a.Type != "" && a.Type != "IPAddress" {
			b.problem("Gateway/%s: spec.addresses[%d]: %q is not an IP address, it is not served", name, i, a.Value)
			continue
		}
		addresses = append(addresses, ip)
	}
	for _, group := range ports(g.Spec.Listeners) {
		first := group[0]
		mixed := slices.ContainsFunc(group, func(l mesh.Listener) bool { return l.Protocol != first.Protocol })
		switch {
		case mixed:
			b.problem("Gateway/%s: listeners of port %d have different protocols, the port is not served", name, first.Port)
			continue
		case !slices.Contains(served, first.Protocol):
			b.problem("Gateway/%s: listener %q: protocol %q is not served", name, first.Name, first.Protocol)
			continue
		}
		s := Socket{Gateway: name, Protocol: first.Protocol}
		if s.EastWest() {
			// A proxy is as slow as its client, whom it judges itself.
			s.Slow.Grace = eastWestGrace
			s.TLS, s.Permissive = b.eastWestTLS()
		}
		s.Balancers = b.balancers(g, group)
		for _, l := range group {
			s.Listeners = append(s.Listeners, l.Name)
		}
		switch first.Protocol {
		case mesh.ProtocolTCP:
			s.Streams = route.BuildTCP(g, group, &b.snap.Objects)
			b.streamBackends(mesh.KindTCPRoute, s.Streams)
		case mesh.ProtocolUDP:
			s.Streams = route.BuildUDP(g, group, &b.snap.Objects)
			b.streamBackends(mesh.KindUDPRoute, s.Streams)
		case mesh.ProtocolTLS:
			s.Streams = route.BuildTLS(g, group, &b.snap.Objects)
			b.streamBackends(mesh.KindTLSRoute, s.Streams)
			b.terminated(g, group, &s)
		case mesh.ProtocolHTTP, mesh.ProtocolHTTPS:
			table, faults := route.Build(g, group, &b.snap.Objects)
			s.Routes = table
			s.Forwarding = newForwarding(mesh.ForwardingOf(&b.snap.Objects, g.Metadata, first.Name))
			s.Slow = slowClients(mesh.SlowClientsOf(&b.snap.Objects, g.Metadata, first.Name))
			for _, f := range faults {
				b.problem("%s", f.Error())
			}
			b.backends(table)
			classes, faults := route.BuildClasses(g, group, &b.snap.Objects)
			s.Classes = classes
			for _, f := range faults {
				b.problem("%s", f.Error())
			}
			b.chained(table)
			b.chained(classes)
		}
		if first.Protocol == mesh.ProtocolHTTPS {
			s.TLS = b.serverTLS(g, group)
		}
		if first.Protocol == mesh.ProtocolOutbound && b.err == nil {
			b.err = b.outbound(g, group, &s)
		}
		if err := b.guards(g, &s); err != nil && b.err == nil {
			b.err = err
		}
		for _, a := range addresses {
			s.Key = SocketKey{Addr: a, Port: uint16(first.Port), Packets: first.Protocol == mesh.ProtocolUDP}
			if first.Port == 0 {
				s.Key.Name = name + "/" + first.Name
			}
			if other, taken := b.bound[s.Key]; taken && first.Port != 0 {
				b.problem("Gateway/%s: %s is served by Gateway/%s already", name, netip.AddrPortFrom(a, s.Key.Port), other)
				continue
			}
			b.bound[s.Key] = name
			socket := s
			b.view.Sockets = append(b.view.Sockets, &socket)
		}
	}
}

// served are the listener protocols of this build.
var served = []string{mesh.ProtocolHTTP, mesh.ProtocolHTTPS, mesh.ProtocolTCP, mesh.ProtocolTLS, mesh.ProtocolUDP, mesh.ProtocolEastWest, mesh.ProtocolOutbound}

// streamBackends says which references lead nowhere; their share of connections
// is closed.
func (b *builder) streamBackends(kind string, t *route.Streams) {
	for _, r := range t.Rules {
		for i := range r.Backends {
			ref := &r.Backends[i]
			s := b.view.Services[ref.Service]
			switch {
			case ref.Invalid != "":
				b.problem("%s/%s: backendRefs[%d]: %s", kind, r.Key, i, ref.Invalid)
			case s == nil:
				b.problem("%s/%s: backendRefs[%d]: MeshService %q does not exist", kind, r.Key, i, ref.Service)
			case kind == mesh.KindUDPRoute && !s.HasPacketPort(ref.Port):
				b.problem("%s/%s: backendRefs[%d]: MeshService %q has no udp port %d", kind, r.Key, i, ref.Service, ref.Port)
			case kind != mesh.KindUDPRoute && !s.HasStreamPort(ref.Port):
				b.problem("%s/%s: backendRefs[%d]: MeshService %q has no tcp port %d", kind, r.Key, i, ref.Service, ref.Port)
			}
		}
	}
}

// ports groups listeners by port, UDP's apart; those of port 0 stand alone.
func ports(listeners []mesh.Listener) [][]mesh.Listener {
	type place struct {
		port    int
		packets bool
	}
	var groups [][]mesh.Listener
	at := map[place]int{}
	for _, l := range listeners {
		port := place{l.Port, l.Protocol == mesh.ProtocolUDP}
		if i, ok := at[port]; ok && l.Port != 0 {
			groups[i] = append(groups[i], l)
			continue
		}
		at[port] = len(groups)
		groups = append(groups, []mesh.Listener{l})
	}
	return groups
}

// backends says which references of a table lead nowhere: their share gets 500,
// and a mirror that leads nowhere gets nothing.
func (b *builder) backends(t *route.Table) {
	for _, r := range t.Rules {
		for i := range r.Backends {
			if ref := &r.Backends[i]; ref.Invalid == "" {
				b.reference(r, fmt.Sprintf("backendRefs[%d]", i), ref.Service, ref.Port)
				if s := b.view.Backend(ref); s != nil {
					ref.Target = s
				}
			}
		}
		for _, m := range r.Mirrors() {
			b.reference(r, "requestMirror", m.Service, m.Port)
		}
	}
}

func (b *builder) reference(rule *route.Rule, field string, service mesh.ServiceKey, port int) {
	switch s := b.view.Services[service]; {
	case s == nil:
		b.problem("%s/%s: %s: MeshService %q does not exist", rule.Kind, rule.Key, field, service)
	case !s.HasPort(port):
		b.problem("%s/%s: %s: MeshService %q has no port %d", rule.Kind, rule.Key, field, service, port)
	}
}
