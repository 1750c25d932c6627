// Package datagram passes UDP datagrams on between clients and backends. A client's
// address and port are a session: its datagrams go to one endpoint, from a socket of
// its own, so that what comes back is known to be for it, and an endpoint that is not
// there is heard of (ICMP). Sessions end by silence.
//
// Datagrams are received and sent many at a time (recvmmsg(2), sendmmsg(2)), those
// of one size as one message where the kernel can (UDP_GRO, UDP_SEGMENT). What one
// turn of the loop moves is bounded. Everything runs on the loop's goroutine.
package datagram

import (
	"net/netip"
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
)

const (
	// turnBytes bounds what all sessions of a loop move in one turn, well below what
	// would take 5 ms; turnCalls does so for small datagrams.
	turnBytes = 1 << 20
	turnCalls = 64
	// atOnce bounds the datagrams of one session's endpoint in one turn.
	atOnce = loop.BatchSize / 2
	// unansweredIdle is how long a session may be silent that its endpoint has never
	// answered: nobody may fill the table by addresses that he does not have.
	unansweredIdle = 10 * time.Second
	// trimAfter is how long nothing was moved when memory is given back.
	trimAfter = 10 * time.Second
)

// Drop is why a datagram went nowhere.
type Drop uint8

// Drops.
const (
	// DropNoRoute: no route or endpoint serves it.
	DropNoRoute Drop = iota
	// DropFull: a bound on sessions, memory or descriptors is reached.
	DropFull
	// DropTooBig: it does not fit the way on, or was cut off.
	DropTooBig
	// DropBusy: the kernel's buffers were full.
	DropBusy
	// DropUnreachable: the endpoint, or the client, cannot be reached.
	DropUnreachable
	// Drops is the number of reasons.
	Drops
)

// Names of the reasons, as metrics tell them.
var Names = [Drops]string{"no_route", "full", "too_big", "busy", "unreachable"}

// Host answers what sessions need to know and is told how they go.
type Host interface {
	Elsewhere
	// Admit counts a new session, or says that there is no room for one.
	Admit(s *Session) bool
	// Route fills in the session's Plan.
	Route(s *Session) exchange.Flag
	// Pick sets the session's Endpoint to one that was not tried, and counts the
	// session there, or says Away. first is the datagram that it is for.
	Pick(s *Session, first []byte) exchange.Flag
	// Stays reports whether the session's endpoint may still serve it; asked after
	// the configuration changed and where the endpoint is not well.
	Stays(s *Session) bool
	// Reached tells that the endpoint has answered or, with false, that it is not
	// there; a session without an endpoint was at none.
	Reached(s *Session, ok bool)
	// Left tells that the session goes to another endpoint.
	Left(s *Session)
	// Moved counts datagrams that went on, and their bytes.
	Moved(s *Session, fromClient bool, datagrams, bytes int)
	// Dropped counts datagrams that went nowhere; s may be nil.
	Dropped(s *Session, why Drop, datagrams int)
	// Answer sees a datagram of the endpoint to a client that it may not know yet.
	Answer(s *Session, p []byte)
	// Ended is the last word on a session that was admitted.
	Ended(s *Session, f exchange.Flag)
}

// Plan is how a session is served.
type Plan struct {
	Service *upstream.Service
	Idle    time.Duration
	Retries int
	// Port is the service's, 0 where its route names none.
	Port int
	// Route names the rule that the session goes by.
	Route string
}

// Session is one client's exchange with one endpoint.
type Session struct {
	Plan
	// Owner is the caller's, of the socket.
	Owner any
	// From is the client's address.
	From netip.AddrPort
	// Endpoint is where it goes, Tried where it has been in vain since the last answer.
	Endpoint *upstream.Endpoint
	Tried    [exchange.MaxAttempts + 1]*upstream.Endpoint
	Tries    int
	// Away says that the session is served elsewhere, at Place; Link is the host's hold
	// of it there, Via what it goes by.
	Away  bool
	Place int
	Link  any
	Via   *upstream.Endpoint
	// Seq numbers the engine's sessions from 1; Born is when this one came, on the
	// loops' clock.
	Seq  uint64
	Born int64
	// Flow is where the host counts by who sent it; nil before it does.
	Flow *upstream.Flow
	// FromClient and FromBackend are bytes passed on, Asked and Answered datagrams.
	FromClient, FromBackend int64
	Asked, Answered         int64
	// IDs are those of the QUIC connection, if it is one.
	IDs Held

	k       *Socket
	sender  loop.Sender
	local   loop.Local
	fd      int // -1 without an endpoint
	handle  uint32
	replied bool
	plain   bool // the kernel does not cut messages for this endpoint
	over    bool
	away    bool // served elsewhere now
	epoch   uint64
	active  int64
	timer   loop.Timer
	// next and prev link those that were never answered, oldest first.
	next, prev *Session
}

