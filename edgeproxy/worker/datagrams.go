package worker

import (
	"slices"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/accesslog"
	"github.com/meridian-mesh/meridian/edgeproxy/datagram"
	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/lb"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
	"github.com/meridian-mesh/meridian/edgeproxy/view"
)

// protocolUDP is what the access log calls sessions.
const protocolUDP = "UDP"

// datagrams is a worker as the host of UDP sessions.
type datagrams Worker

// listenPackets serves this loop's share of a UDP listener's sockets.
func (w *Worker) listenPackets(l *Listener) error {
	fds := l.Listener.FDs()
	for i := w.id; i < len(fds); i += len(w.shared.Workers) {
		k, err := w.datagrams.Listen(fds[i], l)
		if err != nil {
			return err
		}
		w.packets[l] = append(w.packets[l], k)
		handed := w.shared.Handed[l][i] // nobody writes it now
		for j := range handed {
			k.Adopt(&handed[j], (*datagrams)(w).adopt)
		}
	}
	return nil
}

// HandSessions returns what passes to the process that takes over, by the place of
// the socket; at most most of each socket's. It runs on the loop.
func (w *Worker) HandSessions(most int) map[*Listener]map[int][]datagram.Handed {
	all := map[*Listener]map[int][]datagram.Handed{}
	for l, sockets := range w.packets {
		all[l] = map[int][]datagram.Handed{}
		for n, k := range sockets {
			all[l][w.id+n*len(w.shared.Workers)] = k.Hand(nil, most)
		}
	}
	return all
}

// adopt finds the place of a session that another process has begun.
func (h *datagrams) adopt(s *datagram.Session, from *datagram.Handed) bool {
	w := (*Worker)(h)
	socket := w.state.Sockets[s.Owner.(*Listener)]
	if socket == nil || socket.Streams == nil {
		return false
	}
	rule, ok := socket.Streams.Match(nil)
	svc := w.state.View.Services[mesh.ServiceKey(from.Service)]
	if !ok || svc == nil || svc.Packets == nil || !rule.Names(svc.Key) {
		return false
	}
	i := slices.IndexFunc(svc.Home, func(e *upstream.Endpoint) bool { return e.Addr == from.Endpoint })
	if i < 0 || w.admits(s.From.Addr(), socket, rule, svc, packetPort(rule, svc)) != "" {
		return false
	}
	s.Plan = datagram.Plan{Service: svc.Service, Idle: svc.PacketIdle, Retries: svc.Retries, Route: rule.Key}
	svc.Cells[w.id].SessionsOpen.Add(1)
	svc.Service.InFlight.Add(1)
	s.Endpoint = svc.Home[i]
	s.Endpoint.InFlight.Add(1)
	s.Flow = s.Endpoint.Cells[w.id].Flow(w.callerAt(s.From.Addr()))
	return true
}

// stopPackets ends the sessions of a UDP listener.
func (w *Worker) stopPackets(l *Listener) {
	for _, k := range w.packets[l] {
		k.Close()
	}
	delete(w.packets, l)
}

// Admit implements [datagram.Host].
func (h *datagrams) Admit(s *datagram.Session) bool {
	w := (*Worker)(h)
	l := s.Owner.(*Listener)
	if w.full() && !w.makeWay() {
		w.shared.Memory.Connections.Add(1)
		return false
	}
	if int(l.Connections.Add(1)) > w.shared.MaxListenerConnections {
		l.Connections.Add(-1)
		l.Full.Add(1)
		return false
	}
	if int(w.shared.Connections.Add(1)) > w.shared.MaxConnections {
		l.Connections.Add(-1)
		w.shared.Connections.Add(-1)
		l.ProxyFull.Add(1)
		return false
	}
	w.Counters.Open.Add(1)
	w.Counters.Accepted.Add(1)
	w.Loop.Spend(SocketBytes)
	return true
}

// Route implements [datagram.Host].
func (h *datagrams) Route(s *datagram.Session) exchange.Flag {
	w := (*Worker)(h)
	socket := w.state.Sockets[s.Owner.(*Listener)]
	if socket == nil || socket.Streams == nil {
		return exchange.NoRoute // the listener went away meanwhile
	}
	rule, ok := socket.Streams.Match(nil)
	if !ok {
		return exchange.NoRoute
	}
	s.Route = rule.Key
	b := rule.Pick(w.random())
	if b == nil || b.Invalid != "" {
		return exchange.NoCluster
	}
	svc := w.state.View.Services[b.Service]
	if svc == nil || !svc.HasPacketPort(b.Port) {
		return exchange.NoCluster
	}
	if w.admits(s.From.Addr(), socket, rule, svc, b.Port) != "" {
		return exchange.Denied
	}
	s.Plan = datagram.Plan{Service: svc.Service, Idle: svc.PacketIdle, Retries: svc.Retries, Port: b.Port, Route: rule.Key}
	svc.Cells[w.id].SessionsOpen.Add(1)
	svc.Cells[w.id].Demand.Add(1)
	return exchange.OK
}

