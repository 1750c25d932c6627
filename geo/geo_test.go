package geo

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/paulmach/orb"
)

func anywhere(r *rand.Rand) orb.Point {
	p := orb.Point{r.Float64()*360 - 180, r.Float64()*180 - 90}
	switch r.IntN(5) {
	case 0:
		p[1] = 90 - r.Float64()*1e-3
	case 1:
		p[0] = NormalizeLon(180 + r.NormFloat64()*1e-3)
	}
	return p
}

// Distance by the angle between unit vectors is another formula for the same thing.
func TestDistanceAgainstVectors(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 20000 {
		a, b := anywhere(r), anywhere(r)
		va, vb := Vector(a), Vector(b)
		cross := math.Sqrt(math.Pow(va[1]*vb[2]-va[2]*vb[1], 2) + math.Pow(va[2]*vb[0]-va[0]*vb[2], 2) + math.Pow(va[0]*vb[1]-va[1]*vb[0], 2))
		want := EarthRadiusMeters * math.Atan2(cross, va[0]*vb[0]+va[1]*vb[1]+va[2]*vb[2])
		if got := DistanceMeters(a, b); math.Abs(got-want) > 0.05 {
			t.Fatalf("%v to %v: %v m, want %v", a, b, got, want)
		}
		if DistanceMeters(a, b) != DistanceMeters(b, a) {
			t.Fatalf("%v to %v is not as far as back", a, b)
		}
	}
}

func TestDistanceKnown(t *testing.T) {
	melbourne, sydney := orb.Point{144.9631, -37.8136}, orb.Point{151.2093, -33.8688}
	for _, tc := range []struct {
		a, b      orb.Point
		km, sigma float64
	}{
		{melbourne, sydney, 713.4, 0.5},
		{orb.Point{0, 0}, orb.Point{0, 0}, 0, 0},
		{orb.Point{179.5, 0}, orb.Point{-179.5, 0}, 111.195, 0.001},
		{orb.Point{180, 10}, orb.Point{-180, 10}, 0, 1e-6},
		{orb.Point{0, 90}, orb.Point{123, 90}, 0, 1e-6},
		{orb.Point{0, -90}, orb.Point{0, 90}, 20015.115, 0.001},
		{orb.Point{10, 20}, orb.Point{-170, -20}, 20015.115, 0.001},
		{orb.Point{0, 0.1}, orb.Point{180, -0.1}, 20015.115, 0.001},
	} {
		if got := DistanceMeters(tc.a, tc.b) / 1000; !(math.Abs(got-tc.km) <= tc.sigma) {
			t.Errorf("%v to %v: %v km, want %v", tc.a, tc.b, got, tc.km)
		}
	}
}

// orb's haversine is NaN for a tenth of all antipodes.
func TestAntipodes(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	for range 1000 {
		a := orb.Point{r.Float64() * 180, r.Float64()*180 - 90}
		if d := DistanceMeters(a, orb.Point{a.Lon() - 180, -a.Lat()}); !(math.Abs(d-math.Pi*EarthRadiusMeters) < 1) {
			t.Fatalf("%v to its antipode: %v m", a, d)
		}
	}
}

func TestBearingKnown(t *testing.T) {
	for _, tc := range []struct {
		a, b orb.Point
		want float64
	}{
		{orb.Point{0, 0}, orb.Point{0, 1}, 0}, {orb.Point{0, 0}, orb.Point{1, 0}, 90}, {orb.Point{0, 0}, orb.Point{0, -1}, 180},
		{orb.Point{0, 0}, orb.Point{-1, 0}, 270}, {orb.Point{179.9, 0}, orb.Point{-179.9, 0}, 90}, {orb.Point{0, 89}, orb.Point{180, 89}, 0},
	} {
		if got := BearingDegrees(tc.a, tc.b); math.Abs(got-tc.want) > 1e-9 {
			t.Errorf("%v to %v: %v degrees, want %v", tc.a, tc.b, got, tc.want)
		}
	}
}

func TestDestinationArrives(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for range 20000 {
		a, bearing, meters := anywhere(r), r.Float64()*360, r.Float64()*1e7
		b := Destination(a, bearing, meters)
		if err := Check(b); err != nil {
			t.Fatalf("%v, %v degrees, %v m: %v", a, bearing, meters, err)
		}
		if got := DistanceMeters(a, b); math.Abs(got-meters) > 0.1 {
			t.Fatalf("%v, %v degrees: %v m away, want %v", a, bearing, got, meters)
		}
		back := BearingDegrees(a, b)
		if diff := math.Abs(math.Mod(back-bearing+540, 360) - 180); diff > 1e-3 && math.Abs(a.Lat()) < 89.9 && meters > 100 && meters < 9.9e6 {
			t.Fatalf("%v, %v degrees, %v m: bearing back is %v", a, bearing, meters, back)
		}
	}
}

func TestCentroid(t *testing.T) {
	c, ok := Centroid([]orb.Point{{179, 0}, {-179, 0}})
	if !ok || math.Abs(math.Abs(c.Lon())-180) > 1e-9 || math.Abs(c.Lat()) > 1e-9 {
		t.Errorf("across the antimeridian: %v, %v", c, ok)
	}
	if c, ok := Centroid([]orb.Point{{0, 80}, {90, 80}, {180, 80}, {-90, 80}}); !ok || math.Abs(c.Lat()-90) > 1e-9 {
		t.Errorf("around the pole: %v, %v", c, ok)
	}
	if _, ok := Centroid([]orb.Point{{0, 0}, {180, 0}}); ok {
		t.Error("opposite places have a centroid")
	}
	if _, ok := Centroid(nil); ok {
		t.Error("no places have a centroid")
	}
}

func TestNormalizeLon(t *testing.T) {
	for in, want := range map[float64]float64{0: 0, 180: 180, -180: -180, 181: -179, -181: 179, 540: -180, 725: 5, -725: -5} {
		if got := NormalizeLon(in); got != want {
			t.Errorf("%v: got %v, want %v", in, got, want)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, p := range []orb.Point{{180.1, 0}, {0, 90.1}, {math.NaN(), 0}, {0, math.NaN()}, {math.Inf(1), 0}} {
		if Check(p) == nil {
			t.Errorf("%v is on the earth", p)
		}
	}
}
