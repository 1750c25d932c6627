package loop

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	backlog = 4096
	// acceptRest is how long a loop stops accepting when the process or the
	// machine is out of descriptors or memory.
	acceptRest = int64(100e6)
)

// Listener is a listening TCP socket that any number of loops accept from, or the
// UDP sockets of one address, each of which one loop reads.
type Listener struct {
	fd      int
	addr    netip.AddrPort
	packets bool
	more    []int // UDP sockets after the first
}

// Listen opens a listening socket. An invalid address with a port listens on all
// addresses of both families; port 0 lets the kernel choose. Listeners that are
// about to be closed are no hindrance, so that a port can move between all
// addresses and one of them without a moment in which nobody listens.
func Listen(addr netip.Addr, port uint16, leaving ...*Listener) (*Listener, error) {
	if addr.IsValid() {
		return listen(netip.AddrPortFrom(addr, port), leaving)
	}
	l, err := listen(netip.AddrPortFrom(netip.IPv6Unspecified(), port), leaving)
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) {
		return listen(netip.AddrPortFrom(netip.IPv4Unspecified(), port), leaving)
	}
	return l, err
}

func listen(addr netip.AddrPort, leaving []*Listener) (_ *Listener, err error) {
	domain := unix.AF_INET6
	if addr.Addr().Unmap().Is4() {
		domain = unix.AF_INET
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, os.NewSyscallError("socket", err))
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
			err = fmt.Errorf("listen on %s: %w", addr, err)
		}
	}()
	type option struct{ level, name, value int }
	// Accepted sockets inherit TCP_NODELAY.
	opts := []option{{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1}, {unix.IPPROTO_TCP, unix.TCP_NODELAY, 1}}
	if domain == unix.AF_INET6 {
		only := 1
		if addr.Addr().IsUnspecified() {
			only = 0
		}
		opts = append(opts, option{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only})
	}
	for _, o := range opts {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return nil, os.NewSyscallError("setsockopt", err)
		}
	}
	if err := bind(fd, addr, leaving); err != nil {
		return nil, err
	}
	l := &Listener{fd: fd}
	l.addr, err = boundAddr(fd)
	return l, err
}

func boundAddr(fd int) (netip.AddrPort, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockname", err)
	}
	return addrPort(sa), nil
}

// bind takes the address and listens, beside listeners of the same port that are
// about to go.
// SO_REUSEPORT is set for that moment only: left on, another process of this user
// could take a share of the connections, and a port taken twice would be no error.
func bind(fd int, addr netip.AddrPort, leaving []*Listener) error {
	share := func(fd, on int) {
		// Where it fails the address stays in use, which bind says.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, on)
	}
	shareAll := func(on int) {
		for _, l := range leaving {
			if addr.Port() != 0 && l.addr.Port() == addr.Port() {
				share(l.fd, on)
				share(fd, on)
			}
		}
	}
	shareAll(1)
	defer shareAll(0)
	if err := unix.Bind(fd, sockaddr(addr)); err != nil {
		return os.NewSyscallError("bind", err)
	}
	return os.NewSyscallError("listen", unix.Listen(fd, backlog))
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if ip := a.Addr().Unmap(); ip.Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: ip.As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// Addr is the bound address.
func (l *Listener) Addr() netip.AddrPort { return l.addr }

// Packets reports whether it is UDP's.
func (l *Listener) Packets() bool { return l.packets }

// add gives it another descriptor.
func (l *Listener) add(fd int) {
	if l.fd < 0 {
		l.fd = fd
	} else {
		l.more = append(l.more, fd)
	}
}

// Refuse has the kernel refuse new connections, while the address stays taken
// until Close. Loops must have stopped accepting. It may be called again.
func (l *Listener) Refuse() error {
	if l.packets {
		return nil // there is nothing that refuses datagrams but to close
	}
	if err := unix.Shutdown(l.fd, unix.SHUT_RD); err != nil && err != unix.ENOTCONN {
		return os.NewSyscallError("shutdown", err)
	}
	return nil
}

// Close stops listening. Loops must have stopped accepting from it. It may be
// called again.
func (l *Listener) Close() error {
	if l.fd < 0 {
		return nil
	}
	err := unix.Close(l.fd)
	for _, fd := range l.more {
		err = errors.Join(err, unix.Close(fd))
	}
	l.fd, l.more = -1, nil
	return err
}

// Acceptor takes connections from a listener on one loop.
type Acceptor struct {
	loop   *Loop
	fd     int
	handle uint32
	on     bool
	take   func(fd int, from netip.AddrPort)
	again  Timer
	peer   unix.RawSockaddrAny
}

// Accept has the loop accept from ln, one connection a wake, and give each to
// take. Of several loops that accept from ln the kernel wakes one.
func (l *Loop) Accept(ln *Listener, take func(fd int, from netip.AddrPort)) (*Acceptor, error) {
	a := &Acceptor{loop: l, fd: ln.fd, take: take}
	a.again.Owner = a
	return a, a.enable()
}

func (a *Acceptor) enable() error {
	h, err := a.loop.Add(a.fd, unix.EPOLLIN|unix.EPOLLEXCLUSIVE, a)
	a.handle, a.on = h, err == nil
	return err
}

// Stop ends accepting.
func (a *Acceptor) Stop() {
	a.loop.Wheel.Clear(&a.again)
	if a.on {
		a.on = false
		a.loop.Del(a.fd, a.handle)
	}
}

// Finish takes what waits and ends accepting, as another process goes on with the
// socket: the kernel may have woken this loop, and nobody else, for a connection
// that is still in the queue.
func (a *Acceptor) Finish() {
	a.Stop()
	for {
		a.loop.calls++
		fd, e := sysAccept(a.fd, &a.peer)
		if e == syscall.ECONNABORTED {
			continue
		}
		if e != 0 {
			return
		}
		a.take(fd, peerAddr(&a.peer))
	}
}

// Ready accepts one connection.
func (a *Acceptor) Ready(uint32) {
	a.loop.calls++
	fd, e := sysAccept(a.fd, &a.peer)
	switch e {
	case 0:
		a.take(fd, peerAddr(&a.peer))
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM:
		// The event would come again at once.
		a.Stop()
		a.loop.Wheel.Set(&a.again, a.loop.now+acceptRest)
	}
	// Other errors concern a connection that is gone already.
}

// Expire accepts again after a rest.
func (a *Acceptor) Expire(_ *Timer, now int64) {
	if err := a.enable(); err != nil {
		a.loop.Wheel.Set(&a.again, now+acceptRest)
	}
}

func peerAddr(sa *unix.RawSockaddrAny) netip.AddrPort {
	port := func(p *uint16) uint16 {
		b := (*[2]byte)(ptr(p))
		return uint16(b[0])<<8 | uint16(b[1])
	}
	switch sa.Addr.Family {
	case unix.AF_INET:
		in := (*unix.RawSockaddrInet4)(ptr(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), port(&in.Port))
	case unix.AF_INET6:
		in := (*unix.RawSockaddrInet6)(ptr(sa))
		return netip.AddrPortFrom(netip.AddrFrom16(in.Addr).Unmap(), port(&in.Port))
	}
	return netip.AddrPort{}
}
