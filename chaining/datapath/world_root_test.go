//go:build root

package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/internal/nstest"
)

// world is a client and a server behind one or two nodes, with functions at them
// that are Linux routers and know nothing of chains.
type world struct {
	t              testing.TB
	client, server *nstest.Namespace
	nodes          []*testNode // client's first, server's last
	functions      int
}

type testNode struct {
	*nstest.Namespace
	t    testing.TB
	pins string
	dp   *Datapath
	im   *image
	edge []uint32 // ports where users or servers are
	addr netip.Addr
}

// testFunction is a router with a port towards the client and one towards the server.
type testFunction struct {
	*nstest.Namespace
	at    int // node
	id    uint32
	ports [2]*net.Interface // the node's: towards the client, towards the server
	macs  [2]net.HardwareAddr
}

const (
	towardsClient = 0
	towardsServer = 1

	clientAddr, serverAddr   = "10.1.0.2", "10.2.0.2"
	clientAddr6, serverAddr6 = "fd00:1::2", "fd00:2::2"
)

// newWorld makes it with plain routing: without a datapath everything passes.
func newWorld(t testing.TB, nodes, underlayMTU int) *world {
	w := &world{t: t, client: nstest.New(t, "c"), server: nstest.New(t, "s")}
	for i := range nodes {
		n := &testNode{Namespace: nstest.New(t, fmt.Sprintf("n%d", i)), t: t, im: emptyImage(), addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})}
		n.Sysctl("net.ipv4.ip_forward", "1")
		n.Sysctl("net.ipv6.conf.all.forwarding", "1")
		n.Sysctl("net.ipv4.conf.all.rp_filter", "0")
		n.Sysctl("net.ipv4.conf.default.rp_filter", "0")
		n.pins = bpffs(t)
		w.nodes = append(w.nodes, n)
	}
	first, last := w.nodes[0], w.nodes[nodes-1]
	host := func(ns *nstest.Namespace, n *testNode, port string, net int) {
		nstest.Veth(ns, "eth0", n.Namespace, port)
		ns.IP(fmt.Sprintf("addr add 10.%d.0.2/24 dev eth0", net))
		ns.IP(fmt.Sprintf("-6 addr add fd00:%d::2/64 dev eth0 nodad", net))
		n.IP(fmt.Sprintf("addr add 10.%d.0.1/24 dev %s", net, port))
		n.IP(fmt.Sprintf("-6 addr add fd00:%d::1/64 dev %s nodad", net, port))
		ns.IP(fmt.Sprintf("route add default via 10.%d.0.1", net))
		ns.IP(fmt.Sprintf("-6 route add default via fd00:%d::1", net))
		ifc := interfaceOf(t, n.Namespace, port)
		n.edge = append(n.edge, uint32(ifc.Index))
		n.im.ports[uint32(ifc.Index)] = chainPort{Flags: portClassify}
	}
	host(w.client, first, "c0", 1)
	host(w.server, last, "s0", 2)
	if nodes == 2 {
		nstest.Veth(first.Namespace, "u0", last.Namespace, "u0")
		for i, n := range w.nodes {
			n.IP(fmt.Sprintf("link set u0 mtu %d", underlayMTU))
			n.IP(fmt.Sprintf("addr add 192.0.2.%d/24 dev u0", i+1))
			n.IP(fmt.Sprintf("-6 addr add fd00:ff::%d/64 dev u0 nodad", i+1))
			n.IP(fmt.Sprintf("route add 10.%d.0.0/24 via 192.0.2.%d", 2-i, 2-i))
			n.IP(fmt.Sprintf("-6 route add fd00:%d::/64 via fd00:ff::%d", 2-i, 2-i))
			ifc := interfaceOf(t, n.Namespace, "u0")
			n.im.ports[uint32(ifc.Index)] = chainPort{Flags: portTunnel, Addr4: words(n.addr)[0], Addr6: words(netip.MustParseAddr(fmt.Sprintf("fd00:ff::%d", i+1)))}
		}
	}
	for _, n := range w.nodes {
		n.im.node = chainNode{Addr4: words(netip.MustParseAddr("192.0.2.99"))[0], Addr6: words(netip.MustParseAddr("fd00:ff::99"))}
	}
	return w
}

func emptyImage() *image {
	return &image{hops: map[uint32]chainHop{}, ports: map[uint32]chainPort{}}
}

// bpffs mounts a BPF file system of the test's own.
func bpffs(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bpf")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Skipf("a BPF file system cannot be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := errors.Join(unix.Unmount(dir, unix.MNT_DETACH), os.Remove(dir)); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "meridian")
}

