package geo

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/paulmach/orb"
)

// RFC 5870 sections 3.3, 3.4 and 6, the examples among them.
func TestParseURI(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want Position
		err  error
	}{
		{"geo:48.2010,16.3695,183", Position{orb.Point{16.3695, 48.2010}, 183, -1}, nil},
		{"geo:48.198634,16.371648;crs=wgs84;u=40", Position{orb.Point{16.371648, 48.198634}, 0, 40}, nil},
		{"GEO:-37.8136,144.9631", Position{orb.Point{144.9631, -37.8136}, 0, -1}, nil},
		{"geo:66,30;u=6.500;FOo=this%2dthat", Position{orb.Point{30, 66}, 0, 6.5}, nil},
		{"geo:66,30;CRS=WGS84;U=0", Position{orb.Point{30, 66}, 0, 0}, nil},
		{"geo:66,30;foo;bar=[a]:&+$-_.!~*'()", Position{orb.Point{30, 66}, 0, -1}, nil},
		{"geo:90,-22.43;crs=WGS84", Position{orb.Point{0, 90}, 0, -1}, nil},
		{"geo:-90,46", Position{orb.Point{0, -90}, 0, -1}, nil},
		{"geo:22.300,-118.44", Position{orb.Point{-118.44, 22.3}, 0, -1}, nil},
		{"geo:5,-180", Position{orb.Point{180, 5}, 0, -1}, nil},
		{"geo:0,0,-11022.5", Position{orb.Point{0, 0}, -11022.5, -1}, nil},
		{"geo:00037.5000000000000000000000000,0144", Position{orb.Point{144, 37.5}, 0, -1}, nil},

		{"", Position{}, ErrScheme}, {"geo", Position{}, ErrScheme}, {"geo;1,2", Position{}, ErrScheme}, {" geo:1,2", Position{}, ErrScheme},
		{"http://x", Position{}, ErrScheme}, {"geo:", Position{}, ErrCoordinates}, {"geo:1", Position{}, ErrCoordinates}, {"geo:1,", Position{}, ErrCoordinates},
		{"geo:,1", Position{}, ErrCoordinates}, {"geo:1,2,", Position{}, ErrCoordinates}, {"geo:1,2,3,4", Position{}, ErrCoordinates},
		{"geo:1.,2", Position{}, ErrCoordinates}, {"geo:.1,2", Position{}, ErrCoordinates}, {"geo:+1,2", Position{}, ErrCoordinates},
		{"geo:1e1,2", Position{}, ErrCoordinates}, {"geo:1.2.3,2", Position{}, ErrCoordinates}, {"geo:--1,2", Position{}, ErrCoordinates},
		{"geo:-,2", Position{}, ErrCoordinates}, {"geo:1, 2", Position{}, ErrCoordinates}, {"geo:NaN,2", Position{}, ErrCoordinates}, {"geo:0x1,2", Position{}, ErrCoordinates},
		{"geo:90.0001,0", Position{}, ErrRange}, {"geo:0,180.0001", Position{}, ErrRange}, {"geo:144.96,-37.8", Position{}, ErrRange},
		{"geo:1,2;crs=nad27", Position{}, ErrCRS}, {"geo:1,2;crs", Position{}, ErrCRS}, {"geo:1,2;crs=", Position{}, ErrCRS},
		{"geo:1,2;u=-1", Position{}, ErrUncertainty}, {"geo:1,2;u", Position{}, ErrUncertainty}, {"geo:1,2;u=a", Position{}, ErrUncertainty},
		{"geo:1,2;u=1;u=2", Position{}, ErrParameter}, {"geo:1,2;u=1;crs=wgs84", Position{}, ErrParameter}, {"geo:1,2;a=b;u=1", Position{}, ErrParameter},
		{"geo:1,2;crs=wgs84;crs=wgs84", Position{}, ErrParameter}, {"geo:1,2;crs=wgs84;a;u=1", Position{}, ErrParameter},
		{"geo:1,2;", Position{}, ErrParameter}, {"geo:1,2;a=", Position{}, ErrParameter}, {"geo:1,2;a=%2", Position{}, ErrParameter},
		{"geo:1,2;a=%zz", Position{}, ErrParameter}, {"geo:1,2;a_b", Position{}, ErrParameter}, {"geo:1,2;a=b=c", Position{}, ErrParameter}, {"geo:1,2;a=b c", Position{}, ErrParameter},
	} {
		got, err := ParseURI([]byte(tc.in))
		if got != tc.want || err != tc.err {
			t.Errorf("%q: got %+v, %v; want %+v, %v", tc.in, got, err, tc.want, tc.err)
		}
	}
}

