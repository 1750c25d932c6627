// Package muxtest is a codec that carries many streams on one connection, for
// tests: what serves HTTP/1 through the interfaces of package stream must serve
// this one as well, and so HTTP/2. A frame is
//
//	kind (1)  stream (4, big endian)  length (4)  payload
//
// where a head's payload is its strings, each with a two-byte length. Flow control
// is per stream: Window frames are passed through as events and the receiver
// checks that nobody sends more than [Window] bytes ahead of them.
package muxtest

import (
	"encoding/binary"
	"errors"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// Window is a stream's credit at its start, in bytes, each way.
const Window = 64 << 10

const headerLen = 9

// ErrFrame is a frame that makes no sense.
var ErrFrame = &stream.ProtocolError{Status: 400, What: "muxtest: malformed frame"}

// ErrWindow is Data beyond the credit that was given.
var ErrWindow = &stream.ProtocolError{Status: 400, What: "muxtest: data beyond the window"}

var errStream = errors.New("muxtest: event of a stream that is not open")

type state struct {
	in, out bool // open for reading, for writing
	credit  int  // the sender's, for what is read
	send    int  // this side's, for what is written
}

// Codec is one side of a connection.
type Codec struct {
	server  bool
	next    stream.ID
	streams map[stream.ID]*state
	closing bool
	msg     stream.Message
	fields  []stream.Field
}

// NewServer and NewClient return the codec of a side.
func NewServer() *Codec { return &Codec{server: true, streams: map[stream.ID]*state{}} }

// NewClient returns the side that opens streams.
func NewClient() *Codec { return &Codec{streams: map[stream.ID]*state{}} }

var _ stream.Codec = (*Codec)(nil)

// Reset makes the codec as good as new.
func (c *Codec) Reset() { *c = Codec{server: c.server, streams: map[stream.ID]*state{}} }

// Refuse is false: a head that is late holds no stream.
func (c *Codec) Refuse() (stream.ID, bool) { return 0, false }

// Extended is false: there are no tunnels.
func (c *Codec) Extended() (takes, known bool) { return false, true }

// Decode reads frames up to the first that is an event.
func (c *Codec) Decode(in []byte, ev *stream.Event) (int, error) {
	used := 0
	for {
		n, err := c.decode(in[used:], ev)
		used += n
		if n == 0 || err != nil || ev.Kind != stream.None {
			return used, err
		}
	}
}

func (c *Codec) decode(in []byte, ev *stream.Event) (int, error) {
	*ev = stream.Event{}
	if len(in) < headerLen {
		return 0, nil
	}
	id := stream.ID(binary.BigEndian.Uint32(in[1:]))
	n := headerLen + int(binary.BigEndian.Uint32(in[5:]))
	if len(in) < n {
		return 0, nil
	}
	p := in[headerLen:n]
	s := c.streams[id]
	kind := stream.Kind(in[0])
	if s == nil && kind == stream.Head && c.server {
		s = &state{in: true, out: true, credit: Window, send: Window}
		c.streams[id] = s
	}
	if s == nil || !s.in && kind != stream.Window && kind != stream.Reset {
		return n, nil // of a stream that was reset
	}
	*ev = stream.Event{Kind: kind, Stream: id}
	switch kind {
	case stream.Head:
		if !c.readHead(p) {
			return n, ErrFrame
		}
		ev.Head = &c.msg
	case stream.Data:
		if s.credit -= len(p); s.credit < 0 {
			return n, ErrWindow
		}
		ev.Data = p
	case stream.Trailers:
		c.fields = c.fields[:0]
		if !c.readFields(p) {
			return n, ErrFrame
		}
		ev.Fields = c.fields
	case stream.End:
		s.in = false
		c.drop(id, s)
	case stream.Reset:
		ev.Reason = stream.Reason(p[0])
		delete(c.streams, id)
	case stream.Window:
		ev.N = int(binary.BigEndian.Uint32(p))
		s.send += ev.N
	default:
		return n, ErrFrame
	}
	return n, nil
}

func (c *Codec) drop(id stream.ID, s *state) {
	if !s.in && !s.out {
		delete(c.streams, id)
	}
}

// EOF resets what is open, one stream a call.
func (c *Codec) EOF(ev *stream.Event) error {
	*ev = stream.Event{}
	c.closing = true
	for id := range c.streams {
		delete(c.streams, id)
		*ev = stream.Event{Kind: stream.Reset, Stream: id, Reason: stream.Truncated}
		break
	}
	return nil
}

// Encode writes one frame.
func (c *Codec) Encode(dst []byte, ev *stream.Event) ([]byte, error) {
	s := c.streams[ev.Stream]
	if s == nil || !s.out && ev.Kind != stream.Window && ev.Kind != stream.Reset {
		if ev.Kind == stream.Reset || ev.Kind == stream.Window {
			return dst, nil
		}
		return dst, errStream
	}
	start := len(dst)
	dst = append(dst, byte(ev.Kind), 0, 0, 0, 0, 0, 0, 0, 0)
	switch ev.Kind {
	case stream.Head:
		m := ev.Head
		dst = str(str(str(dst, m.Method), m.Authority), m.Path)
		dst = binary.BigEndian.AppendUint16(dst, uint16(m.Status))
		dst = binary.BigEndian.AppendUint64(dst, uint64(m.Length))
		dst = writeFields(dst, m.Fields)
	case stream.Data:
		dst = append(dst, ev.Data...)
		s.send -= len(ev.Data)
	case stream.Trailers:
		dst = writeFields(dst, ev.Fields)
	case stream.End:
		s.out = false
		c.drop(ev.Stream, s)
	case stream.Reset:
		dst = append(dst, byte(ev.Reason))
		delete(c.streams, ev.Stream)
	case stream.Window:
		dst = binary.BigEndian.AppendUint32(dst, uint32(ev.N))
		s.credit += ev.N
	}
	binary.BigEndian.PutUint32(dst[start+1:], uint32(ev.Stream))
	binary.BigEndian.PutUint32(dst[start+5:], uint32(len(dst)-start-headerLen))
	return dst, nil
}

// Say appends nothing: there are no frames of the codec's own.
func (c *Codec) Say(dst []byte) []byte { return dst }

// Silent is true.
func (c *Codec) Silent() bool { return true }

// Sendable is the credit of a stream.
func (c *Codec) Sendable(id stream.ID) int {
	if s := c.streams[id]; s != nil {
		return max(0, s.send)
	}
	return 0
}

// Open starts a stream.
func (c *Codec) Open() (stream.ID, bool) {
	if c.server || c.closing {
		return 0, false
	}
	c.next++
	c.streams[c.next] = &state{in: true, out: true, credit: Window, send: Window}
	return c.next, true
}

// Active counts open streams.
func (c *Codec) Active() int { return len(c.streams) }

// Reusable reports whether Close was not called.
func (c *Codec) Reusable() bool { return !c.closing }

// Close lets no other stream follow.
func (c *Codec) Close(dst []byte) []byte {
	c.closing = true
	return dst
}

func str(dst, p []byte) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(p))), p...)
}

