package link

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/testbed/reactor"
)

// conn is one relayed connection: two ends and a pipe each way.
type conn struct {
	relay    *Relay
	number   uint64
	caller   end
	target   end
	up, down pipe
	dial     *reactor.Timer
	dead     bool
}

// end is one socket. It is registered while its descriptor is open, with the
// interest that the pipes on either side of it ask for.
type end struct {
	c         *conn
	fd        int // -1 before the dial and after the close
	in        *pipe
	out       *pipe
	connected bool
}

func newConn(r *Relay, fd int) {
	now := r.loop.Now()
	c := &conn{relay: r, number: r.connections.Load()}
	c.caller = end{c: c, fd: fd, in: &c.up, out: &c.down, connected: true}
	c.target = end{c: c, fd: -1, in: &c.down, out: &c.up}
	c.up = pipe{c: c, src: &c.caller, dst: &c.target, count: &r.forward, notBefore: now + 3*r.half}
	c.down = pipe{c: c, src: &c.target, dst: &c.caller, count: &r.backward}
	for _, p := range []*pipe{&c.up, &c.down} {
		p.timer = r.loop.NewTimer(p.pump)
	}
	if err := r.loop.Register(fd, reactor.Readable, &c.caller); err != nil {
		r.refused.Add(1)
		reactor.Abort(fd)
		return
	}
	r.conns[c] = struct{}{}
	r.open.Add(1)
	c.dial = r.loop.NewTimer(c.connect)
	c.dial.Set(now + r.half)
}

// connect runs when the caller's SYN would have reached the target.
func (c *conn) connect() {
	if c.relay.state == IsBlackHole {
		c.dial.Set(c.relay.loop.Now() + 10*time.Millisecond)
		return
	}
	fd := -1
	err := error(unix.EADDRNOTAVAIL)
	if c.relay.target != (netip.AddrPort{}) {
		fd, err = reactor.Dial(c.relay.target)
	}
	if err == nil {
		if err = c.relay.loop.Register(fd, reactor.Writable, &c.target); err != nil {
			_ = unix.Close(fd)
		}
	}
	if err != nil {
		c.refuse()
		return
	}
	c.target.fd = fd
}

// refuse tells the caller, when the news would arrive, that there is nobody.
func (c *conn) refuse() {
	c.relay.refused.Add(1)
	c.dial = c.relay.loop.NewTimer(c.abort)
	c.dial.Set(c.relay.loop.Now() + c.relay.half)
}

// abort resets both ends now.
func (c *conn) abort() {
	if c.dead {
		return
	}
	c.dead = true
	c.dial.Stop()
	c.up.timer.Stop()
	c.down.timer.Stop()
	for _, e := range []*end{&c.caller, &c.target} {
		if e.fd >= 0 {
			c.relay.loop.Unregister(e.fd)
			reactor.Abort(e.fd)
			e.fd = -1
		}
	}
	delete(c.relay.conns, c)
	c.relay.open.Add(-1)
}

// finish closes both ends once each way has delivered its end.
func (c *conn) finish() {
	if c.dead || !c.up.ended || !c.down.ended {
		return
	}
	c.dead = true
	c.dial.Stop()
	for _, e := range []*end{&c.caller, &c.target} {
		c.relay.loop.Unregister(e.fd)
		_ = unix.Close(e.fd)
		e.fd = -1
	}
	delete(c.relay.conns, c)
	c.relay.open.Add(-1)
}

// Ready moves what can be moved.
func (e *end) Ready(events uint32) {
	if e.c.dead {
		return
	}
	if !e.connected {
		if err := reactor.ConnectError(e.fd); err != nil {
			e.c.relay.loop.Unregister(e.fd)
			_ = unix.Close(e.fd)
			e.fd = -1
			e.c.refuse()
			return
		}
		e.connected = true
	}
	if events&(reactor.Readable|reactor.PeerClosed) != 0 {
		e.in.fill()
	}
	if events&reactor.Writable != 0 && !e.c.dead {
		e.out.pump()
	}
	e.watch()
}

// watch waits for what the pipes beside this socket can use. An end that waits
// for nothing is unregistered: a hang-up would be reported again and again.
func (e *end) watch() {
	if e.c.dead || e.fd < 0 {
		return
	}
	var want uint32
	if e.c.relay.state == Healthy {
		if !e.connected || e.out.blocked {
			want |= reactor.Writable
		}
		if e.connected && !e.in.eof && e.in.room() > 0 {
			want |= reactor.Readable
		}
	}
	loop := e.c.relay.loop
	if want == 0 {
		loop.Unregister(e.fd)
		return
	}
	if loop.Want(e.fd, want) != nil && loop.Register(e.fd, want, e) != nil {
		e.c.abort()
	}
}
