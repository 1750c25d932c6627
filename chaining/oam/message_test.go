package oam

import (
	"net/netip"
	"testing"
	"time"
)

func TestMessage(t *testing.T) {
	m := &Message{Type: Request, Code: CodeTTL, Handle: 7, Sequence: 9, Sent: time.Unix(5, 6), ReplyTo: netip.MustParseAddrPort("[2001:db8::1]:4000"),
		Node: "a", Function: "firewall", Instance: "fw-0"}
	h, got, err := ParseDatagram(m.Datagram(3, 0x800001, 254, 5))
	if err != nil || *got != *m {
		t.Fatalf("%+v became %+v, %v", m, got, err)
	}
	if h.SPI() != 0x800001 || h.SI() != 254 || h.TTL() != 5 || !h.OAM() {
		t.Errorf("header %x", []byte(h))
	}
}

func FuzzParse(f *testing.F) {
	f.Add((&Message{Type: Reply, Node: "a", ReplyTo: netip.MustParseAddrPort("10.0.0.1:1")}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		again, err := Parse(m.Append(nil))
		if err != nil || len(m.Node) < 253 && len(m.Function) < 253 && len(m.Instance) < 253 && *again != *m {
			t.Fatalf("%+v became %+v, %v", m, again, err)
		}
	})
}
