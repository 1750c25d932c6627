package tlsio

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/meridian-mesh/meridian/edgeproxy/loop"
)

// Side is which end of a session this proxy is.
type Side uint8

// Sides.
const (
	ServerSide Side = iota // towards clients
	ClientSide             // towards backends
	sides
)

// String is the side as a label.
func (s Side) String() string { return [...]string{"server", "client"}[s] }

// MostHandshakes bounds the handshakes of a side that are under way.
const MostHandshakes = 1000

// ErrBusy is the end of a connection whose handshake would be one too many.
var ErrBusy = errors.New("too many TLS handshakes are under way")

// Handshakes are what the handshakes of a proxy have in common: the tokens without
// which none computes, the bound of how many there are, and counters.
type Handshakes struct {
	tokens loop.Tokens
	most   int64
	sides  [sides]sideCounters
}

type sideCounters struct {
	inFlight      atomic.Int64
	done, resumed atomic.Uint64
	failed        [reasons]atomic.Uint64
}

// NewHandshakes shares tokens among at most most handshakes of a side.
func NewHandshakes(tokens loop.Tokens, most int) *Handshakes {
	return &Handshakes{tokens: tokens, most: int64(most)}
}

// Count is what became of the handshakes of a side.
type Count struct {
	Side     Side
	InFlight int
	// Done counts those that brought a session, Resumed which of them went on with
	// an earlier one.
	Done, Resumed uint64
	// Failed counts the others by reason; those of 0 are left out.
	Failed map[Reason]uint64
}

// Counts may be called from any goroutine.
func (h *Handshakes) Counts() []Count {
	var out []Count
	for side := range sides {
		s := &h.sides[side]
		c := Count{Side: side, InFlight: int(s.inFlight.Load()), Done: s.done.Load(), Resumed: s.resumed.Load(), Failed: map[Reason]uint64{}}
		for r := range reasons {
			if n := s.failed[r].Load(); n > 0 {
				c.Failed[r] = n
			}
		}
		out = append(out, c)
	}
	return out
}

// Failed counts a handshake that brought no session. It is the owner's to call,
// once for each: it alone knows of those that it ended itself.
func (h *Handshakes) Failed(side Side, why Reason) { h.sides[side].failed[why].Add(1) }

// handshake is the mailbox between a loop and the goroutine of a handshake.
type handshake struct {
	c      *Conn
	shakes *Handshakes
	side   Side
	server *Server
	client *Client
	wake   chan struct{}
	peer   *Peer // of a server; the loop's once done

	// Of the loop.
	begun, heard, paused bool

	mu      sync.Mutex
	in, out []byte // from the socket and for it
	full    bool   // the socket is not read before the goroutine has taken some
	posted  bool
	ended   bool // nothing more comes from the socket
	done    bool
	err     error
	aborted bool
}

func newHandshake(c *Conn, h *Handshakes, side Side) *handshake {
	return &handshake{c: c, shakes: h, side: side, wake: make(chan struct{}, 1)}
}

// start begins the goroutine.
func (h *handshake) start() error {
	s := &h.shakes.sides[h.side]
	if s.inFlight.Add(1) > h.shakes.most {
		s.inFlight.Add(-1)
		return ErrBusy
	}
	h.begun = true
	h.c.room.Loop.Spend(SessionBytes)
	go h.run()
	return nil
}

// take puts what the loop has read into the mailbox. A client's handshake begins
// with its first record, so that one who only connects costs nothing.
func (h *handshake) take(in []byte) error {
	h.heard = h.heard || len(in) > 0
	h.mu.Lock()
	h.in = append(h.in, in...)
	begin := !h.begun && recordWhole(h.in)
	if len(h.in) > mailboxBytes && !h.full {
		h.full, h.paused = true, true
		h.c.conn.Pause()
	}
	h.mu.Unlock()
	if begin {
		return h.start()
	}
	h.poke()
	return nil
}

