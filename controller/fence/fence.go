// Package fence says which sites the traffic of a service may go to, by the
// GeoFences of a mesh.
//
// [Compile] turns documents into [Fences] once for each configuration; proxies and
// controllers ask [Fences.Bars] when they build their tables, never per request. A
// fence is closed where it is in doubt: a site that it cannot place is outside.
//
// The package is pure. Fences are immutable and may be shared.
package fence

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/paulmach/orb"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/geo"
)

// Fences are those of one mesh. The zero value and nil fence nothing.
type Fences struct {
	of    map[mesh.ServiceKey][]*fence
	sites map[string]*mesh.Site
}

// fence is one GeoFence, with its areas as polygons.
type fence struct {
	*mesh.GeoFence
	areas []orb.Polygon
}

// Compile reads the fences and sites among objects, which must be valid and must not
// change any more. Fences of one service are asked in the order of their names.
func Compile(o *mesh.Objects) *Fences {
	if len(o.GeoFences) == 0 {
		return nil
	}
	out := &Fences{of: map[mesh.ServiceKey][]*fence{}, sites: map[string]*mesh.Site{}}
	for _, s := range o.Sites {
		if out.sites[s.Metadata.Name] == nil {
			out.sites[s.Metadata.Name] = s
		}
	}
	for _, g := range o.GeoFences {
		f := &fence{GeoFence: g}
		for _, a := range g.Spec.Allow.Areas {
			f.areas = append(f.areas, geo.Polygon(a.Coordinates))
		}
		for _, t := range g.Spec.TargetRefs {
			key := mesh.ServiceKey(g.Metadata.Namespace + "/" + t.Name)
			out.of[key] = append(out.of[key], f)
		}
	}
	for _, fs := range out.of {
		slices.SortFunc(fs, func(a, b *fence) int { return cmp.Compare(a.Metadata.Name, b.Metadata.Name) })
	}
	return out
}

// Bars says why the service's traffic may not go to a site, naming the fence; empty
// where it may. A proxy that knows of no site of its own is at the site "", which is
// outside of every fence.
func (f *Fences) Bars(service mesh.ServiceKey, site string) string {
	if f == nil {
		return ""
	}
	for _, x := range f.of[service] {
		if !f.inside(x, site) {
			what := "site " + site
			switch {
			case site == "":
				what = "a proxy that was not told its site (--site)"
			case f.sites[site] == nil:
				what += ", which has no Site object,"
			}
			return fmt.Sprintf("fenced: %s is outside of GeoFence %s/%s", what, x.Metadata.Namespace, x.Metadata.Name)
		}
	}
	return ""
}

// Barred are the sites among names that Bars, each with its reason; nil where none is.
func (f *Fences) Barred(service mesh.ServiceKey, names []string) map[string]string {
	var out map[string]string
	for _, name := range names {
		if why := f.Bars(service, name); why != "" {
			if out == nil {
				out = map[string]string{}
			}
			out[name] = why
		}
	}
	return out
}

func (f *Fences) inside(x *fence, site string) bool {
	if slices.Contains(x.Spec.Allow.Sites, site) {
		return true
	}
	s := f.sites[site]
	if s == nil {
		return false
	}
	at := orb.Point{s.Spec.Location.Lon, s.Spec.Location.Lat}
	if slices.ContainsFunc(x.areas, func(a orb.Polygon) bool { return geo.Inside(a, at) }) {
		return true
	}
	// Up the tree, no further than there are sites: it may be a ring by mistake.
	for range len(f.sites) + 1 {
		if slices.Contains(x.Spec.Allow.Parents, s.Metadata.Name) || slices.Contains(x.Spec.Allow.Parents, s.Spec.Parent) {
			return true
		}
		if s = f.sites[s.Spec.Parent]; s == nil {
			return false
		}
	}
	return false
}
