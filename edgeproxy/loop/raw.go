package loop

import (
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// These are for owners of descriptors that need no Conn: bytes that are only
// passed on. All are non-blocking and count as the loop's system calls.

// Connect opens a stream socket and starts to connect it. That it is writable
// says that the attempt is over; SocketError says how.
func (l *Loop) Connect(to netip.AddrPort) (fd int, err error) { return l.connect(to, 0) }

// connect is Connect with a code point (DSCP, RFC 2474) that all packets carry, the first
// too. No privilege is needed for one.
func (l *Loop) connect(to netip.AddrPort, codePoint uint8) (fd int, err error) {
	sa, domain := l.sockaddr(to)
	l.calls += 3
	fd, err = unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err == nil && codePoint != 0 {
		l.calls++
		// The two bits below are the kernel's, for ECN.
		if domain == unix.AF_INET {
			err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, int(codePoint)<<2)
		} else {
			err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, int(codePoint)<<2)
		}
	}
	if err == nil {
		err = unix.Connect(fd, sa)
	}
	if err != nil && err != unix.EINPROGRESS {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// SocketError returns and clears a socket's pending error.
func (l *Loop) SocketError(fd int) error {
	l.calls++
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && errno != 0 {
		err = syscall.Errno(errno)
	}
	return err
}

// LocalAddr is the address that a socket is bound to.
func (l *Loop) LocalAddr(fd int) netip.AddrPort {
	l.calls++
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}
	}
	return addrPort(sa)
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// Buffer is where the loop reads into: it belongs to whoever runs, for one call.
func (l *Loop) Buffer() []byte { return l.in }

// Read reads into p.
func (l *Loop) Read(fd int, p []byte) (int, syscall.Errno) {
	l.calls++
	return sysRecv(fd, p)
}

// Write writes p, or the first part of it.
func (l *Loop) Write(fd int, p []byte) (int, syscall.Errno) {
	l.calls++
	return sysSend(fd, p)
}

// Splice moves at most n bytes between a pipe and a socket within the kernel.
func (l *Loop) Splice(from, to, n int) (int, syscall.Errno) {
	l.calls++
	for {
		k, _, e := syscall.RawSyscall6(syscall.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		if e != syscall.EINTR {
			return int(k), e
		}
	}
}

// Shutdown ends the sending direction of a socket.
func (l *Loop) Shutdown(fd int) {
	l.calls++
	// Fails where the other side is gone, which reading finds out.
	_ = unix.Shutdown(fd, unix.SHUT_WR)
}

// CloseSocket closes a socket; with reset the other side sees a failure.
func (l *Loop) CloseSocket(fd int, reset bool) {
	l.calls++
	if reset {
		// Without it the other side sees an ordinary end.
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	_ = unix.Close(fd)
}
