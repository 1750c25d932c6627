package mesh

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseTraceParent(t *testing.T) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	p, ok := ParseTraceParent([]byte(good))
	if !ok || fmt.Sprintf("%x %x", p.TraceID, p.SpanID) != "0af7651916cd43dd8448eb211c80319c b7ad6b7169203331" || !p.Sampled {
		t.Errorf("%+v %v", p, ok)
	}
	if p, ok := ParseTraceParent([]byte(good[:53] + "02")); !ok || p.Sampled {
		t.Errorf("not sampled: %+v %v", p, ok)
	}
	if _, ok := ParseTraceParent([]byte("cc" + good[2:] + "-what-will-be")); !ok {
		t.Error("a later version is refused")
	}
	for _, bad := range []string{
		"", good[:54], good + "-x", "ff" + good[2:], "cc" + good[2:] + "x", strings.ToUpper(good), strings.Replace(good, "-", "_", 1),
		"00-" + strings.Repeat("0", 32) + good[35:], good[:36] + strings.Repeat("0", 16) + good[52:], good[:53] + "0g",
	} {
		if p, ok := ParseTraceParent([]byte(bad)); ok || p != (TraceParent{}) {
			t.Errorf("%q is taken: %+v", bad, p)
		}
	}
}

// A caller's decision holds; without one a part is taken, always the same, and a
// larger part has the smaller one in it.
func TestTraceSampled(t *testing.T) {
	yes, no := []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")
	if !TraceSampled(yes, nil, 0) || TraceSampled(no, []byte("a"), 1) || TraceSampled(nil, nil, 1) || !TraceSampled([]byte("bad"), []byte("a"), 1) || TraceSampled(nil, []byte("a"), 0) {
		t.Error("wrong decision")
	}
	tenth, half := 0, 0
	for i := range 20_000 {
		id := fmt.Appendf(nil, "0000-request-%05d", i)
		a, b := TraceSampled(nil, id, 0.1), TraceSampled(nil, id, 0.5)
		if a && !b {
			t.Fatalf("%s is in a tenth and not in a half", id)
		}
		if a {
			tenth++
		}
		if b {
			half++
		}
	}
	if tenth < 1800 || tenth > 2200 || half < 9600 || half > 10400 {
		t.Errorf("%d of 20000 for a tenth, %d for a half", tenth, half)
	}
	id := []byte("0af7651916cd43dd")
	if n := testing.AllocsPerRun(1000, func() { TraceSampled(yes, id, 0.5); TraceSampled(nil, id, 0.5) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
