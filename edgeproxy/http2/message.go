package http2

import (
	"encoding/binary"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

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
	case c.server && (len(c.ids) >= c.limits.Streams || len(c.ids) > 0 && c.heads+c.size > c.limits.Heads && !c.trusted):
		return c.refuse(f.id, refusedStream)
	case broken != "" || selfish:
		return c.refuse(f.id, protocolError)
	}
	end := f.flags&flagEndStream != 0
	m := &c.msg
	var s *flow
	if c.server {
		s = c.open(f.id)
		s.headIn, s.head = true, c.size
		c.heads += c.size
		s.headless, s.trailing = string(m.Method) == "HEAD", m.TrailersOK
		if string(m.Method) == "CONNECT" {
			s.asks(m.Upgrade)
		}
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
		if s.connect && m.Status/100 == 2 {
			return c.agreed(s, f, ev)
		}
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
		// Nor trailers: gRPC tells a call that failed at once by a head which ends the
		// stream, and takes another end for a broken one.
		m.NoBody = m.NoBody || !c.server
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
	case f.flags&flagEndStream == 0 || broken != "" || s.left > 0 || s.connect && (c.server || s.tunnel):
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
