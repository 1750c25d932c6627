package load

import (
	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/testbed/reactor"
	"github.com/meridian-mesh/meridian/testbed/report"
	"github.com/meridian-mesh/meridian/testbed/wire"
)

// pool holds the connections to one proxy. The last one used is used next, so a
// rush's surplus stays idle.
type pool struct {
	idle []*client
	all  map[*client]struct{}
}

// dispatch sends a request on a kept connection, or on a fresh one.
func (p *pool) dispatch(g *Generator, site, id int, fresh bool) {
	if n := len(p.idle); n > 0 && !fresh {
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		c.begin(id)
		return
	}
	fd, err := reactor.Dial(g.cfg.Sites[site].Proxy)
	if err != nil {
		g.finish(id, report.Refused, 0, report.Nowhere)
		return
	}
	c := &client{g: g, pool: p, site: site, fd: fd, connecting: true}
	c.deadline = g.loop.NewTimer(c.expire)
	if err := g.loop.Register(fd, reactor.Writable, c); err != nil {
		_ = unix.Close(fd)
		g.finish(id, report.Refused, 0, report.Nowhere)
		return
	}
	if p.all == nil {
		p.all = map[*client]struct{}{}
	}
	p.all[c] = struct{}{}
	c.begin(id)
}

func (p *pool) closeAll() {
	for c := range p.all {
		c.close()
	}
	p.idle = p.idle[:0]
}

// client is one connection and the request on it, if any.
type client struct {
	g          *Generator
	pool       *pool
	site       int
	fd         int
	connecting bool
	reused     bool

	busy     bool
	id       int
	out      []byte // the request, as far as it is not written
	head     []byte // the response's head, as far as it came
	inBody   bool
	left     int // bytes of body to come
	last     bool
	status   int
	served   int
	deadline *reactor.Timer
}

func (c *client) begin(id int) {
	c.busy, c.id = true, id
	c.out = c.g.request(c.out[:0], id)
	c.head = c.head[:0]
	c.inBody, c.last = false, false
	r := c.g.run
	c.deadline.Set(r.start + r.arrivals[id].At + c.g.cfg.Deadline)
	if !c.connecting {
		c.write()
	}
}

func (c *client) expire() { c.fail(report.Timeout) }

// Ready goes on with the connect, the request and the response.
func (c *client) Ready(events uint32) {
	if c.connecting {
		if reactor.ConnectError(c.fd) != nil {
			c.fail(report.Refused)
			return
		}
		c.connecting = false
		c.write()
		return
	}
	if events&reactor.Writable != 0 && len(c.out) > 0 {
		c.write()
	}
	if events&reactor.Readable != 0 && c.fd >= 0 {
		c.read()
	}
}

func (c *client) write() {
	n, err := unix.Write(c.fd, c.out)
	if err != nil && err != unix.EAGAIN && err != unix.EINTR {
		c.broken()
		return
	}
	c.out = c.out[:copy(c.out, c.out[max(n, 0):])]
	want := reactor.Readable
	if len(c.out) > 0 {
		want |= reactor.Writable
	}
	if c.g.loop.Want(c.fd, want) != nil {
		c.broken()
	}
}

func (c *client) read() {
	var buf [8 << 10]byte
	n, err := unix.Read(c.fd, buf[:])
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return
	case err != nil || n == 0 || !c.busy: // bytes that nobody asked for are the end of trust, too
		c.broken()
		return
	}
	b := buf[:n]
	if !c.inBody {
		c.head = append(c.head, b...)
		b = c.takeHead()
		if !c.inBody {
			return
		}
	}
	c.left -= len(b)
	if c.left > 0 {
		return
	}
	if c.left < 0 {
		c.fail(report.Broken)
		return
	}
	c.answered()
}

// takeHead reads the final response's head and returns the body's bytes behind it.
func (c *client) takeHead() []byte {
	for {
		h, ok, err := wire.Read(c.head)
		if err == nil && !ok {
			return nil
		}
		status := 0
		if err == nil {
			status, err = h.Status()
		}
		if err != nil {
			c.fail(report.Broken)
			return nil
		}
		if status < 200 { // an interim response: the final one follows
			c.head = c.head[:copy(c.head, c.head[h.Size:])]
			continue
		}
		c.status, c.left, c.last, c.inBody = status, h.Length, h.Close, true
		c.served = report.Nowhere
		if name, ok := h.Get(wire.ServedByHeader); ok {
			if i, known := c.g.sites[string(name)]; known {
				c.served = i
			}
		}
		return c.head[h.Size:]
	}
}

func (c *client) answered() {
	outcome := report.OK
	if c.status/100 != 2 {
		outcome = report.BadStatus
	}
	id := c.id
	c.busy, c.reused = false, true
	c.deadline.Stop()
	if c.last {
		c.close()
	} else {
		c.pool.idle = append(c.pool.idle, c)
	}
	c.g.finish(id, outcome, c.status, c.served)
}

// broken handles a connection that ended by itself. A kept one that ends before
// any byte of the answer was closed by the proxy as idle: as every client of
// keep-alive connections must (RFC 9110 section 9.2.2), ask again on a fresh one.
func (c *client) broken() {
	if c.busy && c.reused && len(c.head) == 0 && !c.inBody {
		g, pool, site, id := c.g, c.pool, c.site, c.id
		g.run.retried++
		c.close()
		pool.dispatch(g, site, id, true)
		return
	}
	c.fail(report.Broken)
}

// fail closes the connection and with it the request on it.
func (c *client) fail(outcome report.Outcome) {
	busy, id := c.busy, c.id
	c.close()
	if busy {
		c.g.finish(id, outcome, 0, report.Nowhere)
	}
}

func (c *client) close() {
	if c.fd < 0 {
		return
	}
	c.deadline.Stop()
	c.g.loop.Unregister(c.fd)
	_ = unix.Close(c.fd)
	c.fd, c.busy = -1, false
	delete(c.pool.all, c)
	for i, other := range c.pool.idle {
		if other == c {
			c.pool.idle = append(c.pool.idle[:i], c.pool.idle[i+1:]...)
			break
		}
	}
}
