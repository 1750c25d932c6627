package soft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/chaining/flow"
	"github.com/meridian-mesh/meridian/chaining/nsh"
	"github.com/meridian-mesh/meridian/chaining/path"
)

// udp makes the frame of a UDP packet over IPv4 of so many bytes of IP.
func udp(src, dst string, sport, dport uint16, size int) []byte {
	b := make([]byte, 14+size)
	copy(b, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0})
	ip := b[14:]
	ip[0], ip[6], ip[8], ip[9] = 0x45, 0x40, 64, flow.ProtoUDP
	binary.BigEndian.PutUint16(ip[2:], uint16(size))
	s, d := netip.MustParseAddr(src).As4(), netip.MustParseAddr(dst).As4()
	copy(ip[12:], s[:])
	copy(ip[16:], d[:])
	binary.BigEndian.PutUint16(ip[20:], sport)
	binary.BigEndian.PutUint16(ip[22:], dport)
	binary.BigEndian.PutUint16(ip[24:], uint16(size-20))
	return b
}

const (
	client = iota
	fnIn
	under
)

// twoNodes are tables of a path with a function on each of two nodes: SPI 1 there,
// SPI 2 back.
func twoNodes() (a, b *path.Table) {
	nodeA, nodeB := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	ports := func(own netip.Addr, edge, fn string) []path.Port {
		return []path.Port{
			{Interface: edge, Role: path.RoleIngress, Zone: 1, Address: own, MTU: 1500},
			{Interface: fn, Role: path.RolePlain, State: path.StateFlow, Function: 0},
			{Interface: "under0", Role: path.RoleUnderlay, Address: own},
		}
	}
	function := path.NextHop{Kind: path.KindPlain, Port: fnIn, State: path.StateFlow}
	to := func(local, remote netip.Addr) path.NextHop {
		return path.NextHop{Kind: path.KindNode, Port: under, Local: local, Remote: remote}
	}
	a = &path.Table{Ports: ports(nodeA, "client0", "fn0"),
		Classes: []path.Class{{Chain: "default/c", Spread: []uint32{1}}},
		Rules:   []path.Rule{{Port: client, Proto: flow.ProtoUDP, SrcPort: path.AnyPort, DstPort: path.Span{From: 53, To: 53}, DSCP: path.AnyDSCP}},
		Hops: map[path.Hop]path.NextHop{
			{SPI: 1, SI: 255}: function, {SPI: 1, SI: 254}: to(nodeA, nodeB),
			{SPI: 2, SI: 254}: function, {SPI: 2, SI: 253}: {Kind: path.KindEnd, Port: client},
		},
		Paths: map[uint32]path.Live{1: {MTU: 1440}}}
	b = &path.Table{Ports: ports(nodeB, "server0", "fn1"),
		Hops: map[path.Hop]path.NextHop{
			{SPI: 1, SI: 254}: function, {SPI: 1, SI: 253}: {Kind: path.KindEnd, Port: client, Reverse: 2, ReverseZone: 1},
			{SPI: 2, SI: 255}: function, {SPI: 2, SI: 254}: to(nodeB, nodeA),
		},
		Paths: map[uint32]path.Live{2: {MTU: 1440}}}
	return a, b
}

// TestTwoNodes sends a packet there and an answer from another tuple, as behind a
// NAT, back; both pass both functions.
func TestTwoNodes(t *testing.T) {
	ta, tb := twoNodes()
	a, b := New(ta, Limits{}, nil), New(tb, Limits{}, nil)
	step := func(f *Forwarder, port uint16, frame []byte, want path.Verdict) []byte {
		t.Helper()
		r := f.Forward(port, frame, make([]byte, 2048), epoch)
		if r.Verdict != want {
			t.Fatalf("%v for %v, want %v", r.Verdict, r.Reason, want)
		}
		return bytes.Clone(r.Frame)
	}
	sent := udp("10.0.0.1", "10.9.0.1", 4000, 53, 100)
	x := step(a, client, bytes.Clone(sent), path.VerdictPlain)
	x = step(a, fnIn, x, path.VerdictNode)
	h, _ := gpeHeader(t, x)
	if h.SPI() != 1 || h.SI() != 254 || h.TTL() != 63 {
		t.Fatalf("between the nodes: SPI %d, SI %d, TTL %d", h.SPI(), h.SI(), h.TTL())
	}
	if sum(0, x[14:34]) != 0xffff {
		t.Error("outer IPv4 checksum is wrong")
	}
	// Outer TTL 64 and don't fragment; the source port is the flow's hash, as
	// bpf/encap.h has it.
	var p flow.Packet
	flow.Parse(sent[14:], &p)
	hash := uint32(p.Hash())
	if want := 49152 + uint16((hash^hash>>16)&0x3fff); x[14+8] != 64 || x[14+6] != 0x40 || binary.BigEndian.Uint16(x[34:]) != want {
		t.Errorf("outer headers are %x, want source port %d", x[14:42], want)
	}
	x = step(b, under, x, path.VerdictPlain)
	// The function is a NAT that keeps the flow's state by its own means; what it
	// gives back is known by the tuple that went in, so the packet is unchanged here.
	x = step(b, fnIn, x, path.VerdictEnd)
	if !bytes.Equal(x[14:], sent[14:]) {
		t.Fatalf("arrived as %x", x[14:])
	}
	answer := udp("10.9.0.1", "10.0.0.1", 53, 4000, 60)
	x = step(b, client, bytes.Clone(answer), path.VerdictPlain)
	x = step(b, fnIn, x, path.VerdictNode)
	x = step(a, under, x, path.VerdictPlain)
	x = step(a, fnIn, x, path.VerdictEnd)
	if !bytes.Equal(x[14:], answer[14:]) {
		t.Fatalf("answer arrived as %x", x[14:])
	}
	step(b, client, udp("10.9.0.1", "10.0.0.1", 53, 4001, 60), path.VerdictPass) // Nobody asked.
	step(a, client, udp("10.0.0.1", "10.9.0.1", 4000, 54, 100), path.VerdictPass)
}

