package http2

import "github.com/meridian-mesh/meridian/edgeproxy/stream"

// Widen lets the peer have n more bytes of a stream's body on the way, and of the
// connection's streams together as many, until the stream is over. It is for one whose bytes
// are taken as fast as they come, while the window is what holds its sender back. What the
// peer has to hear of it is for [Codec.Say].
func (c *Codec) Widen(id stream.ID, n int) {
	i := c.find(uint32(id))
	if i < 0 || n <= 0 || !c.flows[i].in {
		return
	}
	s := &c.flows[i]
	s.extra += n
	s.owed += n
	c.payStream(c.ids[i], s, 0)
	// A stream that is over may have left the connection wider than its limit.
	lent := min(n, c.lent)
	c.lent -= lent
	if n -= lent; n > 0 {
		c.ctl = appendWindow(c.ctl, 0, n)
		c.credit += n
	}
}
