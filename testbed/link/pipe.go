package link

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/testbed/reactor"
)

// pipe is one direction of a connection: a byte ring, and beside it when which
// part of the ring is due. Marks are few: bytes read in one go share one.
type pipe struct {
	c        *conn
	src, dst *end
	count    *atomic.Uint64
	timer    *reactor.Timer
	// notBefore holds the first bytes back until a handshake would have ended.
	notBefore time.Duration

	ring       []byte // power of two in size, none while empty and idle
	head, size int
	marks      []mark
	firstMark  int
	eof, reset bool // read from src; delivered after the bytes
	eofAt      time.Duration
	blocked    bool // dst takes no more for now
	ended      bool // end of stream delivered
}

type mark struct {
	due   time.Duration
	bytes int
}

const firstRing = 4 << 10

func (p *pipe) room() int { return Buffer - p.size }

// free returns the contiguous free part of the ring behind its content, grown
// where there is none.
func (p *pipe) free() []byte {
	if p.size == len(p.ring) {
		grown := make([]byte, max(firstRing, 2*len(p.ring)))
		n := copy(grown, p.ring[p.head:])
		copy(grown[n:], p.ring[:p.head])
		p.ring, p.head = grown, 0
	}
	tail := (p.head + p.size) & (len(p.ring) - 1)
	if tail < p.head {
		return p.ring[tail:p.head]
	}
	return p.ring[tail:]
}

// fill reads what src has, once: epoll reports again what is left.
func (p *pipe) fill() {
	if p.eof || p.c.relay.state != Healthy || p.room() <= 0 {
		return
	}
	into := p.free()
	n, err := unix.Read(p.src.fd, into)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return
	case err != nil:
		p.eof, p.reset = true, true
	case n == 0:
		p.eof = true
	}
	if tap := p.c.relay.tap; tap != nil && n > 0 {
		tap(p.c.number, p == &p.c.up, into[:n])
	}
	due := max(p.c.relay.loop.Now()+p.c.relay.half, p.notBefore)
	if p.eof {
		p.eofAt = due
	} else {
		p.size += n
		if last := len(p.marks) - 1; last >= p.firstMark && p.marks[last].due == due {
			p.marks[last].bytes += n
		} else {
			p.marks = append(p.marks, mark{due, n})
		}
	}
	if !p.timer.Active() {
		p.pump()
	}
}

// pump delivers what is due and asks to be called again for what is not.
func (p *pipe) pump() {
	if p.c.dead {
		return
	}
	p.timer.Stop()
	defer p.settle()
	if p.c.relay.state != Healthy {
		return
	}
	now := p.c.relay.loop.Now()
	due := 0
	for _, m := range p.marks[p.firstMark:] {
		if m.due > now {
			break
		}
		due += m.bytes
	}
	if due > 0 && !p.deliver(due) {
		return
	}
	switch {
	case p.firstMark < len(p.marks):
		p.timer.Set(p.marks[p.firstMark].due)
	case p.eof && !p.ended && p.eofAt > now:
		p.timer.Set(p.eofAt)
	case p.eof && !p.ended && (p.dst.connected || p.reset):
		p.end()
	}
}

// deliver writes up to due bytes; false means that dst takes no more for now or
// that the connection is over.
func (p *pipe) deliver(due int) bool {
	if !p.dst.connected {
		p.blocked = true
		return false
	}
	for due > 0 {
		part := p.ring[p.head:min(p.head+due, len(p.ring))]
		n, err := unix.Write(p.dst.fd, part)
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN {
			p.blocked = true
			return false
		}
		if err != nil {
			p.c.abort()
			return false
		}
		p.consume(n)
		due -= n
	}
	p.blocked = false
	return true
}

func (p *pipe) consume(n int) {
	p.count.Add(uint64(n))
	p.head = (p.head + n) & (len(p.ring) - 1)
	p.size -= n
	for n > 0 {
		m := &p.marks[p.firstMark]
		if m.bytes > n {
			m.bytes -= n
			break
		}
		n -= m.bytes
		p.firstMark++
	}
	switch {
	case p.firstMark == len(p.marks):
		p.marks, p.firstMark, p.head = p.marks[:0], 0, 0
		if len(p.ring) > firstRing {
			p.ring = nil // a burst's memory is not kept
		}
	case p.firstMark >= 64:
		p.marks = p.marks[:copy(p.marks, p.marks[p.firstMark:])]
		p.firstMark = 0
	}
}

// end delivers what ended the stream at src.
func (p *pipe) end() {
	if p.reset {
		p.c.abort()
		return
	}
	p.ended = true
	// A peer that is gone already has its reset reported by the other direction.
	_ = unix.Shutdown(p.dst.fd, unix.SHUT_WR)
	p.c.finish()
}

// settle brings what both sockets wait for up to date.
func (p *pipe) settle() {
	p.src.watch()
	p.dst.watch()
}