func TestParseLatLon(t *testing.T) {
	for _, tc := range []struct {
		lat, lon string
		want     orb.Point
		err      error
	}{
		{"-37.8136", "144.9631", orb.Point{144.9631, -37.8136}, nil},
		{" +37.5\t", "+0", orb.Point{0, 37.5}, nil},
		{"90", "77", orb.Point{0, 90}, nil},
		{"", "1", orb.Point{}, ErrCoordinates}, {"1", "", orb.Point{}, ErrCoordinates}, {"+-1", "1", orb.Point{}, ErrCoordinates},
		{"1", "1,2", orb.Point{}, ErrCoordinates}, {"91", "1", orb.Point{}, ErrRange}, {"1", "-181", orb.Point{}, ErrRange},
	} {
		got, err := ParseLatLon([]byte(tc.lat), []byte(tc.lon))
		if got != tc.want || err != tc.err {
			t.Errorf("%q, %q: got %v, %v; want %v, %v", tc.lat, tc.lon, got, err, tc.want, tc.err)
		}
	}
}

// number must agree with the standard library to the last bits that matter: a
// nanometre on the ground.
func TestNumberAgainstStrconv(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 50000 {
		text := strconv.FormatFloat(r.Float64()*360-180, 'f', r.IntN(22), 64)
		want, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := number([]byte(text), true)
		if !ok || math.Abs(got-want) > 1e-13 {
			t.Fatalf("%s: got %v, %v; want %v", text, got, ok, want)
		}
	}
	if _, ok := number([]byte(fmt.Sprintf("1%0400d", 0)), false); ok {
		t.Error("took a number beyond float64")
	}
}

func TestPositionAllocates0(t *testing.T) {
	good, bad := []byte("geo:-37.8136123456789,144.9631,12;crs=wgs84;u=40;x=y"), []byte("geo:-137,144;u=-1")
	lat, lon := []byte("-37.8136"), []byte("144.9631")
	if n := testing.AllocsPerRun(100, func() {
		ParseURI(good)
		ParseURI(bad)
		ParseLatLon(lat, lon)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzParseURI(f *testing.F) {
	for _, s := range []string{"geo:48.2010,16.3695,183", "geo:66,30;u=6.500;FOo=this%2dthat", "geo:90,-22.43;crs=WGS84", "geo:1,2;a=%2"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseURI(b)
		if err != nil {
			if p != (Position{}) {
				t.Fatalf("%q: %+v with error %v", b, p, err)
			}
			return
		}
		if Check(p.Point) != nil || math.IsNaN(p.AltitudeMeters) || math.IsInf(p.UncertaintyMeters, 0) || p.UncertaintyMeters < 0 && p.UncertaintyMeters != -1 {
			t.Fatalf("%q: %+v", b, p)
		}
		text := "geo:" + strconv.FormatFloat(p.Point.Lat(), 'f', -1, 64) + "," + strconv.FormatFloat(p.Point.Lon(), 'f', -1, 64)
		q, err := ParseURI([]byte(text))
		if err != nil || math.Abs(q.Point.Lat()-p.Point.Lat()) > 1e-12 || math.Abs(q.Point.Lon()-p.Point.Lon()) > 1e-12 {
			t.Fatalf("%q came back from %s as %+v, %v", b, text, q, err)
		}
	})
}

func BenchmarkParseURI(b *testing.B) {
	in := []byte("geo:-37.8136,144.9631;u=40")
	for b.Loop() {
		ParseURI(in)
	}
}
