package soft

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"time"

	"github.com/meridian-mesh/meridian/chaining/flow"
	"github.com/meridian-mesh/meridian/chaining/nsh"
	"github.com/meridian-mesh/meridian/chaining/path"
)

// Sizes of what is put before a packet, in bytes.
const (
	ethSize = 14
	// Headroom is how much longer than the frame that came in the one that goes out
	// can be: an outer IPv6 with UDP and GPE, and the longest NSH.
	Headroom = 40 + 8 + nsh.GPESize + nsh.MaxSize
)

const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
)

// maxBranches bounds how often one packet is classified again at one node.
const maxBranches = 4

// Limits bound what a forwarder remembers.
type Limits struct {
	// Flows and Returns are numbers of entries. Defaults 65,536.
	Flows, Returns int
}

// Forwarder forwards by a table. Use New.
type Forwarder struct {
	table *path.Table
	// functions are those of the table, by names that stay.
	functions []uint64
	// flows are those classified here, or learned at a path's end.
	flows *lru[flow.Key, uint32]
	// returns are packets that are in functions of StateFlow.
	returns   *lru[returnKey, path.Hop]
	integrity *Integrity
	counters  Counters
	packet    flow.Packet
}

// returnKey names a function by what stays the same when tables change.
type returnKey struct {
	function uint64
	key      flow.Key
}

// Result is what became of a frame.
type Result struct {
	Verdict path.Verdict
	// Reason is why it was dropped, for VerdictDrop.
	Reason path.Reason
	// Port is where the frame goes out: an index into the table's ports, or NoPort.
	Port uint16
	// Hop is the entry that decided; its SPI is 0 where none did.
	Hop path.Hop
	// Frame is what goes out: part of the buffer given to Forward, of the frame that
	// came in where it is unchanged, nil for a drop.
	Frame []byte
}

// New makes a forwarder. integrity may be nil: packets at borders are then dropped.
func New(t *path.Table, limits Limits, integrity *Integrity) *Forwarder {
	if limits.Flows == 0 {
		limits.Flows = 1 << 16
	}
	if limits.Returns == 0 {
		limits.Returns = 1 << 16
	}
	f := &Forwarder{
		flows:     newLRU[flow.Key, uint32](limits.Flows),
		returns:   newLRU[returnKey, path.Hop](limits.Returns),
		integrity: integrity,
		counters:  Counters{Hops: make(map[path.Hop]HopCount)},
	}
	f.Swap(t)
	return f
}

// Swap puts another table in force. Flows keep their paths as far as the table
// still has them, and packets in functions find their way back.
func (f *Forwarder) Swap(t *path.Table) {
	f.table, f.functions = t, f.functions[:0]
	for _, r := range t.Functions {
		h := fnv.New64a()
		_, _ = h.Write([]byte(r.Function + "\x00" + r.Instance)) // a hash never fails
		f.functions = append(f.functions, h.Sum64())
	}
}

// functionOf names a function of the table, or of one that names none by its index.
func (f *Forwarder) functionOf(i uint16) uint64 {
	if int(i) < len(f.functions) {
		return f.functions[i]
	}
	return uint64(i)
}

// Table is the one in force.
func (f *Forwarder) Table() *path.Table { return f.table }

// turn is the work on one frame.
type turn struct {
	*Forwarder
	in  []byte // the frame
	out []byte // the caller's buffer
	// ip is the plain packet with all bytes behind it, head its NSH: nil for a packet
	// that has none yet.
	ip   []byte
	head nsh.Header
	now  time.Time
	res  Result
}

// Forward says what becomes of a frame that came in on a port. out must have room
// for len(frame) + [Headroom] bytes. now is for integrity only. The frame may be
// changed. The result's frame is valid until frame or out is used again. Forward
// does not allocate but where a table of its own still grows.
func (f *Forwarder) Forward(port uint16, frame []byte, out []byte, now time.Time) Result {
	t := turn{Forwarder: f, in: frame, out: out, now: now}
	t.res.Port = path.NoPort
	t.receive(port)
	f.counters.count(&t.res, len(frame))
	return t.res
}

func (t *turn) drop(r path.Reason) {
	t.res.Verdict, t.res.Reason, t.res.Port, t.res.Frame = path.VerdictDrop, r, path.NoPort, nil
}

