// Package l4 passes connections on whole, between a client's socket and a
// backend's: it reads what comes before the first byte that is passed on (a PROXY
// header from a trusted balancer, the server name of a TLS hello), connects to an
// endpoint, to another one where that fails, and then moves bytes both ways, by
// copy at first and by splice(2) once a direction has carried some.
//
// A half close is passed on as a half close and a reset as a reset. What one turn
// of the loop moves is bounded, and each connection gets its share of that.
// Everything runs on the loop's goroutine.
package l4

import (
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
)

const (
	// copyBytes is the most one copy takes.
	copyBytes = 64 << 10
	// turnBytes bounds what all connections of a loop move in one turn, well below
	// what would take 5 ms.
	turnBytes = 512 << 10
	// starveRest is how long connections that there was no room to read wait for some.
	starveRest = 2 * time.Millisecond
	// shareBytes is what one of them may move of it while others wait.
	shareBytes = 128 << 10
)

// Host answers what connections need to know and is told how they end.
type Host interface {
	// Route fills in the session's Plan by the server name that the client asked
	// for, empty where none was read.
	Route(s *Session, server []byte) exchange.Flag
	// Pick sets the session's Endpoint to one that was not tried, and counts the
	// connection there, or says Away.
	Pick(s *Session) exchange.Flag
	// Take serves a session elsewhere from now on, after Pick has said Away: it gets the
	// client's socket, which the loop does not watch any more, and what was read of it.
	// The session is over then, without Ended.
	Take(s *Session, fd int, held *loop.List)
	// Connected follows when the endpoint was reached or, with false, was not.
	Connected(s *Session, ok bool)
	// Moved tells how many bytes went on from the client and from the backend.
	Moved(s *Session, fromClient, fromBackend int)
	// Ended is the last word on a session; its memory is used again.
	Ended(s *Session, f exchange.Flag)
}

// Plan is how a connection is served.
type Plan struct {
	Service       *upstream.Service
	Connect, Idle time.Duration
	Retries       int
	// Port is the service's, 0 where its route names none.
	Port int
	// Send is the version of the PROXY header that the backend gets, 0 for none.
	Send int
	// Route names the rule that the connection goes by.
	Route string
}

// Engine is one loop's connections.
type Engine struct {
	loop     *loop.Loop
	host     Host
	pipes    pipes
	head     time.Duration // bounds what comes before the first byte passed on
	sessions *Session
	free     *Session
	started  uint64
	scratch  []byte // for a fragmented hello

	turn           int64
	budget, shared int // of the turn, left
	ready          []*Session
	running        []*Session
	posted         bool
	ended          []*Session // of this turn
	starved        []*Session // found no room to read
	feed           loop.Timer
}

// NewEngine makes a loop's engine. head bounds the time until a client has sent
// what is needed to route it.
func NewEngine(l *loop.Loop, h Host, head time.Duration) *Engine {
	e := &Engine{loop: l, host: h, head: head}
	e.feed.Owner = (*feeder)(e)
	return e
}

// Each calls f for every session; f may end it.
func (e *Engine) Each(f func(*Session)) {
	for s := e.sessions; s != nil; {
		next := s.next
		f(s)
		s = next
	}
}

// Relieve cuts at most most sessions that hold memory: of clients that have not
// said where they want to go, or of a side that takes nothing, and since before.
func (e *Engine) Relieve(before int64, most int) (cut int) {
	for s := e.sessions; s != nil && cut < most; {
		next := s.next
		if s.active <= before && (!s.established || s.up.held.Len()+s.down.held.Len() > 0) {
			s.end(exchange.Overload, true)
			cut++
		}
		s = next
	}
	return cut
}

// Close cuts every connection and frees what the engine holds.
func (e *Engine) Close() {
	e.Each(func(s *Session) { s.Cut(exchange.OK) })
	e.pipes.close()
}

// refill starts the budget of a new turn.
func (e *Engine) refill() {
	if now := e.loop.Now(); now != e.turn {
		e.turn, e.shared = now, turnBytes
	}
}

// move moves a session's bytes within its share, and has it come again when that
// was not enough.
func (e *Engine) move(s *Session) {
	e.refill()
	share := min(shareBytes, e.shared)
	e.budget = share
	again := s.move()
	e.shared -= share - e.budget
	if again && !s.queued && !s.over {
		s.queued = true
		e.ready = append(e.ready, s)
		e.wake()
	}
}

// starve has a session moved again when there may be room to read.
func (e *Engine) starve(s *Session) {
	e.loop.Short()
	if !s.starved {
		s.starved = true
		e.starved = append(e.starved, s)
	}
	if !e.feed.Armed() {
		e.loop.Wheel.Set(&e.feed, e.loop.Now()+int64(starveRest))
	}
}

type feeder Engine

// Expire moves what waited for room.
func (f *feeder) Expire(*loop.Timer, int64) {
	e := (*Engine)(f)
	starved := e.starved
	e.starved = nil
	for _, s := range starved {
		s.starved = false
		if !s.over {
			s.client.readable, s.backend.readable = true, true // what is not is found out
			e.move(s)
		}
	}
}

func (e *Engine) wake() {
	if !e.posted {
		e.posted = true
		e.loop.Post(e)
	}
}

// Run goes on with the sessions whose share of a turn was used up, each in its
// turn, and reuses the memory of those that ended.
func (e *Engine) Run() {
	e.posted = false
	e.running, e.ready = e.ready, e.running[:0]
	for i, s := range e.running {
		e.running[i] = nil
		s.queued = false
		if !s.over {
			e.move(s)
		}
	}
	for i, s := range e.ended {
		e.ended[i] = nil
		if s.queued || s.starved {
			continue // another list goes through it once more; left to the collector
		}
		s.next = e.free
		e.free = s
	}
	e.ended = e.ended[:0]
}

var _ loop.Task = (*Engine)(nil)
