// Package hosttest runs a small chain for tests: two nodes and three functions over
// real sockets on the loopback network, without privileges.
package hosttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"

	"github.com/meridian-mesh/meridian/chaining/flow"
	"github.com/meridian-mesh/meridian/chaining/function/firewall"
	"github.com/meridian-mesh/meridian/chaining/function/tagger"
	"github.com/meridian-mesh/meridian/chaining/host"
	"github.com/meridian-mesh/meridian/chaining/nsh"
	"github.com/meridian-mesh/meridian/chaining/path"
	"github.com/meridian-mesh/meridian/chaining/soft"
)

// Chain is the chain default/dns for UDP to 10.9.0.0/16: firewall fw-0 (knows NSH,
// allows port 53) at node a, shaper shape-0 (knows none, changes nothing) and tagger
// tag-0 (knows NSH) at node b; and the same way back.
type Chain struct {
	Plan *path.Plan
	// A and B are the nodes; a frame that is sent at port 0 of A is classified.
	A, B *host.Node
	// AddressA and AddressB are theirs on the underlay.
	AddressA, AddressB netip.Addr
	// Out are frames that came to an end, by node.
	Out      map[string]chan []byte
	Firewall *host.Aware

	cancel context.CancelFunc
	wait   sync.WaitGroup
	mu     sync.Mutex
	faults []error
}

// VNI is that of the chain's forwarders.
const VNI = 9

// listen takes VXLAN-GPE's port at an address of the loopback network that nobody uses.
func listen() (netip.Addr, *net.UDPConn, error) {
	var err error
	for range 50 {
		n := rand.Uint32()
		a := netip.AddrFrom4([4]byte{127, 77, byte(n), byte(n >> 8)})
		var c *net.UDPConn
		if c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, nsh.GPEPort))); err == nil {
			return a, c, nil
		}
	}
	return netip.Addr{}, nil, fmt.Errorf("no address in 127.77.0.0/16 is free: %w", err)
}

// Start runs the chain until Close.
func Start() (*Chain, error) {
	var addrs [4]netip.Addr
	var conns [4]*net.UDPConn
	for i := range addrs {
		var err error
		if addrs[i], conns[i], err = listen(); err != nil {
			return nil, err
		}
	}
	fw, err := firewall.New([]firewall.Rule{{Allow: true, Proto: flow.ProtoUDP, FromPort: 53, ToPort: 53}}, 1000)
	if err != nil {
		return nil, err
	}
	c := &Chain{AddressA: addrs[0], AddressB: addrs[1], Out: map[string]chan []byte{"a": make(chan []byte, 16), "b": make(chan []byte, 16)}}
	d := domain(addrs)
	var ins []path.Instance
	for _, a := range d.Attachments {
		ins = append(ins, path.Instance{Name: a.Instance, Function: a.Function, Node: a.Node, Slots: 1, ServiceMS: 0.1})
	}
	n, err := path.NewNetwork(nil, []path.Link{{A: "a", B: "b", LatencyMS: 1}}, ins)
	if err != nil {
		return nil, err
	}
	c.Plan = path.Make(nil, []path.Spec{{Chain: "default/dns", Functions: []string{"firewall", "shaper", "tagger"}, Ingress: "a", Egress: "b",
		IngressPort: "edge", EgressPort: "edge", Symmetric: true,
		Matches: []path.Match{{Protos: []uint8{flow.ProtoUDP}, Dst: []path.Prefix{netip.MustParsePrefix("10.9.0.0/16")}}}}}, n)
	if why := c.Plan.Chains[0].Refused; why != "" {
		return nil, errors.New(why)
	}
	view, tables := &path.View{Plan: c.Plan}, map[string]*path.Table{}
	for _, name := range []string{"a", "b"} {
		if tables[name], err = path.Compile(view, d, name); err != nil {
			return nil, err
		}
	}
	if faults := path.Verify(view, tables); faults != nil {
		return nil, errors.Join(faults...)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	c.A, c.B = c.node(tables["a"], conns[0]), c.node(tables["b"], conns[1])
	c.Firewall = &host.Aware{Function: fw, Conn: conns[2]}
	for i, run := range []func(context.Context) error{c.A.Run, c.B.Run, c.Firewall.Run, (&host.Aware{Function: tagger.New(), Conn: conns[3]}).Run} {
		c.wait.Go(func() {
			defer conns[i].Close()
			c.fault(run(ctx))
		})
	}
	return c, nil
}

func domain(addrs [4]netip.Addr) *path.Domain {
	node := func(name string, a netip.Addr) path.Node {
		return path.Node{Name: name, Underlay: "under", Address: a, Ingress: []path.IngressPort{{Interface: "edge", Zone: 1}}}
	}
	aware := func(instance, function, node string, local, at netip.Addr) path.Attachment {
		return path.Attachment{Instance: instance, Function: function, Node: node, Kind: path.KindGPE, Left: instance, Local: local, Address: at}
	}
	return &path.Domain{VNI: VNI, Nodes: []path.Node{node("a", addrs[0]), node("b", addrs[1])}, Attachments: []path.Attachment{
		aware("fw-0", "firewall", "a", addrs[0], addrs[2]),
		{Instance: "shape-0", Function: "shaper", Node: "b", Kind: path.KindPlain, State: path.StateFlow, Left: "shape"},
		aware("tag-0", "tagger", "b", addrs[1], addrs[3]),
	}}
}

func (c *Chain) node(table *path.Table, conn *net.UDPConn) *host.Node {
	under, _ := table.PortByName("under")
	n := host.NewNode(soft.New(table, soft.Limits{}, nil), under, conn)
	n.Deliver = func(port uint16, frame []byte) {
		frame = bytes.Clone(frame)
		if table.Ports[port].Interface == "shape" {
			// The node is still at work on the packet, so it comes back later.
			c.wait.Go(func() {
				_, err := n.Send(port, frame)
				c.fault(err)
			})
			return
		}
		c.Out[table.Node] <- frame
	}
	return n
}

func (c *Chain) fault(err error) {
	if err != nil {
		c.mu.Lock()
		c.faults = append(c.faults, err)
		c.mu.Unlock()
	}
}

// Close ends the chain and returns what went wrong while it ran.
func (c *Chain) Close() error {
	c.cancel()
	c.wait.Wait()
	return errors.Join(c.faults...)
}