func writeFields(dst []byte, fields []stream.Field) []byte {
	for _, f := range fields {
		dst = str(str(dst, f.Name), f.Value)
	}
	return dst
}

func readStr(p []byte) (s, rest []byte, ok bool) {
	if len(p) < 2 {
		return nil, nil, false
	}
	n := 2 + int(binary.BigEndian.Uint16(p))
	if len(p) < n {
		return nil, nil, false
	}
	return p[2:n], p[n:], true
}

func (c *Codec) readHead(p []byte) bool {
	m := stream.Message{}
	var ok bool
	for _, to := range []*[]byte{&m.Method, &m.Authority, &m.Path} {
		if *to, p, ok = readStr(p); !ok {
			return false
		}
	}
	if len(p) < 10 {
		return false
	}
	m.Status = int(binary.BigEndian.Uint16(p))
	m.Length = int64(binary.BigEndian.Uint64(p[2:]))
	c.fields = c.fields[:0]
	if !c.readFields(p[10:]) {
		return false
	}
	m.Fields = c.fields
	c.msg = m
	return true
}

func (c *Codec) readFields(p []byte) bool {
	for len(p) > 0 {
		var f stream.Field
		var ok bool
		if f.Name, p, ok = readStr(p); !ok {
			return false
		}
		if f.Value, p, ok = readStr(p); !ok {
			return false
		}
		c.fields = append(c.fields, f)
	}
	return true
}
