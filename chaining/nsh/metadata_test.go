package nsh

import (
	"testing"
)

// TestPutMetadata: whatever the text, the header is as long as one of MD type 1 and every
// byte of its context is read by who reads context headers.
func TestPutMetadata(t *testing.T) {
	const text = "twelve bytes and more"
	for n := range len(text) + 1 {
		b := make([]byte, MaxSize)
		for i := range b {
			b[i] = 0xaa
		}
		put := PutMetadata(b, NextIPv6, 0x123456, 200, text[:n])
		h, _, err := Parse(b[:len(put)])
		if err != nil || len(h) != MD1Size || h.MDType() != MD2 || h.Next() != NextIPv6 || h.SPI() != 0x123456 || h.SI() != 200 || h.TTL() != MaxTTL || h.OAM() {
			t.Fatalf("%d bytes: %x, %v", n, put, err)
		}
		got, ok, err := h.Find(ClassMeridian, TypeMetadata)
		if want := text[:min(n, MaxMetadata)]; string(got) != want || !ok || err != nil {
			t.Errorf("%d bytes: read %q, %v, %v, want %q", n, got, ok, err, want)
		}
		for rest := h.Context(); ; {
			c, after, more, err := NextContext(rest)
			if err != nil {
				t.Errorf("%d bytes: %x: %v", n, h, err)
			}
			if !more {
				break
			}
			if c.Type == TypePad {
				for _, v := range c.Value {
					if v != 0 {
						t.Errorf("%d bytes: padding %x", n, c.Value)
					}
				}
			}
			rest = after
		}
	}
	b := make([]byte, MaxSize)
	if n := testing.AllocsPerRun(100, func() { PutMetadata(b, NextIPv4, 1, 255, text[:9]) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
