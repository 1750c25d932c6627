package worker

import (
	"net/netip"

	"github.com/meridian-mesh/meridian/edgeproxy/authz"
	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/l4"
	"github.com/meridian-mesh/meridian/edgeproxy/lb"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
	"github.com/meridian-mesh/meridian/edgeproxy/view"
)

// streams is a worker as the host of the connections that it passes on whole.
type streams Worker

// adoptStream serves a connection of a TCP or TLS listener.
func (w *Worker) adoptStream(l *Listener, socket *view.Socket, fd int, from netip.AddrPort) {
	w.Counters.Accepted.Add(1)
	w.streams.Start(fd, from, socket.FromBalancer(from.Addr()), socket.Streams.ByName, l)
}

// Route finds the service that a connection is for.
func (h *streams) Route(s *l4.Session, server []byte) exchange.Flag {
	w := (*Worker)(h)
	socket := w.state.Sockets[s.Owner.(*Listener)]
	if socket != nil && socket.Outbound != nil {
		var f exchange.Flag
		if socket, f = h.routeOutbound(s, socket); socket == nil {
			return f
		}
	}
	if socket == nil || socket.Streams == nil {
		return exchange.NoRoute // the listener went away meanwhile
	}
	if socket.Terminates(server) {
		s.Away = true // routed when its session is there
		return exchange.OK
	}
	svc, port, f, why := w.streamTo(socket, server, authz.Caller{Address: s.From.Addr().Unmap()}, &s.Route)
	if f != exchange.OK {
		s.Details = why
		return f
	}
	s.Plan = l4.Plan{Service: svc.Service, Connect: svc.Connect, Idle: svc.Idle, Retries: svc.Retries, Port: port, Send: svc.SendProxy, Route: s.Route}
	return exchange.OK
}

// streamTo finds the service that a connection for a server name is for, asks the policies,
// and counts it; route is told the route's name. why says more of a refusal.
func (w *Worker) streamTo(socket *view.Socket, server []byte, caller authz.Caller, route *string) (svc *view.Service, port int, f exchange.Flag, why string) {
	rule, ok := socket.Streams.Match(server)
	if !ok {
		return nil, 0, exchange.NoRoute, ""
	}
	*route = rule.Key
	b := rule.Pick(w.random())
	if b == nil || b.Invalid != "" {
		return nil, 0, exchange.NoCluster, ""
	}
	svc = w.state.View.Services[b.Service]
	if svc == nil || !svc.HasStreamPort(b.Port) {
		return nil, 0, exchange.NoCluster, ""
	}
	if why := w.admitsCaller(caller, socket, rule, svc, b.Port); why != "" {
		return nil, 0, exchange.Denied, why
	}
	svc.Cells[w.id].StreamsOpen.Add(1)
	svc.Cells[w.id].Demand.Add(1)
	return svc, b.Port, exchange.OK, ""
}

// Pick chooses an endpoint of the service, here or, as the gate says, by another site.
func (h *streams) Pick(s *l4.Session) exchange.Flag {
	w := (*Worker)(h)
	svc := w.state.View.Services[s.Service.Key]
	if svc == nil {
		return exchange.NoHealthy
	}
	var tried upstream.Tried
	for {
		switch i := h.place(svc, tried); {
		case i >= 0 && i < len(svc.Remotes):
			if svc.TunnelTo(s.Port) != nil {
				s.Away, s.Place = true, i
				return exchange.OK
			}
			tried = tried.With(i) // the view says why
		case i == upstream.Shed:
			svc.Sheds[0].N.Add(1)
			return exchange.Shed
		case i != upstream.Home || tried.Has(upstream.Home):
			return exchange.NoHealthy
		case h.home(s, svc):
			return exchange.OK
		default:
			tried = tried.With(upstream.Home)
		}
	}
}

// home chooses an endpoint at this site.
func (h *streams) home(s *l4.Session, svc *view.Service) bool {
	w := (*Worker)(h)
	w.tried = w.tried[:0]
	for i, e := range svc.Home {
		for _, t := range s.Tried[:s.Tries] {
			if t == e {
				w.tried = append(w.tried, i)
			}
		}
	}
	draw, keyed := w.random(), false
	if svc.KeyBy == view.BySource {
		var text [48]byte
		draw, keyed = lb.Hash(s.From.Addr().AppendTo(text[:0])), true
	}
	i, ok := w.choice.Pick(svc, w.tried, draw, keyed, w.Loop.Now())
	if !ok {
		return false
	}
	e := svc.Home[i]
	s.Endpoint, s.Tried[s.Tries] = e, e
	s.Tries++
	if s.Tries > 1 {
		w.Counters.Retries.Add(1)
	}
	e.InFlight.Add(1)
	svc.Service.InFlight.Add(1)
	e.Cells[w.id].Connects.Add(1)
	w.Counters.Connects.Add(1)
	return true
}

// Connected counts how an attempt to connect went.
func (h *streams) Connected(s *l4.Session, ok bool) {
	w := (*Worker)(h)
	if s.Direct {
		if !ok {
			w.Counters.ConnectFailures.Add(1)
		}
		return
	}
	c := &s.Endpoint.Cells[w.id]
	if ok {
		c.Requests.Add(1)
		c.Good.Add(1)
		s.Flow = c.Flow(w.callerAt(s.From.Addr()))
		s.Flow.Requests.Add(1)
		s.Service.Cells[w.id].Arrivals.Add(1)
		return
	}
	s.Endpoint.InFlight.Add(-1)
	s.Service.InFlight.Add(-1)
	c.ConnectFailures.Add(1)
	c.Bad.Add(1)
	w.Counters.ConnectFailures.Add(1)
}

// Moved counts bytes.
func (h *streams) Moved(s *l4.Session, fromClient, fromBackend int) {
	w := (*Worker)(h)
	s.FromClient += int64(fromClient)
	s.FromBackend += int64(fromBackend)
	c := &s.Service.Cells[w.id]
	c.FromClients.Add(uint64(fromClient))
	c.FromBackend.Add(uint64(fromBackend))
	if s.Flow != nil {
		s.Flow.RequestBytes.Add(uint64(fromClient))
		s.Flow.ResponseBytes.Add(uint64(fromBackend))
	}
	w.Counters.Received.Add(uint64(fromClient))
	w.Counters.Sent.Add(uint64(fromBackend))
}

// Ended closes the books of a connection.
func (h *streams) Ended(s *l4.Session, f exchange.Flag) {
	w := (*Worker)(h)
	w.shared.Connections.Add(-1)
	s.Owner.(*Listener).Connections.Add(-1)
	w.Counters.Open.Add(-1)
	svc := w.shared.Unrouted
	if s.Service != nil {
		svc = s.Service
		svc.Cells[w.id].StreamsOpen.Add(-1)
	}
	if e := s.Endpoint; e != nil {
		e.InFlight.Add(-1)
		svc.InFlight.Add(-1)
		if f == exchange.UpstreamReset {
			e.Cells[w.id].Failures.Add(1)
		}
	}
	svc.Cells[w.id].Streams[f].Add(1)
	w.logStream(s, f)
}

var (
	_ l4.Host = (*streams)(nil)
)
