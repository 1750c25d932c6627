package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/testbed/reactor"
)

// bodyLength is the size of every answer's body.
const bodyLength = 1024

var response = append(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n", bodyLength),
	bytes.Repeat([]byte("m"), bodyLength)...)

// serveBackend answers every head with the same 1 KiB until ctx ends. It reads
// requests without a body only; its own cost per request is what matters here.
func serveBackend(ctx context.Context, out io.Writer) error {
	loop, err := reactor.New()
	if err != nil {
		return err
	}
	fd, addr, err := reactor.Listen(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	b := &backend{loop: loop, listener: fd, buf: make([]byte, 64<<10)}
	if err := loop.Register(fd, reactor.Readable, b); err != nil {
		return err
	}
	fmt.Fprintln(out, addr)
	return loop.Run(ctx)
}

type backend struct {
	loop     *reactor.Loop
	listener int
	buf      []byte
}

// Ready accepts what waits.
func (b *backend) Ready(uint32) {
	for {
		fd, err := reactor.Accept(b.listener)
		if err != nil {
			return // nothing waits any more, or the peer is gone again
		}
		if err := b.loop.Register(fd, reactor.Readable, &served{b: b, fd: fd}); err != nil {
			_ = unix.Close(fd)
		}
	}
}

// served is one connection. seen counts how much of the end of a head came last.
type served struct {
	b    *backend
	fd   int
	seen int
}

func (s *served) Ready(uint32) {
	n, err := unix.Read(s.fd, s.b.buf)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return
	}
	if err != nil || n == 0 {
		s.close()
		return
	}
	for range s.heads(s.b.buf[:n]) {
		// Less than a whole answer fits only when the peer does not read; the load
		// has one request in flight per connection, so such a peer is broken.
		if n, err := unix.Write(s.fd, response); err != nil || n < len(response) {
			s.close()
			return
		}
	}
}

// heads counts the heads that end in b.
func (s *served) heads(b []byte) (ended int) {
	const end = "\r\n\r\n"
	for _, c := range b {
		switch {
		case c == end[s.seen]:
			s.seen++
		case c == '\r':
			s.seen = 1
		default:
			s.seen = 0
		}
		if s.seen == len(end) {
			s.seen = 0
			ended++
		}
	}
	return ended
}

func (s *served) close() {
	s.b.loop.Unregister(s.fd)
	_ = unix.Close(s.fd)
}
