// Package edgeproxy is Meridian's data plane: a proxy for HTTP, TCP and UDP on raw event
// loops, run as one [Server] per process. The package wires the rooms beneath it
// and keeps no logic of its own: loop (sockets, memory, time), worker (one loop's
// connections and requests), exchange (one request's life), upstream (endpoint
// state), view (what a snapshot means), route and lb. A [Cooperation] is the other
// half: ten times a second it turns the Server's counters and what other sites say
// into the gates (share) that the loops ask.
package edgeproxy

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/accesslog"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
	"github.com/meridian-mesh/meridian/edgeproxy/worker"
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
	// ClientMaxAge and ClientMaxRequests bound the life of a client's connection,
	// give or take a tenth: the response at hand is then its last. 0 does not.
	ClientMaxAge      time.Duration
	ClientMaxRequests int
	// Resolver is the DNS server that endpoints' names are asked of; where it is not
	// valid those of the system are.
	Resolver netip.AddrPort

	// MemoryLimit is how many bytes the process may take: near it idle connections
	// are closed, then new ones and requests refused; 0 means no limit, else at
	// least [MinMemoryLimit].
	MemoryLimit int64
	// Inherited are sockets of the process that this one takes over from. The first
	// snapshot takes those that it names and closes the others.
	Inherited []Socket
	// InheritedSessions are UDP sessions of that process; those of sockets that the
	// first snapshot does not name, and of endpoints that are gone, are closed.
	InheritedSessions []Session

	times worker.Times // of tests, which cannot wait that long
}

// Deps are the Server's collaborators. All may be nil.
type Deps struct {
	Log *slog.Logger
	// Sharing supplies gates and in-band reports for cooperation between sites.
	Sharing upstream.Sharing
	// AccessLog has a ring for each loop.
	AccessLog *accesslog.Log
	// Now is the time by which certificates are judged; time.Now where it is nil.
	Now func() time.Time
}

// Listener is a bound listener.
type Listener struct {
	Gateway  string // namespace/name
	Name     string
	Protocol string
	Addr     netip.AddrPort // with the port the kernel gave where 0 was asked
}
