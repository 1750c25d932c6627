// Package emu runs the demo's backends: real HTTP servers that take as long as
// real work would by sleeping, with a fixed number of workers and a first-come
// first-served queue before them. It imitates time only: there is no CPU in it,
// so a small machine can hold a mesh of them.
package emu

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/edgeproxy/loadheader"
	"github.com/meridian-mesh/meridian/testbed/reactor"
	"github.com/meridian-mesh/meridian/testbed/wire"
)

// Config describes one site's backends.
type Config struct {
	Site string
	// Endpoints is how many servers share the Slots, as evenly as they divide.
	Endpoints, Slots int
	// ServiceTime is the mean time of one request without waiting. A request
	// that says its work (see [wire.WorkHeader]) takes that many times the mean;
	// others take an exponentially distributed time drawn from Seed.
	ServiceTime time.Duration
	Seed        uint64
	// TellLoad has every response say how loaded its endpoint is (see package
	// loadheader).
	TellLoad bool
}

// Validate says what is wrong with the configuration.
func (c Config) Validate() error {
	switch {
	case c.Site == "":
		return errors.New("a site's name is needed")
	case c.Endpoints < 1:
		return fmt.Errorf("%d endpoints: at least one is needed", c.Endpoints)
	case c.Slots < c.Endpoints:
		return fmt.Errorf("%d slots for %d endpoints: at least one each is needed", c.Slots, c.Endpoints)
	case c.ServiceTime <= 0:
		return fmt.Errorf("service time %v must be above zero", c.ServiceTime)
	}
	return nil
}

// SlotsOf is how many of the slots the i-th endpoint has.
func (c Config) SlotsOf(i int) int {
	n := c.Slots / c.Endpoints
	if i < c.Slots%c.Endpoints {
		n++
	}
	return n
}

// Stats are a site's totals and gauges.
type Stats struct {
	// Served counts finished requests, Dropped those that left the queue because
	// their client had gone.
	Served, Dropped int
	// Busy is how many workers work, Waiting how many requests queue, now.
	Busy, Waiting int
}

// Site is one site's running backends. Its methods are safe from any goroutine
// but its loop's own.
type Site struct {
	loop    *reactor.Loop
	cfg     Config
	factor  float64
	rand    *rand.Rand
	servers []*server
	stats   Stats
	head    []byte // of every response, without the empty line at its end
	body    []byte // with that
	out     []byte // the response being made
}

