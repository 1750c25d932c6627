package admin

import (
	"crypto/x509"
	"maps"
	"slices"
	"strconv"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy"
	"github.com/meridian-mesh/meridian/edgeproxy/tlsio"
)

// Proxy is the data path as this package asks it; edgeproxy.Server is one.
type Proxy interface {
	Listeners() []edgeproxy.Listener
	Endpoints() []edgeproxy.Endpoint
	Chains() []edgeproxy.Chain
	Problems() []string
	Stats() edgeproxy.Stats
	Memory() edgeproxy.Memory
	Handshakes() []tlsio.Count
	Certificates() []tlsio.Held
	Identity() *x509.Certificate
	Workload() *x509.Certificate
	Loads(dst []edgeproxy.ServiceLoad) []edgeproxy.ServiceLoad
	Connections(most int) []edgeproxy.Connection
	Connection(id uint64) (edgeproxy.Connection, bool)
	Explain(q *mesh.ExplainQuery) (*mesh.Explanation, error)
	Tap(q *mesh.TapQuery) (*mesh.TapAnswer, error)
	Failed(q *mesh.FailedQuery) (*mesh.FailedAnswer, error)
}

var _ Proxy = (*edgeproxy.Server)(nil)

func (n Node) writeProxy(t *Text) {
	s := n.Proxy.Stats()
	t.Family("meridian_connections", gauge, "Client connections that are open.")
	t.Count(s.Connections)
	t.Family("meridian_connections_total", counter, "Client connections that were accepted.")
	t.Count(s.ConnectionsTotal)
	t.Family("meridian_connections_refused_total", counter, "Client connections over a limit, reset at once.")
	t.Count(s.ConnectionsRefused)
	t.Family("meridian_listener_connections", gauge, "Client connections that are open, by listening address.")
	for _, l := range s.Listeners {
		t.Value(float64(l.Connections), "address", l.Address)
	}
	t.Family("meridian_listener_connections_refused_total", counter, "Client connections reset at once, by listening address and by the limit they were over: of the listener or of the whole proxy.")
	for _, l := range s.Listeners {
		t.Count(l.RefusedListener, "address", l.Address, "limit", "listener")
		t.Count(l.RefusedProxy, "address", l.Address, "limit", "proxy")
	}
	t.Family("meridian_received_bytes_total", counter, "Bytes read from clients.")
	t.Count(s.BytesReceived)
	t.Family("meridian_sent_bytes_total", counter, "Bytes written to clients.")
	t.Count(s.BytesSent)
	t.Family("meridian_retries_total", counter, "Attempts after the first of a request.")
	t.Count(s.Retries)
	t.Family("meridian_tunnels", gauge, "Tunnels that are open: connections, or streams of HTTP/2, that switched protocols (WebSocket).")
	t.Value(float64(s.Tunnels))
	t.Family("meridian_tunnels_total", counter, "Tunnels that were opened.")
	t.Count(s.TunnelsTotal)
	t.Family("meridian_slow_clients_closed_total", counter, "Client connections closed because a body came, or a response was taken, too slowly.")
	t.Count(s.SlowBodies, "reason", "body")
	t.Count(s.SlowReaders, "reason", "reader")
	t.Family("meridian_mirrored_total", counter, "Copies of requests that a RequestMirror filter sent.")
	t.Count(s.Mirrored)
	t.Family("meridian_mirrors_dropped_total", counter, "Copies of requests that were given up or not sent because their backend was too slow.")
	t.Count(s.MirrorsDropped)
	t.Family("meridian_config_problems", gauge, "Parts of the configuration in force that cannot be served.")
	t.Value(float64(len(n.Proxy.Problems())))
	n.writeTLS(t)
	writePeers(t, n.Proxy.Loads(nil))
	n.writeAccessLog(t)
	writeMemory(t, n.Proxy.Memory())
	writeLoops(t, s.Loops)
	writeRequests(t, s)
	writeStreams(t, s.Streams)
	writeSessions(t, s.Sessions)
	writeUpstreams(t, n.Proxy.Endpoints())
	writeChains(t, n.Proxy.Chains())
}

