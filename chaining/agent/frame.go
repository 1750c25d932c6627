package agent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// probeEther is the Ethernet type of probes, for experiments in a local network (IEEE
// 802, type 1). A function that hands on IP only must be probed otherwise.
const probeEther = 0x88b5

// frameProbe sends frames into a function at one port and waits for them at the
// other. Its sockets stay open, since closing one costs the kernel milliseconds; after
// a fault they are opened anew.
type frameProbe struct {
	left, right string
	send, hear  int
	open        bool
	from, to    net.HardwareAddr
}

func (p *frameProbe) probe(seq uint16, limit time.Duration) error {
	if err := p.prepare(); err != nil {
		return err
	}
	err := p.ask(seq, limit)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		p.close()
	}
	return err
}

func (p *frameProbe) prepare() error {
	if p.open {
		return nil
	}
	l, err := net.InterfaceByName(p.left)
	if err != nil {
		return fmt.Errorf("interface %s: %w", p.left, err)
	}
	r, err := net.InterfaceByName(p.right)
	if err != nil {
		return fmt.Errorf("interface %s: %w", p.right, err)
	}
	p.from, p.to = l.HardwareAddr, r.HardwareAddr
	if p.send, err = bound(l.Index, 0); err != nil {
		return err
	}
	if p.hear, err = bound(r.Index, probeEther); err != nil {
		unix.Close(p.send)
		return err
	}
	p.open = true
	return nil
}

// bound is a packet socket of an interface that hears one Ethernet type, none for 0.
func bound(index int, ether uint16) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("packet socket (CAP_NET_RAW): %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ether>>8 | ether<<8, Ifindex: index}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("packet socket: %w", err)
	}
	return fd, nil
}

func (p *frameProbe) ask(seq uint16, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	frame := make([]byte, 60) // the least that Ethernet carries
	copy(frame, p.to)
	copy(frame[6:], p.from)
	binary.BigEndian.PutUint16(frame[12:], probeEther)
	copy(frame[14:], "meridian")
	binary.BigEndian.PutUint32(frame[22:], uint32(os.Getpid()))
	binary.BigEndian.PutUint16(frame[26:], seq)
	if _, err := unix.Write(p.send, frame); err != nil {
		return fmt.Errorf("send by %s: %w", p.left, err)
	}
	buf := make([]byte, 2048)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("the frame that went in by %s did not come out by %s: %w", p.left, p.right, os.ErrDeadlineExceeded)
		}
		tv := unix.NsecToTimeval(max(left, time.Millisecond).Nanoseconds())
		if err := unix.SetsockoptTimeval(p.hear, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return err
		}
		n, err := unix.Read(p.hear, buf)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("hear at %s: %w", p.right, err)
		case n >= 28 && bytes.Equal(buf[12:28], frame[12:28]):
			return nil
		}
	}
}

func (p *frameProbe) close() {
	if p.open {
		unix.Close(p.send)
		unix.Close(p.hear)
		p.open = false
	}
}
