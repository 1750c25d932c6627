// Package edgeproxy is Meridian's data plane: a proxy for HTTP/1.1 on raw event
// loops, run as one [Server] per process. The package wires the rooms beneath it
// and keeps no logic of its own: loop (sockets, memory, time), worker (one loop's
// connections and requests), exchange (one request's life), upstream (endpoint
// state), view (what a snapshot means), route and lb.
package edgeproxy

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
)

// Config is what a Server needs to know before its first snapshot. The zero
// value is complete.
type Config struct {
	// Site is this proxy's own site, told to other sites; empty for a lone node.
	Site string
	// Loops is the number of event loops; 0 means half the usable cores, at least one.
	Loops int
	// MaxConnections bounds client connections, MaxListenerConnections those of
	// one listener; 0 means 50,000 and 10,000. Surplus connections are refused.
	MaxConnections, MaxListenerConnections int
	// Watermark is how many bytes of one body may wait for a slow receiver
	// before its sender is no longer read; 0 means 64 KiB.
	Watermark int
}

// Deps are the Server's collaborators. All may be nil.
type Deps struct {
	Log *slog.Logger
	// Sharing supplies gates and in-band reports for cooperation between sites.
	Sharing upstream.Sharing
}

// Listener is a bound listener.
type Listener struct {
	Gateway  string // namespace/name
	Name     string
	Protocol string
	Addr     netip.AddrPort // with the port the kernel gave where 0 was asked
}

// Endpoint is the state of one endpoint or remote gateway.
type Endpoint struct {
	Service  mesh.ServiceKey
	Address  string
	Site     string // of the remote site; empty at home
	InFlight int
	// Cumulative since the handle exists.
	Requests, Failures, Connects, ConnectFailures, Reused uint64
	IdleConnections                                       int
}

// New makes a Server; nothing is opened before Run and Apply.
func New(cfg Config, deps Deps) (*Server, error) { return nil, nil }

// Server is the data plane of one process. Methods may be called from any goroutine.
type Server struct{}

// Run starts the loops and returns when ctx is done and all of them ended, or
// when one of them failed. It may be called once.
func (s *Server) Run(ctx context.Context) error { return nil }

// Apply validates and builds a snapshot, binds new listeners, swaps every loop to
// it and drains what went away. It returns after all loops acknowledged; on an
// error the previous snapshot goes on serving. Calls are serialised.
func (s *Server) Apply(snap *mesh.Snapshot) error { return nil }

// Drain stops accepting, closes idle connections, says Connection: close on the
// others' next response, and returns when none is left or ctx is done.
func (s *Server) Drain(ctx context.Context) error { return nil }

// Listeners returns what is bound now.
func (s *Server) Listeners() []Listener { return nil }

// Problems are the semantic faults of the snapshot in force: the share of
// requests they hit gets error responses, the rest is served.
func (s *Server) Problems() []string { return nil }

// Generation is the snapshot in force, false before the first.
func (s *Server) Generation() (mesh.Generation, bool) { return mesh.Generation{}, false }

// Now is the clock that gates and loops share: monotonic nanoseconds.
func (s *Server) Now() int64 { return 0 }

// Acquire takes one of the few tokens for CPU-bound work (view builds, scrapes,
// handshakes) so that loops never wait behind it; release gives it back.
func (s *Server) Acquire(ctx context.Context) (release func(), err error) { return func() {}, nil }

// Stats sums the loops' counters.
func (s *Server) Stats() Stats { return Stats{} }

// Endpoints lists the state of the endpoints in force.
func (s *Server) Endpoints() []Endpoint { return nil }

// Loads appends the load counters of every service in force to dst, for a ticker
// that differences them. It allocates only where dst is too small.
func (s *Server) Loads(dst []ServiceLoad) []ServiceLoad { return dst }

// Stats are cumulative counters and current gauges, summed over loops; they
// survive reloads.
type Stats struct {
	Connections, ConnectionsTotal, ConnectionsRefused uint64
	BytesReceived, BytesSent                          uint64 // client side
	UpstreamConnects, UpstreamConnectFailures         uint64
	UpstreamReused, Retries                           uint64
	SlowSteps                                         uint64 // loop turns over 5 ms
	MemorySlabs                                       uint64 // bytes mapped for buffers
	Requests                                          []RequestCount
	Latency                                           []ServiceLatency
}

// RequestCount counts finished requests of one service and outcome.
type RequestCount struct {
	Service mesh.ServiceKey // empty where no route matched
	Class   int             // status / 100; 0 when no response was sent
	Flag    string          // Envoy's response flag; empty when the backend answered
	N       uint64
}

// ServiceLatency is the histogram of whole exchanges, request head to last byte.
type ServiceLatency struct {
	Service mesh.ServiceKey
	Bounds  []time.Duration // upper bounds of Counts, the last one is open
	Counts  []uint64
	Sum     time.Duration
}

// ServiceLoad holds one service's cumulative load counters and gauges.
type ServiceLoad struct {
	Service mesh.ServiceKey
	// InFlight counts requests at this site's endpoints now, from everywhere.
	InFlight int
	// Slots is the declared concurrency of the endpoints at home, summed; ServiceTime
	// the declared mean. Zero when not declared.
	Slots       int
	ServiceTime time.Duration
	// Demand counts requests of this site's own users, Arrivals those sent to this
	// site's endpoints from everywhere, Completions their answers.
	Demand, Arrivals, Completions uint64
	// Unqueued sums over completions that were dispatched while their endpoint had
	// fewer requests in flight than its declared concurrency; UnqueuedStarts counts
	// these dispatches.
	UnqueuedStarts           uint64
	UnqueuedCount            uint64
	UnqueuedNS, UnqueuedSqUS uint64 // sum of ns; sum of squares in us^2
	// From splits the arrivals by source site; Remotes are the candidates abroad.
	From    []SourceCount
	Remotes []RemoteLoad
}

// SourceCount counts arrivals from one other site.
type SourceCount struct {
	Site string
	N    uint64
}

// RemoteLoad is what this proxy has outstanding at one other site.
type RemoteLoad struct {
	Site        string
	Outstanding int
	Sent        uint64
}
