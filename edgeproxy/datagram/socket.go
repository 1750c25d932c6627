package datagram

import (
	"errors"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
)

// sessionBytes is what a session takes besides its socket.
const sessionBytes = int(unsafe.Sizeof(Session{}))

// Socket is one of a listener's sockets, and the sessions of the clients that the
// kernel gives to it.
type Socket struct {
	e        *Engine
	owner    any
	fd       int
	handle   uint32
	reading  bool
	sessions map[loop.Sender]*Session
}

// Listen serves a UDP socket, which stays the caller's.
func (e *Engine) Listen(fd int, owner any) (*Socket, error) {
	if e.in == nil {
		in, err := loop.NewBatch()
		if err != nil {
			return nil, err
		}
		out, err := loop.NewBatch()
		if err != nil {
			in.Free()
			return nil, err
		}
		e.in, e.out = in, out
	}
	k := &Socket{e: e, owner: owner, fd: fd, sessions: map[loop.Sender]*Session{}}
	var err error
	if k.handle, err = e.loop.Add(fd, unix.EPOLLIN, k); err != nil {
		return nil, err
	}
	k.reading = true
	e.sockets = append(e.sockets, k)
	return k, nil
}

// Stop reads no more: another process does. What endpoints say still goes to their
// clients.
func (k *Socket) Stop() {
	if k.reading {
		k.reading = false
		k.e.loop.Del(k.fd, k.handle)
	}
}

// Close ends the sessions and forgets the socket.
func (k *Socket) Close() {
	k.e.flush()
	k.Stop()
	for _, s := range k.sessions {
		s.end(exchange.OK)
	}
	k.e.sockets = slices.DeleteFunc(k.e.sockets, func(o *Socket) bool { return o == k })
}

// Ready receives from clients; what does not fit this turn is there in the next.
func (k *Socket) Ready(uint32) {
	e := k.e
	for e.may() {
		n, err := e.loop.Receive(k.fd, e.in, 0, loop.BatchSize, true)
		switch {
		case err == syscall.EAGAIN:
			return
		case err != 0:
			continue // it concerns a datagram that was sent before
		}
		k.take(n)
		if n < loop.BatchSize {
			return
		}
	}
}

// take passes on the n datagrams at hand, each client's in their order.
func (k *Socket) take(n int) {
	e := k.e
	e.busy()
	for i := range n {
		e.mine[i] = k.session(i)
		e.budget -= len(e.in.Data(i))
	}
	for i := range n {
		s := e.mine[i]
		if s == nil {
			continue
		}
		e.which = e.which[:0]
		for j := i; j < n; j++ {
			if e.mine[j] == s {
				e.which = append(e.which, j)
				e.mine[j] = nil
			}
		}
		if s.over { // it made way for one that came with the same call
			e.host.Dropped(nil, DropFull, len(e.which))
			continue
		}
		s.send(e.which)
	}
}

// session finds whose the ith datagram is, nil where it goes nowhere.
func (k *Socket) session(i int) *Session {
	e := k.e
	segment, local := e.in.Told(i)
	if e.in.Truncated(i) {
		e.host.Dropped(nil, DropTooBig, 1)
		return nil
	}
	from := e.in.From(i)
	if s := k.sessions[from]; s != nil {
		s.local = local
		if s.usable(e.in.Data(i)) {
			return s
		}
	}
	return k.begin(from, local, e.in.Data(i), datagrams(len(e.in.Data(i)), segment))
}

// datagrams is how many there are in a message.
func datagrams(bytes, segment int) int {
	if segment == 0 {
		return 1
	}
	return (bytes + segment - 1) / segment
}

// begin makes a session for a client's first datagram.
func (k *Socket) begin(from loop.Sender, local loop.Local, first []byte, count int) *Session {
	e := k.e
	if e.draining > 0 {
		e.host.Dropped(nil, DropFull, count)
		return nil
	}
	s := e.take(k, from, local)
	if !e.host.Admit(s) {
		// One that was never answered makes way for one that comes.
		if e.Relieve(1) == 0 || !e.host.Admit(s) {
			e.host.Dropped(nil, DropFull, count)
			s.next, e.free = e.free, s
			return nil
		}
	}
	e.admitted(s)
	f := e.host.Route(s)
	if f == exchange.OK {
		f = s.connect(first)
	}
	if f != exchange.OK {
		why := DropNoRoute
		if f == exchange.Overload {
			why = DropFull
		}
		e.host.Dropped(s, why, count)
		s.end(f)
		return nil
	}
	s.watch()
	return s
}

// connect goes to an endpoint, to another one where there is none.
func (s *Session) connect(first []byte) exchange.Flag {
	e := s.k.e
	for {
		if s.Tries > s.Retries || s.Tries == len(s.Tried) {
			return exchange.ConnectFailure
		}
		if f := e.host.Pick(s, first); f != exchange.OK {
			if s.Tries > 0 {
				f = exchange.ConnectFailure
			}
			return f
		}
		if s.Away {
			s.away = true
			if f := e.host.Begin(s); f != exchange.OK {
				s.away = false
				return f
			}
			return exchange.OK
		}
		fd, err := e.loop.ConnectPackets(s.Endpoint.Addr)
		if err == nil {
			if s.handle, err = e.loop.Add(fd, unix.EPOLLIN, s); err == nil {
				s.fd, s.plain = fd, false
				return exchange.OK
			}
			e.loop.ClosePackets(fd)
		}
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM) {
			e.host.Left(s)
			s.Endpoint = nil
			return exchange.Overload
		}
		e.host.Reached(s, false) // no route to it
		s.Endpoint = nil
	}
}
