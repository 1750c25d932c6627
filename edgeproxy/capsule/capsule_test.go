package capsule

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

// all reads a stream that comes in pieces of a size.
func all(in []byte, size int) (got []string, within bool, err error) {
	var r Reader
	for len(in) > 0 {
		piece := in[:min(size, len(in))]
		in = in[len(piece):]
		for len(piece) > 0 {
			n, p, whole, err := r.Next(piece)
			if err != nil {
				return got, r.Within(), err
			}
			if whole {
				got = append(got, string(p))
			} else if n < len(piece) {
				return got, false, errors.New("it left bytes and gave no datagram")
			}
			piece = piece[n:]
		}
	}
	return got, r.Within(), nil
}

func TestReader(t *testing.T) {
	long := bytes.Repeat([]byte("x"), MaxDatagram)
	var stream []byte
	var want []string
	for _, p := range [][]byte{[]byte("a"), nil, []byte("hello"), bytes.Repeat([]byte("y"), 62), bytes.Repeat([]byte("z"), 63), bytes.Repeat([]byte("w"), 16383), long} {
		stream = Append(stream, p)
		want = append(want, string(p))
		stream = append(stream, 0x17, 2, 'n', 'o') // another type (RFC 9297 5.4), passed over
		stream = append(stream, 0x40, 0x99, 0)     // an empty one, its type in two octets
		stream = append(stream, 0, 3, 2, 'n', 'o') // a datagram of another context
		stream = append(stream, 0, 1, 4)           // an empty one
	}
	for _, size := range []int{1, 2, 3, 7, 1000, 1 << 20} {
		got, within, err := all(stream, size)
		if err != nil || within || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("pieces of %d: %d of %d datagrams, within %v, %v", size, len(got), len(want), within, err)
		}
	}
	for name, x := range map[string]struct {
		in  []byte
		err error
	}{
		"no context":           {[]byte{0, 0}, ErrShort},
		"half a context":       {[]byte{0, 1, 0x40, 0}, ErrShort},
		"longer than UDP's":    {append([]byte{0, 0x80, 0, 0xff, 0xf9, 0}, long...), ErrLong},
		"longer than anything": {[]byte{0, 0xc0, 0, 0, 1, 0, 0, 0, 0}, ErrLong},
		"passed over, endless": {[]byte{9, 0xc0, 0, 0, 1, 0, 0, 0, 0}, ErrLong},
	} {
		if _, _, err := all(x.in, 1); !errors.Is(err, x.err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, within, err := all(Append(nil, []byte("cut"))[:4], 1); len(got) != 0 || !within || err != nil {
		t.Errorf("a capsule that is cut: %q, within %v, %v", got, within, err)
	}
}

func TestAllocatesNothing(t *testing.T) {
	stream := Append(Append(nil, bytes.Repeat([]byte("a"), 1200)), bytes.Repeat([]byte("b"), 1200))
	var r Reader
	dst := make([]byte, 0, 2000)
	if n := testing.AllocsPerRun(100, func() {
		for _, piece := range [][]byte{stream[:700], stream[700:1300], stream[1300:]} {
			for len(piece) > 0 {
				n, p, whole, err := r.Next(piece)
				if err != nil {
					t.Fatal(err)
				}
				if piece = piece[n:]; whole {
					dst = Append(dst[:0], p)
				}
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzReader: however a stream is cut, it says the same.
func FuzzReader(f *testing.F) {
	f.Add(Append(Append(nil, []byte("hello")), nil), uint8(3))
	f.Add([]byte{0x17, 2, 'n', 'o', 0, 3, 2, 'n', 'o', 0, 1, 4, 0, 0}, uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		a, within, err := all(in, 1+int(size))
		b, alsoWithin, alsoErr := all(in, len(in)+1)
		if fmt.Sprintf("%q %v", a, err) != fmt.Sprintf("%q %v", b, alsoErr) || err == nil && within != alsoWithin {
			t.Fatalf("%q %v %v, whole %q %v %v", a, within, err, b, alsoWithin, alsoErr)
		}
	})
}
