package loop

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// BatchSize is how many datagrams one call receives or sends.
const BatchSize = 16

const (
	// datagramBytes holds the longest datagram, and as much as the kernel joins of
	// several (UDP_GRO).
	datagramBytes = 64 << 10
	// mostSegments is how many datagrams of one size go with one message
	// (UDP_MAX_SEGMENTS of older kernels).
	mostSegments = 64
	// controlBytes holds a message's address and segment size.
	controlBytes = 96
	// packetBuffer is what the kernel is asked to keep of a listening socket's
	// datagrams: a burst must outlast a turn of the loop.
	packetBuffer = 4 << 20
)

// Sender is a client's address as the kernel tells it, with which it is answered.
type Sender struct {
	raw unix.RawSockaddrInet6 // an IPv4 address in its first bytes, zeros after
	len uint32
}

// Addr is the peer's address.
func (p *Sender) Addr() netip.AddrPort {
	return peerAddr((*unix.RawSockaddrAny)(unsafe.Pointer(&p.raw)))
}

// senderBytes is the length of a Sender as bytes.
const senderBytes = unix.SizeofSockaddrInet6 + 1

// Bytes is the sender for another process of this machine.
func (p *Sender) Bytes() []byte {
	return append((*[unix.SizeofSockaddrInet6]byte)(unsafe.Pointer(&p.raw))[:unix.SizeofSockaddrInet6:unix.SizeofSockaddrInet6], byte(p.len))
}

// SenderOf reads what Bytes gave.
func SenderOf(b []byte) (p Sender, ok bool) {
	if len(b) != senderBytes {
		return p, false
	}
	copy((*[unix.SizeofSockaddrInet6]byte)(unsafe.Pointer(&p.raw))[:], b)
	p.len = uint32(b[senderBytes-1])
	return p, p.Addr().IsValid()
}

// Local is the own address that a client wrote to, where a socket has several. The
// zero value leaves the choice to the kernel.
type Local struct {
	addr      [16]byte
	ifindex   uint32
	family    uint16 // of the socket
	linkLocal bool
}

const localBytes = 16 + 4 + 1 + 1

// Bytes is the address for another process of this machine, nil where the kernel chooses.
func (l *Local) Bytes() []byte {
	if l.family == 0 {
		return nil
	}
	b := binary.NativeEndian.AppendUint32(append(make([]byte, 0, localBytes), l.addr[:]...), l.ifindex)
	linkLocal := byte(0)
	if l.linkLocal {
		linkLocal = 1
	}
	return append(b, byte(l.family), linkLocal)
}

