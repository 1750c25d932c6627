package packetgrammar

import (
	"net/netip"

	"github.com/meridian-mesh/meridian/chaining/flow"
	"github.com/meridian-mesh/meridian/chaining/path"
)

// Ports of the table, by index.
const (
	PortClient = iota
	PortServer
	PortUnderlay
	PortMAC
	PortInterface
	PortFlow
	PortGPE
	PortEther
	PortBorder
	portCount
)

// Path identifiers of the table.
const (
	spiForward = 0x000010 // every kind of hop on one path
	spiSecond  = 0x00a011 // its sibling
	spiReverse = 0x0b0012
	spiBranch  = 0x0c0013 // classified again at SI 255
	spiLoop    = 0x0d0014 // classified again for ever
	spiIPv6    = 0x0e0015 // over an IPv6 underlay
	spiBorder  = 0x0f0016 // leaves the site
	spiTold    = 0x100017 // has metadata
	spiTold6   = 0x110018 // and so has this, over an IPv6 underlay
)

// smallMTU keeps packets short that are too big.
const smallMTU = 300

// Table has every kind of port, hop, rule and class.
func Table() *path.Table {
	addr := netip.MustParseAddr
	mac := func(n byte) path.MAC { return path.MAC{2, 0, 0, 0, 0, n} }
	port := func(name string, role path.Role, n byte) path.Port {
		return path.Port{Interface: name, Role: role, MAC: mac(n), MTU: 1500, Address: addr("192.0.2.1"), Address6: addr("2001:db8:f::1")}
	}
	ports := []path.Port{
		PortClient:    port("client0", path.RoleIngress, 1),
		PortServer:    port("server0", path.RoleIngress, 2),
		PortUnderlay:  port("under0", path.RoleUnderlay, 3),
		PortMAC:       port("mac0", path.RolePlain, 4),
		PortInterface: port("pair0", path.RolePlain, 5),
		PortFlow:      port("flow0", path.RolePlain, 6),
		PortGPE:       port("gpe0", path.RoleAware, 7),
		PortEther:     port("ether0", path.RoleAware, 8),
		PortBorder:    port("border0", path.RoleUnderlay, 9),
	}
	ports[PortClient].Zone, ports[PortServer].Zone = 1, 2
	ports[PortMAC].Function, ports[PortMAC].State = 0, path.StateMAC
	ports[PortInterface].Function, ports[PortInterface].State = 1, path.StateInterface
	ports[PortInterface].Fixed = path.Hop{SPI: spiForward, SI: 254}
	ports[PortFlow].Function, ports[PortFlow].State = 2, path.StateFlow
	ports[PortGPE].Function, ports[PortEther].Function = 3, 4
	ports[PortBorder].Border = true

	plain := func(port, function uint16, state path.State) path.NextHop {
		return path.NextHop{Kind: path.KindPlain, Port: port, Function: function, State: state, SrcMAC: ports[port].MAC, DstMAC: mac(0x40 + byte(port))}
	}
	tunnel := func(kind path.Kind, port, function uint16, remote string) path.NextHop {
		n := path.NextHop{Kind: kind, Port: port, Function: function, SrcMAC: ports[port].MAC, DstMAC: mac(0x40 + byte(port)), Local: ports[port].Address, Remote: addr(remote)}
		if n.Remote.Is6() {
			n.Local = ports[port].Address6
		}
		return n
	}
	told := func(n path.NextHop, metadata string) path.NextHop {
		n.Metadata = metadata
		return n
	}
	server := path.NextHop{Kind: path.KindEnd, Port: PortServer, SrcMAC: mac(2), DstMAC: mac(0x82), Reverse: spiReverse, ReverseZone: 2}
	border := tunnel(path.KindNode, PortBorder, 0, "198.51.100.9")
	border.Border = true
	t := &path.Table{
		Node: "grammar", Generation: 1, VNI: 7, Ports: ports,
		Functions: []path.FunctionRef{{Function: "mac", Instance: "mac-0"}, {Function: "pair", Instance: "pair-0"}, {Function: "flow", Instance: "flow-0"},
			{Function: "gpe", Instance: "gpe-0"}, {Function: "ether", Instance: "ether-0"}},
		Hops: map[path.Hop]path.NextHop{
			{SPI: spiForward, SI: 255}: plain(PortMAC, 0, path.StateMAC),
			{SPI: spiForward, SI: 254}: plain(PortInterface, 1, path.StateInterface),
			{SPI: spiForward, SI: 253}: plain(PortFlow, 2, path.StateFlow),
			{SPI: spiForward, SI: 252}: tunnel(path.KindGPE, PortGPE, 3, "192.0.2.33"),
			{SPI: spiForward, SI: 251}: {Kind: path.KindEther, Port: PortEther, Function: 4, SrcMAC: mac(8), DstMAC: mac(0x48)},
			{SPI: spiForward, SI: 250}: tunnel(path.KindNode, PortUnderlay, 0, "198.51.100.2"),
			{SPI: spiForward, SI: 249}: server,

			{SPI: spiSecond, SI: 255}: plain(PortFlow, 2, path.StateFlow),
			{SPI: spiSecond, SI: 254}: tunnel(path.KindGPE, PortGPE, 3, "2001:db8:f::33"),
			{SPI: spiSecond, SI: 253}: server,
			{SPI: spiSecond, SI: 0}:   plain(PortMAC, 0, path.StateMAC),
			{SPI: spiSecond, SI: 1}:   {Kind: path.KindEnd, Port: path.NoPort},

			{SPI: spiReverse, SI: 255}: tunnel(path.KindNode, PortUnderlay, 0, "198.51.100.2"),
			{SPI: spiReverse, SI: 254}: plain(PortMAC, 0, path.StateMAC),
			{SPI: spiReverse, SI: 253}: {Kind: path.KindEnd, Port: PortClient, SrcMAC: mac(1), DstMAC: mac(0x81)},

			{SPI: spiBranch, SI: 255}: {Kind: path.KindBranch, Branch: 0},
			{SPI: spiBranch, SI: 254}: {Kind: path.KindEnd, Port: path.NoPort},
			{SPI: spiBranch, SI: 0}:   {Kind: path.KindBranch, Branch: 0},
			{SPI: spiLoop, SI: 255}:   {Kind: path.KindBranch, Branch: 1},

			{SPI: spiIPv6, SI: 255}: tunnel(path.KindNode, PortUnderlay, 0, "2001:db8:e::2"),
			{SPI: spiIPv6, SI: 254}: {Kind: path.KindEther, Port: PortEther, Function: 4, SrcMAC: mac(8), DstMAC: mac(0x48)},
			{SPI: spiIPv6, SI: 253}: server,

			{SPI: spiBorder, SI: 255}: border,
			{SPI: spiBorder, SI: 254}: server,

			{SPI: spiTold, SI: 255}: told(tunnel(path.KindGPE, PortGPE, 3, "192.0.2.33"), "gold"),
			{SPI: spiTold, SI: 254}: plain(PortFlow, 2, path.StateFlow),
			{SPI: spiTold, SI: 253}: told(path.NextHop{Kind: path.KindEther, Port: PortEther, Function: 4, SrcMAC: mac(8), DstMAC: mac(0x48)}, "gold"),
			{SPI: spiTold, SI: 252}: plain(PortMAC, 0, path.StateMAC),
			{SPI: spiTold, SI: 251}: told(tunnel(path.KindNode, PortUnderlay, 0, "198.51.100.2"), "gold"),
			{SPI: spiTold, SI: 250}: server,

			{SPI: spiTold6, SI: 255}: told(tunnel(path.KindNode, PortUnderlay, 0, "2001:db8:e::2"), "twelve bytes"),
			{SPI: spiTold6, SI: 254}: told(tunnel(path.KindGPE, PortGPE, 3, "2001:db8:f::33"), "twelve bytes"),
			{SPI: spiTold6, SI: 253}: server,
		},
		Paths: map[uint32]path.Live{
			spiForward: {MTU: smallMTU, Class: 0}, spiSecond: {MTU: smallMTU, Class: 0}, spiReverse: {MTU: 1440, Class: 6},
			spiBranch: {MTU: 1440, Class: 1}, spiLoop: {MTU: 1440, Class: 2}, spiIPv6: {MTU: 1420, Class: 3}, spiBorder: {MTU: 1300, Class: 7},
			spiTold: {MTU: 1420, Class: 9}, spiTold6: {MTU: 1420, Class: 9},
		},
	}
	t.Classes = []path.Class{
		{Chain: "default/both", Spread: []uint32{spiForward, spiSecond, spiForward, spiForward, spiSecond}},
		{Chain: "default/branch", Spread: []uint32{spiBranch}},
		{Chain: "default/loop", Spread: []uint32{spiLoop}},
		{Chain: "default/ipv6", Spread: []uint32{spiIPv6}},
		{Chain: "default/closed"},
		{Chain: "default/open", Open: true},
		{Chain: "default/both/reverse", Spread: []uint32{spiReverse}},
		{Chain: "default/border", Spread: []uint32{spiBorder}},
		{Chain: "default/exempt", Pass: true},
		{Chain: "default/both@told", Spread: []uint32{spiTold, spiTold6, spiTold}},
	}
	rule := func(class, port uint16, proto uint8, dst path.Span) path.Rule {
		return path.Rule{Class: class, Port: port, Proto: proto, SrcPort: path.AnyPort, DstPort: dst, DSCP: path.AnyDSCP}
	}
	one := func(p uint16) path.Span { return path.Span{From: p, To: p} }
	dscp := rule(3, PortClient, 0, path.AnyPort)
	dscp.DSCP = 46
	prefix := rule(0, PortClient, 0, path.AnyPort)
	prefix.Src = netip.PrefixFrom(netip.AddrFrom16(addr("10.1.0.0").As16()), 96+16)
	prefix6 := rule(0, PortClient, 0, path.AnyPort)
	prefix6.Dst = netip.MustParsePrefix("2001:db8:2::/48")
	sources := rule(1, path.NoPort, flow.ProtoUDP, one(5000))
	sources.SrcPort = path.Span{From: 1000, To: 1999}
	t.Rules = []path.Rule{
		dscp,
		rule(8, PortClient, flow.ProtoTCP, one(22)),
		rule(4, PortClient, flow.ProtoTCP, one(23)),
		rule(5, PortClient, flow.ProtoTCP, one(25)),
		rule(1, PortClient, flow.ProtoTCP, path.Span{From: 8000, To: 8999}),
		rule(2, PortClient, flow.ProtoUDP, one(7)),
		rule(7, PortClient, flow.ProtoUDP, one(4500)),
		rule(9, PortClient, flow.ProtoTCP, one(9000)),
		sources, prefix, prefix6,
		rule(6, PortServer, flow.ProtoTCP, path.AnyPort),
	}
	back := rule(0, path.NoPort, flow.ProtoTCP, one(8080))
	shut := rule(4, path.NoPort, flow.ProtoTCP, one(8081))
	t.Branches = [][]path.Rule{{back, shut, rule(3, path.NoPort, flow.ProtoTCP, one(8082))}, {rule(2, path.NoPort, 0, path.AnyPort)}}
	return t
}
