package mesh

import (
	"fmt"
	"math"
	"slices"
)

// KindGeoFence is the kind of [GeoFence].
const KindGeoFence = "GeoFence"

// GeoFence bounds the sites that the traffic of services may go to: data that must
// not leave a country, a set of sites or an area. A site outside sends what its
// users ask of the service to a site inside, and serves none of it itself. Of
// several fences around a service every one holds. controller/fence decides.
type GeoFence struct {
	TypeMeta
	Metadata ObjectMeta   `json:"metadata"`
	Spec     GeoFenceSpec `json:"spec"`
}

// GeoFenceSpec is the content of a GeoFence.
type GeoFenceSpec struct {
	TargetRefs []FenceTargetRef `json:"targetRefs"`
	Allow      FenceAllow       `json:"allow"`
}

// FenceTargetRef names a MeshService of the fence's namespace.
type FenceTargetRef struct {
	Group string `json:"group,omitempty"`
	Kind  string `json:"kind"`
	Name  string `json:"name"`
}

// FenceAllow is where a fenced service's traffic may go: a site is inside when any
// of the three says so. A site that has no Site object is inside only by its name.
type FenceAllow struct {
	// Sites are inside by their name.
	Sites []string `json:"sites,omitempty"`
	// Parents are inside with all that is below them (Site.parent).
	Parents []string `json:"parents,omitempty"`
	// Areas are inside by the sites' location.
	Areas []GeoPolygon `json:"areas,omitempty"`
}

// GeoPolygon is a GeoJSON Polygon (RFC 7946 3.1.6): the first ring is its border,
// the others are holes. A ring's positions are [longitude, latitude] in degrees,
// WGS 84, and its last is its first. Edges are straight between longitude and
// latitude (3.1.1).
type GeoPolygon struct {
	Type        string        `json:"type"`
	Coordinates [][][]float64 `json:"coordinates"`
}

// maxRing bounds the positions of one ring, which are walked for every site.
const maxRing = 10_000

func fenceAllowRelations(a *FenceAllow, fault faultFunc) {
	if len(a.Sites)+len(a.Parents)+len(a.Areas) == 0 {
		fault("", "allows no site", "name sites, parents or areas; to stop a service, remove its routes")
	}
}

func polygonRelations(p *GeoPolygon, fault faultFunc) {
	if len(p.Coordinates) == 0 {
		fault("coordinates", "has no ring", "such as [[[144, -38], [146, -38], [146, -37], [144, -38]]]")
	}
	for i, ring := range p.Coordinates {
		at := fmt.Sprintf("coordinates[%d]", i)
		if len(ring) < 4 || len(ring) > maxRing {
			fault(at, fmt.Sprintf("a ring has 4 to %d positions, this one %d", maxRing, len(ring)), "its last position is its first (RFC 7946 3.1.6)")
			continue
		}
		if what, hint := checkRing(ring); what != "" {
			fault(at, what, hint)
		}
	}
}

func checkRing(ring [][]float64) (what, hint string) {
	for j, pos := range ring {
		switch {
		case len(pos) < 2 || len(pos) > 3:
			return fmt.Sprintf("position %d has %d numbers", j, len(pos)), "[longitude, latitude]"
		case !(math.Abs(pos[0]) <= 180):
			return fmt.Sprintf("longitude %v of position %d is out of range, -180 to 180", pos[0], j), ""
		case !(math.Abs(pos[1]) <= 90):
			return fmt.Sprintf("latitude %v of position %d is out of range, -90 to 90", pos[1], j), "longitude comes first"
		case j > 0 && math.Abs(pos[0]-ring[j-1][0]) > 180:
			return fmt.Sprintf("the edge to position %d goes round more than half the earth", j), "cut the area at longitude 180 into two polygons (RFC 7946 3.1.9)"
		}
	}
	if first, last := ring[0], ring[len(ring)-1]; !slices.Equal(first[:2], last[:2]) {
		return fmt.Sprintf("the ring is open: it begins at %v and ends at %v", first[:2], last[:2]), "repeat the first position at the end"
	}
	return "", ""
}

// fences finds services and sites that there are not.
func (c *checker) fences() {
	for _, f := range c.o.GeoFences {
		for i, t := range f.Spec.TargetRefs {
			if key := ServiceKey(f.Metadata.Namespace + "/" + t.Name); c.services[key] == nil {
				c.add(KindGeoFence, f.Metadata, fmt.Sprintf("spec.targetRefs[%d]", i), ReasonTargetNotFound, "there is no MeshService %s%s", key, c.perhaps(t.Name, c.services))
			}
		}
		unknown := func(list string, i int, name string) {
			c.add(KindGeoFence, f.Metadata, fmt.Sprintf("spec.allow.%s[%d]", list, i), ReasonUnknownSite, "there is no Site %s%s", name, c.perhaps(name, c.sites))
		}
		for i, name := range f.Spec.Allow.Sites {
			if c.sites[name] == nil {
				unknown("sites", i, name)
			}
		}
		for i, name := range f.Spec.Allow.Parents {
			if c.sites[name] == nil && !c.isParent(name) {
				unknown("parents", i, name)
			}
		}
	}
}

// isParent tells whether a site says that it is below a name; areas and regions
// need no Site of their own.
func (c *checker) isParent(name string) bool {
	return slices.ContainsFunc(c.o.Sites, func(s *Site) bool { return s.Spec.Parent == name })
}
