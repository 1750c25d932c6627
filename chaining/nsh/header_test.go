package nsh

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

func TestPut(t *testing.T) {
	b := bytes.Repeat([]byte{0xee}, 40)
	h := Put(b, MD1, NextIPv4, 0x123456, FirstSI)
	// Ver 0, TTL 63, Length 6, MD type 1, IPv4; SPI and SI; four words of zeros.
	want := "0fc60101" + "123456ff" + "00000000000000000000000000000000"
	if got := hex.EncodeToString(h); got != want {
		t.Errorf("MD type 1 is %s, want %s", got, want)
	}
	if h = Put(b, MD2, NextIPv6, MaxSPI, 7); hex.EncodeToString(h) != "0fc20202"+"ffffff07" {
		t.Errorf("MD type 2 is %x", []byte(h))
	}
	if b[8] != 0 || b[24] != 0xee {
		t.Error("wrote more than the header")
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name, hex string
		err       error
		payload   int
	}{
		{"MD type 1", "0fc6010112345 6ff 00000000000000000000000000000000 45", nil, 1},
		{"MD type 1, unassigned bits", "1fc6f101123456ff00000000000000000000000000000000", nil, 0},
		{"MD type 2, no context", "0fc20201123456ff4500", nil, 2},
		{"MD type 2, one header", "0fc40201123456ff0000030401020304", nil, 0},
		{"version 1", "4fc6010112345 6ff 00000000000000000000000000000000", ErrVersion, 0},
		{"MD type 1 of length 2", "0fc20101123456ff", ErrLength, 0},
		{"MD type 1 of length 7", "0fc70101123456ff0000000000000000000000000000000000000000", ErrLength, 0},
		{"MD type 2 of length 1", "0fc10201123456ff", ErrLength, 0},
		{"MD type 0", "0fc60001123456ff00000000000000000000000000000000", ErrMDType, 0},
		{"MD type F", "0fc60f01123456ff00000000000000000000000000000000", ErrMDType, 0},
		{"cut in the base header", "0fc601", ErrShort, 0},
		{"cut in the context", "0fc6010112345 6ff 000000", ErrShort, 0},
		{"empty", "", ErrShort, 0},
	} {
		b := unhex(t, c.hex)
		h, rest, err := Parse(b)
		if !errors.Is(err, c.err) {
			t.Errorf("%s: error %v, want %v", c.name, err, c.err)
			continue
		}
		if err == nil && (len(rest) != c.payload || h.SPI() != 0x123456 || h.SI() != 0xff || h.TTL() != 63) {
			t.Errorf("%s: %x, SPI %x, SI %d, TTL %d", c.name, rest, h.SPI(), h.SI(), h.TTL())
		}
	}
}

// TestForward is the table of section 2.2: what comes in and what goes out.
func TestForward(t *testing.T) {
	for in, out := range map[uint8]uint8{0: 63, 63: 62, 2: 1, 1: 0} {
		b := make([]byte, MD1Size)
		h := Put(b, MD1, NextIPv4, 1, 255)
		// All bits around TTL are set: they must stay.
		h[0], h[1], h[2] = 0x30, 0x06, 0xf1
		h.SetTTL(in)
		err := h.Forward()
		if out == 0 {
			if !errors.Is(err, ErrTTL) {
				t.Errorf("TTL %d went on: %v", in, err)
			}
			continue
		}
		if err != nil || h.TTL() != out {
			t.Errorf("TTL %d became %d (%v), want %d", in, h.TTL(), err, out)
		}
		if h[0]&0xf0 != 0x30 || h[1]&0x3f != 6 || h[2] != 0xf1 {
			t.Errorf("bits beside TTL changed: %x", h[:4])
		}
	}
}

func TestServe(t *testing.T) {
	h := Put(make([]byte, MD1Size), MD1, NextIPv4, 5, 1)
	if err := h.Serve(); err != nil || h.SI() != 0 || h.SPI() != 5 {
		t.Errorf("SI 1 became %d of SPI %d (%v)", h.SI(), h.SPI(), err)
	}
	if err := h.Serve(); !errors.Is(err, ErrSIUnderflow) || h.SI() != 0 {
		t.Errorf("SI 0 became %d (%v)", h.SI(), err)
	}
}

