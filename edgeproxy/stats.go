package edgeproxy

import (
	"context"
	"math"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/price"
	"github.com/meridian-mesh/meridian/edgeproxy/authz"
	"github.com/meridian-mesh/meridian/edgeproxy/datagram"
	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
)

// drainPoll is how often Drain looks whether connections are left.
const drainPoll = 10 * time.Millisecond

func pause(ctx context.Context, stopped <-chan struct{}) error {
	t := time.NewTimer(drainPoll)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-stopped:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stats are cumulative counters and current gauges, summed over loops; they
// survive reloads.
type Stats struct {
	Connections, ConnectionsTotal, ConnectionsRefused uint64
	BytesReceived, BytesSent                          uint64 // client side
	UpstreamConnects, UpstreamConnectFailures         uint64
	UpstreamReused, Retries                           uint64
	Tunnels                                           int // now: connections and streams that switched protocols
	TunnelsTotal                                      uint64
	// SlowBodies and SlowReaders are client connections closed for a request's body
	// that came, or a response that was taken, too slowly.
	SlowBodies, SlowReaders uint64
	// Mirrored counts requests of which a copy was sent, MirrorsDropped copies
	// given up because their backend was slow.
	Mirrored, MirrorsDropped uint64
	Loops                    []LoopStats
	Requests                 []RequestCount
	Shed                     []ShedCount
	Latency                  []ServiceLatency
	Streams                  []StreamCount
	Sessions                 []SessionCount
	Listeners                []ListenerCount
	Authorization            []PolicyCount
	Plaintext                []PlaintextCount
}

// PlaintextCount counts requests of other sites that came without TLS to a proxy that
// has it.
type PlaintextCount struct {
	Service           mesh.ServiceKey // empty where they named none
	Accepted, Refused uint64
}

// PolicyCount counts what a policy in force decided, or would as no dry run.
type PolicyCount struct {
	Policy string // namespace/name
	Action string
	// Decisions are by allowed, denied, audited, would_allow and would_deny; those that
	// the policy's action can have are there, if 0.
	Decisions map[string]uint64
}

// ListenerCount counts the connections of one listening socket.
type ListenerCount struct {
	Address     string
	Connections int
	// RefusedListener were over the listener's own limit, RefusedProxy over that
	// of the whole proxy.
	RefusedListener, RefusedProxy uint64
}

// StreamCount counts the TCP connections of one service.
type StreamCount struct {
	Service mesh.ServiceKey // empty where no service was reached
	Open    int
	// Ended counts by response flag, empty where both sides ended it.
	Ended                    map[string]uint64
	FromClients, FromBackend uint64 // bytes passed on
}

// SessionCount counts the UDP sessions of one service.
type SessionCount struct {
	Service mesh.ServiceKey // empty where no service was reached
	Open    int
	// Ended counts by response flag, empty where silence ended it; Dropped counts
	// datagrams that went nowhere, by reason.
	Ended, Dropped           map[string]uint64
	FromClients, FromBackend uint64 // datagrams passed on
}

// LoopStats are one event loop's figures.
type LoopStats struct {
	Turns, Syscalls uint64
	SlowTurns       uint64 // over 5 ms
	LongestTurn     time.Duration
	MappedBytes     uint64 // address space of buffers
	Connections     int64
}

// RequestCount counts finished requests of one service and outcome.
type RequestCount struct {
	Service mesh.ServiceKey // empty where no service was reached
	Class   int             // status / 100; 0 when no response was sent
	Flag    string          // Envoy's response flag; empty when the backend or a filter answered
	N       uint64
}

// ShedCount counts the refused requests of a service's priority class; Priority is
// empty for those of none.
type ShedCount struct {
	Service  mesh.ServiceKey
	Priority string
	N        uint64
}

// ServiceLatency is the histogram of whole exchanges, from the request's head to
// the response's last byte.
type ServiceLatency struct {
	Service mesh.ServiceKey
	Bounds  []time.Duration // upper bounds of Counts, whose last one is open
	Counts  []uint64
	Sum     time.Duration
}

// Stats sums the loops' counters.
func (s *Server) Stats() Stats {
	st := Stats{Connections: uint64(max(0, s.shared.Connections.Load()))}
	for _, w := range s.shared.Workers {
		c, l := &w.Counters, &w.Loop.Stats
		st.ConnectionsTotal += c.Accepted.Load()
		st.ConnectionsRefused += c.Refused.Load()
		st.BytesReceived += c.Received.Load()
		st.BytesSent += c.Sent.Load()
		st.UpstreamConnects += c.Connects.Load()
		st.UpstreamConnectFailures += c.ConnectFailures.Load()
		st.UpstreamReused += c.Reused.Load()
		st.Retries += c.Retries.Load()
		st.Tunnels += int(c.Tunnels.Load())
		st.TunnelsTotal += c.TunnelsTotal.Load()
		st.SlowBodies += c.SlowBodies.Load()
		st.SlowReaders += c.SlowReaders.Load()
		st.Mirrored += c.Mirrored.Load()
		st.MirrorsDropped += c.MirrorsDropped.Load()
		st.Loops = append(st.Loops, LoopStats{
			Turns: l.Turns.Load(), Syscalls: l.Syscalls.Load(), SlowTurns: l.SlowTurns.Load(),
			LongestTurn: time.Duration(l.LongestTurnNS.Load()), MappedBytes: l.Mapped.Load(),
			Connections: c.Open.Load(),
		})
	}
	if now := s.state.Load(); now != nil {
		for _, l := range now.Listeners {
			st.Listeners = append(st.Listeners, ListenerCount{
				Address: l.Listener.Addr().String(), Connections: int(l.Connections.Load()),
				RefusedListener: l.Full.Load(), RefusedProxy: l.ProxyFull.Load(),
			})
		}
	}
	if now := s.state.Load(); now != nil {
		st.addPolicies(now.View.Policies)
	}
	for _, h := range s.registry.Services() {
		st.add(h)
		st.addStreams(h)
		st.addSessions(h)
		st.addPlaintext(h)
	}
	return st
}

func (st *Stats) addPolicies(policies *authz.Policies) {
	for _, p := range policies.All {
		var allowed, denied, audited, wouldAllow, wouldDeny uint64
		for i := range p.Counts {
			c := &p.Counts[i]
			allowed += c.Allowed.Load()
			denied += c.Denied.Load()
			audited += c.Audited.Load()
			wouldAllow += c.WouldAllow.Load()
			wouldDeny += c.WouldDeny.Load()
		}
		out := PolicyCount{Policy: p.Namespace + "/" + p.Name, Action: p.Action}
		switch allow := p.Action == mesh.ActionAllow; {
		case p.Action == mesh.ActionAudit:
			out.Decisions = map[string]uint64{"audited": audited}
		case p.DryRun && allow:
			out.Decisions = map[string]uint64{"would_allow": wouldAllow, "would_deny": wouldDeny}
		case p.DryRun:
			out.Decisions = map[string]uint64{"would_deny": wouldDeny}
		case allow:
			out.Decisions = map[string]uint64{"allowed": allowed, "denied": denied}
		default:
			out.Decisions = map[string]uint64{"denied": denied}
		}
		st.Authorization = append(st.Authorization, out)
	}
}

func (st *Stats) addStreams(h *upstream.Service) {
	c := StreamCount{Service: h.Key, Ended: map[string]uint64{}}
	for i := range h.Cells {
		cell := &h.Cells[i]
		c.Open += int(cell.StreamsOpen.Load())
		c.FromClients += cell.FromClients.Load()
		c.FromBackend += cell.FromBackend.Load()
		for flag := range exchange.Flags {
			if n := cell.Streams[flag].Load(); n > 0 {
				c.Ended[flag.String()] += n
			}
		}
	}
	if c.Open != 0 || len(c.Ended) > 0 {
		st.Streams = append(st.Streams, c)
	}
}

func (st *Stats) addPlaintext(h *upstream.Service) {
	c := PlaintextCount{Service: h.Key}
	for i := range h.Cells {
		c.Accepted += h.Cells[i].Plain.Load()
		c.Refused += h.Cells[i].PlainRefused.Load()
	}
	if c.Accepted+c.Refused > 0 {
		st.Plaintext = append(st.Plaintext, c)
	}
}

func (st *Stats) addSessions(h *upstream.Service) {
	c := SessionCount{Service: h.Key, Ended: map[string]uint64{}, Dropped: map[string]uint64{}}
	for i := range h.Cells {
		cell := &h.Cells[i]
		c.Open += int(cell.SessionsOpen.Load())
		c.FromClients += cell.DatagramsIn.Load()
		c.FromBackend += cell.DatagramsOut.Load()
		for flag := range exchange.Flags {
			if n := cell.Sessions[flag].Load(); n > 0 {
				c.Ended[flag.String()] += n
			}
		}
		for why, name := range datagram.Names {
			if n := cell.DatagramsDropped[why].Load(); n > 0 {
				c.Dropped[name] += n
			}
		}
	}
	if c.Open != 0 || len(c.Ended) > 0 || len(c.Dropped) > 0 {
		st.Sessions = append(st.Sessions, c)
	}
}

func (st *Stats) add(h *upstream.Service) {
	for _, x := range h.AllSheds() {
		// A class that is configured is there from the start: what appears with its
		// first refusal cannot be alerted on.
		if n := x.N.Load(); n > 0 || x.Class != "" {
			st.Shed = append(st.Shed, ShedCount{Service: h.Key, Priority: x.Class, N: n})
		}
	}
	lat := ServiceLatency{Service: h.Key, Bounds: upstream.Bounds[:], Counts: make([]uint64, upstream.Buckets)}
	for class := range upstream.Classes {
		for flag := range exchange.Flags {
			var n uint64
			for i := range h.Cells {
				n += h.Cells[i].Outcomes[class][flag].Load()
			}
			if n > 0 {
				st.Requests = append(st.Requests, RequestCount{Service: h.Key, Class: class, Flag: flag.String(), N: n})
			}
		}
	}
	var total uint64
	for i := range h.Cells {
		for b := range lat.Counts {
			n := h.Cells[i].Latency[b].Load()
			lat.Counts[b] += n
			total += n
		}
		lat.Sum += time.Duration(h.Cells[i].LatencyNS.Load())
	}
	if total > 0 {
		st.Latency = append(st.Latency, lat)
	}
}

// Endpoint is the state of one endpoint or remote gateway.
type Endpoint struct {
	Service mesh.ServiceKey
	Address string
	Site    string // of the remote site; empty at home
	// InFlight counts requests there now, those that wait for a connection too.
	InFlight int
	Idle     int // connections at rest
	// Cumulative since the endpoint is known.
	Requests, Failures, Connects, ConnectFailures, Reused, Ejections uint64
	// Host is the DNS name that it is behind, empty for an address.
	Host string
	// Health is healthy, warming, ejected or, while too few are healthy, panic;
	// empty for another site's gateway. Why says what an ejection is for and BackIn
	// when it ends.
	Health string
	Why    string
	BackIn time.Duration
	// Share is the part of its weight that it takes now (0 to 1).
	Share float64
}

// Values of [Endpoint.Health].
const (
	Healthy = "healthy"
	Warming = "warming"
	Ejected = "ejected"
	// Panicking is an ejected endpoint that is used all the same.
	Panicking = "panic"
)

// Endpoints lists the state of the endpoints in force.
func (s *Server) Endpoints() []Endpoint {
	st := s.state.Load()
	if st == nil {
		return nil
	}
	var out []Endpoint
	for _, h := range s.registry.Services() {
		svc := st.View.Services[h.Key]
		if svc == nil {
			continue
		}
		for i, e := range svc.Home {
			x := endpoint(e)
			x.Host = svc.Hosts[i]
			x.judge(e, svc.Panic.Load(), s.Now())
			out = append(out, x)
		}
		for _, r := range svc.Remotes {
			out = append(out, endpoint(r.Endpoint))
		}
	}
	return out
}

// judge says how an endpoint at home is.
func (e *Endpoint) judge(h *upstream.Endpoint, all bool, now int64) {
	why, missing := h.Health.Load()
	e.Health, e.Share = Healthy, 1-math.Round(1000*float64(missing)/(1<<16))/1000
	switch {
	case why != 0:
		e.Why, e.BackIn = why.String(), max(0, time.Duration(h.EjectedUntil.Load()-now))
		e.Health, e.Share = Ejected, 0
		if all {
			e.Health, e.Share = Panicking, 1
		}
	case missing > 0:
		e.Health = Warming
	}
}

func endpoint(e *upstream.Endpoint) Endpoint {
	out := Endpoint{Service: e.Service, Address: e.Addr.String(), Site: e.Site, InFlight: int(e.InFlight.Load()), Ejections: e.Ejections.Load()}
	for i := range e.Cells {
		c := &e.Cells[i]
		out.Idle += int(c.Idle.Load())
		out.Requests += c.Requests.Load()
		out.Failures += c.Failures.Load()
		out.Connects += c.Connects.Load()
		out.ConnectFailures += c.ConnectFailures.Load()
		out.Reused += c.Reused.Load()
	}
	return out
}

// ServiceLoad holds one service's cumulative load counters and its gauges.
type ServiceLoad struct {
	Service mesh.ServiceKey
	// InFlight counts requests at this site's endpoints now, from everywhere.
	InFlight int
	// Slots is the declared concurrency of the endpoints at home, summed, and
	// ServiceTime their declared mean; zero where not declared.
	Slots       int
	ServiceTime time.Duration
	// Demand counts requests of this site's own users, Arrivals those sent to this
	// site's endpoints from everywhere, Completions their answers.
	Demand, Arrivals, Completions uint64
	// Unqueued counts completions that found a free slot when they were sent;
	// UnqueuedNS sums their times and UnqueuedSqUS the squares, in us^2.
	Unqueued, UnqueuedNS, UnqueuedSqUS uint64
	// UnqueuedStarts counts requests that found a free slot, answered or not.
	UnqueuedStarts uint64
	// Levels are completions by the number in flight when they started, nil where the
	// concurrency is declared.
	Levels *[price.Levels]price.Level
	// From splits arrivals by the other site they came from.
	From []SourceCount
	// Mates are the services that share a machine with it; then Slots are the machine's.
	Mates []mesh.ServiceKey
	// Remotes are the candidates abroad, in the order the gate knows them.
	Remotes []RemoteLoad
}

// SourceCount counts arrivals from one other site.
type SourceCount struct {
	Site string
	N    uint64
}

// RemoteLoad is what this proxy has at one other site.
type RemoteLoad struct {
	Site           string
	Outstanding    int
	Sent, Failures uint64
}

// Loads returns the load of every service in force, in dst's memory where that
// is large enough: a ticker calls it often and differences the counters.
func (s *Server) Loads(dst []ServiceLoad) []ServiceLoad {
	st := s.state.Load()
	dst = dst[:0]
	if st == nil {
		return dst
	}
	names := s.registry.SourceNames()
	for _, h := range s.registry.Services() {
		svc := st.View.Services[h.Key]
		if svc == nil {
			continue
		}
		if len(dst) < cap(dst) {
			dst = dst[:len(dst)+1]
		} else {
			dst = append(dst, ServiceLoad{})
		}
		l := &dst[len(dst)-1]
		*l = ServiceLoad{
			Service: h.Key, InFlight: int(h.InFlight.Load()), Slots: svc.Concurrency, ServiceTime: svc.ServiceTime,
			Levels: l.Levels, From: l.From[:0], Remotes: l.Remotes[:0], Mates: svc.MateKeys(l.Mates[:0]),
		}
		for i := range h.Cells {
			c := &h.Cells[i]
			l.Demand += c.Demand.Load()
			l.Arrivals += c.Arrivals.Load()
			l.Completions += c.Completed.Load()
			l.Unqueued += c.Unqueued.Load()
			l.UnqueuedStarts += c.UnqueuedStarts.Load()
			l.UnqueuedNS += c.UnqueuedNS.Load()
			l.UnqueuedSqUS += c.UnqueuedSq.Load()
		}
		if svc.Concurrency > 0 || len(svc.Home) == 0 {
			l.Levels = nil
		} else {
			if l.Levels == nil {
				l.Levels = new([price.Levels]price.Level)
			}
			h.Levels(l.Levels)
		}
		for k, name := range names {
			var n uint64
			for i := range h.Cells {
				n += h.Cells[i].From[k].Load()
			}
			if n > 0 {
				l.From = append(l.From, SourceCount{Site: name, N: n})
			}
		}
		for _, r := range svc.Remotes {
			e := endpoint(r.Endpoint)
			l.Remotes = append(l.Remotes, RemoteLoad{Site: r.Site, Outstanding: e.InFlight, Sent: e.Requests, Failures: e.Failures})
		}
	}
	return dst
}