// TestTooBig: what does not fit is answered with what would.
func TestTooBig(t *testing.T) {
	ta, _ := twoNodes()
	f := New(ta, Limits{}, nil)
	out := make([]byte, 4096)
	r := f.Forward(client, udp("10.0.0.1", "10.9.0.1", 4000, 53, 1441), out, epoch)
	if r.Verdict != path.VerdictAnswer || r.Port != client {
		t.Fatalf("%v for %v by port %d", r.Verdict, r.Reason, r.Port)
	}
	ip := r.Frame[14:]
	var p flow.Packet
	if !flow.Parse(ip, &p) || !p.Error || ip[8] != 64 || ip[20] != 3 || ip[21] != 4 || binary.BigEndian.Uint16(ip[26:]) != 1440 {
		t.Errorf("answer is %x", ip)
	}
	if sum(0, ip[:20]) != 0xffff || sum(0, ip[20:]) != 0xffff {
		t.Error("checksums are wrong")
	}
	if r = f.Forward(client, udp("10.0.0.1", "10.9.0.1", 4000, 53, 1440), out, epoch); r.Verdict != path.VerdictPlain {
		t.Errorf("what fits is %v", r.Verdict)
	}
	may := udp("10.0.0.1", "10.9.0.1", 4000, 53, 1441)
	may[14+6] = 0
	if r = f.Forward(client, may, out, epoch); r.Reason != path.ReasonTooBig {
		t.Errorf("what may be fragmented: %v for %v", r.Verdict, r.Reason)
	}
}

// TestPorts: what keeps a port alive passes by.
func TestPorts(t *testing.T) {
	ta, _ := twoNodes()
	ta.Ports[fnIn].Address = netip.MustParseAddr("192.0.2.5")
	f := New(ta, Limits{}, nil)
	out := make([]byte, 2048)
	for _, c := range []struct {
		name string
		port uint16
		dst  string
		want path.Verdict
	}{
		{"multicast from a client", client, "224.0.0.5", path.VerdictPass},
		{"multicast from a function", fnIn, "239.1.1.1", path.VerdictPass},
		{"a function's answer to the node", fnIn, "192.0.2.5", path.VerdictPass},
		{"a function's own packet", fnIn, "192.0.2.6", path.VerdictDrop},
	} {
		if r := f.Forward(c.port, udp("10.0.0.1", c.dst, 4000, 53, 100), out, epoch); r.Verdict != c.want {
			t.Errorf("%s: %v for %v", c.name, r.Verdict, r.Reason)
		}
	}
	solicit := make([]byte, 14+40+24)
	copy(solicit[12:], []byte{0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, flow.ProtoICMPv6, 255, 0x20, 1})
	solicit[14+24], solicit[14+40] = 0x20, 135
	if r := f.Forward(fnIn, solicit, out, epoch); r.Verdict != path.VerdictPass {
		t.Errorf("neighbour solicitation: %v for %v", r.Verdict, r.Reason)
	}
	solicit[14+7] = 254
	if r := f.Forward(fnIn, solicit, out, epoch); r.Verdict != path.VerdictDrop {
		t.Errorf("neighbour solicitation from afar: %v", r.Verdict)
	}
}

// TestSwap: flows keep their path while the table has it, and move when it is gone.
func TestSwap(t *testing.T) {
	old, _ := twoNodes()
	f := New(old, Limits{}, nil)
	out := make([]byte, 2048)
	pkt := func() []byte { return udp("10.0.0.1", "10.9.0.1", 4000, 53, 100) }
	f.Forward(client, pkt(), out, epoch)
	next, _ := twoNodes()
	next.Classes[0].Spread = []uint32{3}
	next.Hops[path.Hop{SPI: 3, SI: 255}] = path.NextHop{Kind: path.KindEnd, Port: client}
	next.Paths[3] = path.Live{MTU: 1440}
	f.Swap(next)
	if r := f.Forward(client, pkt(), out, epoch); r.Hop.SPI != 1 {
		t.Errorf("a flow was moved to %v", r.Hop)
	}
	if r := f.Forward(client, udp("10.0.0.2", "10.9.0.1", 4000, 53, 100), out, epoch); r.Hop.SPI != 3 {
		t.Errorf("a new flow took %v", r.Hop)
	}
	delete(next.Paths, 1)
	if r := f.Forward(client, pkt(), out, epoch); r.Hop.SPI != 3 {
		t.Errorf("a flow stayed on a path that is gone: %v", r.Hop)
	}
}