// Pick implements [datagram.Host]: the endpoint that a QUIC connection is at, else the
// one that the client's address and port hash to, at every proxy alike.
func (h *datagrams) Pick(s *datagram.Session, first []byte) exchange.Flag {
	w := (*Worker)(h)
	svc := w.state.View.Services[s.Service.Key]
	if svc == nil || svc.Packets == nil {
		return exchange.NoHealthy
	}
	if s.Tries == 0 {
		if at := w.shared.ConnectionIDs.Find(&s.IDs, first); at != nil && slices.Contains(svc.Home, at) {
			if why, _ := at.Health.Load(); why == 0 {
				h.picked(s, svc, slices.Index(svc.Home, at))
				return exchange.OK
			}
		}
	}
	var gone upstream.Tried
	for s.Away = false; ; {
		switch i := (*streams)(w).place(svc, gone); {
		case i >= 0 && i < len(svc.Remotes):
			if svc.PacketTunnelTo(s.Port) != nil {
				s.Away, s.Place = true, i
				s.Tries++
				return exchange.OK
			}
			gone = gone.With(i)
		case i == upstream.Shed:
			svc.Sheds[0].N.Add(1)
			return exchange.Shed
		case i != upstream.Home || gone.Has(upstream.Home):
			return exchange.NoHealthy
		case h.home(s, svc):
			return exchange.OK
		default:
			gone = gone.With(upstream.Home)
		}
	}
}

// home chooses an endpoint at this site, by what tells the session apart.
func (h *datagrams) home(s *datagram.Session, svc *view.Service) bool {
	w := (*Worker)(h)
	w.tried = w.tried[:0]
	for i, e := range svc.Home {
		if slices.Contains(s.Tried[:s.Tries], e) {
			w.tried = append(w.tried, i)
		}
	}
	var text [64]byte
	key := s.From.AppendTo(text[:0])
	if svc.KeyBy == view.BySource {
		key = s.From.Addr().AppendTo(text[:0])
	}
	i, ok := w.choice.PickPacket(svc, w.tried, lb.Hash(key), w.Loop.Now())
	if ok {
		h.picked(s, svc, i)
	}
	return ok
}

func (h *datagrams) picked(s *datagram.Session, svc *view.Service, i int) {
	w := (*Worker)(h)
	e := svc.Home[i]
	s.Endpoint, s.Tried[s.Tries] = e, e
	s.Tries++
	if s.Tries > 1 {
		w.Counters.Retries.Add(1)
	}
	e.InFlight.Add(1)
	svc.Service.InFlight.Add(1)
	svc.Cells[w.id].Arrivals.Add(1)
	e.Cells[w.id].Connects.Add(1)
	w.Counters.Connects.Add(1)
	// At once and not with an answer, which some services never give.
	s.Flow = e.Cells[w.id].Flow(w.callerAt(s.From.Addr()))
	s.Flow.Requests.Add(1)
}

// Stays implements [datagram.Host].
func (h *datagrams) Stays(s *datagram.Session) bool {
	w := (*Worker)(h)
	socket := w.state.Sockets[s.Owner.(*Listener)]
	if socket == nil || socket.Streams == nil {
		return false
	}
	rule, ok := socket.Streams.Match(nil)
	if !ok || rule.Key != s.Route || !rule.Names(s.Service.Key) {
		return false
	}
	svc := w.state.View.Services[s.Service.Key]
	if svc == nil {
		return false
	}
	i := slices.Index(svc.Home, s.Endpoint)
	if s.Away {
		at := s.Via
		if i = -1; at == nil || at.Site == "" || slices.ContainsFunc(svc.Remotes, func(x view.Remote) bool { return x.Endpoint == at }) {
			s.Idle, s.Retries = svc.PacketIdle, svc.Retries
			return w.admits(s.From.Addr(), socket, rule, svc, packetPort(rule, svc)) == ""
		}
	}
	if i < 0 || !svc.Sticks(i) || w.admits(s.From.Addr(), socket, rule, svc, packetPort(rule, svc)) != "" {
		return false
	}
	s.Idle, s.Retries = svc.PacketIdle, svc.Retries
	return true
}

// Reached implements [datagram.Host].
func (h *datagrams) Reached(s *datagram.Session, ok bool) {
	w := (*Worker)(h)
	c := &s.Endpoint.Cells[w.id]
	if ok {
		c.Requests.Add(1)
		c.Good.Add(1)
		return
	}
	s.Endpoint.InFlight.Add(-1)
	s.Service.InFlight.Add(-1)
	c.ConnectFailures.Add(1)
	c.Bad.Add(1)
	w.Counters.ConnectFailures.Add(1)
}

