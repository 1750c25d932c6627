// Package view compiles a snapshot into the one immutable bundle that requests
// are served from: sockets with their route tables, services with their endpoints
// and the sites beyond. It does no I/O; every loop reads one View by one pointer.
package view

import (
	"cmp"
	"fmt"
	"net/netip"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/fence"
	"github.com/meridian-mesh/meridian/edgeproxy/authz"
	"github.com/meridian-mesh/meridian/edgeproxy/function"
	"github.com/meridian-mesh/meridian/edgeproxy/lb"
	"github.com/meridian-mesh/meridian/edgeproxy/outlier"
	"github.com/meridian-mesh/meridian/edgeproxy/route"
	"github.com/meridian-mesh/meridian/edgeproxy/tlsio"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
)

// Defaults of what a snapshot leaves out.
const (
	// eastWestGrace is how long another site's proxy may take or send nothing.
	eastWestGrace = time.Minute
	// ConnectTimeout bounds one connection attempt.
	ConnectTimeout = time.Second
	// SilenceTimeout is how long a backend may send nothing that it owes.
	SilenceTimeout = 60 * time.Second
	// SessionIdle is how long a client's UDP session may carry nothing.
	SessionIdle = time.Minute
	// TunnelIdle is how long a tunnel or a TCP connection may carry nothing.
	TunnelIdle = time.Hour
	// Retries is how many attempts may follow a failed one.
	Retries = 2
	// MaxAge is how old a connection to an endpoint may become.
	MaxAge = time.Hour
)

// View is what one snapshot means at this node.
type View struct {
	Generation mesh.Generation
	// Site is this site's name, as it is told to others; empty for a lone node.
	Site     []byte
	Sockets  []*Socket
	Services map[mesh.ServiceKey]*Service
	// Sites gives the stable index of each other site by name.
	Sites map[string]int
	// Chains are those of requests, by namespace/name.
	Chains map[string]*function.Chain
	// Peers are what connections to the proxies of each other site need; nil where
	// they are plain.
	Peers map[string]*tlsio.Client
	// PeerMode is what requests of other sites need that are for no service.
	PeerMode mesh.PeerMode
	// TrustDomain is that of the own mesh, empty where it has none.
	TrustDomain string
	// Policies say who may call what.
	Policies *authz.Policies
	// Problems are faults that cost their share of requests and nothing else.
	Problems []string

	named   map[string]*Service
	tunnels map[string]Tunnel // by authority
	callers map[netip.Addr]*upstream.Caller
}

// Caller finds the workload of an address, nil where it is not known or several
// share the address.
func (v *View) Caller(a netip.Addr) *upstream.Caller { return v.callers[a.Unmap()] }

// SocketKey identifies a listening socket: the same key of two snapshots is the
// same socket, whichever gateway it serves. An invalid Addr is all addresses.
type SocketKey struct {
	Addr netip.Addr
	Port uint16
	// Packets says that it is UDP's.
	Packets bool
	// Name (gateway and listener) tells sockets apart whose port the kernel
	// chooses; else it is empty.
	Name string
}

// Socket is one listening socket and who is served there.
type Socket struct {
	Key       SocketKey
	Gateway   string   // namespace/name
	Listeners []string // names
	Protocol  string
	Routes    *route.Table   // of HTTP
	Classes   *route.Table   // of requests that chains take here, nil without
	Streams   *route.Streams // of TCP, TLS and UDP
	// Outbound is what serves connections that were redirected here, by where they were
	// to go; nil of other listeners. What none is for goes on to there.
	Outbound map[netip.AddrPort]*Socket
	// Balancers are the addresses whose connections begin with a PROXY header.
	Balancers []netip.Prefix
	// Forwarding is what requests tell of their way; of HTTP.
	Forwarding Forwarding
	// Slow is how slow clients may be; of HTTP.
	Slow SlowClients
	// TLS is what sessions need that end here; nil where connections are plain. With
	// Permissive a connection may be plain, too: its first byte says.
	TLS        *tlsio.Server
	Permissive bool
	modes      []tlsMode // of TLS listeners
	// Guards are the policies of the site, the gateway and the listener.
	Guards []*authz.Set

	policies *authz.Policies // where some are for routes, else nil
}

// SlowClients is how slow a listener's clients may be while they are waited for:
// in each Grace they move MinBytesPerSecond. No Grace is the proxy's default.
type SlowClients struct {
	Grace             time.Duration
	MinBytesPerSecond int64
}

