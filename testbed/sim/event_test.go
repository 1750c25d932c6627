package sim

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// The heap against sorting: by time, and by order of scheduling at the same time.
func TestQueueKeepsOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var q queue
	type twin struct {
		at int64
		a  int32
	}
	var want []twin
	next := int32(0)
	for range 5000 {
		if len(want) > 0 && r.IntN(3) == 0 {
			slices.SortStableFunc(want, func(x, y twin) int { return int(x.at - y.at) })
			if e := q.pop(); e.atNS != want[0].at || e.a != want[0].a || uint8(e.order) != evLost {
				t.Fatalf("popped %+v, want %+v", e, want[0])
			}
			want = want[1:]
			continue
		}
		at := int64(r.IntN(50))
		q.push(at, evLost, next, 0)
		want = append(want, twin{at, next})
		next++
	}
}

func TestRingGrows(t *testing.T) {
	ring := []int32{3, 4, 1, 2}
	if got := grow(ring, 2)[:4]; !slices.Equal(got, []int32{1, 2, 3, 4}) {
		t.Errorf("%v", got)
	}
}
