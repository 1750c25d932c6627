package maglev

import "testing"

func TestSizes(t *testing.T) {
	for _, s := range sizes {
		for d := 2; d*d <= s; d++ {
			if s%d == 0 {
				t.Errorf("%d is divisible by %d", s, d)
			}
		}
	}
}

// TestDisruption: a member that leaves moves its own keys and few others.
func TestDisruption(t *testing.T) {
	ids := make([]uint64, 10)
	weights := make([]int, 10)
	for i := range ids {
		ids[i], weights[i] = Mix(uint64(i)+1), 1
	}
	before := Table(weights, ids)
	weights[3] = 0
	after := Table(weights, ids)
	if len(after) != len(before) {
		t.Fatalf("size changed from %d to %d", len(before), len(after))
	}
	moved := 0
	for i, m := range before {
		if after[i] == 3 {
			t.Fatal("who left still has a place")
		}
		if m != 3 && after[i] != m {
			moved++
		}
	}
	if share := float64(moved) / float64(len(before)); share > 0.05 {
		t.Errorf("%.1f %% of the others' places moved", 100*share)
	}
	if Table([]int{0, 0}, ids[:2]) != nil {
		t.Error("a table of nobody")
	}
}
