// Package link gives a TCP path the delay of a real one: a relay on loopback
// passes bytes between the connections it accepts and its target, each way half
// a round trip late, in order, with half-close kept. Processes use it as they
// would use the far address; nothing in them knows.
//
// What a relay does and does not imitate:
//
//   - Propagation: every byte arrives RTT/2 after it was read, no sooner.
//   - Connection set-up: the kernel completes the caller's handshake at once, so
//     the relay charges for it afterwards: the target is dialled RTT/2 after
//     the accept (when a SYN would arrive) and the caller's first bytes are held
//     until a handshake would have ended (one RTT after the accept) and then
//     travel for RTT/2. The first answer of a fresh connection so takes two RTT.
//   - Back-pressure: each direction holds at most [Buffer] bytes; past that the
//     relay stops reading and the sender's window fills.
//   - Not imitated: loss, jitter, bandwidth. A [Wan] of namespaces does that.
//
// Faults: [Relay.Cut] resets everything and refuses new connections (the far
// host is gone), [Relay.BlackHole] moves nothing and says nothing (packets are
// lost on the way), [Relay.Heal] ends either.
package link

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/testbed/reactor"
)

// Buffer is how many bytes a relay holds for one direction of one connection.
const Buffer = 128 << 10

// Counters are a relay's totals since it was opened.
type Counters struct {
	// Connections counts accepted ones, Refused those reset for a cut or because
	// the target could not be reached.
	Connections, Refused uint64
	// Open is how many are being relayed now.
	Open int64
	// Forward and Backward are bytes delivered to the target and to the callers.
	Forward, Backward uint64
}

// State is what a relay does with traffic.
type State int

// States of a relay.
const (
	Healthy State = iota
	IsCut
	IsBlackHole
)

// Relay is one directed link: callers reach it at Addr and, through it, the
// target. Its methods are safe from any goroutine but its loop's own.
type Relay struct {
	loop     *reactor.Loop
	half     time.Duration
	addr     netip.AddrPort
	listener int
	target   netip.AddrPort
	state    State
	closed   bool
	conns    map[*conn]struct{}
	tap      func(conn uint64, forward bool, p []byte)

	connections, refused, forward, backward atomic.Uint64
	open                                    atomic.Int64
}

// Open starts a relay on a free loopback port. The round-trip time is split
// evenly; target may be set or replaced later by [Relay.SetTarget], for
// connections to come. The loop must be running or be about to run.
func Open(loop *reactor.Loop, rtt time.Duration, target netip.AddrPort) (*Relay, error) {
	if rtt < 0 {
		return nil, fmt.Errorf("round-trip time %v is negative", rtt)
	}
	fd, addr, err := reactor.Listen(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	r := &Relay{loop: loop, half: rtt / 2, addr: addr, listener: fd, target: target, conns: map[*conn]struct{}{}}
	regErr := errors.New("relay: the loop has ended")
	loop.Call(func() { regErr = loop.Register(fd, reactor.Readable, r) })
	if regErr != nil {
		_ = unix.Close(fd)
		return nil, regErr
	}
	return r, nil
}

// Addr is where callers connect.
func (r *Relay) Addr() netip.AddrPort { return r.addr }

// RTT is the round trip that the relay adds.
func (r *Relay) RTT() time.Duration { return 2 * r.half }

// Tap shows f every byte that the relay reads from now on, by the number of its
// connection (its place in the order of accepting) and direction. f runs on the loop.
func (r *Relay) Tap(f func(conn uint64, forward bool, p []byte)) {
	r.loop.Call(func() { r.tap = f })
}

// SetTarget says where connections from now on lead.
func (r *Relay) SetTarget(target netip.AddrPort) { r.loop.Call(func() { r.target = target }) }

// Counters reads the relay's totals.
func (r *Relay) Counters() Counters {
	return Counters{
		Connections: r.connections.Load(), Refused: r.refused.Load(), Open: r.open.Load(),
		Forward: r.forward.Load(), Backward: r.backward.Load(),
	}
}

// Cut resets all connections and every new one.
func (r *Relay) Cut() { r.loop.Call(func() { r.become(IsCut) }) }

// BlackHole stops all movement without telling anybody. New connections are
// established, as far as the caller's kernel knows, and stay silent.
func (r *Relay) BlackHole() { r.loop.Call(func() { r.become(IsBlackHole) }) }

// Heal ends a cut or a black hole. What a black hole holds goes on then, as
// retransmission would bring it.
func (r *Relay) Heal() { r.loop.Call(func() { r.become(Healthy) }) }

// Close resets all connections and gives the port back.
func (r *Relay) Close() {
	r.loop.Call(func() {
		if r.closed {
			return
		}
		r.become(IsCut)
		r.closed = true
		r.loop.Unregister(r.listener)
		_ = unix.Close(r.listener)
	})
}

func (r *Relay) become(s State) {
	if r.closed {
		return
	}
	r.state = s
	if s == IsCut {
		for c := range r.conns {
			c.abort()
		}
	}
	want := reactor.Readable
	if s == IsBlackHole {
		want = 0
	}
	if err := r.loop.Want(r.listener, want); err != nil {
		panic("link: listener lost: " + err.Error())
	}
	for c := range r.conns {
		c.up.pump()
		c.down.pump()
	}
}

// Ready accepts what waits.
func (r *Relay) Ready(uint32) {
	for {
		fd, err := reactor.Accept(r.listener)
		if err != nil {
			if err != unix.EAGAIN {
				r.pauseAccept()
			}
			return
		}
		r.connections.Add(1)
		if r.state == IsCut {
			r.refused.Add(1)
			reactor.Abort(fd)
			continue
		}
		newConn(r, fd)
	}
}

// pauseAccept waits out a shortage (descriptors, memory): epoll would report the
// listener at once again.
func (r *Relay) pauseAccept() {
	if r.loop.Want(r.listener, 0) != nil {
		return
	}
	r.loop.NewTimer(func() {
		if !r.closed && r.state != IsBlackHole {
			_ = r.loop.Want(r.listener, reactor.Readable) // still registered: only Close removes it
		}
	}).Set(r.loop.Now() + 50*time.Millisecond)
}
