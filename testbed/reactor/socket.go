package reactor

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

const socketType = unix.SOCK_STREAM | unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC

func sockaddr(a netip.AddrPort) (unix.Sockaddr, int) {
	if ip := a.Addr().Unmap(); ip.Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: ip.As4()}, unix.AF_INET
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}, unix.AF_INET6
}

// Listen binds a non-blocking TCP listener and returns its descriptor and the
// address it got; port 0 asks the kernel for a free one.
func Listen(addr netip.AddrPort) (int, netip.AddrPort, error) {
	sa, family := sockaddr(addr)
	fd, err := unix.Socket(family, socketType, 0)
	if err != nil {
		return -1, netip.AddrPort{}, fmt.Errorf("socket: %w", err)
	}
	fail := func(what string, err error) (int, netip.AddrPort, error) {
		_ = unix.Close(fd)
		return -1, netip.AddrPort{}, fmt.Errorf("%s %s: %w", what, addr, err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fail("reuse address", err)
	}
	if err := unix.Bind(fd, sa); err != nil {
		return fail("bind", err)
	}
	if err := unix.Listen(fd, 4096); err != nil {
		return fail("listen", err)
	}
	got, err := unix.Getsockname(fd)
	if err != nil {
		return fail("name of", err)
	}
	port := uint16(0)
	switch s := got.(type) {
	case *unix.SockaddrInet4:
		port = uint16(s.Port)
	case *unix.SockaddrInet6:
		port = uint16(s.Port)
	}
	return fd, netip.AddrPortFrom(addr.Addr(), port), nil
}

// Accept takes one connection; the error is unix.EAGAIN when none waits.
func Accept(listener int) (int, error) {
	fd, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err != nil {
		return -1, err
	}
	noDelay(fd)
	return fd, nil
}

// Dial starts a non-blocking connect; the descriptor becomes Writable when it is
// decided, and [ConnectError] then says how.
func Dial(addr netip.AddrPort) (int, error) {
	sa, family := sockaddr(addr)
	fd, err := unix.Socket(family, socketType, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	noDelay(fd)
	if err := unix.Connect(fd, sa); err != nil && err != unix.EINPROGRESS {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("connect %s: %w", addr, err)
	}
	return fd, nil
}

// ConnectError is the outcome of a connect that became Writable, nil for success.
func ConnectError(fd int) error {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return err
	}
	if n != 0 {
		return unix.Errno(n)
	}
	return nil
}

// Abort closes a connection by reset, as a peer that died does.
func Abort(fd int) {
	// Without lingering, close still happens: as a FIN.
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(fd)
}

// noDelay switches Nagle's algorithm off; a kernel that refuses leaves it on,
// which costs time and no correctness.
func noDelay(fd int) { _ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) }
