package geo

import (
	"github.com/paulmach/orb"
	"github.com/paulmach/orb/planar"
)

// Polygon is a GeoJSON Polygon's coordinates (RFC 7946 3.1.6) as an area: rings of
// [longitude, latitude] in degrees, the border first, then holes. Further numbers
// of a position are passed over, positions of fewer than two are left out.
func Polygon(rings [][][]float64) orb.Polygon {
	out := make(orb.Polygon, 0, len(rings))
	for _, ring := range rings {
		r := make(orb.Ring, 0, len(ring))
		for _, p := range ring {
			if len(p) >= 2 {
				r = append(r, orb.Point{p[0], p[1]})
			}
		}
		out = append(out, r)
	}
	return out
}

// Inside tells whether a position is in an area, its border included and that of
// holes not. Edges are straight between longitude and latitude (RFC 7946 3.1.1), so
// an area across the antimeridian has to be cut there into two (3.1.9). An area
// without a border, or one of less than three corners, has nothing inside.
func Inside(area orb.Polygon, p orb.Point) bool {
	return len(area) > 0 && len(area[0]) >= 4 && planar.PolygonContains(area, p)
}
