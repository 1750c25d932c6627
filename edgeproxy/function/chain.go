// Package function is what the proxy does of service function chains: requests pass
// network functions in order in the event loop that owns them, and their responses
// pass them the other way round. It is pure: the clock, memory and all that is known
// of a request are given. A function that is built in allocates nothing; what every
// hop did is counted in cells of the loops, which survive reloads.
//
// The terms are those of RFC 7665: a chain has a path (SPI), on which each function
// takes the service index (SI) down by one from 255, as it does for packets.
package function

import (
	"sync/atomic"
)

// Verdict is what a function makes of a message.
type Verdict uint8

// Verdicts.
const (
	// Passed: the message goes on, perhaps changed.
	Passed Verdict = iota
	// Answered: the request is answered here, with [Request.Answer].
	Answered
	// Failed: the function could not do its work; its failure mode says what follows.
	Failed
	// Asks: the function is not here. What it makes of the request comes later, see
	// [Chain.Settle].
	Asks
)

// Function handles requests. One is used by all loops at the same time, unless it says
// otherwise; what belongs to a loop it keeps by [Request.Loop].
type Function interface {
	Request(q *Request) Verdict
}

// Responder is a Function that handles responses, too. Answered has no meaning there.
type Responder interface {
	Response(q *Request) Verdict
}

// Cell is what one loop counted at a hop.
type Cell struct {
	Passed, Answered, Failed atomic.Uint64
	// Bypassed counts failures after which the request went on without the function.
	Bypassed atomic.Uint64
	// Timed counts passages that were timed, and NS sums them.
	Timed, NS atomic.Uint64
	_         [16]byte
}

// Counters are those of a hop, by loop. They are the same across reloads.
type Counters struct {
	Chain, Function string
	Hop             int
	Cells           []Cell
}

// MaxHops bounds the functions of a chain, as its document's rule does.
const MaxHops = 16

// Hop is a place of a chain.
type Hop struct {
	Function Function
	Responds Responder // nil where it does not
	Name     string
	Kind     string    // of function: headers, policer, tagger, wasm, external
	External *External // what is asked, nil where the function is here
	// Open lets requests go on when the function fails.
	Open     bool
	Counters *Counters

	si []byte
}

// SI is the service index with which requests come to hop i, as in RFC 8300.
func SI(i int) int { return 255 - i }

// Chain is immutable.
type Chain struct {
	Key  string // namespace/name
	SPI  uint32
	Hops []Hop
	// Broken says why it cannot be served; requests then pass without (Open) or are
	// refused.
	Broken string
	Open   bool

	spi      []byte
	responds bool
}

// Responds reports whether a hop handles responses.
func (c *Chain) Responds() bool { return c.responds }

// Request passes a request through the chain, from the hop at on, until a function stops
// it or has to be asked, and returns how many hops it passed. Timed has every hop's time
// taken by q.Clock.
func (c *Chain) Request(q *Request, at int, timed bool) (v Verdict, passed int) {
	q.chain = c
	for i := at; i < len(c.Hops); i++ {
		h := &c.Hops[i]
		if h.External != nil {
			return Asks, i
		}
		q.hop, q.at = h, i
		cell := &h.Counters.Cells[q.Loop]
		var began int64
		if timed {
			began = q.Clock()
		}
		v = h.Function.Request(q)
		if timed {
			cell.took(q.Clock() - began)
		}
		switch v {
		case Passed:
			cell.Passed.Add(1)
		case Answered:
			cell.Answered.Add(1)
			return v, i
		case Failed:
			cell.Failed.Add(1)
			if !h.Open {
				return v, i
			}
			cell.Bypassed.Add(1)
		}
	}
	return Passed, len(c.Hops)
}

// Settle counts what an external function at hop i made of a request, after so many ns,
// and reports whether the request goes on.
func (c *Chain) Settle(i, loop int, v Verdict, ns int64) (on bool) {
	h := &c.Hops[i]
	cell := &h.Counters.Cells[loop]
	cell.took(ns)
	switch v {
	case Passed:
		cell.Passed.Add(1)
		return true
	case Answered:
		cell.Answered.Add(1)
	default:
		cell.Failed.Add(1)
		if h.Open {
			cell.Bypassed.Add(1)
		}
		return h.Open
	}
	return false
}

func (c *Cell) took(ns int64) {
	c.Timed.Add(1)
	c.NS.Add(uint64(max(0, ns)))
}

// Response passes a response through the hops that its request had passed, the last
// first. A function that fails here leaves the response as it is: that is under way.
func (c *Chain) Response(q *Request, passed int) {
	q.chain = c
	for i := passed - 1; i >= 0; i-- {
		h := &c.Hops[i]
		if h.Responds == nil {
			continue
		}
		q.hop, q.at = h, i
		if h.Responds.Response(q) == Failed {
			h.Counters.Cells[q.Loop].Failed.Add(1)
		}
	}
}

// Sum is what all loops counted.
func (c *Counters) Sum() (s Sums) {
	for i := range c.Cells {
		cell := &c.Cells[i]
		s.Passed += cell.Passed.Load()
		s.Answered += cell.Answered.Load()
		s.Failed += cell.Failed.Load()
		s.Bypassed += cell.Bypassed.Load()
		s.Timed += cell.Timed.Load()
		s.NS += cell.NS.Load()
	}
	return s
}

// Sums are a hop's counters, of all loops.
type Sums struct {
	Passed, Answered, Failed, Bypassed, Timed, NS uint64
}
