package firewall

import (
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/chaining/flow"
	"github.com/meridian-mesh/meridian/chaining/function"
	ft "github.com/meridian-mesh/meridian/chaining/function/functiontest"
)

var rules = []Rule{
	{Allow: false, Proto: flow.ProtoTCP, Dst: netip.MustParsePrefix("10.9.9.0/24")},
	{Allow: true, Proto: flow.ProtoTCP, FromPort: 80, ToPort: 443},
	{Allow: true, Proto: flow.ProtoUDP, FromPort: 53, ToPort: 53, Src: netip.MustParsePrefix("10.0.0.0/8")},
}

func TestFirewall(t *testing.T) {
	const c, s = "10.0.0.1:4000", "10.9.0.1:443"
	now := time.Duration(0)
	f, err := New(rules, 100)
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		after time.Duration
		d     function.Direction
		b     []byte
		drop  string
	}{
		{0, function.Back, ft.TCP(s, c, ft.SYN|ft.ACK, 0, nil), "no-connection"},
		{0, function.Forward, ft.TCP(c, s, ft.ACK, 0, nil), "no-connection"},
		{0, function.Back, ft.TCP(s, c, ft.SYN, 0, nil), "denied"},
		{0, function.Forward, ft.TCP(c, s, ft.SYN, 0, nil), ""},
		{0, function.Back, ft.TCP(s, c, ft.SYN|ft.ACK, 0, nil), ""},
		{time.Hour, function.Forward, ft.TCP(c, s, ft.ACK, 1, []byte("x")), ""},
		{0, function.Back, ft.TCP(s, c, ft.FIN|ft.ACK, 1, nil), ""},
		{0, function.Forward, ft.TCP(c, s, ft.FIN|ft.ACK, 2, nil), ""},
		{5 * time.Second, function.Back, ft.TCP(s, c, ft.ACK, 2, nil), ""},
		{20 * time.Second, function.Back, ft.TCP(s, c, ft.ACK, 2, nil), "no-connection"},
		{0, function.Forward, ft.TCP(c, "10.9.9.1:443", ft.SYN, 0, nil), "denied"},
		{0, function.Forward, ft.TCP(c, "10.9.0.1:444", ft.SYN, 0, nil), "denied"},
		{0, function.Forward, ft.UDP("10.0.0.1:5000", "10.9.0.1:53", nil), ""},
		{0, function.Back, ft.UDP("10.9.0.1:53", "10.0.0.1:5000", nil), ""},
		{0, function.Back, ft.UDP("10.9.0.1:53", "10.0.0.1:5001", nil), "denied"},
		{3 * time.Minute, function.Back, ft.UDP("10.9.0.1:53", "10.0.0.1:5000", nil), "denied"},
		{0, function.Forward, ft.UDP("192.0.2.1:5000", "10.9.0.1:53", nil), "denied"},
		{0, function.Forward, []byte{0x45}, "malformed"},
		// A half-open connection is soon forgotten.
		{0, function.Forward, ft.TCP("10.0.0.1:4001", s, ft.SYN, 0, nil), ""},
		{time.Minute, function.Back, ft.TCP(s, "10.0.0.1:4001", ft.SYN|ft.ACK, 0, nil), "no-connection"},
	} {
		now += step.after
		if r := f.Process(step.b, step.d, now); r.Drop != step.drop || (r.Packet == nil) != (step.drop != "") {
			t.Errorf("step %d: %q, want %q", i, r.Drop, step.drop)
		}
	}
}

// TestErrors: ICMP errors pass with their flow only.
func TestErrors(t *testing.T) {
	f, _ := New(rules, 100)
	sent := ft.UDP("10.0.0.1:5000", "10.9.0.1:53", nil)
	unreachable := func(quoted []byte) []byte {
		return ft.IP(netip.MustParseAddr("10.5.0.1"), netip.MustParseAddr("10.0.0.1"), flow.ProtoICMP, append([]byte{3, 1, 0, 0, 0, 0, 0, 0}, quoted...))
	}
	if r := f.Process(unreachable(sent), function.Back, 0); r.Drop != "unrelated-error" {
		t.Errorf("error about nothing: %q", r.Drop)
	}
	f.Process(sent, function.Forward, 0)
	if r := f.Process(unreachable(sent), function.Back, 0); r.Drop != "" {
		t.Errorf("error about a flow: %q", r.Drop)
	}
}

// TestLimit: a flood fills the table and no more, and it empties again.
func TestLimit(t *testing.T) {
	f, _ := New(rules, 50)
	full := 0
	syn := func(port int) []byte {
		return ft.TCP("10.0.0.1:"+strconv.Itoa(port), "10.9.0.1:443", ft.SYN, 0, nil)
	}
	for i := range 200 {
		if f.Process(syn(1024+i), function.Forward, time.Second).Drop == "full" {
			full++
		}
	}
	if f.Flows() != 50 || full != 150 {
		t.Errorf("%d flows, %d refused", f.Flows(), full)
	}
	if r := f.Process(syn(9000), function.Forward, time.Minute); r.Drop != "" || f.Flows() != 1 {
		t.Errorf("after a minute: %q, %d flows", r.Drop, f.Flows())
	}
}
