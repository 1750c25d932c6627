package mirror

import (
	"strconv"
	"testing"

	"github.com/meridian-mesh/meridian/chaining/function"
	ft "github.com/meridian-mesh/meridian/chaining/function/functiontest"
)

// TestShare: about the share of flows is copied, and of each both directions or none.
func TestShare(t *testing.T) {
	m, err := New(0.25)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for port := range 4000 {
		c := "10.0.0.1:" + strconv.Itoa(1024+port)
		there := m.Process(ft.UDP(c, "10.9.0.1:53", nil), function.Forward, 0)
		back := m.Process(ft.UDP("10.9.0.1:53", c, nil), function.Back, 0)
		if there.Copy != back.Copy {
			t.Fatalf("%s: %v there, %v back", c, there.Copy, back.Copy)
		}
		if there.Copy {
			n++
		}
	}
	if n < 850 || n > 1150 {
		t.Errorf("%d of 4000 flows were copied", n)
	}
	all, _ := New(1)
	if !all.Process(ft.UDP("10.0.0.1:1", "10.9.0.1:53", nil), function.Forward, 0).Copy {
		t.Error("share 1 does not copy")
	}
}
