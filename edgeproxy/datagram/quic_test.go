package datagram

import (
	"bytes"
	"testing"

	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
)

func TestIDs(t *testing.T) {
	ids, a, b := NewIDs(), &upstream.Endpoint{}, &upstream.Endpoint{}
	initial := func(version byte, to, from string) []byte {
		p := append([]byte{0xc0, 0, 0, 0, version, byte(len(to))}, to...)
		return append(append(append(p, byte(len(from))), from...), "payload"...)
	}
	var one, two, three Held
	ids.Learn(&one, initial(1, "client", "serverID"), a)
	ids.Learn(&one, initial(1, "client", "serverID"), a) // the same is not counted twice
	ids.Learn(&two, initial(1, "client", "serverID"), b) // nor given to another
	ids.Learn(&two, initial(9, "client", "unknownV"), b) // of a version that is not known
	ids.Learn(&two, initial(1, "client", "abc"), b)      // too short to tell apart
	if one.n != 1 || two.n != 0 {
		t.Fatalf("%d and %d are held", one.n, two.n)
	}
	for name, c := range map[string]struct {
		p    []byte
		want *upstream.Endpoint
	}{
		"short header":      {[]byte("\x40serverID data"), a},
		"another one":       {[]byte("\x40serverXX data"), nil},
		"no fixed bit":      {[]byte("\x00serverID data"), nil},
		"cut off":           {[]byte("\x40server"), nil},
		"long header":       {initial(1, "serverID", "x"), a},
		"long, not known":   {initial(1, "serverIX", "x"), nil},
		"long, cut off":     {initial(1, "serverID", "x")[:9], nil},
		"length beyond 20":  {append([]byte{0xc0, 0, 0, 0, 1, 21}, bytes.Repeat([]byte{1}, 40)...), nil},
		"nothing":           {nil, nil},
		"version of nobody": {initial(0, "serverID", "x"), nil},
	} {
		var h Held
		if got := ids.Find(&h, c.p); got != c.want {
			t.Errorf("%s: found %v, want %v", name, got, c.want)
		}
		ids.Forget(&h)
	}
	ids.Find(&three, []byte("\x40serverID data"))
	ids.Forget(&one)
	if got := ids.Find(&two, []byte("\x40serverID data")); got != a {
		t.Error("forgotten while a session holds it")
	}
	ids.Forget(&two)
	ids.Forget(&three)
	if len(ids.known) != 0 || ids.lengths.Load() != 0 {
		t.Errorf("%d are known to nobody's use", len(ids.known))
	}
}

func FuzzIDs(f *testing.F) {
	f.Add([]byte("\xc0\x00\x00\x00\x01\x06client\x08serverID"), []byte("\x40serverID"))
	f.Fuzz(func(t *testing.T, answer, question []byte) {
		ids := NewIDs()
		var a, b Held
		ids.Learn(&a, answer, &upstream.Endpoint{})
		found := ids.Find(&b, question)
		if found != nil && (b.n != 1 || !bytes.Contains(question, b.ids[0].bytes[:b.ids[0].len]) || !bytes.Contains(answer, b.ids[0].bytes[:b.ids[0].len])) {
			t.Errorf("%x finds what %x named", question, answer)
		}
		ids.Forget(&a)
		ids.Forget(&b)
		if len(ids.known) != 0 {
			t.Error("something is kept")
		}
	})
}
