package host

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/chaining/flow"
	"github.com/meridian-mesh/meridian/chaining/function"
	"github.com/meridian-mesh/meridian/chaining/function/firewall"
	ft "github.com/meridian-mesh/meridian/chaining/function/functiontest"
	"github.com/meridian-mesh/meridian/chaining/function/tagger"
	"github.com/meridian-mesh/meridian/chaining/nsh"
	"github.com/meridian-mesh/meridian/chaining/oam"
	"github.com/meridian-mesh/meridian/chaining/path"
	"github.com/meridian-mesh/meridian/chaining/soft"
)

// loopback listens on VXLAN-GPE's port at an address of the loopback network that
// nobody uses.
func loopback(t *testing.T) (netip.Addr, *net.UDPConn) {
	t.Helper()
	for range 50 {
		b := make([]byte, 2)
		if _, err := rand.Read(b); err != nil {
			t.Fatal(err)
		}
		a := netip.AddrFrom4([4]byte{127, 77, b[0], b[1]})
		if c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, nsh.GPEPort))); err == nil {
			t.Cleanup(func() { c.Close() })
			return a, c
		}
	}
	t.Fatal("no free address in 127.77.0.0/16")
	return netip.Addr{}, nil
}

// chain is a chain firewall (aware), shaper (plain), tagger (aware) over nodes a and b.
type chain struct {
	plan     *path.Plan
	a, b     *Node
	address  netip.Addr // of node a
	out      map[string]chan []byte
	firewall *Aware
}

