// Package netns gives tests several sites on one machine that are as apart as on
// several: each has a network namespace of its own, its only way out a TUN device
// that leads into a userspace WAN (package link), and its processes are the real
// binaries. It needs root; tests that use it carry the build tag root.
package netns

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/meridian-mesh/meridian/internal/nstest"
	"github.com/meridian-mesh/meridian/testbed/link"
	"github.com/meridian-mesh/meridian/testbed/reactor"
)

// Network is a number of places and the lines between them.
type Network struct {
	Wan    *link.Wan
	Places []*Place
}

// Place is one namespace and its address.
type Place struct {
	*nstest.Namespace
	Addr netip.Addr
	net  *Network
}

// New makes places of the given names, joined by lines of one shape. All of it goes
// when the test ends.
func New(t testing.TB, seed uint64, shape link.Shape, names ...string) *Network {
	t.Helper()
	var namespaces []*nstest.Namespace
	for _, name := range names {
		namespaces = append(namespaces, nstest.New(t, name))
	}
	loop, err := reactor.New()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- loop.Run(ctx) }()
	n := &Network{Wan: link.NewWan(loop, seed)}
	t.Cleanup(func() {
		n.Wan.Close()
		stop()
		if err := <-done; err != nil {
			t.Errorf("wan: %v", err)
		}
	})
	for i, ns := range namespaces {
		p := &Place{ns, netip.AddrFrom4([4]byte{10, 99, 0, byte(i + 1)}), n}
		err := ns.Do(func() error {
			fd, err := link.OpenTUN("wan")
			if err != nil {
				return err
			}
			return n.Wan.Attach(p.Addr, fd)
		})
		if err != nil {
			t.Fatal(err)
		}
		ns.IP(fmt.Sprintf("addr add %s/24 dev wan", p.Addr))
		ns.IP("link set wan mtu 1400 up")
		n.Places = append(n.Places, p)
	}
	for _, a := range n.Places {
		for _, b := range n.Places {
			if a != b {
				n.Wan.Shape(a.Addr, b.Addr, shape)
			}
		}
	}
	return n
}

// CutTo cuts the line to another place in that direction only, or heals it.
func (p *Place) CutTo(other *Place, cut bool) {
	p.net.Wan.Change(p.Addr, other.Addr, func(s *link.Shape) { s.Cut = cut })
}

// Partition cuts a place off from all others in both directions, or heals that.
func (p *Place) Partition(cut bool) {
	for _, other := range p.net.Places {
		if other != p {
			p.CutTo(other, cut)
			other.CutTo(p, cut)
		}
	}
}
