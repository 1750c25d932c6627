package http2

import (
	"encoding/binary"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// farewellPing is the PING whose answer says that GOAWAY was heard.
const farewellPing = "meridian"

// control handles a whole frame that carries no message.
func (c *Codec) control(f frame, p []byte, ev *stream.Event) *fault {
	if fault := c.countIdle(); fault != nil {
		return fault
	}
	switch f.kind {
	case frameSettings:
		return c.settings(f, p, ev)
	case framePing:
		return c.ping(f, p)
	case frameWindow:
		return c.window(f, p, ev)
	case frameReset:
		return c.peerReset(f, p, ev)
	case framePriority:
		switch {
		case f.id == 0:
			return errFrameStream
		case len(p) != priorityLen:
			return c.reset(f.id, frameSizeError)
		case binary.BigEndian.Uint32(p)&everyStream == f.id:
			return c.reset(f.id, protocolError)
		}
		return nil // RFC 9113 5.3.2: read and not used
	case frameGoAway:
		switch {
		case f.id != 0:
			return errFrameStream
		case len(p) < goAwayLen:
			return errFrameSize
		}
		c.gone, c.lastKept = true, binary.BigEndian.Uint32(p)&everyStream
		return nil
	case frameContinuation:
		return errContinuation
	}
	return errPush
}

func (c *Codec) settings(f frame, p []byte, ev *stream.Event) *fault {
	ack := f.flags&flagAck != 0
	switch {
	case f.id != 0:
		return errFrameStream
	case ack && len(p) > 0 || len(p)%settingLen != 0:
		return errFrameSize
	case ack:
		return nil
	}
	c.settled = true
	c.greet()
	for ; len(p) > 0; p = p[settingLen:] {
		if f := c.setting(binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])); f != nil {
			return f
		}
	}
	c.ctl = appendFrame(c.ctl, 0, frameSettings, flagAck, 0)
	*ev = stream.Event{Kind: stream.Window} // the initial window may be larger now
	return nil
}

func (c *Codec) setting(key uint16, v uint32) *fault {
	switch key {
	case settingTableSize:
		c.enc.Limit(int(v))
	case settingPush:
		if v > 1 || v == 1 && !c.server {
			return errSettings
		}
	case settingStreams:
		c.peerStreams = v
	case settingWindow:
		if v > maxWindow {
			return errWindowSetting
		}
		change := int64(v) - c.peerWindow
		c.peerWindow = int64(v)
		for i := range c.flows { // RFC 9113 6.9.2: it may go below zero
			if c.flows[i].send += change; c.flows[i].send > maxWindow {
				return errOverflow
			}
		}
	case settingFrameSize:
		if v < maxFrame || v > largestPeerFrame {
			return errSettings
		}
	case settingConnect:
		if v > 1 || v == 0 && c.extended { // RFC 8441 3: it is not taken back
			return errSettings
		}
		c.extended = v == 1
	}
	return nil
}

func (c *Codec) ping(f frame, p []byte) *fault {
	switch {
	case f.id != 0:
		return errFrameStream
	case len(p) != pingLen:
		return errFrameSize
	case f.flags&flagAck == 0:
		c.ctl = append(appendFrame(c.ctl, pingLen, framePing, flagAck, 0), p...)
	case c.closing && !c.farewell && c.server && string(p) == farewellPing:
		c.farewell = true
		c.ctl = appendGoAway(c.ctl, c.last, noError)
	}
	return nil
}

func (c *Codec) window(f frame, p []byte, ev *stream.Event) *fault {
	if len(p) != 4 {
		return errFrameSize
	}
	n := int64(binary.BigEndian.Uint32(p) & maxWindow)
	if f.id == 0 {
		switch {
		case n == 0:
			return errIncrement
		case c.send+n > maxWindow:
			return errOverflow
		}
		c.send += n
		*ev = stream.Event{Kind: stream.Window, N: int(n)}
		return nil
	}
	if c.unopened(f.id) {
		return errIdle
	}
	i := c.find(f.id)
	switch {
	case i < 0:
		return nil
	case n == 0:
		return c.reset(f.id, protocolError)
	case c.flows[i].send+n > maxWindow:
		return c.reset(f.id, flowControlError)
	}
	c.flows[i].send += n
	*ev = stream.Event{Kind: stream.Window, Stream: stream.ID(f.id), N: int(n)}
	return nil
}

func (c *Codec) peerReset(f frame, p []byte, ev *stream.Event) *fault {
	switch {
	case len(p) != 4:
		return errFrameSize
	case f.id == 0:
		return errFrameStream
	case c.unopened(f.id):
		return errIdle
	}
	i := c.find(f.id)
	if i < 0 {
		return nil
	}
	why := code(binary.BigEndian.Uint32(p))
	s := &c.flows[i]
	if !c.server && why == noError && s.headIn && !s.in && !s.tunnel {
		// RFC 9113 8.1: the answer is whole, the rest of the request is not wanted.
		c.drop(i, false)
		return nil
	}
	c.drop(i, false)
	*ev = stream.Event{Kind: stream.Reset, Stream: stream.ID(f.id), Reason: reasonOf(why)}
	if c.server {
		return c.wasted(1)
	}
	return nil
}