// recordWhole reports whether the first record (RFC 8446 5.1) is there, or cannot
// come.
func recordWhole(in []byte) bool {
	const handshakeRecord, head, longest = 22, 5, 1<<14 + 256
	if len(in) == 0 {
		return false
	}
	if in[0] != handshakeRecord {
		return true
	}
	if len(in) < head {
		return false
	}
	n := int(in[3])<<8 | int(in[4])
	return n > longest || len(in) >= head+n
}

func (h *handshake) poke() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// abort has the goroutine end as soon as it can.
func (h *handshake) abort() {
	h.mu.Lock()
	h.aborted = true
	h.mu.Unlock()
	h.poke()
}

// end has the goroutine meet the socket's end after what it has not read yet.
func (h *handshake) end() {
	h.mu.Lock()
	h.ended = true
	h.mu.Unlock()
	h.poke()
}

func (h *handshake) run() {
	h.acquire()
	h.mu.Lock()
	aborted := h.aborted
	h.mu.Unlock()
	err := net.ErrClosed
	if !aborted {
		s := &session{c: h.c, hs: h}
		var t *tls.Conn
		if h.side == ServerSide {
			t = tls.Server(s, h.server.config)
		} else {
			t = tls.Client(s, h.client.config)
		}
		if err = t.Handshake(); err == nil {
			count := &h.shakes.sides[h.side]
			count.done.Add(1)
			if t.ConnectionState().DidResume {
				count.resumed.Add(1)
			}
			if shown := t.ConnectionState().PeerCertificates; h.side == ServerSide && len(shown) > 0 {
				h.peer = h.server.peer(shown[0])
			}
			h.c.tls, s.hs = t, nil // the loop's from the post below on
		}
	}
	h.shakes.tokens.Release()
	h.shakes.sides[h.side].inFlight.Add(-1)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.done, h.err = true, err
	h.tell()
}

// acquire waits for the right to compute.
func (h *handshake) acquire() {
	// Fails only with its context, which does not end.
	_ = h.shakes.tokens.Acquire(context.Background())
}

// read takes from the mailbox; while that is empty it holds no token.
func (h *handshake) read(p []byte) (int, error) {
	for {
		h.mu.Lock()
		if h.aborted {
			h.mu.Unlock()
			return 0, net.ErrClosed
		}
		if n := copy(p, h.in); n > 0 {
			h.in = h.in[:copy(h.in, h.in[n:])]
			if h.full && len(h.in) < mailboxBytes/2 {
				h.full = false
				h.tell()
			}
			h.mu.Unlock()
			return n, nil
		}
		ended := h.ended
		h.mu.Unlock()
		if ended {
			return 0, io.ErrUnexpectedEOF
		}
		h.shakes.tokens.Release()
		<-h.wake
		h.acquire()
	}
}

// write leaves bytes for the socket.
func (h *handshake) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.aborted {
		return 0, net.ErrClosed
	}
	h.out = append(h.out, p...)
	h.tell()
	return len(p), nil
}

// tell has the loop look at the mailbox. It needs mu.
func (h *handshake) tell() {
	if !h.posted {
		h.posted = true
		h.c.room.Loop.Post((*delivery)(h))
	}
}

type delivery handshake

// Run sends what the goroutine left, and ends the handshake when it is done.
func (d *delivery) Run() {
	h := (*handshake)(d)
	h.mu.Lock()
	h.posted = false
	out, done, err, full, aborted := h.out, h.done, h.err, h.full, h.aborted
	c := h.c
	if !aborted && len(out) > 0 {
		c.wire.Append(&c.room.Loop.Slabs, out)
	}
	h.out = h.out[:0]
	left := h.in
	h.mu.Unlock()
	if aborted {
		return
	}
	if len(out) > 0 {
		c.conn.Dirty()
	}
	if h.paused && !full && !done {
		h.paused = false
		c.conn.Resume()
	}
	if done {
		c.finished(left, err)
	}
}

var _ loop.Task = (*delivery)(nil)