// Engine is one loop's sessions.
type Engine struct {
	loop *loop.Loop
	host Host
	in   *loop.Batch // of clients
	out  *loop.Batch // of endpoints
	used int         // places of out
	// replies wait for the end of the turn, all for one socket.
	replies []loop.Reply
	whose   []*Session // of replies
	to      *Socket
	late    bool

	sockets  []*Socket
	started  uint64
	epoch    uint64
	turn     int64
	budget   int // bytes, of the turn
	calls    int // of the turn
	draining time.Duration
	count    int

	unanswered, lastUnanswered *Session
	ended                      []*Session // of this turn, to be used again
	free                       *Session
	mine                       [loop.BatchSize]*Session // of the datagrams at hand
	which                      []int
	trim                       loop.Timer
	moved                      int64
}

// NewEngine makes a loop's engine. It takes memory for datagrams with its first socket.
func NewEngine(l *loop.Loop, h Host) *Engine {
	e := &Engine{loop: l, host: h, which: make([]int, 0, loop.BatchSize), replies: make([]loop.Reply, 0, loop.BatchSize), whose: make([]*Session, 0, loop.BatchSize)}
	e.trim.Owner = (*trimmer)(e)
	return e
}

// Refresh has every session ask again whether its endpoint may serve it: the
// configuration has changed.
func (e *Engine) Refresh() { e.epoch++ }

// Sessions is how many there are.
func (e *Engine) Sessions() int { return e.count }

// Each calls f for every session; f may end it.
func (e *Engine) Each(f func(*Session)) {
	for _, k := range e.sockets {
		for _, s := range k.sessions {
			f(s)
		}
	}
}

// Drain takes no new sessions and ends those that are silent for longer than idle.
func (e *Engine) Drain(idle time.Duration) {
	e.draining = max(idle, 1)
	e.Each((*Session).watch)
}

// Relieve ends at most most sessions that were never answered, the oldest first.
func (e *Engine) Relieve(most int) (ended int) {
	for ; ended < most && e.unanswered != nil; ended++ {
		e.unanswered.end(exchange.Overload)
	}
	return ended
}

// Close ends every session and frees what the engine holds.
func (e *Engine) Close() {
	e.flush()
	for len(e.sockets) > 0 {
		e.sockets[0].Close()
	}
	e.loop.Wheel.Clear(&e.trim)
	for _, b := range []*loop.Batch{e.in, e.out} {
		if b != nil {
			b.Free()
		}
	}
	e.in, e.out = nil, nil
}

// may reports whether the turn's bounds leave room.
func (e *Engine) may() bool {
	if now := e.loop.Now(); now != e.turn {
		e.turn, e.budget, e.calls = now, turnBytes, turnCalls
	}
	e.calls--
	return e.budget > 0 && e.calls >= 0
}

type trimmer Engine

// Expire gives memory back after a rest.
func (t *trimmer) Expire(tm *loop.Timer, now int64) {
	e := (*Engine)(t)
	switch {
	case e.moved == 0:
		return
	case now-e.moved >= int64(trimAfter):
		e.in.Trim()
		e.out.Trim()
		e.moved = 0
	default:
		e.loop.Wheel.Set(tm, now+int64(trimAfter))
	}
}

func (e *Engine) busy() {
	if e.moved == 0 {
		e.loop.Wheel.Set(&e.trim, e.loop.Now()+int64(trimAfter))
	}
	e.moved = e.loop.Now()
}

// Run ends the turn: it sends the replies and takes the memory of sessions back.
func (e *Engine) Run() {
	e.late = false
	e.flush()
	for i, s := range e.ended {
		e.ended[i] = nil
		s.next = e.free
		e.free = s
	}
	e.ended = e.ended[:0]
}

// later has Run called at the end of this turn.
func (e *Engine) later() {
	if !e.late {
		e.late = true
		e.loop.Late(e)
	}
}

var _ loop.Task = (*Engine)(nil)