func TestNoAllocations(t *testing.T) {
	ta, tb := twoNodes()
	a, b := New(ta, Limits{}, nil), New(tb, Limits{}, nil)
	sent := udp("10.0.0.1", "10.9.0.1", 4000, 53, 100)
	in, out := make([]byte, 2048), make([]byte, 2048)
	if n := testing.AllocsPerRun(1000, func() {
		r := a.Forward(client, in[:copy(in, sent)], out, epoch)
		r = a.Forward(fnIn, in[:copy(in, r.Frame)], out, epoch)
		r = b.Forward(under, in[:copy(in, r.Frame)], out, epoch)
		if r = b.Forward(fnIn, in[:copy(in, r.Frame)], out, epoch); r.Verdict != path.VerdictEnd {
			t.Fatal(r.Verdict, r.Reason)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a packet over two nodes", n)
	}
}

func TestIntegrity(t *testing.T) {
	in := testIntegrity(t)
	payload := []byte("a packet")
	for _, md := range []uint8{nsh.MD1, nsh.MD2} {
		b := make([]byte, nsh.MaxSize)
		h := nsh.Put(b, md, nsh.NextIPv4, 0x123456, 200)
		h[0] |= 0x10
		h.SetTTL(9)
		if md == nsh.MD2 {
			h, _ = nsh.AppendContext(b, h, nsh.ContextHeader{Class: nsh.ClassIETF, Type: nsh.TypeTenant, Value: []byte("abc")})
		}
		for _, word := range []byte{0, 7} {
			if md == nsh.MD1 {
				h[15] = word
			}
			before := bytes.Clone(h)
			wire := make([]byte, nsh.MaxSize)
			n := copy(wire, h)
			p, err := in.Protect(wire, n, payload, epoch)
			if err != nil {
				t.Fatal(err)
			}
			if _, rest, err := nsh.Parse(wire[:len(p)]); err != nil || len(rest) != 0 {
				t.Fatalf("protected header is %x: %v", []byte(p), err)
			}
			if !bytes.Contains(p, binary.BigEndian.AppendUint32(nil, uint32(epoch.Unix()))) {
				t.Errorf("no Unix time (RFC 9145 6) in %x", []byte(p))
			}
			if len(p) > len(before)+in.Room()+4 {
				t.Errorf("grew by %d, room is %d", len(p)-len(before), in.Room())
			}
			got, err := in.Check(bytes.Clone(p), payload, epoch.Add(1900*time.Millisecond))
			if err != nil || !bytes.Equal(got, before) {
				t.Fatalf("MD type %d: %x became %x, %v", md, before, []byte(got), err)
			}
			for i := range p {
				bad := nsh.Header(bytes.Clone(p))
				bad[i] ^= 0x40
				if _, err := in.Check(bad, payload, epoch); err == nil {
					t.Fatalf("MD type %d: changed byte %d was accepted", md, i)
				}
			}
			if _, err := in.Check(bytes.Clone(p), []byte("a pocket"), epoch); !errors.Is(err, ErrCode) {
				t.Errorf("another packet: %v", err)
			}
			for _, off := range []time.Duration{-2 * time.Second, 2 * time.Second} {
				if _, err := in.Check(bytes.Clone(p), payload, epoch.Add(off)); !errors.Is(err, ErrStale) {
					t.Errorf("%v away: %v", off, err)
				}
			}
			other, err := NewIntegrity([]Key{{ID: "k2", Secret: make([]byte, 32)}}, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := other.Check(bytes.Clone(p), payload, epoch); !errors.Is(err, ErrKey) {
				t.Errorf("unknown key: %v", err)
			}
			if _, err := in.Check(before, payload, epoch); !errors.Is(err, ErrNoIntegrity) {
				t.Errorf("no code: %v", err)
			}
		}
	}
}

// TestLRU compares with a twin that keeps a list.
func TestLRU(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	l := newLRU[int, int](8)
	var order []int // youngest last
	values := map[int]int{}
	use := func(k int) {
		for i, o := range order {
			if o == k {
				order = append(order[:i], order[i+1:]...)
				break
			}
		}
		order = append(order, k)
	}
	for i := range 20000 {
		k := rng.IntN(14)
		if rng.IntN(2) == 0 {
			if _, ok := values[k]; !ok && len(order) == 8 {
				delete(values, order[0])
				order = order[1:]
			}
			l.put(k, i)
			values[k] = i
			use(k)
			continue
		}
		got, ok := l.get(k)
		want, has := values[k]
		if ok != has || got != want {
			t.Fatalf("step %d: key %d is %d, %v, want %d, %v", i, k, got, ok, want, has)
		}
		if has {
			use(k)
		}
		if l.len() != len(values) {
			t.Fatalf("%d entries, want %d", l.len(), len(values))
		}
	}
}