func writeMemory(t *Text, m edgeproxy.Memory) {
	if m.Limit == 0 {
		return
	}
	t.Family("meridian_memory_limit_bytes", gauge, "What --memory-limit allows.")
	t.Count(uint64(m.Limit))
	t.Family("meridian_memory_resident_bytes", gauge, "Resident memory as last counted against the limit.")
	t.Count(uint64(m.Resident))
	t.Family("meridian_memory_sockets_bytes", gauge, "Estimate of the kernel's memory for client connections, which counts against the limit too.")
	t.Count(uint64(m.Sockets))
	t.Family("meridian_memory_shed_connections_total", counter, "Connections given up to stay within the limit: at rest, or slow to send or to read.")
	t.Count(m.ShedIdle, "reason", "idle")
	t.Count(m.ShedSlow, "reason", "slow")
	t.Family("meridian_memory_refused_connections_total", counter, "Connections closed at once to stay within the limit.")
	t.Count(m.RefusedConnections)
	t.Family("meridian_memory_refused_requests_total", counter, "Requests answered 503 to stay within the limit.")
	t.Count(m.RefusedRequests)
}

func (n Node) writeAccessLog(t *Text) {
	if n.Requests == nil {
		return
	}
	s := n.Requests()
	t.Family("meridian_access_log_lines_total", counter, "Lines written to the access log.")
	t.Count(s.Written)
	t.Family("meridian_access_log_lost_total", counter, "Lines that are missing in the access log: dropped because the writer did not keep up, failed because the file did not take them.")
	t.Count(s.Dropped, "reason", "dropped")
	t.Count(s.Failed, "reason", "failed")
}

func writeLoops(t *Text, loops []edgeproxy.LoopStats) {
	each := func(name, kind, help string, value func(edgeproxy.LoopStats) float64) {
		t.Family(name, kind, help)
		for i, l := range loops {
			t.Value(value(l), "loop", strconv.Itoa(i))
		}
	}
	each("meridian_loop_turns_total", counter, "Turns of an event loop.",
		func(l edgeproxy.LoopStats) float64 { return float64(l.Turns) })
	each("meridian_loop_slow_turns_total", counter, "Turns of an event loop that took over 5 ms.",
		func(l edgeproxy.LoopStats) float64 { return float64(l.SlowTurns) })
	each("meridian_loop_longest_turn_seconds", gauge, "Longest turn of an event loop so far.",
		func(l edgeproxy.LoopStats) float64 { return l.LongestTurn.Seconds() })
	each("meridian_loop_syscalls_total", counter, "System calls of an event loop.",
		func(l edgeproxy.LoopStats) float64 { return float64(l.Syscalls) })
	each("meridian_loop_connections", gauge, "Client connections that an event loop owns.",
		func(l edgeproxy.LoopStats) float64 { return float64(l.Connections) })
	each("meridian_loop_buffer_bytes", gauge, "Address space mapped for buffers, outside the Go heap.",
		func(l edgeproxy.LoopStats) float64 { return float64(l.MappedBytes) })
}

func writeRequests(t *Text, s edgeproxy.Stats) {
	t.Family("meridian_requests_total", counter, "Requests that ended, by service, class of status (0: no response was sent) and response flag (empty: the backend answered).")
	for _, r := range s.Requests {
		class := "0"
		if r.Class > 0 {
			class = strconv.Itoa(r.Class) + "xx"
		}
		t.Count(r.N, "service", string(r.Service), "class", class, "flag", r.Flag)
	}
	t.Family("meridian_requests_shed_total", counter, "Requests refused because the service is full here and no other site may take them, by priority class (empty: of none).")
	for _, r := range s.Shed {
		t.Count(r.N, "service", string(r.Service), "priority", r.Priority)
	}
	writePlaintext(t, s.Plaintext)
	t.Family("meridian_authorization_decisions_total", counter, "Requests, connections and sessions by what an AuthorizationPolicy decided, or would (dryRun); denied of action allow: none of the target matched.")
	for _, p := range s.Authorization {
		for _, d := range slices.Sorted(maps.Keys(p.Decisions)) {
			t.Count(p.Decisions[d], "policy", p.Policy, "action", p.Action, "decision", d)
		}
	}
	t.Family("meridian_request_duration_seconds", histogram, "Time from a request's head to the last byte of its response.")
	for _, l := range s.Latency {
		bounds := make([]float64, len(l.Bounds))
		for i, b := range l.Bounds {
			bounds[i] = b.Seconds()
		}
		t.Histogram(bounds, l.Counts, l.Sum.Seconds(), "service", string(l.Service))
	}
}

func writeStreams(t *Text, streams []edgeproxy.StreamCount) {
	t.Family("meridian_tcp_connections", gauge, "TCP connections passed on whole that are open, by service.")
	for _, c := range streams {
		if c.Service != "" {
			t.Value(float64(c.Open), "service", string(c.Service))
		}
	}
	t.Family("meridian_tcp_connections_total", counter, "TCP connections passed on whole that ended, by service (empty: none was reached) and response flag (empty: both sides ended it).")
	for _, c := range streams {
		for _, flag := range slices.Sorted(maps.Keys(c.Ended)) {
			t.Count(c.Ended[flag], "service", string(c.Service), "flag", flag)
		}
	}
	t.Family("meridian_tcp_bytes_total", counter, "Bytes of TCP connections passed on, by who sent them: client or backend.")
	for _, c := range streams {
		if c.Service != "" {
			t.Count(c.FromClients, "service", string(c.Service), "from", "client")
			t.Count(c.FromBackend, "service", string(c.Service), "from", "backend")
		}
	}
}