// Left implements [datagram.Host].
func (h *datagrams) Left(s *datagram.Session) {
	s.Endpoint.InFlight.Add(-1)
	s.Service.InFlight.Add(-1)
}

// Moved implements [datagram.Host].
func (h *datagrams) Moved(s *datagram.Session, fromClient bool, datagrams, bytes int) {
	w := (*Worker)(h)
	c := &s.Service.Cells[w.id]
	if fromClient {
		s.FromClient += int64(bytes)
		c.DatagramsIn.Add(uint64(datagrams))
		c.FromClients.Add(uint64(bytes))
		if s.Flow != nil {
			s.Flow.RequestBytes.Add(uint64(bytes))
		}
		w.Counters.Received.Add(uint64(bytes))
		return
	}
	s.FromBackend += int64(bytes)
	c.DatagramsOut.Add(uint64(datagrams))
	c.FromBackend.Add(uint64(bytes))
	if s.Flow != nil {
		s.Flow.ResponseBytes.Add(uint64(bytes))
	}
	w.Counters.Sent.Add(uint64(bytes))
}

// Dropped implements [datagram.Host].
func (h *datagrams) Dropped(s *datagram.Session, why datagram.Drop, n int) {
	w := (*Worker)(h)
	svc := w.shared.Unrouted
	if s != nil && s.Service != nil {
		svc = s.Service
	}
	svc.Cells[w.id].DatagramsDropped[why].Add(uint64(n))
}

// Answer implements [datagram.Host].
func (h *datagrams) Answer(s *datagram.Session, p []byte) {
	if len(p) > 0 && p[0]&0x80 != 0 { // else there is nothing to learn
		h.shared.ConnectionIDs.Learn(&s.IDs, p, s.Endpoint)
	}
}

// Ended implements [datagram.Host].
func (h *datagrams) Ended(s *datagram.Session, f exchange.Flag) {
	w := (*Worker)(h)
	w.shared.Connections.Add(-1)
	s.Owner.(*Listener).Connections.Add(-1)
	w.Counters.Open.Add(-1)
	w.shared.ConnectionIDs.Forget(&s.IDs)
	svc := w.shared.Unrouted
	if s.Service != nil {
		svc = s.Service
		svc.Cells[w.id].SessionsOpen.Add(-1)
	}
	if s.Endpoint != nil {
		s.Endpoint.InFlight.Add(-1)
		svc.InFlight.Add(-1)
	}
	svc.Cells[w.id].Sessions[f].Add(1)
	w.logSession(s, f)
}

// logSession hands the access log a session that is over.
func (w *Worker) logSession(s *datagram.Session, f exchange.Flag) {
	wanted := w.tap.Wants(0, f != exchange.OK, 0)
	if w.log == nil && !wanted {
		return
	}
	e := &w.entry
	*e = accesslog.Entry{
		Start: s.Born, Duration: w.Loop.Now() - s.Born, FirstByte: -1, Flag: f.String(), Attempts: s.Tries,
		Received: s.FromClient, Sent: s.FromBackend, Client: s.From, Peer: s.From, Protocol: protocolUDP, Route: s.Route,
		Details: exchange.DetailsOf(f, s.FromBackend > 0),
	}
	if socket := w.state.Sockets[s.Owner.(*Listener)]; socket != nil {
		e.Gateway = socket.Gateway
	}
	if s.Service != nil {
		e.Service = string(s.Service.Key)
	}
	if s.Endpoint != nil {
		e.Upstream = s.Endpoint.Addr
	} else if s.Via != nil {
		e.Upstream, e.Site = s.Via.Addr, s.Via.Site
	}
	w.hand(e, wanted, f != exchange.OK)
}

// inspectSession looks at a UDP session.
func (w *Worker) inspectSession(s *datagram.Session) Connection {
	c := Connection{ID: w.sessionID(s), Loop: w.id, Client: s.From.String(), State: "datagrams", Age: seconds(w.Loop.Now() - s.Born)}
	if socket := w.state.Sockets[s.Owner.(*Listener)]; socket != nil {
		c.Gateway = socket.Gateway
	}
	return c
}

// inspectDatagrams is what a session carried, in the words of a request.
func (w *Worker) inspectDatagrams(s *datagram.Session) Request {
	q := Request{Age: seconds(w.Loop.Now() - s.Born), Received: s.FromClient, Sent: s.FromBackend, Answered: s.Answered > 0, Attempts: []Attempt{}}
	if s.Service != nil {
		q.Service = string(s.Service.Key)
	}
	if s.Endpoint != nil {
		q.Attempts = append(q.Attempts, Attempt{Endpoint: s.Endpoint.Addr.String(), State: "sent"})
	}
	return q
}

var _ datagram.Host = (*datagrams)(nil)
