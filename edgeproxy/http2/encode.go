package http2

import (
	"strconv"

	"github.com/meridian-mesh/meridian/edgeproxy/http2/hpack"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// Sendable returns how many bytes of Data Encode takes on a stream now.
func (c *Codec) Sendable(id stream.ID) int {
	i := c.find(uint32(id))
	if i < 0 {
		return 0
	}
	if s := &c.flows[i]; s.discarded {
		return maxWindow
	}
	return int(max(0, min(c.send, c.flows[i].send)))
}

// payStream gives credit for a stream, in pieces worth a frame.
func (c *Codec) payStream(id uint32, s *flow, n int) {
	if s.owed += n; s.in && s.owed >= c.limits.Window/2 {
		c.ctl = appendWindow(c.ctl, id, s.owed)
		s.credit += s.owed
		s.owed = 0
	}
}

// Encode writes an event; see [stream.Codec]. One Data event is at most 16 KiB and
// at most what [Codec.Sendable] says. After an error dst is as it was.
func (c *Codec) Encode(dst []byte, ev *stream.Event) ([]byte, error) {
	i := c.find(uint32(ev.Stream))
	switch ev.Kind {
	case stream.None:
		return dst, nil
	case stream.Window:
		if i >= 0 {
			s := &c.flows[i]
			n := min(ev.N, s.unpaid)
			s.unpaid -= n
			c.repay(n)
			c.payStream(c.ids[i], s, n)
		}
		return c.Say(dst), nil
	case stream.Reset:
		if i >= 0 {
			if c.server || c.flows[i].headOut { // else the peer knows nothing of it
				c.ctl = appendReset(c.ctl, c.ids[i], codes[ev.Reason])
			}
			c.drop(i, true)
		}
		return c.Say(dst), nil
	}
	if i < 0 || !c.flows[i].wr {
		return dst, errStream
	}
	s := &c.flows[i]
	start := len(dst)
	if !c.Silent() {
		dst = c.Say(dst)
	}
	var err error
	switch ev.Kind {
	case stream.Head:
		if c.server {
			dst, err = c.response(dst, i, ev.Head)
		} else {
			dst, err = c.request(dst, i, ev.Head)
		}
	case stream.Data:
		dst, err = c.encodeData(dst, i, ev.Data)
	case stream.Trailers:
		dst, err = c.encodeTrailers(dst, i, ev.Fields)
	default:
		if !s.headOut {
			return dst, errSequence
		}
		if s.out > 0 && !s.discarded {
			return dst, errTooFew
		}
		dst = c.end(dst, i)
	}
	if err != nil && start == len(dst) {
		return dst, err
	}
	return dst, err
}

// end writes the end of a stream's message.
func (c *Codec) end(dst []byte, i int) []byte {
	s, id := &c.flows[i], c.ids[i]
	if !s.endOut {
		dst = appendFrame(dst, 0, frameData, flagEndStream, id)
	}
	s.wr = false
	switch {
	case !s.in:
		c.resets = max(0, c.resets-1)
		c.drop(i, false)
	case c.server && !s.tunnel:
		// RFC 9113 8.1: the answer is whole, the rest of the request is not wanted.
		dst = appendReset(dst, id, noError)
		c.resets = max(0, c.resets-1)
		c.drop(i, true)
	}
	return dst
}

func (c *Codec) encodeData(dst []byte, i int, p []byte) ([]byte, error) {
	s := &c.flows[i]
	switch n := int64(len(p)); {
	case !s.headOut:
		return dst, errSequence
	case n == 0 || s.discarded:
		return dst, nil
	case s.endOut || s.out >= 0 && n > s.out:
		return dst, errTooMuch
	case n > maxFrame || n > s.send || n > c.send:
		return dst, errWindow
	default:
		s.send -= n
		c.send -= n
		if s.out > 0 {
			s.out -= n
		}
	}
	c.useful()
	flags := uint8(0)
	// A client that takes trailers may get some after a body of known length.
	if s.out == 0 && !s.trailing {
		flags, s.endOut = flagEndStream, true
	}
	return append(appendFrame(dst, len(p), frameData, flags, c.ids[i]), p...), nil
}

func (c *Codec) encodeTrailers(dst []byte, i int, fields []stream.Field) ([]byte, error) {
	s := &c.flows[i]
	switch {
	case !s.headOut || s.out > 0 && !s.discarded, s.tunnel, s.connect && !c.server:
		return dst, errSequence
	case s.endOut:
		return dst, nil // RFC 9110 6.5: they may be lost on the way
	}
	start := len(dst)
	dst = c.enc.AppendBegin(appendFrame(dst, 0, frameHeaders, 0, c.ids[i]))
	dst, ok := c.appendFields(dst, fields)
	if !ok {
		return dst[:start], errBadField
	}
	s.endOut = true
	return c.frameBlock(dst, start, flagEndStream), nil
}

// response writes a response's head.
func (c *Codec) response(dst []byte, i int, m *stream.Message) ([]byte, error) {
	s := &c.flows[i]
	switch {
	case s.headOut:
		return dst, errSequence
	case m.Status < 100 || m.Status > 599 || m.Status == 101, s.connect && m.Status/100 == 2 && len(m.Upgrade) == 0:
		return dst, errBadHead // who asked for a tunnel takes any success for one
	}
	start := len(dst)
	dst = c.enc.AppendBegin(appendFrame(dst, 0, frameHeaders, 0, c.ids[i]))
	dst = appendStatus(dst, m.Status)
	dst, ok := c.appendFields(dst, m.Fields)
	if !ok {
		return dst[:start], errBadField
	}
	if m.Status < 200 {
		return c.frameBlock(dst, start, 0), nil
	}
	s.headOut = true
	if s.connect && m.Status/100 == 2 {
		s.tunnel, s.out = true, stream.LengthUnknown
		return c.frameBlock(dst, start, 0), nil
	}
	bodiless := s.headless || m.NoBody || m.Status == 204 || m.Status == 304
	s.discarded = bodiless
	s.out = m.Length
	// A zero is left out where it may stand for "not said": of a 304, and where the
	// head is all there is.
	if m.Length > 0 && m.Status != 204 || m.Length == 0 && m.Status != 304 && m.Status != 204 && (s.headless || !m.NoBody) {
		dst = appendLength(dst, m.Length)
	}
	if bodiless || m.Length == 0 && !s.trailing {
		s.endOut = true
		return c.frameBlock(dst, start, flagEndStream), nil
	}
	return c.frameBlock(dst, start, 0), nil
}

var (
	trailersTE = []byte("trailers")
	nameTE     = []byte("te")
	nameExpect = []byte("expect")
	continues  = []byte("100-continue")
	nameLength = []byte("content-length")
	nameMethod = []byte(":method")
	nameAuth   = []byte(":authority")
	namePath   = []byte(":path")
)

// request writes a request's head.
func (c *Codec) request(dst []byte, i int, m *stream.Message) ([]byte, error) {
	s := &c.flows[i]
	switch {
	case s.headOut:
		return dst, errSequence
	case len(m.Upgrade) > 0 || string(m.Method) == "CONNECT":
		return c.connect(dst, i, m)
	case len(m.Method) == 0 || !all(m.Method, anyName) || !stream.ValidAuthority(m.Authority) || !validPath(m.Method, m.Path):
		return dst, errBadHead
	}
	start := len(dst)
	dst = c.enc.AppendBegin(appendFrame(dst, 0, frameHeaders, 0, c.ids[i]))
	switch string(m.Method) {
	case "GET":
		dst = hpack.AppendIndexed(dst, hpack.Method)
	case "POST":
		dst = hpack.AppendIndexed(dst, hpack.Method+1)
	default:
		dst = c.enc.AppendField(dst, hpack.Method, nameMethod, m.Method)
	}
	dst = appendScheme(dst, m.Scheme)
	dst = c.enc.AppendField(dst, hpack.Authority, nameAuth, m.Authority)
	dst = hpack.AppendLiteral(dst, hpack.Path, namePath, m.Path)
	dst, ok := c.appendFields(dst, m.Fields)
	if !ok {
		return dst[:start], errBadField
	}
	if m.TrailersOK {
		dst = c.enc.AppendField(dst, 0, nameTE, trailersTE)
	}
	if m.Expect100 && m.Length != 0 {
		dst = c.enc.AppendField(dst, 35, nameExpect, continues)
	}
	if m.Length > 0 {
		dst = appendLength(dst, m.Length)
	}
	s.headOut, s.out = true, m.Length
	s.headless = string(m.Method) == "HEAD"
	if m.Length == 0 {
		s.endOut = true
		return c.frameBlock(dst, start, flagEndStream), nil
	}
	return c.frameBlock(dst, start, 0), nil
}

func appendStatus(dst []byte, status int) []byte {
	switch status {
	case 200:
		return hpack.AppendIndexed(dst, hpack.Status)
	case 204, 206, 304, 400, 404, 500:
		for i, s := range [...]int{204, 206, 304, 400, 404, 500} {
			if s == status {
				return hpack.AppendIndexed(dst, hpack.Status+1+i)
			}
		}
	}
	digits := [3]byte{byte('0' + status/100), byte('0' + status/10%10), byte('0' + status%10)}
	return hpack.AppendLiteral(dst, hpack.Status, nil, digits[:])
}

func appendLength(dst []byte, n int64) []byte {
	var digits [20]byte
	return hpack.AppendLiteral(dst, hpack.Length, nameLength, strconv.AppendInt(digits[:0], n, 10))
}

// appendFields writes field lines, their names in lower case. It refuses what an
// HTTP/1 reader further on could take for framing.
func (c *Codec) appendFields(dst []byte, fields []stream.Field) ([]byte, bool) {
	var lower [64]byte
	for i := range fields {
		f := &fields[i]
		n := f.Name
		if len(n) == 0 || !all(f.Value, text) {
			return dst, false
		}
		if !all(n, name) {
			if !all(n, anyName) {
				return dst, false
			}
			n = lower[:0]
			for _, o := range f.Name {
				if 'A' <= o && o <= 'Z' {
					o += 'a' - 'A'
				}
				n = append(n, o)
			}
		}
		static := hpack.StaticName(n)
		switch kindOf(n) {
		case ordinary:
		case cookie:
			dst = hpack.AppendSecret(dst, static, n, f.Value)
			continue
		default:
			return dst, false
		}
		switch string(n) {
		case "authorization", "proxy-authorization", "set-cookie":
			dst = hpack.AppendSecret(dst, static, n, f.Value)
		default:
			dst = c.enc.AppendField(dst, static, n, f.Value)
		}
	}
	return dst, true
}

// frameBlock completes the HEADERS frame that begins at start, in several frames
// where it is longer than one.
func (c *Codec) frameBlock(dst []byte, start int, flags uint8) []byte {
	id := dst[start+5 : start+9]
	dst[start+4] = flags
	n := len(dst) - start - frameHead
	if n <= maxFrame {
		putLength(dst[start:], n)
		dst[start+4] |= flagEndHeaders
		return dst
	}
	var stream [4]byte
	copy(stream[:], id)
	putLength(dst[start:], maxFrame)
	c.split = append(c.split[:0], dst[start+frameHead+maxFrame:]...)
	dst = dst[:start+frameHead+maxFrame]
	for rest := c.split; len(rest) > 0; {
		k := min(len(rest), maxFrame)
		last := uint8(0)
		if k == len(rest) {
			last = flagEndHeaders
		}
		dst = append(dst, byte(k>>16), byte(k>>8), byte(k), frameContinuation, last, stream[0], stream[1], stream[2], stream[3])
		dst = append(dst, rest[:k]...)
		rest = rest[k:]
	}
	return dst
}