// LocalOf reads what Bytes gave.
func LocalOf(b []byte) (l Local, ok bool) {
	if len(b) == 0 {
		return l, true
	}
	if len(b) != localBytes {
		return l, false
	}
	copy(l.addr[:], b)
	l.ifindex, l.family, l.linkLocal = binary.NativeEndian.Uint32(b[16:]), uint16(b[20]), b[21] != 0
	return l, true
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// Batch is room for datagrams. Its memory is outside of the heap, and the system
// gives it as it is written to.
type Batch struct {
	buf   []byte
	in    [BatchSize]mmsghdr
	iov   [BatchSize]unix.Iovec
	names [BatchSize]unix.RawSockaddrInet6
	ctl   [BatchSize][controlBytes]byte

	out    [BatchSize]mmsghdr
	outIov [BatchSize]unix.Iovec
	outCtl [BatchSize][controlBytes]byte
	outTo  [BatchSize]Sender
	size   [BatchSize]int // bytes received
}

// NewBatch reserves the memory.
func NewBatch() (*Batch, error) {
	buf, err := unix.Mmap(-1, 0, BatchSize*datagramBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("memory for datagrams: %w", os.NewSyscallError("mmap", err))
	}
	b := &Batch{buf: buf}
	for i := range b.iov {
		b.iov[i].Base = &b.buf[i*datagramBytes]
		b.iov[i].SetLen(datagramBytes)
	}
	return b, nil
}

// Free gives the memory back; the batch is of no use any more.
func (b *Batch) Free() {
	_ = unix.Munmap(b.buf) // fails for what is no mapping only
	b.buf = nil
}

// Trim gives back what the datagrams so far have filled. What is in the batch is lost.
func (b *Batch) Trim() {
	_ = unix.Madvise(b.buf, unix.MADV_DONTNEED) // at worst it stays
}

// Data is the ith datagram, several of one size where Segment says so.
func (b *Batch) Data(i int) []byte { return b.buf[i*datagramBytes:][:b.size[i]:b.size[i]] }

// From is the sender of the ith datagram of an unconnected socket.
func (b *Batch) From(i int) Sender {
	p := Sender{raw: b.names[i], len: b.in[i].hdr.Namelen}
	if p.len == unix.SizeofSockaddrInet4 {
		clear((*[unix.SizeofSockaddrInet6]byte)(unsafe.Pointer(&p.raw))[unix.SizeofSockaddrInet4:])
	}
	return p
}

// Truncated reports whether the ith datagram did not fit, which no UDP datagram does.
func (b *Batch) Truncated(i int) bool { return b.in[i].hdr.Flags&unix.MSG_TRUNC != 0 }

// Told is what the kernel says about the ith datagram: the size of those that it
// joined, 0 for one alone, and the address that it was sent to.
func (b *Batch) Told(i int) (segment int, to Local) {
	h := &b.in[i].hdr
	ctl := b.ctl[i][:h.Controllen]
	for len(ctl) >= unix.SizeofCmsghdr {
		c := (*unix.Cmsghdr)(unsafe.Pointer(&ctl[0]))
		n := int(c.Len)
		if n < unix.SizeofCmsghdr || n > len(ctl) {
			break
		}
		data := ctl[unix.SizeofCmsghdr:n]
		switch {
		case c.Level == unix.SOL_UDP && c.Type == unix.UDP_GRO && len(data) >= 4:
			segment = int(*(*int32)(unsafe.Pointer(&data[0])))
		case c.Level == unix.IPPROTO_IP && c.Type == unix.IP_PKTINFO && len(data) >= 12:
			to.family = unix.AF_INET
			to.ifindex = *(*uint32)(unsafe.Pointer(&data[0]))
			copy(to.addr[:4], data[8:12])
		case c.Level == unix.IPPROTO_IPV6 && c.Type == unix.IPV6_PKTINFO && len(data) >= 20:
			to.family = unix.AF_INET6
			copy(to.addr[:], data[:16])
			to.ifindex = *(*uint32)(unsafe.Pointer(&data[16]))
			to.linkLocal = to.addr[0] == 0xfe && to.addr[1]&0xc0 == 0x80
		}
		ctl = ctl[min(unix.CmsgSpace(len(data)), len(ctl)):]
	}
	if segment >= b.size[i] {
		segment = 0
	}
	return segment, to
}

// Receive fills the batch from place first on, up to most datagrams, and returns how
// many came. named says that the socket is not connected.
func (l *Loop) Receive(fd int, b *Batch, first, most int, named bool) (int, syscall.Errno) {
	most = min(most, BatchSize-first)
	for i := first; i < first+most; i++ {
		h := &b.in[i].hdr
		h.Iov, h.Iovlen = &b.iov[i], 1
		h.Name, h.Namelen = nil, 0
		if named {
			h.Name, h.Namelen = (*byte)(unsafe.Pointer(&b.names[i])), unix.SizeofSockaddrInet6
		}
		h.Control = &b.ctl[i][0]
		h.SetControllen(controlBytes)
		h.Flags = 0
	}
	for {
		l.calls++
		n, _, e := syscall.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.in[first])), uintptr(most), unix.MSG_DONTWAIT, 0, 0)
		if e == syscall.EINTR {
			continue
		}
		if e != 0 {
			return 0, e
		}
		for i := first; i < first+int(n); i++ {
			b.size[i] = int(b.in[i].len)
		}
		return int(n), 0
	}
}

// SendOne sends a datagram, or several of one size where segment is not 0, on a
// connected socket.
func (l *Loop) SendOne(fd int, p []byte, segment int) syscall.Errno {
	if segment == 0 {
		l.calls++
		_, e := sysSend(fd, p)
		return e
	}
	var ctl [32]byte
	iov := unix.Iovec{Base: unsafe.SliceData(p)}
	iov.SetLen(len(p))
	h := unix.Msghdr{Iov: &iov, Iovlen: 1, Control: &ctl[0]}
	h.SetControllen(putSegment(ctl[:], segment))
	l.calls++
	return sysSendmsg(fd, &h)
}