// FromBalancer reports whether a connection from the address has to begin with a
// PROXY header.
func (s *Socket) FromBalancer(from netip.Addr) bool {
	for _, p := range s.Balancers {
		if p.Contains(from) {
			return true
		}
	}
	return false
}

// EastWest reports whether other sites' proxies are served.
func (s *Socket) EastWest() bool { return s.Protocol == mesh.ProtocolEastWest }

// Remote is another site that serves a service.
type Remote struct {
	Site     string
	Endpoint *upstream.Endpoint
	// TLS is what connections need that lead there; nil where they are plain.
	TLS *tlsio.Client
}

// Service is a service with what a request to it needs.
type Service struct {
	*upstream.Service
	Home  []*upstream.Endpoint
	Slots []int // of Home: declared concurrency, 0 when not declared
	// IDs name the home endpoints to every proxy alike, Hosts are the DNS names
	// behind which they were found, empty for addresses.
	IDs   []uint64
	Hosts []string
	// Fenced says why nothing of the service may be served at this site, empty where
	// it may; then Home is empty.
	Fenced string
	// Pickers are the loops'; Keyed picks by the hash of what KeyBy says, and is nil
	// where that is nothing.
	Pickers   []lb.Picker
	Keyed     lb.Picker
	KeyBy     Key
	KeyHeader string // in lower case
	Cookie    *Cookie
	// Timed says that a picker looks at latencies, Told that one looks at what
	// endpoints say of their load.
	Timed     bool
	Told      bool
	SlowStart lb.SlowStart
	Outlier   outlier.Config
	// PanicBelow is the share of healthy endpoints below which health is not looked at.
	PanicBelow float64
	// MaxAge and MaxRequests bound connections to endpoints; 0 does not.
	MaxAge      time.Duration
	MaxRequests int
	Remotes     []Remote
	Gate        upstream.Gate
	// Priorities are the service's priority classes, which Gate numbers from 1 on;
	// Sheds counts what each refuses, and at 0 all other requests.
	Priorities []Priority
	Sheds      []*upstream.Sheds
	// alone are the shed limits, as Sheds, where there is no Gate; nil is never.
	alone  []int
	Report upstream.Report
	// Name is how the service is named towards another site.
	Name                      []byte
	Connect, Silence, Request time.Duration
	Retries                   int
	// Idle is how long a tunnel or a TCP connection may carry nothing, PacketIdle how
	// long a UDP session may.
	Idle, PacketIdle time.Duration
	// Packets picks for UDP sessions by the hash of what tells them apart; nil where
	// no port is UDP's.
	Packets lb.Picker
	// Mates are the services that share a machine with this one.
	Mates []*upstream.Service
	// pools are the slots that the service declares in each pool, unpooled the others.
	pools    map[string]int
	unpooled int
	// Declared capacity of the home endpoints, of all that share the machine where
	// there are Mates.
	Concurrency int
	ServiceTime time.Duration

	// TLS is what connections to the endpoints at home need; nil where they are plain.
	TLS *tlsio.Client

	// Peers are what requests of other sites need, by port.
	Peers map[int]mesh.PeerMode

	// Guard is the policies of the service, nil without any.
	Guard *authz.Set

	// SendProxy is the version of the PROXY header that endpoints get at the
	// start of a TCP connection, 0 for none.
	SendProxy int

	of    *View
	ports map[int]string // protocols
	// tunnels are the ports for whole connections as other sites know them.
	tunnels, packetTunnels map[int][]byte
	places                 map[uint64]Place // of sessions; nil without a Cookie
}

// HasPort reports whether the service has the port, for requests; 0 stands for
// its only port.
func (s *Service) HasPort(port int) bool {
	return s.speaks(port, mesh.PortHTTP) || s.speaks(port, mesh.PortHTTP2)
}

// HTTP2 reports whether requests for the port go by HTTP/2; 0 stands for any, where
// all ports for requests agree.
func (s *Service) HTTP2(port int) bool {
	if port != 0 {
		return s.speaks(port, mesh.PortHTTP2)
	}
	two := false
	for p := range s.ports {
		if s.speaks(p, mesh.PortHTTP) {
			return false
		}
		two = two || s.speaks(p, mesh.PortHTTP2)
	}
	return two
}

