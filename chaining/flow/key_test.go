package flow

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// hashWords is the hash as BPF computes it: from the bytes, word by word.
func hashWords(b [KeySize]byte) uint64 {
	word := func(i int) uint64 { return binary.LittleEndian.Uint64(b[i:]) }
	port := func(i int) uint64 { return uint64(binary.LittleEndian.Uint16(b[i:])) }
	src := Mix(Mix(word(0)^port(32)) ^ word(8))
	dst := Mix(Mix(word(16)^port(34)) ^ word(24))
	return Mix(src + dst + uint64(b[36]))
}

func TestHash(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var buckets [16]int
	for range 16000 {
		k := Key{SrcPort: uint16(rng.Uint32()), DstPort: 443, Proto: ProtoTCP, Zone: uint16(rng.Uint32())}
		k.Src = netip.AddrFrom4([4]byte{10, 0, byte(rng.Uint32()), byte(rng.Uint32())}).As16()
		k.Dst = netip.MustParseAddr("2001:db8::1").As16()
		r := k.Reverse(3)
		if k.Hash() != r.Hash() || k.Hash() != hashWords(k.Bytes()) {
			t.Fatalf("%v: hash %x, of the answers %x, by bytes %x", k, k.Hash(), r.Hash(), hashWords(k.Bytes()))
		}
		if r.Zone != 3 || r.Reverse(k.Zone) != k {
			t.Fatalf("%v reversed twice is %v", k, r.Reverse(k.Zone))
		}
		k.SrcPort, k.DstPort = k.DstPort, k.SrcPort
		if k.Hash() == r.Hash() && k.SrcPort != k.DstPort {
			t.Fatalf("%v: swapped ports hash alike", k)
		}
		buckets[k.Hash()%16]++
	}
	for i, n := range buckets {
		if n < 800 || n > 1200 {
			t.Errorf("bucket %d has %d of 16000 flows", i, n)
		}
	}
}

// ip4 makes an IPv4 packet; frag are its flags and offset.
func ip4(proto byte, frag uint16, payload []byte) []byte {
	b := make([]byte, 20, 20+len(payload))
	b[0], b[1], b[8], b[9] = 0x45, 46<<2, 64, proto
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	binary.BigEndian.PutUint16(b[6:], frag)
	copy(b[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	return append(b, payload...)
}

func ip6(next byte, payload []byte) []byte {
	b := make([]byte, 40, 40+len(payload))
	b[0], b[1] = 0x6b, 0x80 // DSCP 46
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7], b[23], b[39] = next, 64, 1, 2
	return append(b, payload...)
}

func TestParse(t *testing.T) {
	tcp := make([]byte, 20)
	copy(tcp, []byte{0x10, 0x00, 0x01, 0xbb})
	tcp[13] = 2
	udp := []byte{0x10, 0, 0, 53, 0, 8, 0, 0}
	echo := []byte{8, 0, 0, 0, 0xab, 0xcd, 0, 1}
	unreachable := append([]byte{3, 4, 0, 0, 0, 0, 5, 0}, ip4(ProtoUDP, 0, udp)...)
	hop := append([]byte{ProtoUDP, 0, 0, 0, 0, 0, 0, 0}, udp...)
	frag6 := func(off uint16) []byte {
		return append([]byte{ProtoUDP, 0, byte(off >> 8), byte(off), 0, 0, 0, 1}, udp...)
	}
	for _, c := range []struct {
		name       string
		in         []byte
		ok         bool
		proto      byte
		src, dst   uint16
		frag, late bool
		err        bool
	}{
		{name: "tcp", in: ip4(ProtoTCP, 0x4000, tcp), ok: true, proto: ProtoTCP, src: 4096, dst: 443},
		{name: "udp over IPv6", in: ip6(ProtoUDP, udp), ok: true, proto: ProtoUDP, src: 4096, dst: 53},
		{name: "hop-by-hop options", in: ip6(0, hop), ok: true, proto: ProtoUDP, src: 4096, dst: 53},
		{name: "first fragment", in: ip4(ProtoUDP, 0x2000, udp), ok: true, proto: ProtoUDP, src: 4096, dst: 53, frag: true},
		{name: "later fragment", in: ip4(ProtoUDP, 10, udp), ok: true, proto: ProtoUDP, frag: true, late: true},
		{name: "first fragment of IPv6", in: ip6(44, frag6(1)), ok: true, proto: ProtoUDP, src: 4096, dst: 53, frag: true},
		{name: "later fragment of IPv6", in: ip6(44, frag6(8)), ok: true, proto: ProtoUDP, frag: true, late: true},
		{name: "echo", in: ip4(ProtoICMP, 0, echo), ok: true, proto: ProtoICMP, src: 0xabcd, dst: 0xabcd},
		{name: "unreachable", in: ip4(ProtoICMP, 0, unreachable), ok: true, proto: ProtoUDP, src: 53, dst: 4096, err: true},
		{name: "another protocol", in: ip4(47, 0, nil), ok: true, proto: 47},
		{name: "tcp cut off", in: ip4(ProtoTCP, 0, tcp[:19])},
		{name: "udp cut off", in: ip4(ProtoUDP, 0, udp[:7])},
		{name: "length beyond the bytes", in: ip4(ProtoUDP, 0, udp)[:27]},
		{name: "IPv6 beyond the bytes", in: ip6(ProtoUDP, udp)[:47]},
		{name: "options beyond the packet", in: ip6(0, []byte{17, 9, 0, 0, 0, 0, 0, 0})},
		{name: "header of 16 bytes", in: append([]byte{0x44}, ip4(ProtoUDP, 0, udp)[1:]...)},
		{name: "version 5", in: append([]byte{0x55}, ip4(ProtoUDP, 0, udp)[1:]...)},
		{name: "nothing"},
	} {
		var p Packet
		if ok := Parse(c.in, &p); ok != c.ok {
			t.Errorf("%s: %v", c.name, ok)
			continue
		}
		if c.ok && (p.Proto != c.proto || p.SrcPort != c.src || p.DstPort != c.dst || p.Fragment != c.frag || p.LaterFragment != c.late || p.Error != c.err) {
			t.Errorf("%s: %+v", c.name, p)
		}
		if c.ok && p.DSCP != 46 {
			t.Errorf("%s: DSCP %d", c.name, p.DSCP)
		}
	}
}

// TestError: an ICMP error has the key of the flow that goes its way.
func TestError(t *testing.T) {
	udp := []byte{0x10, 0, 0, 53, 0, 8, 0, 0}
	var sent, err Packet
	Parse(ip4(ProtoUDP, 0, udp), &sent)
	if !Parse(ip4(ProtoICMP, 0, append([]byte{3, 4, 0, 0, 0, 0, 5, 0}, ip4(ProtoUDP, 0, udp)...)), &err) || err.Key != sent.Key.Reverse(0) {
		t.Errorf("error has %v, the packet %v", err.Key, sent.Key)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(ip4(ProtoUDP, 0, make([]byte, 8)))
	f.Add(ip6(0, make([]byte, 40)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Packet
		if Parse(b, &p) && (p.Length > len(b) || p.Payload > p.Length || (p.Payload < 0) != p.LaterFragment) {
			t.Fatalf("%+v of %d bytes", p, len(b))
		}
	})
}

func TestNoAllocations(t *testing.T) {
	b := ip4(ProtoUDP, 0, make([]byte, 8))
	var p Packet
	if n := testing.AllocsPerRun(1000, func() { Parse(b, &p); _ = p.Hash(); _ = p.Bytes() }); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}