// Join sends those of the batch's datagrams that which lists, all of one size but
// the last, which may be shorter, as one message on a connected socket.
func (l *Loop) Join(fd int, b *Batch, which []int) syscall.Errno {
	var ctl [32]byte
	for k, i := range which {
		b.outIov[k].Base = &b.buf[i*datagramBytes]
		b.outIov[k].SetLen(b.size[i])
	}
	h := unix.Msghdr{Iov: &b.outIov[0], Control: &ctl[0]}
	h.SetIovlen(len(which))
	h.SetControllen(putSegment(ctl[:], b.size[which[0]]))
	l.calls++
	return sysSendmsg(fd, &h)
}

// Joinable reports how many of the datagrams that which lists, from its first on,
// may go as one message.
func (b *Batch) Joinable(which []int) int {
	size, total := b.size[which[0]], 0
	if size == 0 {
		return 1
	}
	for k, i := range which {
		n := b.size[i]
		if k == mostSegments || n > size || n == 0 || total+n > datagramBytes-512 {
			return max(k, 1)
		}
		total += n
		if n < size {
			return k + 1
		}
	}
	return len(which)
}

// Reply is one message of an unconnected socket: Count datagrams of the batch from
// First on, which are joined where there are several or Segment is not 0.
type Reply struct {
	First, Count, Segment int
	To                    *Sender
	From                  Local
}

// SendReplies sends messages to their peers and returns how many went; the error is
// that of the first which did not.
func (l *Loop) SendReplies(fd int, b *Batch, replies []Reply) (int, syscall.Errno) {
	for k := range replies {
		r := &replies[k]
		h := &b.out[k].hdr
		b.outTo[k] = *r.To
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&b.outTo[k].raw)), b.outTo[k].len
		for i := r.First; i < r.First+r.Count; i++ {
			b.outIov[i].Base = &b.buf[i*datagramBytes]
			b.outIov[i].SetLen(b.size[i])
		}
		h.Iov = &b.outIov[r.First]
		h.SetIovlen(r.Count)
		n := 0
		segment := r.Segment
		if segment == 0 && r.Count > 1 {
			segment = b.size[r.First]
		}
		if segment > 0 {
			n = putSegment(b.outCtl[k][:], segment)
		}
		n += putLocal(b.outCtl[k][n:], &r.From)
		h.Control = nil
		if n > 0 {
			h.Control = &b.outCtl[k][0]
		}
		h.SetControllen(n)
	}
	for {
		l.calls++
		n, _, e := syscall.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.out[0])), uintptr(len(replies)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if e != syscall.EINTR {
			return int(n), e
		}
	}
}

// SendPart sends bytes of a batch to a peer as one datagram.
func (l *Loop) SendPart(fd int, p []byte, to *Sender, from Local) syscall.Errno {
	var ctl [controlBytes]byte
	iov := unix.Iovec{Base: unsafe.SliceData(p)}
	iov.SetLen(len(p))
	h := unix.Msghdr{Name: (*byte)(unsafe.Pointer(&to.raw)), Namelen: to.len, Iov: &iov, Iovlen: 1}
	if n := putLocal(ctl[:], &from); n > 0 {
		h.Control = &ctl[0]
		h.SetControllen(n)
	}
	l.calls++
	return sysSendmsg(fd, &h)
}

func sysSendmsg(fd int, h *unix.Msghdr) syscall.Errno {
	for {
		_, _, e := syscall.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(h)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if e != syscall.EINTR {
			return e
		}
	}
}

// putSegment writes the control message that has the kernel cut a message into
// datagrams of a size (udp(7), UDP_SEGMENT), and returns its length.
func putSegment(ctl []byte, size int) int {
	c := (*unix.Cmsghdr)(unsafe.Pointer(&ctl[0]))
	c.Level, c.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	c.SetLen(unix.CmsgLen(2))
	*(*uint16)(unsafe.Pointer(&ctl[unix.CmsgLen(0)])) = uint16(size)
	return unix.CmsgSpace(2)
}

