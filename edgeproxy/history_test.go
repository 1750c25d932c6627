package edgeproxy

import (
	"testing"
	"time"
)

func TestHistory(t *testing.T) {
	var h history
	change := func(ms int64, share float64) ShareChange {
		return ShareChange{AtMS: ms, Source: "controller", HomeLimit: 4, Shares: map[string]float64{"north": 1 - share, "south": share}}
	}
	last := change(1, 0)
	if !h.add(last, nil) {
		t.Error("the first is a change")
	}
	if h.add(change(2, 0.004), &last) {
		t.Error("0.4 points are no change")
	}
	if !h.add(change(3, 0.2), &last) {
		t.Error("20 points are a change")
	}
	gone := ShareChange{AtMS: 4, Source: "controller", HomeLimit: 4, Shares: map[string]float64{"north": 1}}
	if moved := change(3, 0.2); !h.add(gone, &moved) {
		t.Error("a site that lost its share is a change")
	}
	limit, source := change(5, 0), change(6, 0)
	limit.HomeLimit, source.Source = 5, "standby"
	if !h.add(limit, &last) || !h.add(source, &last) {
		t.Error("limit and source are changes")
	}
	if got, floor := h.since(time.UnixMilli(3)); len(got) != 3 || got[0].AtMS != 4 || floor != 0 {
		t.Errorf("since 3: %+v, floor %d", got, floor)
	}
	for i := range int64(2 * historyLength) {
		h.add(change(10+i, float64(i%2)), nil)
	}
	got, floor := h.since(time.Time{})
	if len(got) != historyLength || got[0].AtMS != 10+historyLength || floor != 10+historyLength-1 {
		t.Errorf("%d kept, first at %d, floor %d", len(got), got[0].AtMS, floor)
	}
	for i := 1; i < len(got); i++ {
		if got[i].AtMS <= got[i-1].AtMS {
			t.Fatalf("out of order at %d", i)
		}
	}
}
