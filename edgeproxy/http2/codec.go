package http2

import (
	"encoding/binary"

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

	body     body   // of the DATA frame being read
	skip     int    // bytes of a frame that says nothing here
	endOf    uint32 // the stream whose End comes next
	faulted  uint32 // the stream whose Reset comes next, for reason
	reason   stream.Reason
	resets   int // see Limits.Resets
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
		c.ctl = append(c.ctl, preface...)
		settings++
	}
	c.ctl = appendFrame(c.ctl, settings*settingLen, frameSettings, 0, 0)
	if c.server {
		c.ctl = appendSetting(c.ctl, settingStreams, c.limits.Streams)
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
	if c.owed += n; c.owed >= c.limits.ConnectionWindow/2 {
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
		if n == 0 && c.endOf == 0 && c.faulted == 0 {
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
	if s.wr && !c.server { // the answer is there: the rest of the request is not wanted
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
	if c.server && c.prefaced < len(preface) {
		n := min(len(in), len(preface)-c.prefaced)
		if string(in[:n]) != preface[c.prefaced:c.prefaced+n] {
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

// startData reads a DATA frame's header (RFC 9113 6.1).
func (c *Codec) startData(in []byte, f frame) (int, *fault) {
	n, pad := frameHead, 0
	if f.flags&flagPadded != 0 {
		if f.length == 0 {
			return 0, errFrameSize
		}
		if len(in) == n {
			return 0, nil
		}
		if pad = int(in[n]); pad >= f.length {
			return 0, errPadding
		}
		n++
	}
	if f.id == 0 {
		return 0, errFrameStream
	}
	if c.unopened(f.id) {
		return 0, errIdle
	}
	if c.credit -= f.length; c.credit < 0 {
		return 0, errOverrun
	}
	b := body{id: f.id, left: f.length - pad - (n - frameHead), pad: pad, end: f.flags&flagEndStream != 0, active: true}
	c.body = b
	i := c.find(f.id)
	if i < 0 {
		c.repay(f.length)
		c.body.id = 0
		if e, _ := c.ended(f.id); e.quiet {
			return n, nil
		}
		c.ctl = appendReset(c.ctl, f.id, streamClosed)
		return n, c.wasted(1)
	}
	c.repay(f.length - b.left)
	s := &c.flows[i]
	why := noError
	switch s.credit -= f.length; {
	case !s.in:
		why = streamClosed
	case s.credit < 0:
		why = flowControlError
	case !s.headIn:
		why = protocolError // RFC 9113 8.1: a head comes first
	case s.left >= 0 && int64(b.left) > s.left, b.end && s.left > int64(b.left):
		why = protocolError // RFC 9113 8.1.1
	}
	if why != noError {
		c.repay(b.left)
		c.body.id = 0
		return n, c.reset(f.id, why)
	}
	if s.left >= 0 {
		s.left -= int64(b.left)
	}
	c.payStream(f.id, s, f.length-b.left)
	if b.left == 0 && !b.end {
		return n, c.countIdle()
	}
	if b.left > 0 {
		c.useful()
	}
	return n, nil
}

// data passes on what there is of a DATA frame.
func (c *Codec) data(in []byte, ev *stream.Event) int {
	b := &c.body
	n := min(b.left, len(in))
	b.left -= n
	if i := c.find(b.id); n > 0 && i >= 0 {
		c.flows[i].unpaid += n
		*ev = stream.Event{Kind: stream.Data, Stream: stream.ID(b.id), Data: in[:n:n]}
	} else if n > 0 && b.id != 0 {
		c.repay(n) // the stream was reset within the frame
	}
	if b.left > 0 {
		return n
	}
	k := min(b.pad, len(in)-n)
	b.pad -= k
	if b.pad == 0 {
		b.active = false
		if b.end && b.id != 0 {
			c.endOf = b.id
		}
	}
	return n + k
}

// headers reads a HEADERS frame and its CONTINUATIONs once they are all there
// (RFC 9113 6.2, 6.10).
func (c *Codec) headers(in []byte, f frame, ev *stream.Event) (int, *fault) {
	switch {
	case f.id == 0 || f.id%2 == 0:
		return 0, errFrameStream
	case !c.server && c.unopened(f.id):
		return 0, errIdle
	}
	n := frameHead + f.length
	for more, flags := 0, f.flags; flags&flagEndHeaders == 0; more++ {
		if len(in) < n+frameHead {
			return 0, nil
		}
		next := parseFrame(in[n:])
		switch {
		case next.kind != frameContinuation || next.id != f.id:
			return 0, errContinuation
		case next.length > maxFrame:
			return 0, errFrameSize
		case more == maxContinuations || n+next.length > c.limits.Head:
			return 0, errHeadLong
		}
		flags = next.flags
		n += frameHead + next.length
	}
	if len(in) < n {
		return 0, nil
	}
	block := in[frameHead : frameHead+f.length]
	pad := 0
	if f.flags&flagPadded != 0 {
		if len(block) == 0 {
			return 0, errFrameSize
		}
		pad, block = int(block[0]), block[1:]
	}
	selfish := false
	if f.flags&flagPriority != 0 {
		if len(block) < priorityLen {
			return 0, errFrameSize
		}
		selfish = binary.BigEndian.Uint32(block)&everyStream == f.id
		block = block[priorityLen:]
	}
	if pad > len(block) {
		return 0, errPadding
	}
	block = block[:len(block)-pad]
	if f.flags&flagEndHeaders == 0 {
		c.joined = append(c.joined[:0], block...)
		for at := frameHead + f.length; at < n; {
			next := parseFrame(in[at:])
			c.joined = append(c.joined, in[at+frameHead:at+frameHead+next.length]...)
			at += frameHead + next.length
		}
		block = c.joined
	}
	c.useful()
	return n, c.head(f, block, selfish, ev)
}

// head takes a whole header block.
func (c *Codec) head(f frame, block []byte, selfish bool, ev *stream.Event) *fault {
	i := c.find(f.id)
	if i >= 0 && c.flows[i].headIn {
		return c.trail(i, f, block, ev)
	}
	if i < 0 {
		if !c.server || f.id <= c.seen {
			return c.lateHead(f, block)
		}
		c.seen = f.id
		if c.farewell {
			c.remember(f.id, true)
			return c.passOver(block) // RFC 9113 6.8: the client knows that it was not processed
		}
	}
	kind := responseHead
	if c.server {
		kind = requestHead
	}
	broken, fault := c.block(block, kind)
	if fault != nil {
		return fault
	}
	if c.server {
		c.last = f.id
	}
	switch {
	case c.server && len(c.ids) >= c.limits.Streams:
		return c.refuse(f.id, refusedStream)
	case broken != "" || selfish:
		return c.refuse(f.id, protocolError)
	}
	end := f.flags&flagEndStream != 0
	m := &c.msg
	var s *flow
	if c.server {
		s = c.open(f.id)
		s.headIn = true
		s.headless, s.trailing = string(m.Method) == "HEAD", m.TrailersOK
	} else {
		s = &c.flows[i]
		if m.Status < 200 {
			if s.interim++; s.interim > c.limits.Interim || end {
				return c.reset(f.id, protocolError)
			}
			m.Length = 0
			*ev = stream.Event{Kind: stream.Head, Stream: stream.ID(f.id), Head: m}
			return nil
		}
		s.headIn = true
		m.NoBody = s.headless || m.Status == 204 || m.Status == 304
	}
	s.left = m.Length
	if m.NoBody {
		s.left = 0
	}
	switch {
	case end && s.left > 0:
		return c.reset(f.id, protocolError)
	case end:
		c.endOf = f.id
		if m.Length < 0 {
			m.Length = 0
		}
	}
	*ev = stream.Event{Kind: stream.Head, Stream: stream.ID(f.id), Head: m}
	return nil
}

// trail takes the trailers of a stream whose head came.
func (c *Codec) trail(i int, f frame, block []byte, ev *stream.Event) *fault {
	broken, fault := c.block(block, trailers)
	if fault != nil {
		return fault
	}
	s := &c.flows[i]
	switch {
	case !s.in:
		return c.reset(f.id, streamClosed)
	case f.flags&flagEndStream == 0 || broken != "" || s.left > 0:
		return c.reset(f.id, protocolError)
	}
	c.endOf = f.id
	*ev = stream.Event{Kind: stream.Trailers, Stream: stream.ID(f.id), Fields: c.fields}
	return nil
}

// lateHead takes a header block on a stream that is over.
func (c *Codec) lateHead(f frame, block []byte) *fault {
	e, ok := c.ended(f.id)
	switch {
	case ok && e.quiet:
		return c.passOver(block)
	case ok || !c.server:
		return errClosed
	}
	return errOrder // RFC 9113 5.1.1
}

// passOver keeps the table in step.
func (c *Codec) passOver(block []byte) *fault {
	_, f := c.block(block, ignored)
	return f
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