func (t *turn) pass() {
	t.res.Verdict, t.res.Frame = path.VerdictPass, t.in
}

func (t *turn) receive(port uint16) {
	if int(port) >= len(t.table.Ports) || len(t.in) < ethSize {
		t.drop(path.ReasonMalformed)
		return
	}
	p := &t.table.Ports[port]
	ether := binary.BigEndian.Uint16(t.in[12:])
	isIP := ether == etherIPv4 || ether == etherIPv6
	switch p.Role {
	case path.RoleIngress:
		switch {
		case ether == nsh.EtherType:
			// Headers are made inside the domain only (RFC 8300 8.1).
			t.drop(path.ReasonMalformed)
		case !isIP, linkScope(t.in[ethSize:]):
			t.pass()
		case !t.plain(t.in[ethSize:], ether):
			t.drop(path.ReasonMalformed)
		default:
			t.classify(port, p)
		}
	case path.RolePlain:
		switch {
		case !isIP, linkScope(t.in[ethSize:]):
			t.pass()
		case !t.plain(t.in[ethSize:], ether):
			t.drop(path.ReasonMalformed)
		case forNode(p, t.packet.Version, t.ip):
			t.pass() // The answer to a probe.
		default:
			t.comeBack(p)
		}
	case path.RoleAware:
		switch {
		case ether == nsh.EtherType:
			t.header(p, t.in[ethSize:])
		case isIP:
			t.tunnel(p, ether)
		default:
			t.pass()
		}
	case path.RoleUnderlay:
		switch {
		case ether == nsh.EtherType:
			t.drop(path.ReasonMalformed)
		case isIP:
			t.tunnel(p, ether)
		default:
			t.pass()
		}
	}
}

// linkScope reports whether an IP packet belongs to its link: multicast, link-local
// addresses and neighbour discovery (RFC 4861), without which no port works.
func linkScope(b []byte) bool {
	switch {
	case len(b) >= ip4Size && b[0]>>4 == 4:
		return b[16] >= 224
	case len(b) >= ip6Size && b[0]>>4 == 6:
		local := func(a []byte) bool { return a[0] == 0xfe && a[1]&0xc0 == 0x80 }
		if b[24] == 0xff || local(b[8:]) || local(b[24:]) {
			return true
		}
		return b[6] == flow.ProtoICMPv6 && b[7] == 255 && len(b) > ip6Size && b[ip6Size] >= 133 && b[ip6Size] <= 137
	}
	return false
}

// forNode reports whether an IP packet that was read is for the node itself.
func forNode(p *path.Port, version uint8, ip []byte) bool {
	if version == 4 {
		return p.Address.Is4() && p.Address.As4() == [4]byte(ip[16:20])
	}
	return p.Address6.IsValid() && p.Address6.As16() == [16]byte(ip[24:40])
}

// plain reads the IP packet at the beginning of b and reports whether it is whole
// and of the family that its frame says.
func (t *turn) plain(b []byte, ether uint16) bool {
	t.ip = b
	if !flow.Parse(b, &t.packet) {
		return false
	}
	return (t.packet.Version == 4) == (ether == etherIPv4)
}

// comeBack finds the hop of a plain packet that a function gives back and goes on
// with the next.
func (t *turn) comeBack(p *path.Port) {
	hop, ok := path.Hop{}, false
	switch p.State {
	case path.StateInterface:
		hop, ok = p.Fixed, true
	case path.StateMAC:
		hop, ok = hopOfMAC(t.in[6:12])
	case path.StateFlow:
		hop, ok = t.returns.get(returnKey{t.functionOf(p.Function), t.packet.Key})
	}
	if !ok {
		t.drop(path.ReasonState)
		return
	}
	t.res.Hop = hop
	if hop.SI == 0 {
		t.drop(path.ReasonSIUnderflow)
		return
	}
	hop.SI--
	t.dispatch(hop)
}