// Start listens on a free loopback port per endpoint.
func Start(loop *reactor.Loop, cfg Config) (*Site, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Site{loop: loop, cfg: cfg, factor: 1, rand: rand.New(rand.NewPCG(cfg.Seed, 0))}
	body := fmt.Sprintf("{\"site\":%q}\n", cfg.Site)
	s.head = fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s: %s\r\n",
		len(body), wire.ServedByHeader, cfg.Site)
	s.body = []byte("\r\n" + body)
	for i := range cfg.Endpoints {
		fd, addr, err := reactor.Listen(netip.MustParseAddrPort("127.0.0.1:0"))
		if err != nil {
			s.Close()
			return nil, err
		}
		srv := &server{site: s, fd: fd, addr: addr, slots: cfg.SlotsOf(i), free: cfg.SlotsOf(i), conns: map[*conn]struct{}{}}
		s.servers = append(s.servers, srv)
		err = errors.New("emu: the loop has ended")
		loop.Call(func() { err = loop.Register(fd, reactor.Readable, srv) })
		if err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

// Addrs are the endpoints' addresses.
func (s *Site) Addrs() []netip.AddrPort {
	var out []netip.AddrPort
	for _, srv := range s.servers {
		out = append(out, srv.addr)
	}
	return out
}

// SetFactor makes every request that starts from now on take so many times longer.
func (s *Site) SetFactor(f float64) { s.loop.Call(func() { s.factor = f }) }

// Stats reads the totals and gauges.
func (s *Site) Stats() Stats {
	var out Stats
	s.loop.Call(func() { out = s.stats })
	return out
}

// Close closes all sockets.
func (s *Site) Close() {
	s.loop.Call(func() {
		for _, srv := range s.servers {
			s.loop.Unregister(srv.fd)
			_ = unix.Close(srv.fd)
			for c := range srv.conns {
				c.close()
			}
		}
	})
}

// server is one endpoint: its workers and its queue.
type server struct {
	site  *Site
	fd    int
	addr  netip.AddrPort
	slots int
	free  int
	queue []*conn // waiting in order; nil where a client went away
	conns map[*conn]struct{}
}

// Ready accepts what waits.
func (s *server) Ready(uint32) {
	for {
		fd, err := reactor.Accept(s.fd)
		if err != nil {
			return // none waits, or a shortage that epoll reports again
		}
		c := &conn{server: s, fd: fd}
		c.work = s.site.loop.NewTimer(c.finish)
		if s.site.loop.Register(fd, reactor.Readable|reactor.PeerClosed, c) != nil {
			_ = unix.Close(fd)
			continue
		}
		s.conns[c] = struct{}{}
	}
}

// admit gives a request a worker or a place in the queue.
func (s *server) admit(c *conn) {
	if s.free > 0 {
		s.free--
		s.begin(c)
		return
	}
	c.state = queued
	s.queue = append(s.queue, c)
	s.site.stats.Waiting++
}

func (s *server) begin(c *conn) {
	c.state = working
	s.site.stats.Busy++
	c.took = time.Duration(c.factor * s.site.factor * float64(s.site.cfg.ServiceTime))
	c.work.Set(s.site.loop.Elapsed() + c.took)
}

// response makes the answer to a request that took so long, and is not counted
// among those that are here any more.
func (s *server) response(took time.Duration) []byte {
	site := s.site
	site.out = append(site.out[:0], site.head...)
	if site.cfg.TellLoad {
		here := s.slots - s.free
		for _, c := range s.queue {
			if c != nil {
				here++
			}
		}
		site.out = append(site.out, loadheader.Own+": "...)
		site.out = append(loadheader.Append(site.out, here, took), "\r\n"...)
	}
	site.out = append(site.out, site.body...)
	return site.out
}

// release hands a worker to the next request in line.
func (s *server) release() {
	s.site.stats.Busy--
	for len(s.queue) > 0 {
		c := s.queue[0]
		s.queue[0] = nil
		s.queue = s.queue[1:]
		if c != nil {
			s.site.stats.Waiting--
			s.begin(c)
			return
		}
	}
	s.queue = nil
	s.free++
}

// drop takes a request out of the queue.
func (s *server) drop(c *conn) {
	for i, q := range s.queue {
		if q == c {
			s.queue[i] = nil
			s.site.stats.Waiting--
			s.site.stats.Dropped++
			return
		}
	}
}

type state uint8

const (
	reading state = iota
	queued
	working
)

// conn is one connection, with at most one request at a time; what a client
// sends ahead waits in the buffer.
type conn struct {
	server *server
	fd     int
	in     []byte
	skip   int // bytes of a request's body to come
	state  state
	factor float64 // of the request at hand
	last   bool
	took   time.Duration
	work   *reactor.Timer
	out    []byte
}

// Ready reads requests and notices clients that went away.
func (c *conn) Ready(events uint32) {
	if events&reactor.PeerClosed != 0 {
		// No client of this server half-closes: an end is an end.
		c.close()
		return
	}
	if events&reactor.Writable != 0 && len(c.out) > 0 && !c.flush() {
		return
	}
	if events&reactor.Readable == 0 {
		return
	}
	var buf [8 << 10]byte
	n, err := unix.Read(c.fd, buf[:])
	if err == unix.EAGAIN || err == unix.EINTR {
		return
	}
	if err != nil || n == 0 {
		c.close()
		return
	}
	b := buf[:n]
	if c.skip > 0 {
		k := min(c.skip, len(b))
		c.skip -= k
		b = b[k:]
	}
	if len(c.in) > 4*wire.MaxHead {
		c.close() // sends ahead without end
		return
	}
	c.in = append(c.in, b...)
	c.next()
}

// next takes up the next request that is complete as far as its head.
func (c *conn) next() {
	if c.state != reading || c.skip > 0 || c.fd < 0 {
		return
	}
	h, ok, err := wire.Read(c.in)
	if err != nil {
		c.last = true
		c.reply([]byte("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
		return
	}
	if !ok {
		return
	}
	c.last = h.Close
	c.factor = -1
	if v, set := h.Get(wire.WorkHeader); set {
		if f, err := strconv.ParseFloat(string(v), 64); err == nil && f >= 0 {
			c.factor = f
		}
	}
	if c.factor < 0 {
		c.factor = c.server.site.rand.ExpFloat64()
	}
	body := min(h.Length, len(c.in)-h.Size)
	c.skip = h.Length - body
	c.in = c.in[:copy(c.in, c.in[h.Size+body:])]
	c.server.admit(c)
}

// finish answers when the work is done, unless nobody is there any more: the
// worker was busy either way.
func (c *conn) finish() {
	c.server.site.stats.Served++
	c.state = reading
	c.server.release()
	if c.fd < 0 {
		return
	}
	if c.reply(c.server.response(c.took)) {
		c.next()
	}
}

// reply sends a response; false means that the connection is over or still busy
// with it.
func (c *conn) reply(b []byte) bool {
	c.out = append(c.out, b...)
	if !c.flush() {
		return false
	}
	if c.last {
		c.close()
		return false
	}
	return true
}

func (c *conn) flush() bool {
	n, err := unix.Write(c.fd, c.out)
	if err != nil && err != unix.EAGAIN && err != unix.EINTR {
		c.close()
		return false
	}
	c.out = c.out[:copy(c.out, c.out[max(n, 0):])]
	want := reactor.Readable | reactor.PeerClosed
	if len(c.out) > 0 {
		want |= reactor.Writable
	}
	if c.server.site.loop.Want(c.fd, want) != nil {
		c.close()
		return false
	}
	return len(c.out) == 0
}

func (c *conn) close() {
	if c.fd < 0 {
		return
	}
	if c.state == queued {
		c.server.drop(c)
		c.state = reading
	}
	c.server.site.loop.Unregister(c.fd)
	_ = unix.Close(c.fd)
	c.fd = -1
	delete(c.server.conns, c)
}
