package world

import (
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// A process that is started again is one; two that both go on are two, also where
// the name is the own site's.
func TestDoubles(t *testing.T) {
	w := New("here", "here")
	at := time.Unix(1000, 0)
	hear := func(site string, epoch, seq uint64) {
		at = at.Add(250 * time.Millisecond)
		w.Hear(&mesh.Report{Site: site, Reporter: "controller", Epoch: epoch, Seq: seq}, at)
	}
	for seq := range uint64(10) {
		hear("there", 1, seq)
	}
	hear("there", 2, 1)
	hear("there", 1, 11) // was under way when it was replaced
	for seq := range uint64(10) {
		hear("there", 2, seq+2)
	}
	if d := w.Doubles(at); len(d) != 0 {
		t.Errorf("a controller that was started again: %v", d)
	}
	for seq := range uint64(4) {
		hear("there", 2, seq+20)
		hear("there", 1, seq+20)
		hear("here", 9, seq)
		hear("here", 8, seq)
		w.Tell(&mesh.NodeReport{Site: "here", Node: "n1", Epoch: 5, Seq: seq}, at)
		w.Tell(&mesh.NodeReport{Site: "here", Node: "n1", Epoch: 4, Seq: seq}, at)
	}
	if d := w.Doubles(at); len(d) != 3 || d[0] != "node n1" || d[1] != "site here" || d[2] != "site there" {
		t.Errorf("doubles: %v", d)
	}
	if d := w.Doubles(at.Add(doubleFor + time.Second)); len(d) != 0 {
		t.Errorf("long after: %v", d)
	}
	w.Forget(at.Add(2*time.Minute), time.Minute)
	if len(w.doubles) != 0 {
		t.Errorf("%d are remembered for ever", len(w.doubles))
	}
}