// header takes a packet with NSH in b on its way.
func (t *turn) header(p *path.Port, b []byte) {
	h, payload, err := nsh.Parse(b)
	if err != nil {
		t.drop(reasonOf(err))
		return
	}
	t.res.Hop = path.Hop{SPI: h.SPI(), SI: h.SI()}
	if h.OAM() {
		if h.Next() != nsh.NextActiveOAM {
			t.drop(path.ReasonOAM)
			return
		}
		t.res.Verdict, t.res.Frame = path.VerdictPunt, t.in
		return
	}
	if p.Border {
		if h, err = t.integrity.Check(h, payload, t.now); err != nil {
			t.drop(path.ReasonIntegrity)
			return
		}
	}
	// TTL comes before the lookup (RFC 8300 2.2).
	if h.Forward() != nil {
		t.drop(path.ReasonTTL)
		return
	}
	var ether uint16
	switch h.Next() {
	case nsh.NextIPv4:
		ether = etherIPv4
	case nsh.NextIPv6:
		ether = etherIPv6
	default:
		t.drop(path.ReasonProtocol)
		return
	}
	if !t.plain(payload, ether) {
		if len(payload) > 0 && payload[0]>>4 != 4 && ether == etherIPv4 || len(payload) > 0 && payload[0]>>4 != 6 && ether == etherIPv6 {
			t.drop(path.ReasonProtocol)
		} else {
			t.drop(path.ReasonMalformed)
		}
		return
	}
	t.head = h
	t.dispatch(t.res.Hop)
}

func reasonOf(err error) path.Reason {
	switch {
	case errors.Is(err, nsh.ErrVersion):
		return path.ReasonVersion
	case errors.Is(err, nsh.ErrLength):
		return path.ReasonLength
	case errors.Is(err, nsh.ErrMDType):
		return path.ReasonMDType
	default:
		return path.ReasonMalformed
	}
}

// dispatch sends the packet to the next hop of (SPI, SI).
func (t *turn) dispatch(hop path.Hop) {
	for range maxBranches + 1 {
		t.res.Hop = hop
		next, ok := t.table.Hops[hop]
		if !ok {
			t.drop(path.ReasonUnknownPath)
			return
		}
		if next.Kind != path.KindBranch {
			t.send(hop, &next)
			return
		}
		if hop, ok = t.branch(hop, &next); !ok {
			return
		}
	}
	t.drop(path.ReasonLoop)
}

func (t *turn) send(hop path.Hop, next *path.NextHop) {
	t.res.Port = next.Port
	switch next.Kind {
	case path.KindPlain:
		src := next.SrcMAC
		switch next.State {
		case path.StateMAC:
			src = macOfHop(hop)
		case path.StateFlow:
			key := t.packet.Key
			key.Zone = 0 // Inside a function there are none.
			t.returns.put(returnKey{t.functionOf(next.Function), key}, hop)
		}
		t.res.Verdict = path.VerdictPlain
		t.bare(src, next.DstMAC)
	case path.KindEnd:
		if next.Reverse != 0 && !t.packet.Error && !t.packet.LaterFragment {
			// Behind a NAT the answers have a tuple that only this packet tells.
			t.flows.put(t.packet.Key.Reverse(next.ReverseZone), next.Reverse)
		}
		t.res.Verdict = path.VerdictEnd
		t.bare(next.SrcMAC, next.DstMAC)
	case path.KindEther:
		t.res.Verdict = path.VerdictEther
		b := t.ethernet(next.SrcMAC, next.DstMAC, nsh.EtherType)
		n := t.nshInto(b[ethSize:], hop, next.Metadata)
		t.res.Frame = b[:ethSize+n+copy(b[ethSize+n:], t.ip)]
	case path.KindGPE:
		t.res.Verdict = path.VerdictGPE
		t.encapsulate(hop, next)
	case path.KindNode:
		t.res.Verdict = path.VerdictNode
		t.encapsulate(hop, next)
	default:
		t.drop(path.ReasonUnknownPath)
	}
}

// hopOfMAC reads a source address of StateMAC.
func hopOfMAC(mac []byte) (path.Hop, bool) {
	if mac[0] != 0x02 || mac[1] != 0x5f {
		return path.Hop{}, false
	}
	return path.Hop{SPI: uint32(mac[2])<<16 | uint32(mac[3])<<8 | uint32(mac[4]), SI: mac[5]}, true
}

// macOfHop is a locally administered address that says where on a path the packet is.
func macOfHop(h path.Hop) path.MAC {
	return path.MAC{0x02, 0x5f, byte(h.SPI >> 16), byte(h.SPI >> 8), byte(h.SPI), h.SI}
}
