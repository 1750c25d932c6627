// Package upstream holds what a proxy knows of the places it sends requests to:
// stable handles of services and endpoints whose counters survive reloads, and
// the idle connections of one loop.
//
// A handle is found by its key, so the same endpoint of two snapshots is the same
// handle. Counters are written by loops, each into its own padded cell, and summed
// by readers; what is asked per request across loops (requests in flight) is one
// atomic on a cache line of its own.
package upstream

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/price"
	"github.com/meridian-mesh/meridian/edgeproxy/lb"
	"github.com/meridian-mesh/meridian/edgeproxy/limit"
)

// MaxSources bounds the other sites whose requests are counted apart; those of
// further ones are counted together under index 0.
const MaxSources = 256

// Registry finds handles by key. Its methods are for the goroutine that builds
// views; readers take Services and Endpoints.
type Registry struct {
	loops     int
	mu        sync.Mutex
	services  map[mesh.ServiceKey]*Service
	order     []*Service
	endpoints map[EndpointKey]*Endpoint
	sources   map[string]int
	names     []string

	callers callers
}

// NewRegistry makes a registry for a number of loops.
func NewRegistry(loops int) *Registry {
	return &Registry{
		loops:     loops,
		services:  map[mesh.ServiceKey]*Service{},
		endpoints: map[EndpointKey]*Endpoint{},
		sources:   map[string]int{},
		names:     []string{""},

		callers: newCallers(),
	}
}

// Service returns the handle of a service. The key "" stands for requests that
// reached no service.
func (r *Registry) Service(key mesh.ServiceKey) *Service {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.services[key]
	if s == nil {
		s = &Service{Key: key, Cells: make([]ServiceCell, r.loops)}
		r.services[key] = s
		r.order = append(r.order, s)
	}
	return s
}

// Endpoint returns the handle of an endpoint.
func (r *Registry) Endpoint(key EndpointKey) *Endpoint {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.endpoint(key)
}

// endpoint needs mu.
func (r *Registry) endpoint(key EndpointKey) *Endpoint {
	e := r.endpoints[key]
	if e == nil {
		e = &Endpoint{EndpointKey: key, Authority: []byte(key.Addr.String()), Cells: make([]EndpointCell, r.loops)}
		r.endpoints[key] = e
	}
	return e
}

// Gateway returns the handle of another site's gateway, whose bytes meter counts.
func (r *Registry) Gateway(key EndpointKey, meter *limit.Meter) *Endpoint {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.endpoint(key)
	if e.Meter == nil {
		e.Meter = meter
	}
	return e
}

// Retain forgets the endpoints that used does not hold and that no request is at.
func (r *Registry) Retain(used map[*Endpoint]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, e := range r.endpoints {
		if !used[e] && e.InFlight.Load() == 0 {
			delete(r.endpoints, k)
		}
	}
}

// Endpoints appends all endpoints that are known to dst: those in force, and those at
// which requests still are.
func (r *Registry) Endpoints(dst []*Endpoint) []*Endpoint {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.endpoints {
		dst = append(dst, e)
	}
	return dst
}

// Source returns the stable index of another site's name, 0 when there are too many.
func (r *Registry) Source(site string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	i, ok := r.sources[site]
	if !ok && len(r.names) < MaxSources {
		i = len(r.names)
		r.sources[site] = i
		r.names = append(r.names, site)
	}
	return i
}

// SourceNames returns the names by index. The result is not changed later.
func (r *Registry) SourceNames() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.names[:len(r.names):len(r.names)]
}

// Services returns all services that were ever named, in that order.
func (r *Registry) Services() []*Service {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.order[:len(r.order):len(r.order)]
}

// EndpointKey identifies an endpoint or, with Site set, a remote site's gateway.
type EndpointKey struct {
	Service mesh.ServiceKey
	Site    string
	Addr    netip.AddrPort
}

// Gauge is a number that several loops change, alone on its cache line.
type Gauge struct {
	_ [64]byte
	atomic.Int64
	_ [56]byte
}

