package http2

import (
	"github.com/meridian-mesh/meridian/edgeproxy/http2/hpack"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// Codec is one side of a connection.
type Codec struct {
	*scratch
	server bool
	dec    hpack.Decoder
	enc    hpack.Encoder
	ctl    []byte // own frames that the caller has not fetched
	err    *fault

	greeted  bool // the own preface is in ctl or gone
	prefaced int  // bytes of the client's preface seen
	settled  bool // the peer's first SETTINGS came
	extended bool // the peer takes extended CONNECT

	// Open streams: identifiers apart from the rest, for a search that touches
	// little memory.
	ids    []uint32
	flows  []flow
	seen   uint32 // the highest identifier that the peer used
	last   uint32 // the highest of a head that was looked at
	next   uint32 // the next that this side opens
	closed [maxClosed]ended
	shut   int // index of the next in closed

	peerWindow  int64 // initial, of a stream
	peerStreams uint32
	send        int64 // the connection's window towards the peer
	credit      int   // what the peer may still send on the connection
	owed        int   // of what it sent, what has been taken and not given back
	lent        int   // by how much the connection is wider than its limit, for streams that are over

	body     body   // of the DATA frame being read
	skip     int    // bytes of a frame that says nothing here
	endOf    uint32 // the stream whose End comes next
	faulted  uint32 // the stream whose Reset comes next, for reason
	reason   stream.Reason
	resets   int // see Limits.Resets
	heads    int // see Limits.Heads
	trusted  bool
	idle     int // see Limits.Idle
	closing  bool
	farewell bool // GOAWAY with the last stream was said
	gone     bool // the peer said GOAWAY
	lastKept uint32
}

// flow is an open stream.
type flow struct {
	send   int64 // the stream's window towards the peer
	credit int   // what the peer may still send
	owed   int   // of what it sent, what was taken and not given back
	unpaid int   // of what it sent, what was not taken
	head   int   // what its head took of Limits.Heads
	extra  int   // by how much its window is wider than its limit
	left   int64 // of the body coming in, -1 when not known
	out    int64 // of the body going out, -1 when not known

	in, wr    bool // open for reading, for writing
	headIn    bool // the (final) head came
	headOut   bool // the (final) head went
	endOut    bool // END_STREAM went; End is still to be encoded
	trailing  bool // the request takes trailers
	headless  bool // the request is HEAD: the answer has no body
	interim   int
	discarded bool // what is encoded of the body is not sent
	connect   bool // the request is CONNECT, plain or for a protocol
	tunnel    bool // ... and was agreed to: each direction ends on its own
	protocol  protocol
}

// ended is a stream that is over.
type ended struct {
	id uint32
	// quiet says that this side reset it, so that the peer may not know yet.
	quiet bool
}

type body struct {
	id        uint32
	left, pad int
	end       bool
	active    bool
}

func newCodec(s *scratch, server bool) *Codec {
	c := &Codec{scratch: s, server: server}
	c.Reset()
	return c
}

var _ stream.Codec = (*Codec)(nil)

// NewServer and NewClient return the codec of a side, with memory of its own.
func NewServer(l Limits) *Codec { return NewScratch(l).NewServer() }

// NewClient returns the client side of a new connection, with memory of its own.
func NewClient(l Limits) *Codec { return NewScratch(l).NewClient() }

// Reset makes the codec as good as new for another connection.
func (c *Codec) Reset() {
	*c = Codec{
		scratch: c.scratch, server: c.server, dec: c.dec, enc: c.enc,
		ctl: c.ctl[:0], ids: c.ids[:0], flows: c.flows[:0],
		next: 1, peerWindow: defaultWindow, peerStreams: unlimited, send: defaultWindow, credit: c.limits.ConnectionWindow,
	}
	c.dec.Reset(tableSize)
	c.enc.Reset(tableSize)
}

// greet says what comes first (RFC 9113 3.4).
func (c *Codec) greet() {
	if c.greeted {
		return
	}
	c.greeted = true
	settings := 3
	if !c.server {
		c.ctl = append(c.ctl, Preface...)
	}
	if !c.server || c.limits.Extended {
		settings++
	}
	c.ctl = appendFrame(c.ctl, settings*settingLen, frameSettings, 0, 0)
	if c.server {
		c.ctl = appendSetting(c.ctl, settingStreams, c.limits.Streams)
		if c.limits.Extended {
			c.ctl = appendSetting(c.ctl, settingConnect, 1)
		}
	} else {
		c.ctl = appendSetting(c.ctl, settingPush, 0)
		c.ctl = appendSetting(c.ctl, settingStreams, 0)
	}
	c.ctl = appendSetting(c.ctl, settingWindow, c.limits.Window)
	c.ctl = appendSetting(c.ctl, settingHeadSize, c.limits.Head)
	if more := c.limits.ConnectionWindow - defaultWindow; more > 0 {
		c.ctl = appendWindow(c.ctl, 0, more)
	}
}

// Say appends the frames that the codec has to send on its own account.
func (c *Codec) Say(dst []byte) []byte {
	c.greet()
	dst = append(dst, c.ctl...)
	c.ctl = c.ctl[:0]
	return dst
}

// Trust lifts Limits.Heads for this connection, until Reset.
func (c *Codec) Trust() { c.trusted = true }

// Silent reports that Say has nothing to append.
func (c *Codec) Silent() bool { return c.greeted && len(c.ctl) == 0 }

// find returns the index of an open stream, -1 when it is none.
func (c *Codec) find(id uint32) int {
	for i := len(c.ids) - 1; i >= 0; i-- {
		if c.ids[i] == id {
			return i
		}
	}
	return -1
}

func (c *Codec) open(id uint32) *flow {
	c.ids = append(c.ids, id)
	c.flows = append(c.flows, flow{
		send: c.peerWindow, credit: c.limits.Window, left: stream.LengthUnknown, out: stream.LengthUnknown, in: true, wr: true,
	})
	return &c.flows[len(c.flows)-1]
}

// drop forgets a stream. What its receiver did not take is given back to the
// connection: nobody will.
func (c *Codec) drop(i int, quiet bool) {
	c.lent += c.flows[i].extra
	c.heads -= c.flows[i].head
	c.repay(c.flows[i].unpaid)
	c.remember(c.ids[i], quiet)
	n := len(c.ids) - 1
	c.ids[i], c.flows[i] = c.ids[n], c.flows[n]
	c.ids, c.flows = c.ids[:n], c.flows[:n]
}

func (c *Codec) remember(id uint32, quiet bool) {
	c.closed[c.shut] = ended{id, quiet}
	c.shut = (c.shut + 1) % maxClosed
}

// ended looks a stream up among those that are over.
func (c *Codec) ended(id uint32) (e ended, ok bool) {
	for _, e := range c.closed {
		if e.id == id && id != 0 {
			return e, true
		}
	}
	return e, false
}

// unopened reports whether no frame but HEADERS may come on the stream.
func (c *Codec) unopened(id uint32) bool {
	if c.server {
		return id > c.seen || id%2 == 0
	}
	return id >= c.next || id%2 == 0
}

// repay gives credit for the connection, in pieces worth a frame.
func (c *Codec) repay(n int) {
	narrower := min(n, c.lent)
	c.lent -= narrower
	if c.owed += n - narrower; c.owed >= c.limits.ConnectionWindow/2 {
		c.ctl = appendWindow(c.ctl, 0, c.owed)
		c.credit += c.owed
		c.owed = 0
	}
}

// fail ends the connection.
func (c *Codec) fail(f *fault) error {
	c.err = f
	c.ctl = appendGoAway(c.ctl, c.last, f.code)
	c.farewell = true
	return &f.ProtocolError
}

// reset ends a stream for a fault of the peer's.
func (c *Codec) reset(id uint32, why code) *fault {
	c.ctl = appendReset(c.ctl, id, why)
	if i := c.find(id); i >= 0 {
		c.drop(i, true)
		c.faulted, c.reason = id, reasonOf(why)
	}
	return c.wasted(1)
}

// refuse ends a stream whose head is not taken; the caller is told, to count it.
func (c *Codec) refuse(id uint32, why code) *fault {
	if c.find(id) >= 0 {
		return c.reset(id, why)
	}
	c.remember(id, true)
	c.faulted, c.reason = id, reasonOf(why)
	return c.reset(id, why)
}

// wasted counts streams that were of no use.
func (c *Codec) wasted(n int) *fault {
	if c.resets = max(0, c.resets+n); c.resets > c.limits.Resets {
		return errResets
	}
	return nil
}

// useful notes a frame that brings something.
func (c *Codec) useful() { c.idle = max(0, c.idle-progress) }

// Decode reads frames up to the first that is an event; see [stream.Codec].
func (c *Codec) Decode(in []byte, ev *stream.Event) (int, error) {
	*ev = stream.Event{}
	if c.err != nil {
		return 0, &c.err.ProtocolError
	}
	used := 0
	for {
		if c.pending(ev) {
			return used, nil
		}
		inside := c.body.active
		n, f := c.step(in[used:], ev)
		used += n
		if f == nil && len(c.ctl) > maxControl {
			f = errControl
		}
		if f != nil {
			*ev = stream.Event{}
			return used, c.fail(f)
		}
		if ev.Kind != stream.None {
			return used, nil
		}
		// An empty DATA frame ends with its head, and what follows it may be here.
		if n == 0 && c.body.active == inside && c.endOf == 0 && c.faulted == 0 {
			return used, nil
		}
	}
}

// pending returns what follows from a frame that is read already.
func (c *Codec) pending(ev *stream.Event) bool {
	switch {
	case c.faulted != 0:
		*ev = stream.Event{Kind: stream.Reset, Stream: stream.ID(c.faulted), Reason: c.reason}
		c.faulted = 0
	case c.endOf != 0:
		id := c.endOf
		c.endOf = 0
		i := c.find(id)
		if i < 0 {
			return false
		}
		*ev = stream.Event{Kind: stream.End, Stream: stream.ID(id)}
		c.received(i)
	case c.gone && !c.server:
		for i, id := range c.ids {
			if id > c.lastKept {
				c.drop(i, true)
				*ev = stream.Event{Kind: stream.Reset, Stream: stream.ID(id), Reason: stream.Refused}
				return true
			}
		}
		return false
	default:
		return false
	}
	return true
}

// received notes that a stream's message came whole.
func (c *Codec) received(i int) {
	s := &c.flows[i]
	s.in = false
	if s.wr && !c.server && !s.tunnel { // the answer is there: the rest of the request is not wanted
		if !s.endOut {
			c.ctl = appendReset(c.ctl, c.ids[i], noError)
		}
		c.drop(i, true)
		return
	}
	if !s.wr {
		c.resets = max(0, c.resets-1)
		c.drop(i, false)
	}
}

// step reads one frame, or what there is of a DATA frame.
func (c *Codec) step(in []byte, ev *stream.Event) (int, *fault) {
	if c.server && c.prefaced < len(Preface) {
		n := min(len(in), len(Preface)-c.prefaced)
		if string(in[:n]) != Preface[c.prefaced:c.prefaced+n] {
			return 0, errPreface
		}
		c.prefaced += n
		return n, nil
	}
	if c.body.active {
		return c.data(in, ev), nil
	}
	if c.skip > 0 {
		n := min(c.skip, len(in))
		c.skip -= n
		return n, nil
	}
	if len(in) < frameHead {
		return 0, nil
	}
	f := parseFrame(in)
	switch {
	case f.length > maxFrame:
		return 0, errFrameSize
	case !c.settled && (f.kind != frameSettings || f.flags&flagAck != 0):
		return 0, errFirst
	case f.kind > frameContinuation: // RFC 9113 4.1: unknown ones are ignored
		c.skip = f.length
		return frameHead, c.countIdle()
	case f.kind == frameData:
		return c.startData(in, f)
	case f.kind == frameHeaders:
		return c.headers(in, f, ev)
	case len(in) < frameHead+f.length:
		return 0, nil
	}
	return frameHead + f.length, c.control(f, in[frameHead:frameHead+f.length], ev)
}

func (c *Codec) countIdle() *fault {
	if c.idle++; c.idle > c.limits.Idle {
		return errIdleFrames
	}
	return nil
}

// EOF resets what is open for reading, one stream a call; see [stream.Codec].
func (c *Codec) EOF(ev *stream.Event) error {
	*ev = stream.Event{}
	c.gone, c.lastKept = true, everyStream
	if n := len(c.ids); n > 0 {
		*ev = stream.Event{Kind: stream.Reset, Stream: stream.ID(c.ids[n-1]), Reason: stream.Truncated}
		c.drop(n-1, true)
	}
	return nil
}

// Refuse is false: a head that is late holds no stream.
func (c *Codec) Refuse() (stream.ID, bool) { return 0, false }

// Open starts a stream of a client, false when the connection takes no more now or
// at all.
func (c *Codec) Open() (stream.ID, bool) {
	if c.server || c.gone || c.closing || c.err != nil || uint32(len(c.ids)) >= min(c.peerStreams, uint32(c.limits.Streams)) || c.next > everyStream {
		return 0, false
	}
	id := c.next
	c.next += 2
	c.open(id)
	return stream.ID(id), true
}

// Active counts streams that are not ended in both directions.
func (c *Codec) Active() int { return len(c.ids) }

// Reusable reports whether another stream may follow. After Close a server takes
// those that the client sent before it knew, until it knows.
func (c *Codec) Reusable() bool {
	if c.server {
		return c.err == nil && !c.gone && !c.farewell
	}
	return c.err == nil && !c.gone && !c.closing && c.next <= everyStream
}

// Close lets no stream follow. A server says so at once and takes streams until the
// client has heard it, which the answer to a PING tells; only then it says which
// was the last (RFC 9113 6.8).
func (c *Codec) Close(dst []byte) []byte {
	if c.closing || c.err != nil {
		return dst
	}
	c.closing = true
	c.greet()
	if c.server {
		c.ctl = appendGoAway(c.ctl, everyStream, noError)
		c.ctl = append(appendFrame(c.ctl, pingLen, framePing, 0, 0), farewellPing...)
	} else {
		c.ctl = appendGoAway(c.ctl, 0, noError)
	}
	return dst
}
