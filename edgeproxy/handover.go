package edgeproxy

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/edgeproxy/datagram"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
	"github.com/meridian-mesh/meridian/edgeproxy/view"
	"github.com/meridian-mesh/meridian/edgeproxy/worker"
)

// Socket is a listening socket that passes from one process to the next.
type Socket struct {
	// Name tells sockets apart whose port the kernel chose; empty for others.
	Name     string
	Listener *loop.Listener
}

// Session is a UDP session that passes from one process to the next.
type Session struct {
	// Address and Socket are its listener's, and the place among that one's sockets.
	Address netip.AddrPort `json:"address"`
	Socket  int            `json:"socket"`
	datagram.Handed
}

// maxHanded bounds the sessions of a socket that pass on.
const maxHanded = 4096

// Sessions are the UDP sessions for a process that takes over, with descriptors that
// the caller closes.
func (s *Server) Sessions() []Session {
	var mu sync.Mutex
	var all []Session
	s.each(func(w *worker.Worker) {
		mu.Lock()
		defer mu.Unlock()
		for l, sockets := range w.HandSessions(maxHanded) {
			for i, handed := range sockets {
				for _, h := range handed {
					all = append(all, Session{Address: l.Listener.Addr(), Socket: i, Handed: h})
				}
			}
		}
	})
	return all
}

// adoptSessions gives inherited sessions to the listeners of the first snapshot, and
// closes what nobody takes.
func (s *Server) adoptSessions(listeners []*worker.Listener) {
	handed := map[*worker.Listener]map[int][]datagram.Handed{}
	for _, x := range s.cfg.InheritedSessions {
		i := slices.IndexFunc(listeners, func(l *worker.Listener) bool {
			return l.Listener.Packets() && l.Listener.Addr() == x.Address && x.Socket < len(l.Listener.FDs())
		})
		if i < 0 {
			if err := unix.Close(x.FD); err != nil {
				s.deps.Log.Error("close an inherited session", "err", err)
			}
			continue
		}
		l := listeners[i]
		if handed[l] == nil {
			handed[l] = map[int][]datagram.Handed{}
		}
		handed[l][x.Socket] = append(handed[l][x.Socket], x.Handed)
	}
	s.cfg.InheritedSessions = nil
	s.shared.Handed = handed
}

// fits reports whether the socket is what a view asks for.
func (s *Socket) fits(key view.SocketKey) bool {
	if s.Name != "" || key.Name != "" {
		return s.Name == key.Name
	}
	at := s.Listener.Addr()
	if s.Listener.Packets() != key.Packets {
		return false
	}
	if !key.Addr.IsValid() {
		return at.Port() == key.Port && at.Addr().IsUnspecified()
	}
	return at == netip.AddrPortFrom(key.Addr, key.Port)
}

// listen takes an inherited socket, of UDP all that fit, else it opens one.
func (s *Server) listen(key view.SocketKey, leaving ...*loop.Listener) (*loop.Listener, error) {
	var found *loop.Listener
	for i := range s.cfg.Inherited {
		in := &s.cfg.Inherited[i]
		switch {
		case !in.fits(key):
		case found == nil:
			found = in.Listener
		case key.Packets:
			found.Join(in.Listener)
		}
	}
	if found != nil {
		s.cfg.Inherited = slices.DeleteFunc(s.cfg.Inherited, func(in Socket) bool { return in.Listener.Packets() && in.Listener.FDs()[0] < 0 })
		return found, found.BoundUnsent()
	}
	if key.Packets {
		return loop.ListenPackets(key.Addr, key.Port, s.cfg.Loops)
	}
	l, err := loop.Listen(key.Addr, key.Port, leaving...)
	if err != nil {
		return nil, err
	}
	return l, l.BoundUnsent()
}

func (s *Server) inherited(l *loop.Listener) bool {
	return slices.ContainsFunc(s.cfg.Inherited, func(in Socket) bool { return in.Listener == l })
}

// dropInherited closes what the first snapshot in force has no use for.
func (s *Server) dropInherited(used []*worker.Listener) error {
	var err error
	for _, in := range s.cfg.Inherited {
		if !slices.ContainsFunc(used, func(l *worker.Listener) bool { return l.Listener == in.Listener }) {
			err = errors.Join(err, in.Listener.Close())
		}
	}
	s.cfg.Inherited = nil
	return err
}

// Sockets are the listening sockets in use, for a process that takes over. They
// stay open until Run returns.
func (s *Server) Sockets() []Socket {
	st := s.state.Load()
	if st == nil {
		return nil
	}
	var out []Socket
	for _, l := range st.Listeners {
		out = append(out, Socket{Name: l.Key.Name, Listener: l.Listener})
	}
	return out
}

// Leave drains as [Server.Drain] does, for the benefit of another process that
// goes on with the sockets: the kernel refuses nobody, and clients are told with
// their next response; a connection without a request for longer than rest is closed.
func (s *Server) Leave(ctx context.Context, rest time.Duration) error {
	s.mu.Lock()
	served := s.each(func(w *worker.Worker) { w.Leave(rest) })
	var err error
	if served {
		// A socket that the other process did not want must refuse, not be silent.
		// One for datagrams is still needed, to answer by.
		for _, l := range s.current().Listeners {
			if !l.Listener.Packets() {
				err = errors.Join(err, l.Listener.Close())
			}
		}
	}
	s.mu.Unlock()
	if !served || err != nil {
		return err
	}
	return s.ended(ctx)
}

// Alive returns when every loop has answered, or why that cannot be said.
func (s *Server) Alive(ctx context.Context) error {
	for _, w := range s.shared.Workers {
		answered := make(chan struct{})
		w.Loop.Post(loop.Func(func() { close(answered) }))
		select {
		case <-answered:
		case <-s.stopped:
			return ErrStopped
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
