package path

import (
	"strings"
	"testing"
)

// TestNames: metrics and traces speak of every verdict and reason by a name of its own.
func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for v := VerdictPass; v < VerdictCount; v++ {
		seen[v.String()] = true
	}
	if len(seen) != int(VerdictCount-1) {
		t.Errorf("%d verdicts have %d names", VerdictCount-1, len(seen))
	}
	for r := ReasonNone; r < ReasonCount; r++ {
		if seen[r.String()] {
			t.Errorf("%v is a second name", r)
		}
		seen[r.String()] = true
	}
	for name := range seen {
		if name == "" || strings.Contains(name, "-1") {
			t.Errorf("name %q", name)
		}
	}
}
