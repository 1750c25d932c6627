package geo

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/paulmach/orb"
)

// The dumb twin: a position is inside a ring that turns round it (the sum of the
// angles between its corners as seen from there is a whole turn).
func turnsRound(ring orb.Ring, p orb.Point) bool {
	sum := 0.0
	for i := 1; i < len(ring); i++ {
		a := math.Atan2(ring[i-1][1]-p[1], ring[i-1][0]-p[0])
		b := math.Atan2(ring[i][1]-p[1], ring[i][0]-p[0])
		sum += math.Remainder(b-a, 2*math.Pi)
	}
	return math.Abs(sum) > math.Pi
}

func TestInsideAgainstAngles(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	star := func(at orb.Point, most float64) [][]float64 {
		var ring [][]float64
		n := 3 + r.IntN(9)
		for i := range n {
			angle := 2 * math.Pi * (float64(i) + 0.9*r.Float64()) / float64(n)
			far := most * (0.2 + 0.8*r.Float64())
			ring = append(ring, []float64{at[0] + far*math.Cos(angle), at[1] + far*math.Sin(angle)})
		}
		return append(ring, ring[0])
	}
	inside := 0
	for range 2000 {
		at := orb.Point{r.Float64()*300 - 150, r.Float64()*120 - 60}
		area := Polygon([][][]float64{star(at, 20), star(at, 5)})
		for range 10 {
			p := orb.Point{at[0] + r.Float64()*40 - 20, at[1] + r.Float64()*40 - 20}
			want := turnsRound(area[0], p) && !turnsRound(area[1], p)
			if Inside(area, p) != want {
				t.Fatalf("%v in %v: want %v", p, area, want)
			}
			if want {
				inside++
			}
		}
	}
	if inside < 1000 {
		t.Errorf("only %d positions were inside: the test says little", inside)
	}
}

func TestInsideOfNothing(t *testing.T) {
	for _, rings := range [][][][]float64{nil, {}, {{}}, {{{0, 0}, {1, 1}}}, {{{0, 0}, {1}, {1, 1}, {0, 0}}}} {
		if Inside(Polygon(rings), orb.Point{0, 0}) {
			t.Errorf("something is inside of %v", rings)
		}
	}
	square := Polygon([][][]float64{{{0, 0, 9}, {2, 0}, {2, 2}, {0, 2}, {0, 0}}})
	if !Inside(square, orb.Point{0, 1}) || !Inside(square, orb.Point{2, 2}) {
		t.Error("the border is not inside")
	}
}
