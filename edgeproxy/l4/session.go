package l4

import (
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/edgeproxy/clienthello"
	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
	"github.com/meridian-mesh/meridian/edgeproxy/proxyproto"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
)

// Session is one connection that is passed on.
type Session struct {
	Plan
	// Owner is the caller's.
	Owner any
	// From is the client's address, as a PROXY header says where one was read.
	From netip.AddrPort
	// Endpoint is where it goes, Tried where it has been.
	Endpoint *upstream.Endpoint
	Tried    [exchange.MaxAttempts + 1]*upstream.Endpoint
	Tries    int
	// Original is where the client was to go before its connection was redirected here;
	// invalid of others. Direct says that it goes on there, and to no endpoint.
	Original netip.AddrPort
	Direct   bool
	// Away says that the session is served elsewhere, at Place: see [Host].Take.
	Away  bool
	Place int
	// Seq numbers the engine's sessions from 1; Born is when this one came, on the
	// loops' clock.
	Seq  uint64
	Born int64
	// Flow is where the host counts them by who sent them; nil before it does.
	Flow *upstream.Flow
	// Details say more of its end than its flag, for the host's log.
	Details string
	// FromClient and FromBackend are bytes passed on, for the host to count.
	FromClient, FromBackend int64

	e           *Engine
	to          netip.AddrPort // what the client connected to, where a PROXY header said it
	client      end
	backend     end
	up, down    flow // client to backend, and back
	wantProxy   bool // a PROXY header comes first
	wantName    bool // a TLS hello comes first
	connecting  bool
	established bool
	queued      bool
	starved     bool
	over        bool
	active      int64
	timer       loop.Timer
	next, prev  *Session
}

// Start serves a client's socket. header says that a PROXY header must come
// first, hello that the server name of a TLS hello decides where it goes.
func (e *Engine) Start(fd int, from netip.AddrPort, header, hello bool, owner any) {
	e.start(fd, from, netip.AddrPort{}, header, hello, owner)
}

// StartTo is Start for a connection that was redirected here on its way to an address.
func (e *Engine) StartTo(fd int, from, original netip.AddrPort, owner any) {
	e.start(fd, from, original, false, false, owner)
}

func (e *Engine) start(fd int, from, original netip.AddrPort, header, hello bool, owner any) {
	s := e.free
	if s == nil {
		s = &Session{e: e}
		s.timer.Owner = s
		e.loop.Spend(int(unsafe.Sizeof(*s)))
	} else {
		e.free = s.next
		*s = Session{e: e, timer: s.timer}
	}
	s.Owner, s.From, s.Original, s.wantProxy, s.wantName = owner, from, original, header, hello
	s.client, s.backend = end{s: s, fd: fd, writable: true}, end{s: s, fd: -1}
	s.up, s.down = flow{from: &s.client, to: &s.backend}, flow{from: &s.backend, to: &s.client}
	s.next = e.sessions
	if s.next != nil {
		s.next.prev = s
	}
	e.sessions = s
	e.started++
	s.active = e.loop.Now()
	s.Seq, s.Born = e.started, s.active
	if s.register(&s.client) != nil {
		s.end(exchange.Overload, true)
		return
	}
	if header || hello {
		e.loop.Wheel.Set(&s.timer, s.active+int64(e.head))
		return
	}
	s.route(nil)
}

const edges = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET

func (s *Session) register(x *end) error {
	var err error
	if x.handle, err = s.e.loop.Add(x.fd, edges, x); err != nil {
		s.e.loop.CloseSocket(x.fd, true)
		x.fd = -1
	}
	return err
}

// Ready notes what a socket can do and goes on.
func (x *end) Ready(ev uint32) {
	s := x.s
	x.readable = x.readable || ev&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0
	x.writable = x.writable || ev&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0
	x.closing = x.closing || ev&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0
	switch {
	case s.over:
	case s.established:
		s.e.move(s)
	case x == &s.backend:
		s.dialed()
	case s.connecting:
		if ev&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			s.end(exchange.ClientDisconnected, true)
		}
	default:
		s.greet()
	}
}

// greet reads what comes before the first byte that is passed on.
func (s *Session) greet() {
	l := s.e.loop
	buf := l.Buffer()
	for s.client.readable {
		had := s.up.held.CopyTo(buf)
		n, err := l.Read(s.client.fd, buf[had:had+clienthello.MaxBytes])
		switch {
		case err == syscall.EAGAIN:
			s.client.readable = false
			return
		case err != 0 || n == 0:
			s.end(exchange.ClientDisconnected, true)
			return
		}
		s.up.held.Append(&l.Slabs, buf[had:had+n])
		if s.judge(buf[:had+n]) {
			return
		}
	}
}

// judge looks at all that the client has sent and reports whether it was enough.
func (s *Session) judge(in []byte) bool {
	if s.wantProxy {
		h, n, err := proxyproto.Parse(in)
		switch {
		case err != nil:
			s.end(exchange.ClientProtocol, true)
			return true
		case n == 0:
			return false
		}
		if !h.Local {
			s.From, s.to = h.From, h.To
		}
		s.wantProxy = false
		s.up.held.Drop(&s.e.loop.Slabs, n)
		in = in[n:]
	}
	if !s.wantName {
		s.route(nil)
		return true
	}
	if s.e.scratch == nil {
		s.e.scratch = make([]byte, clienthello.MaxBytes)
	}
	name, ok, err := clienthello.ServerName(in, s.e.scratch)
	if err != nil {
		s.alert(alertDecode)
		s.end(exchange.ClientProtocol, false)
		return true
	}
	if ok {
		s.route(name)
	}
	return ok
}

