package nearest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/paulmach/orb"

	"github.com/meridian-mesh/meridian/geo"
)

// naive is the dumb twin: every distance, sorted.
func naive(places []Place, p orb.Point, k int) []Found {
	var all []Found
	for _, q := range places {
		all = append(all, Found{q, geo.DistanceMeters(p, q.Position)})
	}
	slices.SortFunc(all, compare)
	return all[:min(k, len(all))]
}

// point draws from regions where indexes over plane degrees go wrong, and from
// a coarse grid, where many places tie.
func point(r *rand.Rand) orb.Point {
	switch r.IntN(6) {
	case 0: // antimeridian
		return orb.Point{geo.NormalizeLon(180 + r.NormFloat64()), r.Float64()*20 - 10}
	case 1: // north pole
		return orb.Point{r.Float64()*360 - 180, 90 - r.Float64()*0.5}
	case 2: // south pole
		return orb.Point{r.Float64()*360 - 180, -90 + r.Float64()*0.5}
	case 3: // ties, with the seam's two names for one meridian
		return orb.Point{float64(r.IntN(5)-2) * 90, float64(r.IntN(5)-2) * 45}
	case 4: // one city
		return orb.Point{144.96 + r.NormFloat64()*0.01, -37.81 + r.NormFloat64()*0.01}
	}
	return orb.Point{r.Float64()*360 - 180, r.Float64()*180 - 90}
}

func TestNearestAgainstNaive(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 400 {
		var places []Place
		for i := range r.IntN(120) {
			places = append(places, Place{fmt.Sprintf("p%03d", i), point(r)})
		}
		ix, err := New(places)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			p, k := point(r), r.IntN(12)
			got, want := ix.Nearest(nil, p, k), naive(places, p, k)
			if !slices.Equal(got, want) {
				t.Fatalf("round %d, %d places, %d nearest to %v:\ngot  %v\nwant %v", round, len(places), k, p, got, want)
			}
		}
	}
}

func TestSeams(t *testing.T) {
	ix, err := New([]Place{{"fiji", orb.Point{178.4, -18.1}}, {"samoa", orb.Point{-171.8, -13.8}}, {"sydney", orb.Point{151.2, -33.9}},
		{"alert", orb.Point{-62.3, 82.5}}, {"vostok", orb.Point{106.8, -78.5}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		p    orb.Point
		want string
	}{
		{orb.Point{-179, -17}, "fiji"},
		{orb.Point{179, -14}, "fiji"},
		{orb.Point{117.7, 89}, "alert"},
		{orb.Point{-73, -89}, "vostok"},
	} {
		if got := ix.Nearest(nil, tc.p, 1); len(got) != 1 || got[0].Name != tc.want {
			t.Errorf("nearest to %v: got %v, want %s", tc.p, got, tc.want)
		}
	}
}

func TestCopyOnWrite(t *testing.T) {
	empty := new(Index)
	if got := empty.Nearest(nil, orb.Point{}, 3); len(got) != 0 {
		t.Errorf("empty index found %v", got)
	}
	one, err := empty.With(Place{"a", orb.Point{1, 1}})
	if err != nil {
		t.Fatal(err)
	}
	two, err := one.With(Place{"b", orb.Point{2, 2}})
	if err != nil {
		t.Fatal(err)
	}
	moved, err := two.With(Place{"a", orb.Point{50, 50}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		ix   *Index
		want string
	}{{empty, "[]"}, {one, "[a]"}, {two, "[a b]"}, {moved, "[b a]"}, {two.Without("a"), "[b]"}, {two.Without("c"), "[a b]"}} {
		names := []string{}
		for _, f := range tc.ix.Nearest(nil, orb.Point{}, 9) {
			names = append(names, f.Name)
		}
		if got := fmt.Sprint(names); got != tc.want || tc.ix.Len() != len(names) {
			t.Errorf("got %s, want %s", got, tc.want)
		}
	}
	if _, err := one.With(Place{"x", orb.Point{181, 0}}); err == nil {
		t.Error("took a longitude of 181")
	}
	if _, err := New([]Place{{"x", orb.Point{0, 0}}, {"x", orb.Point{1, 1}}}); err == nil {
		t.Error("took a name twice")
	}
}

func TestNearestAllocates0(t *testing.T) {
	ix := benchIndex(t, 1000)
	dst := make([]Found, 0, 8)
	p := orb.Point{144.9, -37.8}
	if n := testing.AllocsPerRun(100, func() { dst = ix.Nearest(dst[:0], p, 8) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func benchIndex(t testing.TB, n int) *Index {
	r := rand.New(rand.NewPCG(3, 4))
	var places []Place
	for i := range n {
		places = append(places, Place{fmt.Sprint(i), orb.Point{144 + r.Float64()*2, -38 + r.Float64()*2}})
	}
	ix, err := New(places)
	if err != nil {
		t.Fatal(err)
	}
	return ix
}

func BenchmarkNearest(b *testing.B) {
	for _, n := range []int{10, 125, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ix := benchIndex(b, n)
			dst := make([]Found, 0, 8)
			for b.Loop() {
				dst = ix.Nearest(dst[:0], orb.Point{144.9, -37.8}, 8)
			}
		})
		b.Run(fmt.Sprintf("%d naive", n), func(b *testing.B) {
			ix := benchIndex(b, n)
			var places []Place
			for name, p := range ix.places {
				places = append(places, Place{name, p})
			}
			for b.Loop() {
				naive(places, orb.Point{144.9, -37.8}, 8)
			}
		})
	}
}
