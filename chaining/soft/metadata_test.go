package soft

import (
	"net/netip"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/chaining/flow"
	"github.com/meridian-mesh/meridian/chaining/nsh"
	"github.com/meridian-mesh/meridian/chaining/path"
)

// Metadata is on every header that is put on a packet of the path: for the first function
// that knows NSH, and again behind one that knows none. What a function makes of it stays
// until then, and it crosses a site's border.
func TestMetadata(t *testing.T) {
	const server, aware, unaware, ether, border = 1, 2, 3, 4, 5
	const told = "gold"
	local, remote := netip.MustParseAddr("10.9.1.1"), netip.MustParseAddr("10.9.1.2")
	table := &path.Table{
		Ports: []path.Port{
			{Interface: "client0", Role: path.RoleIngress}, {Interface: "server0", Role: path.RoleIngress},
			{Interface: "gpe0", Role: path.RoleAware, Address: local}, {Interface: "flow0", Role: path.RolePlain, Function: 1, State: path.StateFlow},
			{Interface: "ether0", Role: path.RoleAware, Function: 2}, {Interface: "border0", Role: path.RoleUnderlay, Address: local, Border: true},
		},
		Functions: []path.FunctionRef{{Function: "f", Instance: "a"}, {Function: "f", Instance: "b"}, {Function: "f", Instance: "c"}},
		Classes:   []path.Class{{Chain: "default/c", Spread: []uint32{1}}},
		Rules:     []path.Rule{{Port: 0, Proto: flow.ProtoUDP, SrcPort: path.AnyPort, DstPort: path.AnyPort, DSCP: path.AnyDSCP}},
		Hops: map[path.Hop]path.NextHop{
			{SPI: 1, SI: 255}: {Kind: path.KindGPE, Port: aware, Local: local, Remote: remote, Metadata: told},
			{SPI: 1, SI: 254}: {Kind: path.KindPlain, Port: unaware, Function: 1, State: path.StateFlow},
			{SPI: 1, SI: 253}: {Kind: path.KindEther, Port: ether, Function: 2, Metadata: told},
			{SPI: 1, SI: 252}: {Kind: path.KindNode, Port: border, Local: local, Remote: remote, Border: true, Metadata: told},
		},
		Paths: map[uint32]path.Live{1: {MTU: 1400}},
	}
	in, err := NewIntegrity([]Key{{ID: "k", Secret: make([]byte, 32)}}, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	f := New(table, Limits{}, in)
	step := func(port uint16, frame []byte, want path.Verdict) []byte {
		t.Helper()
		r := f.Forward(port, frame, make([]byte, 2048), epoch)
		if r.Verdict != want {
			t.Fatalf("%v for %v, want %v", r.Verdict, r.Reason, want)
		}
		return r.Frame
	}
	read := func(b []byte) nsh.Header {
		t.Helper()
		h, _, err := nsh.Parse(b)
		if err != nil {
			t.Fatalf("%x: %v", b, err)
		}
		return h
	}
	says := func(h nsh.Header, want string) {
		t.Helper()
		if v, ok, err := h.Find(nsh.ClassMeridian, nsh.TypeMetadata); string(v) != want || !ok || err != nil {
			t.Errorf("header %x says %q, %v, %v, want %q", h, v, ok, err, want)
		}
	}
	const gpe = 14 + 20 + 8 + nsh.GPESize
	frame := step(0, udp("10.1.0.2", "10.2.0.2", 4000, 53, 100), path.VerdictGPE)
	h := read(frame[gpe:])
	says(h, told)

	// The function serves, changes the text and gives the packet back.
	if err := h.Serve(); err != nil {
		t.Fatal(err)
	}
	copy(h[12:], "lead")
	copy(frame[14+12:], []byte{10, 9, 1, 2, 10, 9, 1, 1})
	frame = step(aware, frame, path.VerdictPlain)
	frame = step(unaware, frame, path.VerdictEther)
	h = read(frame[14:])
	says(h, told)

	if err := h.Serve(); err != nil {
		t.Fatal(err)
	}
	copy(h[12:], "tin.")
	frame = step(ether, frame, path.VerdictNode)
	protected := read(frame[gpe:])
	says(protected, "tin.")
	if got, err := in.Check(protected, frame[gpe+len(protected):], epoch); err != nil {
		t.Error(err)
	} else {
		says(got, "tin.")
	}
}
