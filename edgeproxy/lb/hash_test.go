package lb

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// naiveRing finds the owner of a key among all points, without order or search.
func naiveRing(weights []int, ids []uint64, f *fakeEndpoints, tried []int, key uint64, balance float64) int {
	total, n := 0, 0
	for _, w := range weights {
		total += w
		if w > 0 {
			n++
		}
	}
	type point struct {
		ahead uint64 // from the key, going round
		owner int
	}
	var points []point
	inFlight, weight := 1, 0
	for i, w := range weights {
		if w == 0 || f.down[i] || slices.Contains(tried, i) {
			continue
		}
		inFlight += f.inFlight[i]
		weight += w
		state := ids[i]
		for range max(1, int(math.Round(float64(n*pointsEach)*float64(w)/float64(total)))) {
			points = append(points, point{next(&state) - key, i})
		}
	}
	slices.SortFunc(points, func(a, b point) int {
		if a.ahead < b.ahead {
			return -1
		}
		return 1
	})
	for _, p := range points {
		bound := math.Ceil(balance * float64(inFlight) * float64(weights[p.owner]) / float64(weight))
		if balance == 0 || f.inFlight[p.owner] == 0 || float64(f.inFlight[p.owner]+1) <= bound {
			return p.owner
		}
	}
	if len(points) == 0 {
		return -1
	}
	return points[0].owner
}

func TestRingHashTwin(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 60 {
		n := 1 + rnd.IntN(6)
		weights, f := make([]int, n), newFake(n)
		for i := range weights {
			weights[i] = rnd.IntN(4)
		}
		balance := []float64{0, 1.25, 2}[rnd.IntN(3)]
		p := NewRingHash(weights, idsOf(n), balance)
		for range 10 {
			for i := range n {
				f.down[i] = rnd.IntN(4) == 0
				f.inFlight[i] = rnd.IntN(6)
			}
			tried := []int{rnd.IntN(n)}[:rnd.IntN(2)]
			key := rnd.Uint64()
			got, ok := p.Pick(f, tried, key)
			if want := naiveRing(weights, idsOf(n), f, tried, key, balance); ok != (want >= 0) || ok && got != want {
				t.Fatalf("weights %v balance %v: got %d %v, want %d", weights, balance, got, ok, want)
			}
		}
	}
}

// naiveMaglev fills the table by the paper's pseudo-code, with every permutation
// written out.
func naiveMaglev(ids []uint64, size int) []int {
	order := make([]int, len(ids))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		if ids[a] < ids[b] {
			return -1
		}
		return 1
	})
	permutation := map[int][]int{}
	for _, i := range order {
		offset, skip := int(ids[i]%uint64(size)), int(mix(ids[i])%uint64(size-1))+1
		for j := range size {
			permutation[i] = append(permutation[i], (offset+j*skip)%size)
		}
	}
	entry := slices.Repeat([]int{-1}, size)
	for filled := 0; ; {
		for _, i := range order {
			at := slices.IndexFunc(permutation[i], func(c int) bool { return entry[c] < 0 })
			entry[permutation[i][at]] = i
			if filled++; filled == size {
				return entry
			}
		}
	}
}

func TestMaglevTwin(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7, 20} {
		ids := idsOf(n)
		p := NewMaglev(slices.Repeat([]int{1}, n), ids)
		want := naiveMaglev(ids, len(p.table))
		for i, owner := range want {
			if int(p.table[i]) != owner {
				t.Fatalf("%d endpoints: place %d is %d's, want %d's", n, i, p.table[i], owner)
			}
		}
	}
}

// consistent are the pickers that keep keys together.
func consistent(weights []int, ids []uint64) map[string]Picker {
	return map[string]Picker{"ring hash": NewRingHash(weights, ids, 0), "maglev": NewMaglev(weights, ids)}
}

func TestSharesOfKeys(t *testing.T) {
	weights := []int{4, 1, 0, 2, 3}
	for kind, p := range consistent(weights, idsOf(5)) {
		f, got := newFake(5), make([]float64, 5)
		rnd := rand.New(rand.NewPCG(1, 1))
		const n = 100_000
		for range n {
			i, _ := p.Pick(f, nil, rnd.Uint64())
			got[i]++
		}
		// A ring is uneven by about 1/sqrt(points), a table hardly.
		slack := map[string]float64{"ring hash": 0.25, "maglev": 0.02}[kind]
		for i, w := range weights {
			if want := float64(w) / 10 * n; math.Abs(got[i]-want) > slack*want {
				t.Errorf("%s: endpoint %d of weight %d has %.0f of %d keys", kind, i, w, got[i], n)
			}
		}
	}
}

// TestDisruption removes an endpoint and puts them in another order: keys of the
// others stay, all of them on a ring, nearly all in a table.
func TestDisruption(t *testing.T) {
	const n, keys = 16, 20_000
	weights, ids := slices.Repeat([]int{1}, n), idsOf(n)
	moved := map[string]float64{"ring hash": 0, "maglev": 0.03}
	for gone := range 4 {
		fewer := slices.Delete(slices.Clone(ids), gone, gone+1)
		slices.Reverse(fewer)
		after := consistent(weights[:n-1], fewer)
		for kind, p := range consistent(weights, ids) {
			f, rnd := newFake(n), rand.New(rand.NewPCG(7, uint64(gone)))
			out, others := 0, 0
			for range keys {
				key := rnd.Uint64()
				before, _ := p.Pick(f, nil, key)
				now, _ := after[kind].Pick(f, nil, key)
				switch {
				case before == gone:
					out++
				case ids[before] != fewer[now]:
					others++
				}
			}
			if share := float64(others) / keys; share > moved[kind] {
				t.Errorf("%s: %.3f of the keys moved without need", kind, share)
			}
			if share := float64(out) / keys * n; share < 0.6 || share > 1.6 {
				t.Errorf("%s: the endpoint that left had %.2f of its share", kind, share)
			}
		}
	}
}

// TestDownMovesOnlyItsOwn: ill health is no change of the table.
func TestDownMovesOnlyItsOwn(t *testing.T) {
	const n = 8
	for kind, p := range consistent(slices.Repeat([]int{1}, n), idsOf(n)) {
		f, rnd := newFake(n), rand.New(rand.NewPCG(5, 5))
		to := make([]int, n)
		for range 20_000 {
			key := rnd.Uint64()
			before, _ := p.Pick(f, nil, key)
			f.down[3] = true
			now, _ := p.Pick(f, nil, key)
			f.down[3] = false
			if before != 3 && now != before {
				t.Fatalf("%s: a key of endpoint %d went to %d", kind, before, now)
			}
			if before == 3 {
				to[now]++
			}
		}
		for i, c := range to {
			if i != 3 && c == 0 {
				t.Errorf("%s: endpoint %d takes none over: %v", kind, i, to)
			}
		}
	}
}

// TestBoundedLoad holds one popular key against a bound of 1.25.
func TestBoundedLoad(t *testing.T) {
	const n = 8
	p, f := NewRingHash(slices.Repeat([]int{1}, n), idsOf(n), 1.25), newFake(n)
	for k := range 400 {
		i, ok := p.Pick(f, nil, 12345)
		if !ok {
			t.Fatal("nothing picked")
		}
		f.inFlight[i]++
		if bound := int(math.Ceil(1.25 * float64(k+1) / n)); f.inFlight[i] > bound {
			t.Fatalf("endpoint %d has %d of %d requests, the bound is %d", i, f.inFlight[i], k+1, bound)
		}
	}
}
