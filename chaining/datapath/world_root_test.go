//go:build root

package datapath

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/chaining/path"
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
	tab  *path.Table
	addr netip.Addr
}

// testFunction is a router with a port towards the client and one towards the server.
type testFunction struct {
	*nstest.Namespace
	at       int       // node
	function uint16    // in its node's table
	ports    [2]uint16 // in its node's table: towards the client, towards the server
	macs     [2]net.HardwareAddr
	remote   netip.Addr  // of a function that knows NSH; it has the first port only
	links    []link.Link // and its program
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
		n := &testNode{Namespace: nstest.New(t, fmt.Sprintf("n%d", i)), t: t, addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})}
		n.Sysctl("net.ipv4.ip_forward", "1")
		n.Sysctl("net.ipv6.conf.all.forwarding", "1")
		n.Sysctl("net.ipv4.conf.all.rp_filter", "0")
		n.Sysctl("net.ipv4.conf.default.rp_filter", "0")
		n.tab = &path.Table{Node: n.Name, Hops: map[path.Hop]path.NextHop{}, Paths: map[uint32]path.Live{}, VNI: 77}
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
		n.port(path.Port{Interface: port, Role: path.RoleIngress})
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
			n.port(path.Port{Interface: "u0", Role: path.RoleUnderlay, Address: n.addr})
		}
	}
	return w
}

// port adds a port to the node's table and returns its index.
func (n *testNode) port(p path.Port) uint16 {
	n.t.Helper()
	ifc := interfaceOf(n.t, n.Namespace, p.Interface)
	p.MTU = ifc.MTU
	copy(p.MAC[:], ifc.HardwareAddr)
	n.tab.Ports = append(n.tab.Ports, p)
	return uint16(len(n.tab.Ports) - 1)
}

// bpffs mounts a BPF file system of the test's own.
func bpffs(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Skipf("a BPF file system cannot be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
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
	f := &testFunction{Namespace: nstest.New(w.t, fmt.Sprintf("f%d", i)), at: at, function: uint16(len(n.tab.Functions))}
	n.tab.Functions = append(n.tab.Functions, path.FunctionRef{Function: "router", Instance: f.Name})
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
		f.macs[side] = macOf(w.t, f.Namespace, inner)
		f.ports[side] = n.port(path.Port{Interface: port, Role: path.RolePlain, Function: f.function, State: path.StateFlow})
	}
	return f
}

// classRule sends what goes from one net to another over a class's paths.
func classRule(src, dst string, class int) path.Rule {
	return path.Rule{Port: path.NoPort, Src: prefix16(src), Dst: prefix16(dst), SrcPort: path.AnyPort, DstPort: path.AnyPort, DSCP: path.AnyDSCP, Class: uint16(class)}
}

// prefix16 is a prefix in the 16-byte form of tables.
func prefix16(s string) netip.Prefix {
	p := netip.MustParsePrefix(s)
	if p.Addr().Is4() {
		return netip.PrefixFrom(netip.AddrFrom16(p.Addr().As16()), 96+p.Bits())
	}
	return p
}

// chain sends everything between the two nets over functions, in order from client
// to server, and back.
func (w *world) chain(spi uint32, functions ...*testFunction) {
	w.paths(spi, functions...)
	w.classify(spi)
}

// paths writes path spi and its way back, spi+1, into the nodes' tables.
func (w *world) paths(spi uint32, functions ...*testFunction) {
	w.path(spi, spi+1, functions, towardsServer)
	back := make([]*testFunction, 0, len(functions))
	for i := len(functions) - 1; i >= 0; i-- {
		back = append(back, functions[i])
	}
	w.path(spi+1, spi, back, towardsClient)
}

// forget takes a path and its way back from those that flows may be on.
func (w *world) forget(spi uint32) {
	for _, n := range w.nodes {
		delete(n.tab.Paths, spi)
		delete(n.tab.Paths, spi+1)
	}
}

// classify sends all traffic over paths spi and spi+1.
func (w *world) classify(spi uint32) {
	for i, n := range w.nodes {
		n.tab.Classes = []path.Class{{Chain: "default/test"}, {Chain: "default/test/reverse"}}
		if i == 0 {
			n.tab.Classes[0].Spread = []uint32{spi}
		}
		if i == len(w.nodes)-1 {
			n.tab.Classes[1].Spread = []uint32{spi + 1}
		}
		n.tab.Rules = []path.Rule{
			classRule("10.1.0.0/24", "10.2.0.0/24", 0), classRule("10.2.0.0/24", "10.1.0.0/24", 1),
			classRule("fd00:1::/64", "fd00:2::/64", 0), classRule("fd00:2::/64", "fd00:1::/64", 1),
		}
	}
}

func (w *world) path(spi, reverse uint32, functions []*testFunction, towards int) {
	at, last := 0, len(w.nodes)-1
	if towards == towardsClient {
		at, last = last, 0
	}
	hop := path.Hop{SPI: spi, SI: 255}
	live := path.Live{MTU: 1500}
	first := w.nodes[at]
	cross := func(to int) {
		if at == to {
			return
		}
		from := w.nodes[at]
		u, ok := from.tab.PortByName("u0")
		if !ok {
			w.t.Fatal("no underlay")
		}
		from.tab.Hops[hop] = path.NextHop{Kind: path.KindNode, Port: u, Local: from.addr, Remote: w.nodes[to].addr}
		live.MTU = min(live.MTU, from.tab.Ports[u].MTU-GPE4Overhead)
		at = to
	}
	for _, f := range functions {
		cross(f.at)
		// Towards the server it goes in at the client's side, and the other way round.
		side := 1 - towards
		if f.remote.IsValid() {
			p := w.nodes[at].tab.Ports[f.ports[0]]
			h := path.NextHop{Kind: path.KindGPE, Port: f.ports[0], Function: f.function, Local: p.Address, Remote: f.remote}
			copy(h.DstMAC[:], f.macs[0])
			w.nodes[at].tab.Hops[hop] = h
			hop.SI--
			continue
		}
		h := path.NextHop{Kind: path.KindPlain, Port: f.ports[side], Function: f.function, State: path.StateFlow}
		copy(h.DstMAC[:], f.macs[side])
		w.nodes[at].tab.Hops[hop] = h
		hop.SI--
	}
	cross(last)
	end := path.NextHop{Kind: path.KindEnd, Port: path.NoPort}
	if towards == towardsServer {
		end.Reverse = reverse
	}
	w.nodes[at].tab.Hops[hop] = end
	first.tab.Paths[spi] = live
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

// apply opens the datapath when it is not, and applies the tables.
func (w *world) apply(cfg Config) {
	w.t.Helper()
	for _, n := range w.nodes {
		if n.dp == nil {
			n.open(cfg)
			w.t.Cleanup(func() { n.dp.Close() })
		}
		if err := n.Do(func() error { return n.dp.Apply(n.tab) }); err != nil {
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

func (w *world) drops() map[path.Reason]uint64 {
	w.t.Helper()
	all := map[path.Reason]uint64{}
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
			w.t.Logf("node %d flow %x:%d > %x:%d proto %d: %s", i, k.Src, k.Sport, k.Dst, k.Dport, k.Proto, fmt.Sprint(v.Spi))
		}
	}
	w.t.Log("drops", w.drops())
}
