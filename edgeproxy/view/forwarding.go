package view

import (
	"net/netip"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Forwarding is what a listener's requests tell backends of the way they came.
type Forwarding struct {
	// Pseudonym is this proxy in Via; Via and Via2 are the lines it adds to requests
	// that came by HTTP/1.1 and HTTP/2.
	Pseudonym, Via, Via2 []byte
	// Forwarded says to send Forwarded too.
	Forwarded bool

	trusted []netip.Prefix
	hops    int
}

func newForwarding(m *mesh.Forwarding) Forwarding {
	f := Forwarding{Pseudonym: []byte(m.Via), Via: []byte("1.1 " + m.Via), Via2: []byte("2.0 " + m.Via), Forwarded: m.Forwarded, hops: m.TrustedHops}
	for _, n := range m.TrustedNetworks {
		if p, err := netip.ParsePrefix(n); err == nil { // as validated
			f.trusted = append(f.trusted, p)
		}
	}
	return f
}

func slowClients(m *mesh.SlowClients) SlowClients {
	s := SlowClients{MinBytesPerSecond: mesh.DefaultMinBytesPerSecond}
	if m == nil {
		return s
	}
	if m.Grace != nil {
		s.Grace = time.Duration(*m.Grace)
	}
	if m.MinBytesPerSecond != nil {
		s.MinBytesPerSecond = int64(*m.MinBytesPerSecond)
	}
	return s
}

// Trusts reports whether what a peer says of the way so far is kept.
func (f *Forwarding) Trusts(peer netip.Addr) bool {
	return f.hops > 0 && len(f.trusted) == 0 || f.within(peer.Unmap())
}

// FindsClients reports whether clients may be behind the peer: it is trusted, so
// that [Forwarding.Client] can tell.
func (f *Forwarding) FindsClients(peer netip.Addr) bool {
	return (f.hops > 0 || len(f.trusted) > 0) && f.Trusts(peer)
}

func (f *Forwarding) within(peer netip.Addr) bool {
	for _, p := range f.trusted {
		if p.Contains(peer) {
			return true
		}
	}
	return false
}
