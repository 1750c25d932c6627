package membership

import (
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	l := Limits{Suspect: time.Second, Dead: 3 * time.Second}
	for _, c := range []struct {
		heard     bool
		age       time.Duration
		reachable bool
		want      Status
	}{
		{true, 0, true, Alive},
		{true, time.Second, true, Alive},
		{true, time.Second + 1, true, Suspect},
		{true, 3 * time.Second, true, Suspect},
		{true, 3*time.Second + 1, true, Dead},
		// In-band news counts without the bus.
		{true, time.Second, false, Alive},
		{true, time.Hour, false, Unknown},
		{false, 0, true, Unknown},
		{false, 0, false, Unknown},
	} {
		if got := l.Judge(c.heard, c.age, c.reachable); got != c.want {
			t.Errorf("Judge(%v, %s, %v) = %s, want %s", c.heard, c.age, c.reachable, got, c.want)
		}
	}
	if Sites.Suspect >= Sites.Dead || Nodes.Suspect >= Nodes.Dead {
		t.Error("a peer is suspect before it is dead")
	}
}
