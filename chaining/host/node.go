package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/meridian-mesh/meridian/chaining/nsh"
	"github.com/meridian-mesh/meridian/chaining/path"
	"github.com/meridian-mesh/meridian/chaining/soft"
)

// Node forwards by a table over a UDP socket, without privileges: VXLAN-GPE from
// and to other nodes and functions that know NSH, echo requests too. Plain packets
// go in by [Node.Send] and out by Deliver; who has TUN devices or packet sockets
// joins them there.
type Node struct {
	// Port is the table's underlay port whose packets the socket receives.
	Port uint16
	Conn *net.UDPConn
	// Deliver gets plain frames that leave by a port, or by the kernel's routing
	// (path.NoPort). It must not keep the frame.
	Deliver func(port uint16, frame []byte)
	// Watch, if set, sees each frame that comes in and what became of it.
	Watch func(port uint16, frame []byte, r soft.Result)

	mu        sync.Mutex
	forwarder *soft.Forwarder
	out       []byte
}

// NewNode makes a node of a forwarder, which belongs to it from then on.
func NewNode(f *soft.Forwarder, port uint16, conn *net.UDPConn) *Node {
	return &Node{Port: port, Conn: conn, forwarder: f, out: make([]byte, 1<<16+soft.Headroom), Deliver: func(uint16, []byte) {}}
}

// Swap puts another table in force.
func (n *Node) Swap(t *path.Table) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forwarder.Swap(t)
}

// Counters are the forwarder's.
func (n *Node) Counters() soft.Counters {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.forwarder.Counters()
}

// Send forwards a frame that came in on a port.
func (n *Node) Send(port uint16, frame []byte) (soft.Result, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.forward(port, frame)
}

// Run receives until ctx ends. Its error is nil then.
func (n *Node) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = n.Conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	// The datagram is read behind room for the headers that the kernel took off.
	buf := make([]byte, soft.OuterRoom+1<<16)
	for {
		size, from, err := n.Conn.ReadFromUDPAddrPort(buf[soft.OuterRoom:])
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				continue
			}
			return fmt.Errorf("receive: %w", err)
		}
		n.mu.Lock()
		// What cannot be sent is lost, as on any network; probes and counters tell.
		_, _ = n.forward(n.Port, soft.Enframe(buf[:soft.OuterRoom+size], from, n.address(from.Addr())))
		n.mu.Unlock()
	}
}

// address is the node's of the family of the one that packets came from.
func (n *Node) address(from netip.Addr) netip.Addr {
	p := &n.forwarder.Table().Ports[n.Port]
	if from.Unmap().Is4() {
		return p.Address
	}
	return p.Address6
}

func (n *Node) forward(port uint16, frame []byte) (soft.Result, error) {
	now := time.Now()
	var seen []byte
	if n.Watch != nil {
		seen = append(seen, frame...)
	}
	r := n.forwarder.Forward(port, frame, n.out, now)
	if n.Watch != nil {
		n.Watch(port, seen, r)
	}
	switch r.Verdict {
	case path.VerdictNode, path.VerdictGPE:
		next := n.forwarder.Table().Hops[r.Hop]
		return r, n.datagram(netip.AddrPortFrom(next.Remote, nsh.GPEPort), soft.Datagram(r.Frame))
	case path.VerdictPlain, path.VerdictEnd, path.VerdictEther, path.VerdictAnswer:
		n.Deliver(r.Port, r.Frame)
	case path.VerdictPunt:
		if e, ok := n.forwarder.Echo(soft.Datagram(r.Frame), now); ok {
			if e.To.Port() == 0 {
				e.To = netip.AddrPortFrom(e.To.Addr(), nsh.GPEPort)
			}
			return r, n.datagram(e.To, e.Payload)
		}
	}
	return r, nil
}

func (n *Node) datagram(to netip.AddrPort, b []byte) error {
	_, err := n.Conn.WriteToUDPAddrPort(b, to)
	if err != nil {
		return fmt.Errorf("send to %v: %w", to, err)
	}
	return nil
}
