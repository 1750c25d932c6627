// Package geo is the geometry of the earth's surface: distance, bearing and
// destination between positions, and the reading of a client's position from
// request headers. Positions are orb.Point{longitude, latitude} in degrees,
// WGS 84; every other quantity has its unit in its name. The earth is a sphere
// of its mean radius, which is within 0.6 % of the ellipsoid, far below what
// routes on the ground add to a straight line.
package geo

import (
	"fmt"
	"math"

	"github.com/paulmach/orb"
	orbgeo "github.com/paulmach/orb/geo"
)

// EarthRadiusMeters is the mean radius R1 of IUGG's reference ellipsoid GRS 80.
// orb's own formulas use the equatorial radius, 0.1 % longer.
const EarthRadiusMeters = 6_371_008.8

// Check returns an error for a position that is not on the earth: longitude
// outside -180..180, latitude outside -90..90, not a number.
func Check(p orb.Point) error {
	if !(p.Lon() >= -180 && p.Lon() <= 180) {
		return fmt.Errorf("longitude %v is not between -180 and 180", p.Lon())
	}
	if !(p.Lat() >= -90 && p.Lat() <= 90) {
		return fmt.Errorf("latitude %v is not between -90 and 90", p.Lat())
	}
	return nil
}

// DistanceMeters is the length of the great circle between two positions, by the
// haversine formula: right at the antimeridian, at the poles and for neighbours
// of a metre.
func DistanceMeters(a, b orb.Point) float64 {
	d := orbgeo.DistanceHaversine(a, b) * (EarthRadiusMeters / orb.EarthRadius)
	if math.IsNaN(d) && Check(a) == nil && Check(b) == nil {
		// Rounding took orb's haversine of two antipodes past 1.
		return math.Pi * EarthRadiusMeters
	}
	return d
}

// BearingDegrees is the direction in which the great circle from one position to
// another starts, clockwise from north, 0 to 360.
func BearingDegrees(from, to orb.Point) float64 {
	b := math.Mod(orbgeo.Bearing(from, to)+360, 360)
	return b
}

// Destination is where a great circle ends that starts at a position in a
// bearing (degrees, clockwise from north) and goes on for some metres. Its
// longitude is in -180..180.
func Destination(from orb.Point, bearingDegrees, meters float64) orb.Point {
	p := orbgeo.PointAtBearingAndDistance(from, bearingDegrees, meters*(orb.EarthRadius/EarthRadiusMeters))
	return orb.Point{NormalizeLon(p.Lon()), p.Lat()}
}

// NormalizeLon brings a longitude in degrees into -180..180.
func NormalizeLon(lon float64) float64 {
	if lon >= -180 && lon <= 180 {
		return lon
	}
	lon = math.Mod(lon+180, 360)
	if lon < 0 {
		lon += 360
	}
	return lon - 180
}

// Centroid is the position nearest the mean of the given ones taken as vectors
// from the earth's centre, so it is right across the antimeridian. ok is false
// when there is none: no positions, or positions that balance out.
func Centroid(points []orb.Point) (center orb.Point, ok bool) {
	var x, y, z float64
	for _, p := range points {
		v := Vector(p)
		x, y, z = x+v[0], y+v[1], z+v[2]
	}
	if math.Sqrt(x*x+y*y+z*z) < 1e-9*float64(len(points)) || len(points) == 0 {
		return orb.Point{}, false
	}
	return orb.Point{degrees(math.Atan2(y, x)), degrees(math.Atan2(z, math.Hypot(x, y)))}, true
}

// Vector is the unit vector from the earth's centre to a position: distances
// between such vectors order as distances on the ground, without seams.
func Vector(p orb.Point) [3]float64 {
	lon, lat := radians(p.Lon()), radians(p.Lat())
	return [3]float64{math.Cos(lat) * math.Cos(lon), math.Cos(lat) * math.Sin(lon), math.Sin(lat)}
}

func radians(deg float64) float64 { return deg * (math.Pi / 180) }
func degrees(rad float64) float64 { return rad * (180 / math.Pi) }