// HasStreamPort is HasPort for whole connections.
func (s *Service) HasStreamPort(port int) bool { return s.speaks(port, mesh.PortTCP) }

// HasPacketPort is HasPort for datagrams.
func (s *Service) HasPacketPort(port int) bool { return s.speaks(port, mesh.PortUDP) }

func (s *Service) speaks(port int, protocol string) bool {
	if port == 0 && len(s.ports) == 1 {
		for only := range s.ports {
			port = only
		}
	}
	p, ok := s.ports[port]
	return ok && cmp.Or(p, mesh.PortHTTP) == protocol
}

// Backend finds the service that takes the requests of a backend, nil where there
// is none. The backend may be another view's: a connection goes on with the routes
// that it came to.
func (v *View) Backend(b *route.Backend) *Service {
	if s, ok := b.Target.(*Service); ok && s.of == v {
		return s
	}
	if s := v.Services[b.Service]; s != nil && s.HasPort(b.Port) {
		return s
	}
	return nil
}

// Named finds a service that is exported to this site by the name that another site
// sends: namespace/name, with or without :port.
func (v *View) Named(name []byte) *Service { return v.named[string(name)] }

// Target is one process behind a DNS name.
type Target struct {
	Addr   netip.AddrPort
	Weight int
}

// Certificates makes what sockets and services need for TLS of what they ask for, and
// says what is wrong with it; see [tlsio.Store].
type Certificates interface {
	Server(scope string, listeners []tlsio.ListenerSpec) (*tlsio.Server, []string)
	Client(spec tlsio.ClientSpec) (*tlsio.Client, []string)
	Mesh(spec tlsio.MeshSpec) (*tlsio.Mesh, error)
}

// Deps is what a view is built with.
type Deps struct {
	Site     string
	Registry *upstream.Registry
	Sharing  upstream.Sharing // may be nil
	Loops    int
	// Functions makes chains of requests; nil begins anew.
	Functions *function.Registry
	// Authorization keeps the counts of policies; nil begins anew.
	Authorization *authz.Registry
	// Certificates makes what TLS needs; nil has no certificate.
	Certificates Certificates
	// Names resolves an endpoint's address that is no ip:port; nil knows none.
	Names func(address string) ([]Target, error)
}

// Build compiles a snapshot with handles from the registry. It fails only where
// nothing of the snapshot could be served as meant; other faults are Problems.
func Build(snap *mesh.Snapshot, with Deps) (*View, error) {
	if err := snap.Check(); err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", snap.Generation, err)
	}
	b := &builder{
		snap: snap, site: with.Site, fences: fence.Compile(&snap.Objects), reg: with.Registry, sharing: with.Sharing, loops: with.Loops, names: with.Names, certificates: with.Certificates,
		view: &View{
			Generation: snap.Generation,
			Site:       []byte(with.Site),
			Services:   map[mesh.ServiceKey]*Service{},
			Sites:      map[string]int{},
			Peers:      map[string]*tlsio.Client{},
			named:      map[string]*Service{},
			tunnels:    map[string]Tunnel{},
			callers:    map[netip.Addr]*upstream.Caller{},
		},
	}
	if with.Functions == nil {
		with.Functions = function.NewRegistry(with.Loops, nil)
	}
	if with.Authorization == nil {
		with.Authorization = authz.NewRegistry(with.Loops)
	}
	if err := b.authorize(with.Authorization); err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", snap.Generation, err)
	}
	b.mesh()
	b.sites()
	b.chains(with.Functions)
	for _, s := range snap.Objects.Services {
		b.service(s)
	}
	for _, c := range snap.Objects.Callers {
		b.named(c)
	}
	b.pools()
	for _, p := range snap.Objects.TrafficPolicies {
		b.targets(p)
	}
	for _, s := range b.view.Services {
		b.complete(s)
	}
	for _, g := range snap.Objects.Gateways {
		b.gateway(g)
	}
	if b.err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", snap.Generation, b.err)
	}
	return b.view, nil
}

// Endpoints returns the handles of all endpoints and gateways of the view.
func (v *View) Endpoints() map[*upstream.Endpoint]bool {
	used := map[*upstream.Endpoint]bool{}
	for _, s := range v.Services {
		for _, e := range s.Home {
			used[e] = true
		}
		for _, r := range s.Remotes {
			used[r.Endpoint] = true
		}
	}
	return used
}
