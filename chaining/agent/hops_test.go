package agent

import (
	"context"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/chaining/host/hosttest"
	"github.com/meridian-mesh/meridian/chaining/nsh"
	"github.com/meridian-mesh/meridian/chaining/path"
)

// Paths that pass the node are told of hop by hop, with rates of what the node counts
// itself, and what others count is left to them.
func TestHopMeter(t *testing.T) {
	s := &Status{Node: "a", Paths: []path.Path{
		{Chain: "default/web", SPI: 7, Ingress: "a", Egress: "b", Stops: []path.Stop{{Function: "default/fw", Instance: "fw-1", Node: "a"}, {Function: "default/nat", Instance: "nat-1", Node: "b"}}},
		{Chain: "default/other", SPI: 9, Ingress: "c", Egress: "b", Stops: []path.Stop{{Function: "default/fw", Instance: "fw-2", Node: "c"}}},
	}}
	at := time.Unix(1000, 0)
	var m HopMeter
	var got []mesh.ChainPath
	for i := range uint64(40) { // 1,000 packets of 125 bytes a second, a tenth of them dropped
		c := &Counters{Node: "a", At: at.Add(time.Duration(i) * 500 * time.Millisecond), Probes: map[string]float64{"fw-1": 0.3, "fw-2": 9},
			Hops:   []HopCounter{{SPI: 7, SI: 255, Packets: 500 * i, Bytes: 62500 * i, Drops: 50 * i}},
			Echoes: []HopEcho{{SPI: 7, SI: 254, MS: 1.5}}, Broken: map[uint32]string{7: "behind nat-1"}}
		got, _ = m.Paths(s, c)
	}
	if len(got) != 1 || got[0].Chain != "default/web" || got[0].Broken != "behind nat-1" || len(got[0].Hops) != 3 {
		t.Fatalf("%+v", got)
	}
	fw, nat, end := got[0].Hops[0], got[0].Hops[1], got[0].Hops[2]
	near := func(a, b float64) bool { return math.Abs(a-b) < 0.01*b }
	if c := fw.Counted; fw.SI != 255 || fw.Instance != "fw-1" || c == nil || c.Packets != 19500 || c.Drops != 1950 || !near(c.PacketsPerS, 1000) || !near(c.Mbps, 1) || !near(c.DropsPerS, 100) || *fw.ProbeMS != 0.3 || fw.EchoMS != nil {
		t.Errorf("%+v %+v", fw, fw.Counted)
	}
	if nat.Node != "b" || nat.Counted != nil || nat.ProbeMS != nil || nat.EchoMS == nil || *nat.EchoMS != 1.5 {
		t.Errorf("%+v", nat)
	}
	if end.SI != 253 || end.Node != "b" || end.Function != "" || end.Instance != "" || end.ProbeMS != nil {
		t.Errorf("%+v", end)
	}
	// Counters that begin anew are no negative rate and no flood.
	got, _ = m.Paths(s, &Counters{At: at.Add(time.Minute), Hops: []HopCounter{{SPI: 7, SI: 255, Packets: 3}}})
	if c := got[0].Hops[0].Counted; c.Packets != 3 || !near(c.PacketsPerS, 1000) {
		t.Errorf("counters anew: %+v", c)
	}
	// Silence fades.
	for i := range 60 {
		got, _ = m.Paths(s, &Counters{At: at.Add(time.Minute + time.Duration(i+1)*time.Second), Hops: []HopCounter{{SPI: 7, SI: 255, Packets: 3}}})
	}
	if c := got[0].Hops[0].Counted; c.PacketsPerS > 0.001 {
		t.Errorf("nothing for a minute, and %f a second", c.PacketsPerS)
	}
}

// A node with very many paths tells of whole ones, and how many it leaves out.
func TestHopMeterBound(t *testing.T) {
	s := &Status{Node: "a"}
	for i := range 100 {
		s.Paths = append(s.Paths, path.Path{SPI: uint32(i + 1), Ingress: "a", Egress: "a", Stops: make([]path.Stop, 2)})
	}
	var m HopMeter
	got, left := m.Paths(s, &Counters{At: time.Unix(1, 0)})
	if want := mesh.MaxChainHops / 3; len(got) != want || left != 100-want || len(got[want-1].Hops) != 3 {
		t.Errorf("%d paths, %d left", len(got), left)
	}
}

// Echoes along a path of real sockets name the hops they come from, in both directions;
// behind a function that drains the path is broken, and what answered before is kept.
func TestFollowPath(t *testing.T) {
	c, err := hosttest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for i, at := range []netip.Addr{c.AddressA, c.AddressB} {
		p := &c.Plan.Paths[i]
		hops, err := followPath(ctx, p, netip.AddrPortFrom(at, nsh.GPEPort), hosttest.VNI)
		if err != nil || len(hops) != 4 {
			t.Fatalf("path %d: %v, %+v", p.SPI, err, hops)
		}
		for j, h := range hops {
			if h.SPI != p.SPI || h.SI != path.SI(j) || h.MS <= 0 {
				t.Errorf("path %d, hop %d: %+v", p.SPI, j, h)
			}
		}
	}
	c.Firewall.Drain()
	p := &c.Plan.Paths[0]
	hops, err := followPath(ctx, p, netip.AddrPortFrom(c.AddressA, nsh.GPEPort), hosttest.VNI)
	if err == nil || !strings.Contains(err.Error(), "behind fw-0 on node a") || len(hops) != 1 || hops[0].SI != 255 {
		t.Errorf("behind a function that drains: %v, %+v", err, hops)
	}
	var f followed
	f.set(p.SPI, hops, err)
	f.set(99, []HopEcho{{SPI: 99}}, nil)
	if all, broken, failed := f.all(); len(all) != 2 || !strings.Contains(broken[p.SPI], "fw-0") || broken[99] != "" || failed != 1 {
		t.Errorf("%v %v %d", all, broken, failed)
	}
	f.set(p.SPI, []HopEcho{{SPI: p.SPI, SI: 255, MS: hops[0].MS + 4}}, nil)
	if all, _, _ := f.all(); math.Abs(f.hops[p.SPI][0].MS-hops[0].MS-1) > 1e-9 || len(all) != 2 {
		t.Errorf("not smoothed: %v", all)
	}
	f.keep(map[uint32]bool{p.SPI: true})
	if all, broken, failed := f.all(); len(all) != 1 || len(broken) != 0 || failed != 1 {
		t.Errorf("after it is whole again: %v %v %d", all, broken, failed)
	}
}