// putLocal writes the control message that names the source of a message.
func putLocal(ctl []byte, from *Local) int {
	switch from.family {
	case unix.AF_INET:
		c := (*unix.Cmsghdr)(unsafe.Pointer(&ctl[0]))
		c.Level, c.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
		c.SetLen(unix.CmsgLen(12))
		data := ctl[unix.CmsgLen(0):][:12]
		clear(data)
		copy(data[4:8], from.addr[:4])
		return unix.CmsgSpace(12)
	case unix.AF_INET6:
		c := (*unix.Cmsghdr)(unsafe.Pointer(&ctl[0]))
		c.Level, c.Type = unix.IPPROTO_IPV6, unix.IPV6_PKTINFO
		c.SetLen(unix.CmsgLen(20))
		data := ctl[unix.CmsgLen(0):][:20]
		copy(data, from.addr[:])
		index := uint32(0) // another way back is as good, but for a link-local address
		if from.linkLocal {
			index = from.ifindex
		}
		*(*uint32)(unsafe.Pointer(&data[16])) = index
		return unix.CmsgSpace(20)
	}
	return 0
}

// ConnectPackets opens a UDP socket to an address; the kernel joins the datagrams
// that come from there where it can.
func (l *Loop) ConnectPackets(to netip.AddrPort) (int, error) {
	domain := unix.AF_INET6
	if to.Addr().Unmap().Is4() {
		domain = unix.AF_INET
	}
	l.calls += 3
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	joinPackets(fd)
	if err := unix.Connect(fd, sockaddr(to)); err != nil {
		_ = unix.Close(fd)
		return -1, os.NewSyscallError("connect", err)
	}
	return fd, nil
}

// joinPackets has the kernel join datagrams of one size (udp(7), UDP_GRO); a kernel
// that cannot gives them one by one.
func joinPackets(fd int) { _ = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) }

// ClosePackets closes a socket of ConnectPackets.
func (l *Loop) ClosePackets(fd int) {
	l.calls++
	_ = unix.Close(fd)
}

// ListenPackets opens UDP sockets for one address, as many as there are loops: the
// kernel gives all datagrams of one client to the same one (socket(7),
// SO_REUSEPORT). An invalid address and port 0 are as in [Listen].
func ListenPackets(addr netip.Addr, port uint16, sockets int) (*Listener, error) {
	if addr.IsValid() {
		return listenPackets(netip.AddrPortFrom(addr, port), sockets)
	}
	l, err := listenPackets(netip.AddrPortFrom(netip.IPv6Unspecified(), port), sockets)
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) {
		return listenPackets(netip.AddrPortFrom(netip.IPv4Unspecified(), port), sockets)
	}
	return l, err
}

func listenPackets(addr netip.AddrPort, sockets int) (_ *Listener, err error) {
	l := &Listener{fd: -1, packets: true}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("listen on udp %s: %w", addr, err), l.Close())
		}
	}()
	for i := range sockets {
		fd, err := packetSocket(addr)
		if err != nil {
			return nil, err
		}
		l.add(fd)
		// The first one binds alone, so that a port which another process has is an
		// error; the others join it.
		if i > 0 {
			if err := reusePort(fd); err != nil {
				return nil, err
			}
		}
		if err := unix.Bind(fd, sockaddr(addr)); err != nil {
			return nil, os.NewSyscallError("bind", err)
		}
		if i > 0 {
			continue
		}
		if l.addr, err = boundAddr(fd); err != nil {
			return nil, err
		}
		addr = netip.AddrPortFrom(addr.Addr(), l.addr.Port())
		if err := reusePort(fd); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func reusePort(fd int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
}

func packetSocket(addr netip.AddrPort) (int, error) {
	domain := unix.AF_INET6
	if addr.Addr().Unmap().Is4() {
		domain = unix.AF_INET
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if domain == unix.AF_INET6 {
		only := 1
		if addr.Addr().IsUnspecified() {
			only = 0
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			return -1, errors.Join(os.NewSyscallError("setsockopt", err), unix.Close(fd))
		}
	}
	if err := setUpPackets(fd, addr); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// setUpPackets has a listening UDP socket keep bursts and tell what it has to.
func setUpPackets(fd int, addr netip.AddrPort) error {
	// SO_RCVBUFFORCE needs CAP_NET_ADMIN; without it the system's bound holds.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, packetBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, packetBuffer)
	}
	joinPackets(fd)
	if !addr.Addr().IsUnspecified() {
		return nil // the source of an answer is certain
	}
	level, name := unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	if addr.Addr().Is4() {
		level, name = unix.IPPROTO_IP, unix.IP_PKTINFO
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, level, name, 1))
}
