package ports

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/chaining/soft"
)

const (
	batchSize = 32
	// frameRoom is for the longest frame that a local sender makes (64 KB of IP).
	frameRoom = 1<<16 + 64
	// vnetSize is that of struct virtio_net_hdr (linux/virtio_net.h).
	vnetSize = 10
)

// Fields of struct virtio_net_hdr.
const (
	vnetNeedsCsum = 1
	vnetGSONone   = 0
	vnetGSOTCP4   = 1
	vnetGSOTCP6   = 4
	vnetGSOUDP    = 5
	vnetGSOECN    = 0x80
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// packetSocket is a packet socket on one port, with its buffers. Reading and writing
// are each for one goroutine at a time.
type packetSocket struct {
	fd   int
	in   [batchSize][]byte
	msgs [batchSize]mmsghdr
	iovs [batchSize]unix.Iovec
	// out are frames that wait to be sent, with their vnet headers before them.
	out    [batchSize][]byte
	queued int
	omsgs  [batchSize]mmsghdr
	oiovs  [batchSize]unix.Iovec
}

// packetAll and packetNSH are what a socket hears: all that comes in, or NSH only.
const (
	packetAll = unix.ETH_P_ALL
	packetNSH = 0x894f
)

// openPacket opens a socket on a device. Nothing is heard before it is bound, so
// that no packet of another port comes.
func openPacket(device string, protocol uint16) (*packetSocket, error) {
	ifc, err := net.InterfaceByName(device)
	if err != nil {
		return nil, fmt.Errorf("port %s: %w", device, err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket (CAP_NET_RAW): %w", err)
	}
	s := &packetSocket{fd: fd}
	for _, o := range []struct {
		level, name, value int
		what               string
	}{
		{unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1, "PACKET_VNET_HDR"},
		{unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1, "PACKET_IGNORE_OUTGOING (Linux 4.20)"},
		{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8 << 20, "SO_RCVBUFFORCE"},
		{unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8 << 20, "SO_SNDBUFFORCE"},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("port %s: %s: %w", device, o.what, err)
		}
	}
	// Run looks this often whether it shall end.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("port %s: SO_RCVTIMEO: %w", device, err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol>>8 | protocol<<8, Ifindex: ifc.Index}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("port %s: bind: %w", device, err)
	}
	for i := range batchSize {
		s.in[i] = make([]byte, vnetSize+frameRoom)
		s.iovs[i].Base = &s.in[i][0]
		s.iovs[i].SetLen(len(s.in[i]))
		s.msgs[i].hdr.Iov = &s.iovs[i]
		s.msgs[i].hdr.SetIovlen(1)
		s.out[i] = make([]byte, 0, vnetSize+2048)
		s.omsgs[i].hdr.Iov = &s.oiovs[i]
		s.omsgs[i].hdr.SetIovlen(1)
	}
	return s, nil
}

func (s *packetSocket) close() { unix.Close(s.fd) }

// errQuiet says that nothing came within the socket's time-out.
var errQuiet = errors.New("nothing came")

// receive waits for packets and returns how many came; frame gives each.
func (s *packetSocket) receive() (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.msgs[0])), batchSize, unix.MSG_WAITFORONE, 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EAGAIN, unix.EINTR:
		return 0, errQuiet
	case unix.ENETDOWN:
		return 0, errQuiet // the port is down; it may come up again
	}
	return 0, fmt.Errorf("receive: %w", errno)
}

// frame is one of those received, and what is left to do with it.
func (s *packetSocket) frame(i int) ([]byte, soft.Unfinished, bool) {
	n := int(s.msgs[i].len)
	if n < vnetSize {
		return nil, soft.Unfinished{}, false
	}
	b := s.in[i][:n]
	var u soft.Unfinished
	u.Checksum = b[0]&vnetNeedsCsum != 0
	u.Start, u.Offset = int(binary.NativeEndian.Uint16(b[6:])), int(binary.NativeEndian.Uint16(b[8:]))
	switch b[1] &^ vnetGSOECN {
	case vnetGSONone:
	case vnetGSOTCP4, vnetGSOTCP6:
		u.Segment = int(binary.NativeEndian.Uint16(b[4:]))
	case vnetGSOUDP:
		u.Segment, u.UDP = int(binary.NativeEndian.Uint16(b[4:])), true
	default:
		return nil, u, false
	}
	return b[vnetSize:], u, true
}

// queue has a frame sent with the next flush, at the latest.
func (s *packetSocket) queue(frame []byte) (lost int) {
	if s.queued == batchSize {
		lost = s.flush()
	}
	b := append(s.out[s.queued][:0], make([]byte, vnetSize)...)
	b = append(b, frame...)
	s.out[s.queued] = b
	s.oiovs[s.queued].Base = &b[0]
	s.oiovs[s.queued].SetLen(len(b))
	s.queued++
	return lost
}

// flush sends what is queued and returns how many frames the port did not take: its
// queue is full, it is down, or a frame is too long for it.
func (s *packetSocket) flush() (lost int) {
	for at := 0; at < s.queued; {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.omsgs[at])), uintptr(s.queued-at), 0, 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			lost++
			at++
		default:
			at += int(n)
		}
	}
	s.queued = 0
	return lost
}
