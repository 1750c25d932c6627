package loop

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Inherit makes a Listener of a listening TCP socket, or of a UDP socket, that
// another process opened. It owns fd from then on, also when it fails.
func Inherit(fd int) (*Listener, error) {
	l, err := inherit(fd)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("descriptor %d: %w", fd, err), unix.Close(fd))
	}
	return l, nil
}

func inherit(fd int) (*Listener, error) {
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	}
	packets := kind == unix.IPPROTO_UDP
	if !packets && (listening == 0 || kind != unix.IPPROTO_TCP) {
		return nil, errors.New("neither a listening TCP socket nor a UDP socket")
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	unix.CloseOnExec(fd)
	if packets {
		return inheritPackets(fd)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	l := &Listener{fd: fd}
	l.addr, err = boundAddr(fd)
	return l, err
}

// inheritPackets takes a UDP socket that may be a supervisor's and set up by nobody.
func inheritPackets(fd int) (*Listener, error) {
	l := &Listener{fd: fd, packets: true}
	var err error
	if l.addr, err = boundAddr(fd); err != nil {
		return nil, err
	}
	if l.addr.Port() == 0 {
		return nil, errors.New("a UDP socket that is not bound")
	}
	return l, setUpPackets(fd, l.addr)
}

// Join adds the sockets of another UDP Listener of the same address, which is then
// empty.
func (l *Listener) Join(other *Listener) {
	l.more = append(append(l.more, other.fd), other.more...)
	other.fd, other.more = -1, nil
}

// MaxUnsent is how much may wait in the kernel to be sent for the first time, by
// the sockets of a listener that is bounded: the kernel's own bound is megabytes.
const MaxUnsent = 128 << 10

// BoundUnsent has accepted sockets say that they are full when MaxUnsent bytes
// wait to be sent for the first time (tcp(7), TCP_NOTSENT_LOWAT).
func (l *Listener) BoundUnsent() error {
	if l.packets {
		return nil
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(l.fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, MaxUnsent))
}

// FDs are the descriptors, for a process that is to inherit them. They stay the
// Listener's.
func (l *Listener) FDs() []int { return append([]int{l.fd}, l.more...) }
