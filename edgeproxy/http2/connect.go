package http2

import (
	"github.com/meridian-mesh/meridian/edgeproxy/http2/hpack"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// protocol is what a tunnel carries, by its place among those that a client can ask
// for. A stream keeps this and not the name, so that it costs an octet.
type protocol uint8

// tunnels are the protocols of tunnels: that of plain CONNECT (RFC 9113 8.5) and upgrade
// tokens for extended CONNECT (RFC 8441 4, RFC 9298, RFC 9484).
var tunnels = [...][]byte{[]byte(stream.TunnelTCP), []byte("websocket"), []byte("connect-udp"), []byte("connect-ip")}

func protocolOf(name []byte) (protocol, bool) {
	for p := 1; p < len(tunnels); p++ {
		if string(tunnels[p]) == string(name) {
			return protocol(p), true
		}
	}
	return 0, false
}

// Extended reports whether the peer takes extended CONNECT, and whether that is known:
// a client must not ask for it before (RFC 8441 3).
func (c *Codec) Extended() (takes, known bool) { return c.extended, c.settled }

// validProtocol takes an upgrade token (RFC 9110 7.8).
func validProtocol(p []byte) bool {
	slash := false
	for i, o := range p {
		switch {
		case o == '/' && !slash && i > 0 && i < len(p)-1:
			slash = true
		case class[o]&anyName == 0:
			return false
		}
	}
	return len(p) > 0 && len(p) <= maxProtocol
}

// asks notes that a stream's request is CONNECT, extended unless name is empty.
func (s *flow) asks(name []byte) {
	s.connect = true
	s.protocol, _ = protocolOf(name)
}

// agreed takes the head of a response that makes the stream a tunnel. Whatever it says
// of a length means nothing (RFC 9110 9.3.6).
func (c *Codec) agreed(s *flow, f frame, ev *stream.Event) *fault {
	m := &c.msg
	s.tunnel, s.left = true, stream.LengthUnknown
	m.Upgrade, m.Length, m.NoBody = tunnels[s.protocol], stream.LengthUnknown, false
	if f.flags&flagEndStream != 0 {
		c.endOf = f.id
	}
	*ev = stream.Event{Kind: stream.Head, Stream: stream.ID(f.id), Head: m}
	return nil
}

// connect writes the head of a request for a tunnel: plain CONNECT, or extended to the
// protocol of m.Upgrade, whatever the method by which HTTP/1 asks for it.
func (c *Codec) connect(dst []byte, i int, m *stream.Message) ([]byte, error) {
	s := &c.flows[i]
	extended := len(m.Upgrade) > 0
	p, known := protocolOf(m.Upgrade)
	switch {
	case !stream.ValidAuthority(m.Authority), extended && (!known || !c.extended || !validPath(nil, m.Path)):
		return dst, errBadHead
	case !extended && len(m.Path) > 0:
		return dst, errBadHead
	}
	start := len(dst)
	dst = c.enc.AppendBegin(appendFrame(dst, 0, frameHeaders, 0, c.ids[i]))
	dst = c.enc.AppendField(dst, hpack.Method, nameMethod, methodConnect)
	if extended {
		dst = c.enc.AppendField(dst, 0, nameProtocol, tunnels[p])
		dst = appendScheme(dst, m.Scheme)
	}
	dst = c.enc.AppendField(dst, hpack.Authority, nameAuth, m.Authority)
	if extended {
		dst = hpack.AppendLiteral(dst, hpack.Path, namePath, m.Path)
	}
	dst, ok := c.appendFields(dst, m.Fields)
	if !ok {
		return dst[:start], errBadField
	}
	s.headOut, s.out = true, stream.LengthUnknown
	s.connect, s.protocol = true, p
	return c.frameBlock(dst, start, 0), nil
}

var (
	methodConnect = []byte("CONNECT")
	nameProtocol  = []byte(":protocol")
)

func appendScheme(dst, scheme []byte) []byte {
	if string(scheme) == "https" {
		return hpack.AppendIndexed(dst, hpack.Scheme+1)
	}
	return hpack.AppendIndexed(dst, hpack.Scheme)
}
