package loop

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// OriginalDestination is where a connection was to go before it was redirected to this
// socket, by netfilter or by chainagent; six says that its client has an IPv6 address.
// The error is the kernel's, ENOPROTOOPT or ENOENT for a connection that was not.
func (l *Loop) OriginalDestination(fd int, six bool) (netip.AddrPort, error) {
	l.calls++
	level := unix.SOL_IP
	if six {
		level = unix.SOL_IPV6
	}
	var sa unix.RawSockaddrInet6 // SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST are the same number
	n := uint32(unix.SizeofSockaddrInet4)
	if six {
		n = unix.SizeofSockaddrInet6
	}
	_, _, e := syscall.RawSyscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), unix.SO_ORIGINAL_DST, uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&n)), 0)
	if e != 0 {
		return netip.AddrPort{}, e
	}
	port := func(p uint16) uint16 {
		return binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, p))
	}
	if six {
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), port(sa.Port)), nil
	}
	four := (*unix.RawSockaddrInet4)(unsafe.Pointer(&sa))
	return netip.AddrPortFrom(netip.AddrFrom4(four.Addr), port(four.Port)), nil
}