// function adds a router to a node; the node hands it whole packets.
func (w *world) function(at int) *testFunction {
	w.t.Helper()
	w.functions++
	i := w.functions
	n := w.nodes[at]
	f := &testFunction{Namespace: nstest.New(w.t, fmt.Sprintf("f%d", i)), at: at, id: uint32(i)}
	f.Sysctl("net.ipv4.ip_forward", "1")
	f.Sysctl("net.ipv6.conf.all.forwarding", "1")
	f.Sysctl("net.ipv4.conf.all.rp_filter", "0")
	f.Sysctl("net.ipv4.conf.default.rp_filter", "0")
	for side := range 2 {
		port, inner := fmt.Sprintf("f%d%c", i, "lr"[side]), "eth"+string("lr"[side])
		nstest.Veth(n.Namespace, port, f.Namespace, inner)
		n.IP(fmt.Sprintf("addr add 10.9.%d.%d/30 dev %s", i, 4*side+1, port))
		f.IP(fmt.Sprintf("addr add 10.9.%d.%d/30 dev %s", i, 4*side+2, inner))
		n.IP(fmt.Sprintf("-6 addr add fd00:9:%d:%d::1/64 dev %s nodad", i, side, port))
		f.IP(fmt.Sprintf("-6 addr add fd00:9:%d:%d::2/64 dev %s nodad", i, side, inner))
		f.IP(fmt.Sprintf("route add 10.%d.0.0/24 via 10.9.%d.%d", side+1, i, 4*side+1))
		f.IP(fmt.Sprintf("-6 route add fd00:%d::/64 via fd00:9:%d:%d::1", side+1, i, side))
		f.ports[side] = interfaceOf(w.t, n.Namespace, port)
		f.macs[side] = macOf(w.t, f.Namespace, inner)
		n.im.ports[uint32(f.ports[side].Index)] = chainPort{
			Flags: portFlow, Func: f.id,
			Addr4: words(netip.AddrFrom4([4]byte{10, 9, byte(i), byte(4*side + 1)}))[0],
			Addr6: words(netip.MustParseAddr(fmt.Sprintf("fd00:9:%d:%d::1", i, side))),
		}
	}
	return f
}

// rule sends what goes from one net to another over paths, each an SPI.
func classRule(src, dst string, slots, size int) chainRule {
	r := chainRule{Slots: uint32(slots), Size: uint32(size)}
	s, d := netip.MustParsePrefix(src), netip.MustParsePrefix(dst)
	r.Flags = ruleV4
	if s.Addr().Is6() {
		r.Flags = ruleV6
	}
	r.Src, r.SrcMask = words(s.Addr()), maskWords(s)
	r.Dst, r.DstMask = words(d.Addr()), maskWords(d)
	return r
}

func maskWords(p netip.Prefix) (w [4]uint32) {
	mask := net.CIDRMask(p.Bits(), p.Addr().BitLen())
	for i := range len(mask) / 4 {
		w[i] = binary.NativeEndian.Uint32(mask[4*i:])
	}
	return w
}

// chain sends everything between the two nets over functions, in order from client
// to server, and back.
func (w *world) chain(spi uint32, functions ...*testFunction) {
	w.paths(spi, functions...)
	w.classify(spi)
}

// paths writes path spi and its way back, spi+1, into the nodes' images.
func (w *world) paths(spi uint32, functions ...*testFunction) {
	w.path(spi, spi+1, functions, towardsServer)
	back := make([]*testFunction, 0, len(functions))
	for i := len(functions) - 1; i >= 0; i-- {
		back = append(back, functions[i])
	}
	w.path(spi+1, spi, back, towardsClient)
}

// classify sends all traffic over paths spi and spi+1.
func (w *world) classify(spi uint32) {
	for i, n := range w.nodes {
		n.im.rules, n.im.slots, n.im.guarded = nil, nil, nil
		if i == 0 {
			n.im.slots = append(n.im.slots, spi<<8|255)
			n.im.rules = append(n.im.rules, classRule("10.1.0.0/24", "10.2.0.0/24", 0, 1), classRule("fd00:1::/64", "fd00:2::/64", 0, 1))
		}
		if i == len(w.nodes)-1 {
			at := len(n.im.slots)
			n.im.slots = append(n.im.slots, (spi+1)<<8|255)
			n.im.rules = append(n.im.rules, classRule("10.2.0.0/24", "10.1.0.0/24", at, 1), classRule("fd00:2::/64", "fd00:1::/64", at, 1))
		}
		for _, r := range []chainRule{
			classRule("10.1.0.0/24", "10.2.0.0/24", 0, 1), classRule("10.2.0.0/24", "10.1.0.0/24", 0, 1),
			classRule("fd00:1::/64", "fd00:2::/64", 0, 1), classRule("fd00:2::/64", "fd00:1::/64", 0, 1),
		} {
			n.im.guarded = append(n.im.guarded, guardRule(r))
		}
	}
}

