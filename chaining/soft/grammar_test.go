package soft

import (
	"bytes"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/chaining/nsh"
	"github.com/meridian-mesh/meridian/chaining/path"
	"github.com/meridian-mesh/meridian/chaining/soft/packetgrammar"
)

var epoch = time.Unix(1_700_000_000, 0)

func testIntegrity(t testing.TB) *Integrity {
	t.Helper()
	in, err := NewIntegrity([]Key{{ID: "k1", Secret: bytes.Repeat([]byte("s"), 32)}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// TestGrammar: a million packets reach every verdict and every reason a thousand
// times, and whatever goes out keeps the rules that hold for all packets.
func TestGrammar(t *testing.T) {
	f := New(packetgrammar.Table(), Limits{}, testIntegrity(t))
	g := packetgrammar.New(1)
	out := make([]byte, packetgrammar.MaxFrame+Headroom)
	in := make([]byte, packetgrammar.MaxFrame)
	for i := range 1_000_000 {
		port, frame := g.Next()
		n := copy(in, frame)
		r := f.Forward(port, frame, out, epoch)
		if (r.Verdict == path.VerdictDrop) != (r.Reason != path.ReasonNone) || (r.Frame == nil) != (r.Verdict == path.VerdictDrop) {
			t.Fatalf("packet %d: %v for %v with %d bytes", i, r.Verdict, r.Reason, len(r.Frame))
		}
		switch r.Verdict {
		case path.VerdictPass, path.VerdictPunt:
			if !bytes.Equal(r.Frame, in[:n]) {
				t.Fatalf("packet %d: %v, but it is changed", i, r.Verdict)
			}
		case path.VerdictNode, path.VerdictGPE:
			if h, at := gpeHeader(t, r.Frame); h.SPI() != r.Hop.SPI || h.SI() != r.Hop.SI || h.TTL() == 0 || at < 0 {
				t.Fatalf("packet %d: header %x for hop %v", i, []byte(h), r.Hop)
			}
		}
		if r.Verdict == path.VerdictEnd && r.Frame[14]>>4 != 4 && r.Frame[14]>>4 != 6 {
			t.Fatalf("packet %d: %x is no plain packet", i, r.Frame)
		}
	}
	c := f.Counters()
	var sum uint64
	for v := path.VerdictPass; v < path.VerdictCount; v++ {
		t.Logf("verdict %-14v %7d", v, c.Verdicts[v])
		sum += c.Verdicts[v]
		if c.Verdicts[v] < 1000 {
			t.Errorf("verdict %v: only %d times", v, c.Verdicts[v])
		}
	}
	for r := path.ReasonNone + 1; r < path.ReasonCount; r++ {
		t.Logf("reason  %-14v %7d", r, c.Reasons[r])
		if c.Reasons[r] < 1000 && r != path.ReasonGuard {
			t.Errorf("reason %v: only %d times", r, c.Reasons[r])
		}
	}
	if sum != 1_000_000 {
		t.Errorf("%d verdicts were counted", sum)
	}
}

// gpeHeader reads a frame that the forwarder made.
func gpeHeader(t *testing.T, frame []byte) (h nsh.Header, at int) {
	t.Helper()
	at = 14 + 20 + 8
	if frame[14]>>4 == 6 {
		at = 14 + 40 + 8
	}
	_, rest, err := nsh.ParseGPE(frame[at:])
	if err != nil {
		t.Fatalf("%x: %v", frame, err)
	}
	h, _, err = nsh.Parse(rest)
	if err != nil {
		t.Fatalf("%x: %v", frame, err)
	}
	return h, at + nsh.GPESize
}

func BenchmarkForward(b *testing.B) {
	f := New(packetgrammar.Table(), Limits{}, nil)
	g := packetgrammar.New(1)
	const n = 4096
	ports, frames := make([]uint16, n), make([][]byte, n)
	for i := range n {
		port, frame := g.Next()
		ports[i], frames[i] = port, bytes.Clone(frame)
	}
	out := make([]byte, packetgrammar.MaxFrame+Headroom)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		f.Forward(ports[i%n], frames[i%n], out, epoch)
	}
}
