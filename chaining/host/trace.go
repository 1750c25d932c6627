package host

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/meridian-mesh/meridian/chaining/nsh"
	"github.com/meridian-mesh/meridian/chaining/oam"
)

// TraceConfig says what to trace.
type TraceConfig struct {
	// Node is where the path begins.
	Node netip.AddrPort
	SPI  uint32
	VNI  uint32
	// Timeout is for each hop.
	Timeout time.Duration
}

// Hop is a reply to an echo request.
type Hop struct {
	Number int
	Reply  *oam.Message
	RTT    time.Duration
	// Added is what this hop took more than the one before, not below 0.
	Added time.Duration
}

// String is a line of a trace.
func (h Hop) String() string {
	what := oam.CodeText(h.Reply.Code)
	if h.Reply.Instance != "" {
		what = h.Reply.Function + " " + h.Reply.Instance
	}
	return fmt.Sprintf("%d  %s  %s  %.2f ms", h.Number, h.Reply.Node, what, float64(h.RTT.Microseconds())/1000)
}

// Trace sends echo requests with TTL 1, 2 and so on along a path and reports each
// reply, to the path's end. The error says where the path broke.
func Trace(ctx context.Context, c TraceConfig, report func(Hop)) error {
	conn, err := dial(c.Node)
	if err != nil {
		return err
	}
	defer conn.Close()
	var before time.Duration
	last := "the path's beginning"
	for ttl := 1; ttl <= nsh.MaxTTL; ttl++ {
		h, err := echo(ctx, conn, c, uint8(ttl), uint32(ttl))
		if err != nil {
			return fmt.Errorf("behind %s: %w", last, err)
		}
		h.Number, h.Added = ttl, max(0, h.RTT-before)
		before = h.RTT
		report(h)
		switch h.Reply.Code {
		case oam.CodeEnd:
			return nil
		case oam.CodeTTL:
			last = h.Reply.Instance + " on node " + h.Reply.Node
		default:
			return fmt.Errorf("node %s: %s (SI of the request was behind %s)", h.Reply.Node, oam.CodeText(h.Reply.Code), last)
		}
	}
	return fmt.Errorf("no end after %d hops", nsh.MaxTTL)
}

// Ping sends one echo request to a path's end.
func Ping(ctx context.Context, c TraceConfig, sequence uint32) (Hop, error) {
	conn, err := dial(c.Node)
	if err != nil {
		return Hop{}, err
	}
	defer conn.Close()
	h, err := echo(ctx, conn, c, nsh.MaxTTL, sequence)
	if err == nil && h.Reply.Code != oam.CodeEnd {
		err = fmt.Errorf("node %s: %s", h.Reply.Node, oam.CodeText(h.Reply.Code))
	}
	return h, err
}

// dial connects a socket so that replies are addressed to where requests left.
func dial(node netip.AddrPort) (*net.UDPConn, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(node))
	if err != nil {
		return nil, fmt.Errorf("reach node %v: %w", node, err)
	}
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	conn.Close()
	// Replies come from other nodes too, so the socket must not stay connected.
	if conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(local)); err != nil {
		return nil, fmt.Errorf("listen on %v for replies: %w", local, err)
	}
	return conn, nil
}

// ErrTimeout says that nobody answered.
var ErrTimeout = errors.New("no reply: the next node or function is down, drains or cannot reach us")

func echo(ctx context.Context, conn *net.UDPConn, c TraceConfig, ttl uint8, sequence uint32) (Hop, error) {
	sent := time.Now()
	m := oam.Message{Type: oam.Request, Handle: rand.Uint32(), Sequence: sequence, Sent: sent, ReplyTo: conn.LocalAddr().(*net.UDPAddr).AddrPort()}
	if _, err := conn.WriteToUDPAddrPort(m.Datagram(c.VNI, c.SPI, nsh.FirstSI, ttl), c.Node); err != nil {
		return Hop{}, fmt.Errorf("send: %w", err)
	}
	deadline := sent.Add(c.Timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := conn.SetReadDeadline(deadline); err != nil {
		return Hop{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 4096)
	for {
		n, _, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				return Hop{}, ErrTimeout
			}
			return Hop{}, fmt.Errorf("receive: %w", err)
		}
		_, reply, err := oam.ParseDatagram(buf[:n])
		if err != nil || reply.Type != oam.Reply || reply.Handle != m.Handle || reply.Sequence != m.Sequence {
			continue // somebody else's, or an old one
		}
		return Hop{Reply: reply, RTT: time.Since(sent)}, nil
	}
}
