package worker

import "testing"

// TestForgetSpares: who still points to one of the objects that are forgotten keeps no other.
func TestForgetSpares(t *testing.T) {
	d, u, r := &down{next: &down{}}, &up{next: &up{}}, &request{next: &request{}}
	w := &Worker{freeDown: d, freeReq: r}
	w.freeUp[0] = u
	w.forgetSpares()
	if w.freeDown != nil || w.freeUp[0] != nil || w.freeReq != nil {
		t.Error("some are kept")
	}
	if d.next != nil || u.next != nil || r.next != nil {
		t.Error("one holds the next")
	}
}
