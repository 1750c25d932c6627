package worker

import (
	"net/netip"

	"github.com/meridian-mesh/meridian/edgeproxy/view"
)

// adopt serves a connection of a listener, by what the listener is for.
func (w *Worker) adopt(l *Listener, fd int, from netip.AddrPort) {
	s := w.state.Sockets[l]
	switch {
	case s != nil && s.Outbound != nil && !w.draining:
		w.adoptOutbound(l, s, fd, from)
	case s != nil && s.Streams != nil && !w.draining:
		w.adoptStream(l, s, fd, from)
	default:
		w.adoptDown(l, s, fd, from)
	}
}

// adoptDown serves a connection of requests.
func (w *Worker) adoptDown(l *Listener, s *view.Socket, fd int, from netip.AddrPort) {
	d := w.newDown(l, from)
	d.socket = s
	d.span = w.spanOf(w.shared.ClientMaxAge, w.shared.ClientMaxRequests)
	w.Counters.Accepted.Add(1)
	d.id, d.born = w.nextID(), w.Loop.Now()
	if err := d.conn.Open(w.Loop, fd, d, true); err != nil {
		d.forget()
		d.Recycle()
		return
	}
	if w.draining || d.socket == nil {
		d.lost() // the listener went away between accepting and here
		return
	}
	if d.balanced = d.socket.FromBalancer(from.Addr()); d.balanced {
		d.await(resting, d.w.shared.Times.Head)
		return
	}
	d.greet()
}