func (w *world) path(spi, reverse uint32, functions []*testFunction, towards int) {
	at, last := 0, len(w.nodes)-1
	if towards == towardsClient {
		at, last = last, 0
	}
	si := uint32(255)
	cross := func(to int) {
		if at == to {
			return
		}
		from := w.nodes[at]
		u := interfaceOf(w.t, from.Namespace, "u0")
		h := chainHop{Kind: kindGPE, Ifindex: uint32(u.Index), Mtu: uint16(u.MTU - GPE4Overhead)}
		h.Tunnel.Local, h.Tunnel.Remote = words(from.addr), words(w.nodes[to].addr)
		from.im.hops[spi<<8|si] = h
		at = to
	}
	for _, f := range functions {
		cross(f.at)
		// Towards the server it goes in at the client's side, and the other way round.
		side := 1 - towards
		h := chainHop{Kind: kindPlain, Ifindex: uint32(f.ports[side].Index), Func: f.id, Flags: hopRemember, Mtu: uint16(f.ports[side].MTU)}
		copy(h.Dmac[:], f.macs[side])
		copy(h.Smac[:], f.ports[side].HardwareAddr)
		w.nodes[at].im.hops[spi<<8|si] = h
		si--
	}
	cross(last)
	end := chainHop{Kind: kindEnd}
	if towards == towardsServer {
		end.Flags, end.Reverse = hopLearn, reverse<<8|255
	}
	w.nodes[at].im.hops[spi<<8|si] = end
	w.squeeze(spi)
}

// squeeze gives every hop the smallest MTU of what follows on the node.
func (w *world) squeeze(spi uint32) {
	for _, n := range w.nodes {
		var least uint16
		for si := uint32(1); si <= 255; si++ {
			h, ok := n.im.hops[spi<<8|si]
			if !ok {
				continue
			}
			if h.Mtu != 0 && (least == 0 || h.Mtu < least) {
				least = h.Mtu
			}
			h.Mtu = least
			n.im.hops[spi<<8|si] = h
		}
	}
}

func (n *testNode) open(cfg Config) {
	n.t.Helper()
	cfg.Pins = n.pins
	if err := n.Do(func() (err error) {
		n.dp, err = Open(cfg)
		return err
	}); err != nil {
		n.t.Fatalf("%s: %+v", n.Name, err)
	}
}

// apply opens the datapath when it is not, and brings it to the images.
func (w *world) apply(cfg Config) {
	w.t.Helper()
	for _, n := range w.nodes {
		if n.dp == nil {
			n.open(cfg)
			w.t.Cleanup(func() { n.dp.Close() })
		}
		if err := n.Do(func() error { return n.dp.apply(n.im) }); err != nil {
			w.t.Fatalf("%s: %+v", n.Name, err)
		}
	}
}

func (w *world) counts(node int) map[uint32]Count {
	w.t.Helper()
	c, err := w.nodes[node].dp.Counts()
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) drops() map[Reason]uint64 {
	w.t.Helper()
	all := map[Reason]uint64{}
	for _, n := range w.nodes {
		d, err := n.dp.Drops()
		if err != nil {
			w.t.Fatal(err)
		}
		for r, v := range d {
			if v > 0 {
				all[r] += v
			}
		}
	}
	return all
}

func (w *world) report() {
	w.t.Helper()
	for i, n := range w.nodes {
		counts, err := n.dp.Counts()
		if err != nil {
			w.t.Error(err)
		}
		for path, c := range counts {
			w.t.Logf("node %d %s: %+v", i, pathString(path), c)
		}
		var v chainFlow
		var k chainTuple
		for it := n.dp.chain.Maps[chainMapFlows].Iterate(); it.Next(&k, &v); {
			w.t.Logf("node %d flow %x:%d > %x:%d proto %d: %s", i, k.Src, k.Sport, k.Dst, k.Dport, k.Proto, pathString(v.Path))
		}
	}
	w.t.Log("drops", w.drops())
}

