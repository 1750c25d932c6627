package host_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	ft "github.com/meridian-mesh/meridian/chaining/function/functiontest"
	"github.com/meridian-mesh/meridian/chaining/host"
	"github.com/meridian-mesh/meridian/chaining/host/hosttest"
	"github.com/meridian-mesh/meridian/chaining/nsh"
	"github.com/meridian-mesh/meridian/chaining/oam"
)

func start(t *testing.T) *hosttest.Chain {
	t.Helper()
	c, err := hosttest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func receive(t *testing.T, c chan []byte) []byte {
	t.Helper()
	select {
	case b := <-c:
		return b
	case <-time.After(10 * time.Second):
		t.Fatal("no packet came out")
	}
	return nil
}

func frame(packet []byte) []byte {
	return append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0}, packet...)
}

// TestChain: real sockets, two nodes, three functions, both ways.
func TestChain(t *testing.T) {
	c := start(t)
	there := ft.UDP("10.0.0.1:4000", "10.9.0.1:53", []byte("question"))
	if _, err := c.A.Send(0, frame(there)); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, c.Out["b"]); !bytes.Equal(got[14:], there) {
		t.Fatalf("came out as %x", got)
	}
	back := ft.UDP("10.9.0.1:53", "10.0.0.1:4000", []byte("answer"))
	if _, err := c.B.Send(0, frame(back)); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, c.Out["a"]); !bytes.Equal(got[14:], back) {
		t.Fatalf("answer came out as %x", got)
	}
	// The firewall sees it, so nothing comes out.
	if _, err := c.A.Send(0, frame(ft.UDP("10.0.0.1:4000", "10.9.0.1:54", nil))); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); c.Firewall.Stats().Dropped != 1; {
		if time.Now().After(deadline) {
			t.Fatalf("firewall: %+v", c.Firewall.Stats())
		}
		time.Sleep(time.Millisecond)
	}
	if s := c.Firewall.Stats(); s.Passed != 2 {
		t.Errorf("firewall: %+v", s)
	}
}

// TestTrace: each stop is seen, in both directions, and a function that drains no more.
func TestTrace(t *testing.T) {
	c := start(t)
	for _, w := range []struct {
		spi  uint32
		node netip.Addr
		want []string
	}{
		{c.Plan.Paths[0].SPI, c.AddressA, []string{"a/fw-0", "b/shape-0", "b/tag-0", "b/"}},
		{c.Plan.Paths[1].SPI, c.AddressB, []string{"b/tag-0", "b/shape-0", "a/fw-0", "a/"}},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		var got []string
		err := host.Trace(ctx, host.TraceConfig{Node: netip.AddrPortFrom(w.node, nsh.GPEPort), SPI: w.spi, VNI: hosttest.VNI, Timeout: 5 * time.Second}, func(h host.Hop) {
			got = append(got, h.Reply.Node+"/"+h.Reply.Instance)
			if h.RTT <= 0 {
				t.Errorf("hop %d took %v", h.Number, h.RTT)
			}
		})
		cancel()
		if err != nil || !slices.Equal(got, w.want) {
			t.Errorf("path %d: %v, %v, want %v", w.spi, got, err, w.want)
		}
	}
	c.Firewall.Drain()
	var last host.Hop
	err := host.Trace(context.Background(), host.TraceConfig{Node: netip.AddrPortFrom(c.AddressA, nsh.GPEPort), SPI: c.Plan.Paths[0].SPI, VNI: hosttest.VNI, Timeout: 300 * time.Millisecond}, func(h host.Hop) { last = h })
	if err == nil || last.Reply == nil || last.Reply.Instance != "fw-0" {
		t.Errorf("behind a function that drains: %v, last %+v", err, last)
	}
	// A path that is not there is said to be not there.
	err = host.Trace(context.Background(), host.TraceConfig{Node: netip.AddrPortFrom(c.AddressA, nsh.GPEPort), SPI: 999, VNI: hosttest.VNI, Timeout: 5 * time.Second}, func(h host.Hop) { last = h })
	if err == nil || last.Reply.Code != oam.CodeUnknown {
		t.Errorf("unknown path: %v, %+v", err, last.Reply)
	}
}

func ExampleHop() {
	fmt.Println(host.Hop{Number: 1, RTT: 1500 * time.Microsecond, Reply: &oam.Message{Node: "a", Instance: "fw-0", Function: "firewall", Code: oam.CodeTTL}})
	// Output: 1  a  firewall fw-0  1.50 ms
}
