package nat44

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/chaining/flow"
	"github.com/meridian-mesh/meridian/chaining/function"
	ft "github.com/meridian-mesh/meridian/chaining/function/functiontest"
)

func parse(t *testing.T, b []byte) flow.Packet {
	t.Helper()
	var p flow.Packet
	if !ft.Sound(b) || !flow.Parse(b, &p) {
		t.Fatalf("%x is broken", b)
	}
	return p
}

func TestNAT(t *testing.T) {
	n, err := New([]netip.Addr{netip.MustParseAddr("203.0.113.9")})
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"udp", "tcp", "icmp"} {
		packet := func(from, to string) []byte {
			switch kind {
			case "udp":
				return ft.UDP(from, to, []byte("question"))
			case "tcp":
				return ft.TCP(from, to, ft.SYN, 7, []byte("odd"))
			}
			src, dst := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
			id := binary.BigEndian.AppendUint16([]byte{8, 0, 0, 0}, src.Port())
			return ft.IP(src.Addr(), dst.Addr(), flow.ProtoICMP, append(id, 0, 1))
		}
		r := n.Process(packet("10.0.0.1:4000", "198.51.100.1:4000"), function.Forward, 0)
		p := parse(t, r.Packet)
		if got := p.Source().String(); got != "203.0.113.9:4000" || p.Destination().String() != "198.51.100.1:4000" {
			t.Errorf("%s went out from %s to %v", kind, got, p.Destination())
		}
		// Another inner host with the same port gets another one, of the same parity.
		r = n.Process(packet("10.0.0.2:4000", "198.51.100.1:4000"), function.Forward, 0)
		p = parse(t, r.Packet)
		if p.SrcPort == 4000 || p.SrcPort%2 != 0 {
			t.Errorf("%s: second host got port %d", kind, p.SrcPort)
		}
		back := packet("198.51.100.1:4000", p.Source().String())
		if kind == "icmp" {
			back = packet(fmt.Sprintf("198.51.100.1:%d", p.SrcPort), "203.0.113.9:1")
		}
		r = n.Process(back, function.Back, time.Second)
		if p = parse(t, r.Packet); p.Destination().String() != "10.0.0.2:4000" {
			t.Errorf("%s came back to %v", kind, p.Destination())
		}
		if r = n.Process(packet("192.0.2.66:4000", "203.0.113.9:4000"), function.Back, time.Second); r.Drop != "no-mapping" {
			t.Errorf("%s from a stranger: %q", kind, r.Drop)
		}
		if r = n.Process(packet("198.51.100.1:4000", "203.0.113.9:4000"), function.Back, 3*time.Hour); r.Drop != "no-mapping" {
			t.Errorf("%s after hours: %q", kind, r.Drop)
		}
	}
}

// TestErrors: the quoted packet is translated too.
func TestErrors(t *testing.T) {
	n, _ := New([]netip.Addr{netip.MustParseAddr("203.0.113.9")})
	out := n.Process(ft.UDP("10.0.0.1:4000", "198.51.100.1:53", nil), function.Forward, 0).Packet
	icmp := append([]byte{3, 4, 0, 0, 0, 0, 5, 0}, out...)
	r := n.Process(ft.IP(netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("203.0.113.9"), flow.ProtoICMP, icmp), function.Back, 0)
	p := parse(t, r.Packet)
	if !p.Error || p.Destination().String() != "10.0.0.1:4000" || netip.AddrFrom4([4]byte(r.Packet[16:20])).String() != "10.0.0.1" {
		t.Errorf("error is for %v: %x", p.Destination(), r.Packet)
	}
	if function.Checksum16(0, r.Packet[28:48]) != 0xffff {
		t.Error("the quoted header's checksum is wrong")
	}
	other := append([]byte{3, 4, 0, 0, 0, 0, 5, 0}, ft.UDP("203.0.113.9:4001", "198.51.100.1:53", nil)...)
	if r = n.Process(ft.IP(netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("203.0.113.9"), flow.ProtoICMP, other), function.Back, 0); r.Drop != "unrelated-error" {
		t.Errorf("error about nothing: %q", r.Drop)
	}
}

// TestPorts: all ports of an address can be used, and none twice.
func TestPorts(t *testing.T) {
	n, _ := New([]netip.Addr{netip.MustParseAddr("203.0.113.9")})
	seen := map[uint16]bool{}
	for i := range 64512 {
		m := n.outbound(endpoint{[4]byte{10, 1, byte(i >> 8), byte(i)}, 5000, flow.ProtoUDP}, 0)
		if m == nil || seen[m.outer.port] || m.outer.port < firstPort {
			t.Fatalf("host %d: %+v", i, m)
		}
		m.until = time.Minute
		seen[m.outer.port] = true
		if i == 3000 {
			// The search is linear: the rest is filled in by hand to keep the test short.
			for port := firstPort; port < 65535; port++ {
				e := endpoint{m.outer.addr, uint16(port), flow.ProtoUDP}
				if n.in[e] == nil {
					n.in[e] = &mapping{}
				}
			}
			break
		}
	}
	if m := n.outbound(endpoint{[4]byte{10, 2, 0, 1}, 5000, flow.ProtoUDP}, 0); m == nil || m.outer.port != 65535 {
		t.Errorf("the last port was not found: %+v", m)
	}
	if r := n.Process(ft.UDP("10.3.0.1:5000", "198.51.100.1:53", nil), function.Forward, 0); r.Drop != "no-port" {
		t.Errorf("without ports: %q", r.Drop)
	}
}