func start(t *testing.T) *chain {
	t.Helper()
	addrA, connA := loopback(t)
	addrB, connB := loopback(t)
	addrF, connF := loopback(t)
	addrT, connT := loopback(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 8)
	running := 0
	t.Cleanup(func() {
		cancel()
		for range running {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	run := func(f func(context.Context) error) {
		running++
		go func() { done <- f(ctx) }()
	}
	fw, err := firewall.New([]firewall.Rule{{Allow: true, Proto: flow.ProtoUDP, FromPort: 53, ToPort: 53}}, 1000)
	if err != nil {
		t.Fatal(err)
	}
	c := &chain{address: addrA, out: map[string]chan []byte{"a": make(chan []byte, 16), "b": make(chan []byte, 16)}}
	c.firewall = &Aware{Function: fw, Conn: connF}
	run(c.firewall.Run)
	run((&Aware{Function: tagger.New(), Conn: connT}).Run)

	d := &path.Domain{VNI: 9, Nodes: []path.Node{
		{Name: "a", Underlay: "under", Address: addrA, Ingress: []path.IngressPort{{Interface: "edge", Zone: 1}}},
		{Name: "b", Underlay: "under", Address: addrB, Ingress: []path.IngressPort{{Interface: "edge", Zone: 1}}}},
		Attachments: []path.Attachment{
			{Instance: "fw-0", Function: "firewall", Node: "a", Kind: path.KindGPE, Left: "fw", Local: addrA, Address: addrF},
			{Instance: "shape-0", Function: "shaper", Node: "b", Kind: path.KindPlain, State: path.StateFlow, Left: "shape"},
			{Instance: "tag-0", Function: "tagger", Node: "b", Kind: path.KindGPE, Left: "tag", Local: addrB, Address: addrT}}}
	var ins []path.Instance
	for _, a := range d.Attachments {
		ins = append(ins, path.Instance{Name: a.Instance, Function: a.Function, Node: a.Node, Slots: 1, ServiceMS: 0.1})
	}
	n, err := path.NewNetwork(nil, []path.Link{{A: "a", B: "b", LatencyMS: 1}}, ins)
	if err != nil {
		t.Fatal(err)
	}
	c.plan = path.Make(nil, []path.Spec{{Chain: "default/dns", Functions: []string{"firewall", "shaper", "tagger"}, Ingress: "a", Egress: "b",
		IngressPort: "edge", EgressPort: "edge", Symmetric: true, Matches: []path.Match{{Protos: []uint8{flow.ProtoUDP}, Dst: []path.Prefix{netip.MustParsePrefix("10.9.0.0/16")}}}}}, n)
	if len(c.plan.Paths) != 2 {
		t.Fatal(c.plan.Chains[0].Refused)
	}
	view := &path.View{Plan: c.plan}
	tables := map[string]*path.Table{}
	node := func(name string, conn *net.UDPConn) *Node {
		table, err := path.Compile(view, d, name)
		if err != nil {
			t.Fatal(err)
		}
		tables[name] = table
		under, _ := table.PortByName("under")
		n := NewNode(soft.New(table, soft.Limits{}, nil), under, conn)
		n.Deliver = func(port uint16, frame []byte) {
			if table.Ports[port].Interface == "shape" {
				// The plain function changes nothing.
				frame := bytes.Clone(frame)
				go func() {
					if _, err := n.Send(port, frame); err != nil {
						t.Error(err)
					}
				}()
				return
			}
			c.out[name] <- bytes.Clone(frame)
		}
		return n
	}
	c.a, c.b = node("a", connA), node("b", connB)
	if faults := path.Verify(view, tables); faults != nil {
		t.Fatal(faults)
	}
	run(c.a.Run)
	run(c.b.Run)
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
	if _, err := c.a.Send(0, frame(there)); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, c.out["b"]); !bytes.Equal(got[14:], there) {
		t.Fatalf("came out as %x", got)
	}
	back := ft.UDP("10.9.0.1:53", "10.0.0.1:4000", []byte("answer"))
	if _, err := c.b.Send(0, frame(back)); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, c.out["a"]); !bytes.Equal(got[14:], back) {
		t.Fatalf("answer came out as %x", got)
	}
	// The firewall sees it, so nothing comes out.
	if _, err := c.a.Send(0, frame(ft.UDP("10.0.0.1:4000", "10.9.0.1:54", nil))); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); c.firewall.Stats().Dropped != 1; {
		if time.Now().After(deadline) {
			t.Fatalf("firewall: %+v", c.firewall.Stats())
		}
		time.Sleep(time.Millisecond)
	}
	if s := c.firewall.Stats(); s.Passed != 2 {
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
		{c.plan.Paths[0].SPI, c.address, []string{"a/fw-0", "b/shape-0", "b/tag-0", "b/"}},
		{c.plan.Paths[1].SPI, c.b.forwarder.Table().Ports[c.b.Port].Address, []string{"b/tag-0", "b/shape-0", "a/fw-0", "a/"}},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		var got []string
		err := Trace(ctx, TraceConfig{Node: netip.AddrPortFrom(w.node, nsh.GPEPort), SPI: w.spi, VNI: 9, Timeout: 5 * time.Second}, func(h Hop) {
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
	c.firewall.Drain()
	var last Hop
	err := Trace(context.Background(), TraceConfig{Node: netip.AddrPortFrom(c.address, nsh.GPEPort), SPI: c.plan.Paths[0].SPI, VNI: 9, Timeout: 300 * time.Millisecond}, func(h Hop) { last = h })
	if err == nil || last.Reply == nil || last.Reply.Instance != "fw-0" {
		t.Errorf("behind a function that drains: %v, last %+v", err, last)
	}
	// A path that is not there is said to be not there.
	err = Trace(context.Background(), TraceConfig{Node: netip.AddrPortFrom(c.address, nsh.GPEPort), SPI: 999, VNI: 9, Timeout: 5 * time.Second}, func(h Hop) { last = h })
	if err == nil || last.Reply.Code != oam.CodeUnknown {
		t.Errorf("unknown path: %v, %+v", err, last.Reply)
	}
}

// TestTag: a name travels as a context header, where there is room for it.
func TestTag(t *testing.T) {
	a := &Aware{Function: namer{}}
	for _, md := range []uint8{nsh.MD1, nsh.MD2} {
		for _, word := range []byte{0, 1} {
			in := make([]byte, nsh.GPESize+nsh.MD1Size, 400)
			nsh.PutGPE(in, 1)
			h := nsh.Put(in[nsh.GPESize:], md, nsh.NextIPv4, 5, 255)
			if md == nsh.MD1 {
				h[10] = word
			}
			in = append(in[:nsh.GPESize+len(h)], ft.UDP("10.0.0.1:1", "10.0.0.2:2", nil)...)
			out := a.one(in, make([]byte, 4096), 0)
			_, rest, _ := nsh.ParseGPE(out)
			got, payload, err := nsh.Parse(rest)
			if err != nil || got.SI() != 254 || len(payload) != 28 {
				t.Fatalf("%x: %v", out, err)
			}
			tag, ok, _ := got.Find(nsh.ClassMeridian, nsh.TypeTag)
			if want := md == nsh.MD2 || word == 0; ok != want || ok && string(tag) != "name" {
				t.Errorf("MD type %d, word %d: tag %q, %v", md, word, tag, ok)
			}
		}
	}
}

type namer struct{}

func (namer) Process(b []byte, _ function.Direction, _ time.Duration) function.Result {
	return function.Result{Packet: b, Tag: "name"}
}

func ExampleHop() {
	fmt.Println(Hop{Number: 1, RTT: 1500 * time.Microsecond, Reply: &oam.Message{Node: "a", Instance: "fw-0", Function: "firewall", Code: oam.CodeTTL}})
	// Output: 1  a  firewall fw-0  1.50 ms
}