func TestContext(t *testing.T) {
	b := make([]byte, MaxSize)
	h := Put(b, MD2, NextIPv4, 1, 255)
	var err error
	for _, c := range []ContextHeader{
		{ClassIETF, TypeTenant, []byte{1, 2, 3}},
		{ClassMeridian, TypeTag, nil},
		{ClassMeridian, TypeMetadata, []byte("abcd")},
	} {
		if h, err = AppendContext(b, h, c); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := hex.EncodeToString(h[8:]), "0000050301020300"+"fff60200"+"fff6010461626364"; got != want {
		t.Errorf("context is %s, want %s", got, want)
	}
	again, _, err := Parse(b)
	if err != nil || len(again) != len(h) {
		t.Fatalf("read back %d bytes, %v; wrote %d", len(again), err, len(h))
	}
	if v, ok, err := again.Find(ClassMeridian, TypeMetadata); string(v) != "abcd" || !ok || err != nil {
		t.Errorf("found %q, %v, %v", v, ok, err)
	}
	if _, ok, err := again.Find(ClassIETF, TypeFlow); ok || err != nil {
		t.Errorf("found what is not there, %v", err)
	}
	if _, err := AppendContext(b, h, ContextHeader{Value: make([]byte, 128)}); !errors.Is(err, ErrFull) {
		t.Errorf("128 bytes in seven bits of length: %v", err)
	}
	for err == nil {
		h, err = AppendContext(b, h, ContextHeader{Value: make([]byte, 60)})
	}
	if len(h) > MaxSize || !errors.Is(err, ErrFull) {
		t.Errorf("grew to %d bytes, %v", len(h), err)
	}
	// A header whose context says more than its length is broken only for who reads it.
	bad := unhex(t, "0fc40201123456ff00000308 01020304")
	h, _, err = Parse(bad)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.Find(0, 9); !errors.Is(err, ErrContext) {
		t.Errorf("context past the end: %v", err)
	}
}

func TestGPE(t *testing.T) {
	b := make([]byte, GPESize+4)
	PutGPE(b, 0xabcdef)
	if got := hex.EncodeToString(b[:8]); got != "0c000004abcdef00" {
		t.Errorf("GPE is %s", got)
	}
	vni, rest, err := ParseGPE(b)
	if vni != 0xabcdef || len(rest) != 4 || err != nil {
		t.Errorf("VNI %x, %d bytes, %v", vni, len(rest), err)
	}
	for _, broken := range []string{"08000004", "04000004", "0e000004", "0d000004", "1c000004", "0c000003"} {
		if _, _, err := ParseGPE(append(unhex(t, broken), 0, 0, 0, 0)); !errors.Is(err, ErrGPE) {
			t.Errorf("%s: %v", broken, err)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	b := make([]byte, 128)
	if n := testing.AllocsPerRun(1000, func() {
		PutGPE(b, 1)
		h := Put(b[8:], MD2, NextIPv4, 7, 255)
		_, _ = AppendContext(b[8:], h, ContextHeader{Class: ClassMeridian, Type: TypeTag, Value: b[100:104]})
		_, rest, _ := ParseGPE(b)
		h, _, _ = Parse(rest)
		_, _, _ = h.Find(ClassMeridian, TypeTag)
		_ = h.Forward()
		_ = h.Serve()
	}); n != 0 {
		t.Errorf("%v allocations a header", n)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("\x0f\xc6\x01\x01\x12\x34\x56\xff0123456789abcdefE"))
	f.Add([]byte("\x0f\xc4\x02\x01\x12\x34\x56\xff\x00\x00\x03\x04abcd"))
	f.Add([]byte("\x4f\xc4\x00\x01\x12\x34\x56\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.Clone(b)
		h, rest, err := Parse(b)
		if err != nil {
			return
		}
		if len(h)+len(rest) != len(b) || len(h) != int(b[1]&0x3f)*4 {
			t.Fatalf("%d of header and %d behind it of %d", len(h), len(rest), len(b))
		}
		for c, ok := h.Context(), h.MDType() == MD2; ok; {
			_, c, ok, err = NextContext(c)
			ok = ok && err == nil
		}
		before := h.TTL()
		if h.Forward() == nil && h.TTL() != (before+63)%64 {
			t.Fatalf("TTL %d became %d", before, h.TTL())
		}
		h.SetTTL(before)
		if !bytes.Equal(b, in) {
			t.Fatal("forwarding changed more than TTL")
		}
	})
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(s), []byte(" "), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
