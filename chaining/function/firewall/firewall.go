// Package firewall is a stateful packet filter: rules decide about the first packet
// of a flow, its answers follow, and TCP is followed far enough that a packet in
// the middle of a connection nobody opened does not pass. The package is pure.
package firewall

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/meridian-mesh/meridian/chaining/flow"
	"github.com/meridian-mesh/meridian/chaining/function"
)

// Rule allows or denies flows that begin in a direction; the first that matches
// decides, none denies.
type Rule struct {
	Allow     bool
	Direction function.Direction
	// Src and Dst are prefixes, invalid for any; Proto is 0 for any.
	Src, Dst netip.Prefix
	Proto    uint8
	// FromPort to ToPort are destination ports; both 0 for any.
	FromPort, ToPort uint16
}

// How long a flow is remembered without a packet.
const (
	idleEstablished = 2 * time.Hour // RFC 5382 REQ-5: not below 2 h 4 min for NATs; a filter may be shorter
	idleOpening     = 30 * time.Second
	idleClosing     = 10 * time.Second
	idleOther       = 2 * time.Minute // RFC 4787 REQ-5
)

// Firewall is the function.
type Firewall struct {
	rules  []Rule
	flows  map[flow.Key]*state
	limit  int
	sweeps time.Duration
	packet flow.Packet
}

type state struct {
	tcp     bool
	opened  bool // the answer to the first packet was seen
	fins    uint8
	until   time.Duration
	towards function.Direction // of the first packet
}

// New makes a firewall that remembers at most limit flows; more are denied.
func New(rules []Rule, limit int) (*Firewall, error) {
	if limit < 1 {
		return nil, fmt.Errorf("firewall: limit of %d flows: use at least 1", limit)
	}
	for i, r := range rules {
		if r.FromPort > r.ToPort {
			return nil, fmt.Errorf("firewall: rule %d: ports %d to %d are no range", i+1, r.FromPort, r.ToPort)
		}
		if r.ToPort != 0 && r.Proto != flow.ProtoTCP && r.Proto != flow.ProtoUDP && r.Proto != flow.ProtoSCTP {
			return nil, fmt.Errorf("firewall: rule %d: has ports but protocol %s", i+1, flow.ProtoName(r.Proto))
		}
	}
	return &Firewall{rules: rules, flows: make(map[flow.Key]*state), limit: limit}, nil
}

// Process implements function.Function.
func (f *Firewall) Process(b []byte, d function.Direction, now time.Duration) function.Result {
	p := &f.packet
	if !flow.Parse(b, p) {
		return function.Result{Drop: "malformed"}
	}
	if p.LaterFragment {
		// Without ports there is no flow; its first part alone is of no use to anybody.
		return function.Result{Drop: "fragment"}
	}
	key := canonical(&p.Key)
	s := f.flows[key]
	if s != nil && now > s.until {
		delete(f.flows, key)
		s = nil
	}
	if p.Error {
		// An error passes if it speaks of a flow that is known (RFC 5508 REQ-4).
		if s == nil {
			return function.Result{Drop: "unrelated-error"}
		}
		return function.Result{Packet: b}
	}
	if s == nil {
		if why := f.open(key, d, now); why != "" {
			return function.Result{Drop: why}
		}
		return function.Result{Packet: b}
	}
	f.follow(s, d, now)
	return function.Result{Packet: b}
}

// canonical is the same key for both directions of a flow.
func canonical(k *flow.Key) flow.Key {
	r := k.Reverse(0)
	if less(&r, k) {
		return r
	}
	c := *k
	c.Zone = 0
	return c
}

func less(a, b *flow.Key) bool {
	for i := range a.Src {
		if a.Src[i] != b.Src[i] {
			return a.Src[i] < b.Src[i]
		}
	}
	return a.SrcPort < b.SrcPort
}

func (f *Firewall) open(key flow.Key, d function.Direction, now time.Duration) string {
	p := &f.packet
	const syn, ack, rst = 2, 16, 4
	if p.Proto == flow.ProtoTCP && (p.TCPFlags&syn == 0 || p.TCPFlags&(ack|rst) != 0) {
		return "no-connection"
	}
	if !f.allowed(d) {
		return "denied"
	}
	if len(f.flows) >= f.limit {
		f.sweep(now)
		if len(f.flows) >= f.limit {
			return "full"
		}
	}
	s := &state{tcp: p.Proto == flow.ProtoTCP, towards: d, until: now + idleOther}
	if s.tcp {
		s.until = now + idleOpening
	}
	f.flows[key] = s
	return ""
}

// sweep forgets flows that are over, at most once a second: it looks at all.
func (f *Firewall) sweep(now time.Duration) {
	if now < f.sweeps {
		return
	}
	f.sweeps = now + time.Second
	for k, s := range f.flows {
		if now > s.until {
			delete(f.flows, k)
		}
	}
}

func (f *Firewall) follow(s *state, d function.Direction, now time.Duration) {
	if !s.tcp {
		s.until = now + idleOther
		return
	}
	const fin, rst = 1, 4
	s.opened = s.opened || d != s.towards
	switch {
	case f.packet.TCPFlags&rst != 0:
		s.fins = 3
	case f.packet.TCPFlags&fin != 0:
		s.fins |= 1 << d
	}
	switch {
	case s.fins == 3:
		s.until = now + idleClosing
	case s.opened:
		s.until = now + idleEstablished
	default:
		s.until = now + idleOpening
	}
}

func (f *Firewall) allowed(d function.Direction) bool {
	p := &f.packet
	src, dst := netip.AddrFrom16(p.Src).Unmap(), netip.AddrFrom16(p.Dst).Unmap()
	for i := range f.rules {
		r := &f.rules[i]
		if r.Direction != d || r.Proto != 0 && r.Proto != p.Proto ||
			r.Src.IsValid() && !r.Src.Contains(src) || r.Dst.IsValid() && !r.Dst.Contains(dst) ||
			r.ToPort != 0 && (p.DstPort < r.FromPort || p.DstPort > r.ToPort) {
			continue
		}
		return r.Allow
	}
	return false
}

// Flows is how many are remembered.
func (f *Firewall) Flows() int { return len(f.flows) }
