package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/testbed/reactor"
)

// loadResult is what the generator saw of one run. Every request that it sent is
// in one of the two counts.
type loadResult struct {
	Requests int           `json:"requests"` // answered as they should be
	Errors   int           `json:"errors"`
	Why      string        `json:"why,omitempty"` // the first error
	Took     time.Duration `json:"took"`
	P50      time.Duration `json:"p50"`
	P99      time.Duration `json:"p99"`
}

// generator keeps connections to one proxy and runs loads over them: closed loop
// (a connection sends when it has its answer) or, with a rate, open loop (requests
// are due at fixed instants, and latency counts from there). It lives on a loop.
type generator struct {
	loop    *reactor.Loop
	addr    netip.AddrPort
	request []byte
	buf     []byte
	conns   []*clientConn
	idle    []*clientConn

	run       loadResult
	latencies []time.Duration
	start     time.Duration
	end       time.Duration
	interval  time.Duration // 0: closed loop
	tick      *reactor.Timer
	limit     *reactor.Timer
	sent      int             // open loop: requests that were due so far
	waiting   []time.Duration // open loop: due, no connection free
	inFlight  int
	finished  func(loadResult)
}

// answerLimit is how long after a run's end answers are waited for.
const answerLimit = 5 * time.Second

func newGenerator(loop *reactor.Loop, addr netip.AddrPort, conns int) *generator {
	g := &generator{
		loop: loop, addr: addr, buf: make([]byte, 64<<10),
		request: fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: peers\r\nAccept: */*\r\n\r\n", requestPath, addr),
	}
	g.tick = loop.NewTimer(g.due)
	g.limit = loop.NewTimer(func() {
		g.fail(g.inFlight+len(g.waiting), "no answer within "+answerLimit.String())
		g.done()
	})
	for range conns {
		c := &clientConn{g: g, fd: -1}
		g.conns = append(g.conns, c)
		g.idle = append(g.idle, c)
	}
	return g
}

// begin starts a run and calls finished when its last answer came.
func (g *generator) begin(duration time.Duration, rate float64, finished func(loadResult)) {
	g.run, g.latencies, g.finished = loadResult{}, g.latencies[:0], finished
	g.start = g.loop.Elapsed()
	g.end = g.start + duration
	g.sent, g.interval = 0, 0
	g.limit.Set(g.end + answerLimit)
	if rate > 0 {
		g.interval = time.Duration(float64(time.Second) / rate)
		g.due()
		return
	}
	for len(g.idle) > 0 {
		g.send(g.start)
	}
	g.settle()
}

// due sends what an open loop owes by now.
func (g *generator) due() {
	now := g.loop.Elapsed()
	for {
		at := g.start + time.Duration(g.sent)*g.interval
		if at >= g.end {
			break
		}
		if at > now {
			g.tick.Set(at)
			return
		}
		g.sent++
		if len(g.idle) > 0 {
			g.send(at)
		} else {
			g.waiting = append(g.waiting, at)
		}
	}
	g.settle()
}

// send puts a request on an idle connection; since is where its latency starts.
func (g *generator) send(since time.Duration) {
	c := g.idle[len(g.idle)-1]
	g.idle = g.idle[:len(g.idle)-1]
	c.since = since
	g.inFlight++
	c.send()
}

// answered takes a connection back after its request ended, well or badly.
func (g *generator) answered(c *clientConn, why string) {
	now := g.loop.Elapsed()
	g.inFlight--
	g.idle = append(g.idle, c)
	if why != "" {
		g.fail(1, why)
	} else {
		g.run.Requests++
		g.latencies = append(g.latencies, now-c.since)
	}
	switch {
	case len(g.waiting) > 0:
		since := g.waiting[0]
		g.waiting = g.waiting[1:]
		g.send(since)
	case g.interval == 0 && now < g.end:
		g.send(now)
	default:
		g.settle()
	}
}

func (g *generator) fail(n int, why string) {
	g.run.Errors += n
	if g.run.Why == "" {
		g.run.Why = why
	}
}

// settle ends the run when nothing is due, waiting or in flight any more.
func (g *generator) settle() {
	nothingDue := g.interval == 0 || g.start+time.Duration(g.sent)*g.interval >= g.end
	if nothingDue && g.inFlight == 0 && len(g.waiting) == 0 {
		g.done()
	}
}

func (g *generator) done() {
	if g.finished == nil {
		return
	}
	g.limit.Stop()
	g.tick.Stop()
	slices.Sort(g.latencies)
	if n := len(g.latencies); n > 0 {
		g.run.P50, g.run.P99 = g.latencies[n/2], g.latencies[n*99/100]
	}
	g.run.Took = g.loop.Elapsed() - g.start
	finished := g.finished
	g.finished = nil
	finished(g.run)
}

// clientConn is one keep-alive connection with at most one request in flight.
type clientConn struct {
	g          *generator
	fd         int // -1 while closed
	connecting bool
	busy       bool
	since      time.Duration
	head       []byte // of an answer that came in pieces
	body       int    // bytes of body still to come, -1 while the head is read
	last       bool   // the proxy said that it will close
}

func (c *clientConn) send() {
	c.busy, c.body, c.last, c.head = true, -1, false, c.head[:0]
	if c.fd < 0 {
		fd, err := reactor.Dial(c.g.addr)
		if err == nil {
			c.fd, c.connecting = fd, true
			err = c.g.loop.Register(fd, reactor.Writable, c)
		}
		if err != nil {
			c.end(err.Error())
		}
		return
	}
	c.write()
}

func (c *clientConn) write() {
	if n, err := unix.Write(c.fd, c.g.request); err != nil || n < len(c.g.request) {
		c.end(fmt.Sprintf("wrote %d bytes of a request: %v", n, err))
	}
}

// Ready goes on with a connect or reads.
func (c *clientConn) Ready(uint32) {
	if c.connecting {
		c.connecting = false
		if err := reactor.ConnectError(c.fd); err != nil {
			c.end("connect: " + err.Error())
			return
		}
		if err := c.g.loop.Want(c.fd, reactor.Readable); err != nil {
			c.end(err.Error())
			return
		}
		c.write()
		return
	}
	n, err := unix.Read(c.fd, c.g.buf)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
	case err != nil:
		c.end("read: " + err.Error())
	case n == 0 && !c.busy:
		c.close() // an idle connection that the proxy gave up
	case n == 0:
		c.end("connection closed inside an answer")
	case !c.busy:
		c.end("an answer that nobody asked for")
	default:
		c.take(c.g.buf[:n])
	}
}

// take goes on with the answer.
func (c *clientConn) take(b []byte) {
	if c.body < 0 {
		if len(c.head) > 0 {
			c.head = append(c.head, b...)
			b = c.head
		}
		i := bytes.Index(b, []byte("\r\n\r\n"))
		if i < 0 {
			if len(c.head) == 0 {
				c.head = append(c.head, b...)
			}
			return
		}
		if why := c.readHead(b[:i+2]); why != "" {
			c.end(why)
			return
		}
		b = b[i+4:]
	}
	if c.body -= len(b); c.body < 0 {
		c.end("more bytes than the answer has")
		return
	}
	if c.body == 0 {
		c.end("")
	}
}

// readHead returns what is wrong with the head, "" when it is as it should be.
func (c *clientConn) readHead(head []byte) string {
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) {
		line, _, _ := bytes.Cut(head, []byte("\r\n"))
		return "answer " + string(line)
	}
	for line := range bytes.Lines(head) {
		name, value, ok := bytes.Cut(bytes.TrimSpace(line), []byte(":"))
		if !ok {
			continue
		}
		switch value = bytes.TrimSpace(value); {
		case bytes.EqualFold(name, []byte("content-length")):
			n, err := strconv.Atoi(string(value))
			if err != nil || n != bodyLength {
				return fmt.Sprintf("answer of %s bytes instead of %d", value, bodyLength)
			}
			c.body = n
		case bytes.EqualFold(name, []byte("connection")):
			c.last = bytes.EqualFold(value, []byte("close"))
		}
	}
	if c.body < 0 {
		return "answer without Content-Length"
	}
	return ""
}

// end closes the request; why is empty when the answer is as it should be.
func (c *clientConn) end(why string) {
	wasBusy := c.busy
	c.busy = false
	if why != "" || c.last {
		c.close()
	}
	if wasBusy {
		c.g.answered(c, why)
	} else {
		c.g.fail(1, why)
	}
}

func (c *clientConn) close() {
	if c.fd >= 0 {
		c.g.loop.Unregister(c.fd)
		_ = unix.Close(c.fd)
		c.fd, c.connecting = -1, false
	}
}