// alertDecode is the TLS alert (RFC 8446 6.2) for what cannot be passed on.
const alertDecode = 50

// alert tells a TLS client why there is no session; whether it hears it does not matter.
func (s *Session) alert(code byte) {
	b := s.e.loop.Buffer()[:7]
	copy(b, []byte{21, 3, 1, 0, 2, 2, code})
	_, _ = s.e.loop.Write(s.client.fd, b)
}

func (s *Session) route(name []byte) {
	if f := s.e.host.Route(s, name); f != exchange.OK {
		// The alert unrecognized_name would say more, but it is the server's to send, and
		// the Gateway API's conformance suite takes nothing for a refusal but the end.
		s.end(f, true)
		return
	}
	s.wantName = false
	if s.Away {
		s.leave()
		return
	}
	s.dial()
}

func (s *Session) dial() {
	e := s.e
	to := s.Original
	if s.Direct {
		s.Tries++
	} else if f := e.host.Pick(s); f != exchange.OK {
		if s.Tries > 0 {
			f = exchange.ConnectFailure
		}
		s.end(f, true)
		return
	}
	if s.Away {
		s.leave()
		return
	}
	if s.Endpoint != nil {
		to = s.Endpoint.Addr
	}
	s.connecting = true
	fd, err := e.loop.Connect(to)
	if err == nil {
		s.backend = end{s: s, fd: fd}
		err = s.register(&s.backend)
	}
	if err != nil {
		s.unreachable()
		return
	}
	e.loop.Wheel.Set(&s.timer, e.loop.Now()+int64(s.Connect))
}

// leave gives the client's socket to the host.
func (s *Session) leave() {
	e := s.e
	fd := s.client.fd
	e.loop.Del(fd, s.client.handle)
	s.client.fd = -1
	e.loop.Wheel.Clear(&s.timer)
	held := s.up.held
	s.up.held = loop.List{}
	s.unlink()
	e.host.Take(s, fd, &held)
	s.forget()
}

// unreachable tries another endpoint where that is allowed.
func (s *Session) unreachable() {
	s.shut(&s.backend, false)
	s.e.host.Connected(s, false)
	s.Endpoint = nil
	if s.Tries > s.Retries || s.Tries == len(s.Tried) {
		s.end(exchange.ConnectFailure, true)
		return
	}
	s.dial()
}

// dialed looks how an attempt to connect went.
func (s *Session) dialed() {
	if !s.backend.writable {
		return
	}
	e := s.e
	if e.loop.SocketError(s.backend.fd) != nil {
		s.unreachable()
		return
	}
	e.host.Connected(s, true)
	s.connecting, s.established = false, true
	s.active = e.loop.Now()
	e.loop.Wheel.Set(&s.timer, s.active+int64(s.Idle))
	if s.Send != 0 {
		s.header()
	}
	e.move(s)
}

// header puts a PROXY header before all that the client sent.
func (s *Session) header() {
	if !s.to.IsValid() {
		s.to = s.e.loop.LocalAddr(s.client.fd)
	}
	var all loop.List
	b := all.Room(&s.e.loop.Slabs, proxyproto.MaxWritten)
	all.Commit(len(proxyproto.Append(b, s.Send, s.From, s.to)))
	all.Move(&s.up.held)
	s.up.held = all
}

// Expire ends an attempt, or a wait that took too long.
func (s *Session) Expire(_ *loop.Timer, now int64) {
	switch {
	case s.over:
	case s.connecting:
		s.unreachable()
	case !s.established:
		s.end(exchange.ClientTimeout, true)
	case now < s.active+int64(s.Idle):
		s.e.loop.Wheel.Set(&s.timer, s.active+int64(s.Idle))
	default:
		s.end(exchange.IdleTimeout, true)
	}
}

// move passes bytes on both ways; again says that the turn's share was used up.
func (s *Session) move() (again bool) {
	e := s.e
	up, down := s.up.moved, s.down.moved
	again, broken := s.up.move(e)
	if broken == nil {
		var more bool
		more, broken = s.down.move(e)
		again = again || more
	}
	if n, m := s.up.moved-up, s.down.moved-down; n+m > 0 {
		s.active = e.loop.Now()
		e.host.Moved(s, int(n), int(m))
	}
	switch {
	case broken == &s.backend:
		s.end(exchange.UpstreamReset, true)
	case broken != nil:
		s.end(exchange.ClientDisconnected, true)
	case s.up.done && s.down.done:
		s.end(exchange.OK, false)
	}
	return again
}

// Cut ends the session at once.
func (s *Session) Cut(f exchange.Flag) {
	if !s.over {
		s.end(f, true)
	}
}

func (s *Session) shut(x *end, reset bool) {
	if x.fd < 0 {
		return
	}
	s.e.loop.Del(x.fd, x.handle)
	s.e.loop.CloseSocket(x.fd, reset)
	x.fd = -1
}

func (s *Session) end(f exchange.Flag, reset bool) {
	e := s.e
	e.loop.Wheel.Clear(&s.timer)
	s.shut(&s.client, reset)
	s.shut(&s.backend, reset)
	s.up.free(e)
	s.down.free(e)
	s.unlink()
	e.host.Ended(s, f)
	s.forget()
}

// unlink takes the session out of the engine's list.
func (s *Session) unlink() {
	e := s.e
	s.over = true
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		e.sessions = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	}
	s.next, s.prev = nil, nil
}

// forget has the session's memory used again.
func (s *Session) forget() {
	e := s.e
	s.Owner, s.Endpoint, s.Service = nil, nil, nil
	e.ended = append(e.ended, s)
	e.wake()
}

var (
	_ loop.Source  = (*end)(nil)
	_ loop.Expirer = (*Session)(nil)
)
