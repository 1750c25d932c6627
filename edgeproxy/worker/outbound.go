package worker

import (
	"net/netip"

	"github.com/meridian-mesh/meridian/edgeproxy/authz"
	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/l4"
	"github.com/meridian-mesh/meridian/edgeproxy/view"
)

// routePassthrough is what the access log calls the way of a connection that goes on
// where it was to go, because no service has the address.
const routePassthrough = "passthrough"

// adoptOutbound serves a connection that was redirected to this proxy by where it was to
// go. One that nobody has redirected was to go here, which is nowhere: passed on, it would
// come again.
func (w *Worker) adoptOutbound(l *Listener, socket *view.Socket, fd int, from netip.AddrPort) {
	to, err := w.Loop.OriginalDestination(fd, from.Addr().Is6())
	here := w.Loop.LocalAddr(fd)
	if err != nil || to == netip.AddrPortFrom(here.Addr().Unmap(), here.Port()) {
		w.Counters.Accepted.Add(1)
		w.Counters.Open.Add(-1)
		w.shared.Connections.Add(-1)
		l.Connections.Add(-1)
		w.shared.Unrouted.Cells[w.id].Streams[exchange.NoRoute].Add(1)
		w.Loop.CloseSocket(fd, true)
		return
	}
	if s := socket.Outbound[to]; s != nil && s.Streams == nil {
		w.adoptDown(l, s, fd, from)
		return
	}
	w.Counters.Accepted.Add(1)
	w.streams.StartTo(fd, from, to, l)
}

// socketOf is what serves a connection in the state: of a redirected one that of the
// address to which it was to go, nil where no service has that any more.
func (s *State) socketOf(l *Listener, now *view.Socket) *view.Socket {
	socket := s.Sockets[l]
	if socket == nil || socket.Outbound == nil || now == nil {
		return socket
	}
	return socket.Outbound[netip.AddrPortFrom(now.Key.Addr, now.Key.Port)]
}

// routeOutbound finds what serves a redirected connection. Without a service it goes
// where it was to go, unless the policies of the site, the gateway or the listener refuse.
func (h *streams) routeOutbound(s *l4.Session, socket *view.Socket) (*view.Socket, exchange.Flag) {
	w := (*Worker)(h)
	if to := socket.Outbound[s.Original]; to != nil {
		if to.Streams == nil {
			return nil, exchange.NoRoute // it became one of requests meanwhile
		}
		return to, exchange.OK
	}
	if len(socket.Guards) > 0 {
		w.question = authz.Request{Caller: authz.Caller{Address: s.From.Addr().Unmap()}, Port: int(s.Original.Port())}
		w.judge.Loop = w.id
		w.judge.Begin(&w.question)
		for _, set := range socket.Guards {
			if d := w.judge.Judge(set); d.Denied {
				s.Details = d.Details()
				return nil, exchange.Denied
			}
		}
	}
	s.Direct = true
	s.Plan = l4.Plan{Service: w.shared.Unrouted, Connect: view.ConnectTimeout, Idle: view.TunnelIdle, Route: routePassthrough}
	w.shared.Unrouted.Cells[w.id].StreamsOpen.Add(1)
	return nil, exchange.OK
}