func writeSessions(t *Text, sessions []edgeproxy.SessionCount) {
	t.Family("meridian_udp_sessions", gauge, "UDP sessions (a client's address and port) that are open, by service.")
	for _, c := range sessions {
		if c.Service != "" {
			t.Value(float64(c.Open), "service", string(c.Service))
		}
	}
	t.Family("meridian_udp_sessions_total", counter, "UDP sessions that ended, by service (empty: none was reached) and response flag (empty: nothing came any more).")
	for _, c := range sessions {
		for _, flag := range slices.Sorted(maps.Keys(c.Ended)) {
			t.Count(c.Ended[flag], "service", string(c.Service), "flag", flag)
		}
	}
	t.Family("meridian_udp_datagrams_total", counter, "Datagrams passed on, by who sent them: client or backend.")
	for _, c := range sessions {
		if c.Service != "" {
			t.Count(c.FromClients, "service", string(c.Service), "from", "client")
			t.Count(c.FromBackend, "service", string(c.Service), "from", "backend")
		}
	}
	t.Family("meridian_udp_datagrams_dropped_total", counter, "Datagrams that went nowhere, by service (empty: none was reached) and reason: no_route (nothing serves them), full (a bound is reached), too_big, busy (buffers of the kernel are full), unreachable.")
	for _, c := range sessions {
		for _, why := range slices.Sorted(maps.Keys(c.Dropped)) {
			t.Count(c.Dropped[why], "service", string(c.Service), "reason", why)
		}
	}
}

// writeUpstreams gives each endpoint its labels; their number is bounded by the
// configuration in force. An address that a service lists twice is one endpoint,
// and a series that stands twice spoils the whole scrape.
func writeUpstreams(t *Text, endpoints []edgeproxy.Endpoint) {
	type key struct{ service, site, address string }
	seen := map[key]bool{}
	endpoints = slices.DeleteFunc(slices.Clone(endpoints), func(e edgeproxy.Endpoint) bool {
		k := key{string(e.Service), e.Site, e.Address}
		twice := seen[k]
		seen[k] = true
		return twice
	})
	each := func(name, kind, help string, value func(edgeproxy.Endpoint) float64) {
		t.Family(name, kind, help)
		for _, e := range endpoints {
			t.Value(value(e), "service", string(e.Service), "site", e.Site, "endpoint", e.Address)
		}
	}
	each("meridian_upstream_requests_total", counter, "Attempts sent to an endpoint; site is empty for this one.",
		func(e edgeproxy.Endpoint) float64 { return float64(e.Requests) })
	each("meridian_upstream_failures_total", counter, "Attempts that got no whole response.",
		func(e edgeproxy.Endpoint) float64 { return float64(e.Failures) })
	each("meridian_upstream_connects_total", counter, "Connections opened to an endpoint.",
		func(e edgeproxy.Endpoint) float64 { return float64(e.Connects) })
	each("meridian_upstream_connect_failures_total", counter, "Connections to an endpoint that could not be opened.",
		func(e edgeproxy.Endpoint) float64 { return float64(e.ConnectFailures) })
	each("meridian_upstream_reuses_total", counter, "Attempts on a pooled connection.",
		func(e edgeproxy.Endpoint) float64 { return float64(e.Reused) })
	each("meridian_upstream_ejections_total", counter, "Times that an endpoint was taken out of rotation because it failed.",
		func(e edgeproxy.Endpoint) float64 { return float64(e.Ejections) })
	t.Family("meridian_upstream_share", gauge, "Part of its weight that an endpoint of this site takes: 0 while it is ejected, less than 1 while it warms up.")
	for _, e := range endpoints {
		if e.Health != "" {
			t.Value(e.Share, "service", string(e.Service), "site", e.Site, "endpoint", e.Address)
		}
	}
	each("meridian_upstream_requests_in_flight", gauge, "Attempts that wait for their response.",
		func(e edgeproxy.Endpoint) float64 { return float64(e.InFlight) })
	each("meridian_upstream_idle_connections", gauge, "Pooled connections that nobody uses now.",
		func(e edgeproxy.Endpoint) float64 { return float64(e.Idle) })
}
