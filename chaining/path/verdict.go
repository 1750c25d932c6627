package path

import "fmt"

// Verdict is what a forwarder does with a packet. BPF uses the numbers.
type Verdict uint8

// Verdicts.
const (
	// VerdictPass leaves the packet to the kernel as it came: of no chain, or of one
	// that is open and has no path, or not ours.
	VerdictPass Verdict = 1 + iota
	// VerdictPlain gives the plain packet to a function, by port.
	VerdictPlain
	// VerdictGPE gives it to a function in VXLAN-GPE.
	VerdictGPE
	// VerdictEther gives it to a function as Ethernet type 0x894F.
	VerdictEther
	// VerdictNode sends it to another node in VXLAN-GPE.
	VerdictNode
	// VerdictEnd lets the plain packet go on, done with its path.
	VerdictEnd
	// VerdictAnswer sends an ICMP "fragmentation needed" or "packet too big" back
	// by the port it came in on.
	VerdictAnswer
	// VerdictPunt hands an active OAM packet (RFC 9516) to the agent as it came.
	VerdictPunt
	// VerdictDrop drops it, for a Reason.
	VerdictDrop

	// VerdictCount is one more than the last.
	VerdictCount
)

var verdictNames = [...]string{
	VerdictPass: "pass", VerdictPlain: "plain", VerdictGPE: "gpe", VerdictEther: "ether", VerdictNode: "node",
	VerdictEnd: "end", VerdictAnswer: "answer", VerdictPunt: "punt", VerdictDrop: "drop",
}

// String is the verdict's name in metrics and traces.
func (v Verdict) String() string {
	if int(v) < len(verdictNames) && verdictNames[v] != "" {
		return verdictNames[v]
	}
	return fmt.Sprintf("verdict-%d", uint8(v))
}

// Reason is why a packet was dropped. BPF uses the numbers.
type Reason uint8

// Reasons. The sections are RFC 8300's.
const (
	ReasonNone Reason = iota
	// ReasonMalformed is a frame or packet that ends before its headers do, or an
	// outer header that is not what its port carries.
	ReasonMalformed
	// ReasonVersion is an NSH of a version other than 0 (2.2).
	ReasonVersion
	// ReasonLength is an NSH whose length does not fit its MD type (2.2).
	ReasonLength
	// ReasonMDType is MD type 0x0, 0xF or unassigned (2.2).
	ReasonMDType
	// ReasonProtocol is a next protocol other than IPv4 and IPv6, or other than the
	// packet behind it (2.2).
	ReasonProtocol
	// ReasonTTL is a TTL that has run out (2.2).
	ReasonTTL
	// ReasonOAM is an O bit on what is no active OAM packet (2.2, RFC 9451).
	ReasonOAM
	// ReasonUnknownPath is a pair (SPI, SI) without an entry (2.3).
	ReasonUnknownPath
	// ReasonSIUnderflow is an SI of 0 from which a function takes one (2.3).
	ReasonSIUnderflow
	// ReasonState is a packet from a function of which nothing is remembered.
	ReasonState
	// ReasonNoPath is a class that is closed and has no path.
	ReasonNoPath
	// ReasonTooBig is a packet that is larger than its path takes, may be fragmented,
	// and is not, or an ICMP error that is itself too large.
	ReasonTooBig
	// ReasonFragment is a later fragment whose flow cannot be known.
	ReasonFragment
	// ReasonIntegrity is a header at a site's border whose code is missing, wrong or
	// too old (RFC 9145). Only soft gives it.
	ReasonIntegrity
	// ReasonLoop is a packet that was classified again too often.
	ReasonLoop
	// ReasonGuard is a packet of a chain that would leave without having passed it.
	// Only BPF gives it.
	ReasonGuard

	// ReasonCount is one more than the last.
	ReasonCount
)

var reasonNames = [...]string{
	ReasonNone: "none", ReasonMalformed: "malformed", ReasonVersion: "version", ReasonLength: "length", ReasonMDType: "md-type",
	ReasonProtocol: "protocol", ReasonTTL: "ttl", ReasonOAM: "oam", ReasonUnknownPath: "unknown-path",
	ReasonSIUnderflow: "si-underflow", ReasonState: "state", ReasonNoPath: "no-path", ReasonTooBig: "too-big",
	ReasonFragment: "fragment", ReasonIntegrity: "integrity", ReasonLoop: "loop", ReasonGuard: "guard",
}

// String is the reason's name in metrics and traces.
func (r Reason) String() string {
	if int(r) < len(reasonNames) && reasonNames[r] != "" {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason-%d", uint8(r))
}