// Endpoint is the stable state of one endpoint.
type Endpoint struct {
	EndpointKey
	// Authority names it towards itself where a request names no host (HTTP/1.0).
	Authority []byte
	// InFlight counts requests sent to it, or about to be, and not answered.
	InFlight Gauge
	Health   Health
	// Ejections counts how often it was taken out of rotation; EjectedUntil is when
	// the last time ends, of the loops' clock.
	Ejections    atomic.Uint64
	EjectedUntil atomic.Int64
	Watch        Watch
	// Workload is who serves there, by the newest snapshot that names it.
	Workload atomic.Pointer[mesh.Workload]
	// Meter counts the bytes of a site's gateway; nil for endpoints. It is set before
	// any loop knows the handle.
	Meter *limit.Meter
	Cells []EndpointCell // by loop
}

// EndpointCell is one loop's counters of an endpoint.
type EndpointCell struct {
	Requests, Failures, Connects, ConnectFailures, Reused atomic.Uint64
	// Good and Bad count what says something of the endpoint: answers below status
	// 500, and other answers and attempts that it left without one.
	Good, Bad atomic.Uint64
	Idle      atomic.Int64
	// Latency and Load are the loop's own and of nobody else's concern.
	Latency lb.Latency
	Load    lb.Load
	// SerialUntil is until when a site's gateway is taken for one that speaks HTTP/1.1
	// only; the loop's own.
	SerialUntil int64
	flows       atomic.Pointer[flows]
	_           [64]byte
}

// Service is the stable state of one service at this site.
type Service struct {
	Key mesh.ServiceKey
	// InFlight counts requests at this site's endpoints, from everywhere.
	InFlight Gauge
	sheds    sync.Mutex
	shed     []*Sheds
	// Panic says that too few endpoints are healthy to look at health.
	Panic atomic.Bool
	Cells []ServiceCell // by loop
}

// Sheds counts the refused requests of one priority class of a service; the class ""
// is that of all others. Refusing is rare or cheap beside serving, so loops share it.
type Sheds struct {
	Class string
	N     atomic.Uint64
}

// Shed returns the counter of a class. It is for who builds views.
func (s *Service) Shed(class string) *Sheds {
	s.sheds.Lock()
	defer s.sheds.Unlock()
	for _, x := range s.shed {
		if x.Class == class {
			return x
		}
	}
	x := &Sheds{Class: class}
	s.shed = append(s.shed, x)
	return x
}

// AllSheds returns the counters of all classes that there ever were.
func (s *Service) AllSheds() []*Sheds {
	s.sheds.Lock()
	defer s.sheds.Unlock()
	return s.shed[:len(s.shed):len(s.shed)]
}

// ServiceCell is one loop's counters of a service.
type ServiceCell struct {
	Outcomes  [Classes][Outcomes]atomic.Uint64
	Latency   [Buckets]atomic.Uint64
	LatencyNS atomic.Uint64
	Demand    atomic.Uint64
	Arrivals  atomic.Uint64
	Completed atomic.Uint64
	Unqueued  atomic.Uint64
	// UnqueuedStarts counts requests that found a free slot, answered or not.
	UnqueuedStarts atomic.Uint64
	UnqueuedNS     atomic.Uint64
	UnqueuedSq     atomic.Uint64 // us^2
	// Levels are the completions by how many were in flight when they started, where
	// no concurrency is declared.
	Levels [price.Levels]LevelCell
	From   [MaxSources]atomic.Uint64
	// Plain counts requests of other sites that came without TLS where that may be,
	// PlainRefused those where it may not.
	Plain, PlainRefused atomic.Uint64
	// Streams counts TCP connections that ended, by flag; StreamsOpen is how many
	// there are.
	Streams                  [Outcomes]atomic.Uint64
	StreamsOpen              atomic.Int64
	FromClients, FromBackend atomic.Uint64 // bytes
	// Sessions counts UDP sessions that ended, by flag; SessionsOpen is how many there
	// are. Datagrams are counted by direction, and those that went nowhere by reason.
	Sessions         [Outcomes]atomic.Uint64
	SessionsOpen     atomic.Int64
	DatagramsIn      atomic.Uint64
	DatagramsOut     atomic.Uint64
	DatagramsDropped [DropReasons]atomic.Uint64
	// Reported says that an endpoint has told of its load; the loop's own.
	Reported bool
	_        [64]byte
}

// Classes and Outcomes are the dimensions of request counts: status / 100 (0 for
// none) and the exchange's flag.
const (
	Classes  = 6
	Outcomes = 20
	// DropReasons is at least the number of reasons for which a datagram goes nowhere.
	DropReasons = 5
)
