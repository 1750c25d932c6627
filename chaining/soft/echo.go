package soft

import (
	"net/netip"
	"time"

	"github.com/meridian-mesh/meridian/chaining/nsh"
	"github.com/meridian-mesh/meridian/chaining/oam"
	"github.com/meridian-mesh/meridian/chaining/path"
)

// Echo is what an echo request leads to: a datagram to send.
type Echo struct {
	// To has port 0 where the datagram goes on by VXLAN-GPE's own port.
	To      netip.AddrPort
	Payload []byte
}

// Echo works on an echo request that came in as the payload of a VXLAN-GPE datagram:
// it goes on along its path, through functions that know NSH and past those that do
// not, each stop and each node taking one from TTL, and is answered where TTL or
// the path ends. ok is false for what is no request, which is dropped. It is for
// punted packets, few and off the data path, and allocates.
func (f *Forwarder) Echo(datagram []byte, now time.Time) (e Echo, ok bool) {
	h, m, err := oam.ParseDatagram(datagram)
	if err != nil || m.Type != oam.Request || !m.ReplyTo.IsValid() {
		return Echo{}, false
	}
	reply := func(code uint8, fn path.FunctionRef) (Echo, bool) {
		r := *m
		r.Type, r.Code, r.Received = oam.Reply, code, now
		r.Node, r.Function, r.Instance = f.table.Node, fn.Function, fn.Instance
		r.ReplyTo = netip.AddrPort{}
		return Echo{To: m.ReplyTo, Payload: r.Datagram(f.table.VNI, h.SPI(), h.SI(), nsh.MaxTTL)}, true
	}
	for {
		hop, there := f.table.Hops[path.Hop{SPI: h.SPI(), SI: h.SI()}]
		var fn path.FunctionRef
		local := hop.Kind == path.KindPlain || hop.Kind == path.KindGPE || hop.Kind == path.KindEther
		if there && local {
			fn = f.table.Functions[hop.Function]
		}
		switch {
		case !there:
			return reply(oam.CodeUnknown, fn)
		case hop.Kind == path.KindEnd:
			return reply(oam.CodeEnd, fn)
		case hop.Kind == path.KindNode:
			// Only stops are counted: the next node takes no TTL of its own.
			return Echo{To: netip.AddrPortFrom(hop.Remote, 0), Payload: datagram}, true
		case hop.Kind != path.KindBranch && h.Forward() != nil:
			return reply(oam.CodeTTL, fn)
		case hop.Kind == path.KindGPE:
			return Echo{To: netip.AddrPortFrom(hop.Remote, 0), Payload: datagram}, true
		}
		if h.Serve() != nil {
			return reply(oam.CodeDead, fn)
		}
	}
}
