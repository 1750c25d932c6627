package world

import (
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/geo"
	"github.com/meridian-mesh/meridian/geo/rtt"
)

// way is the round trip to another site: what was expected, and the measured
// values blended into it.
type way struct {
	prior    time.Duration
	estimate rtt.Estimate
}

func (w *World) measured(site string, at time.Time, ms float64) {
	if ms <= 0 {
		return
	}
	x := w.ways[site]
	if x == nil {
		x = &way{}
		w.ways[site] = x
	}
	x.estimate.Observe(at, time.Duration(ms*float64(time.Millisecond)))
}

// rttMS returns the expected round trip from here to another site in ms: by the
// link that either of the two declares, else by distance, and by what the nodes
// measured.
func (w *World) rttMS(here, there *mesh.Site, now time.Time) float64 {
	prior := priorRTT(here, there)
	name := there.Metadata.Name
	x := w.ways[name]
	if x == nil {
		x = &way{}
		w.ways[name] = x
	}
	if x.prior != prior {
		// What was measured before the objects changed may have been another way.
		*x = way{prior, rtt.NewEstimate(prior)}
	}
	return float64(x.estimate.RTT(now)) / float64(time.Millisecond)
}

func priorRTT(here, there *mesh.Site) time.Duration {
	if l := linkTo(here, there.Metadata.Name); l.RTT != nil {
		return l.RTT.D()
	}
	if l := linkTo(there, here.Metadata.Name); l.RTT != nil {
		return l.RTT.D()
	}
	a, b := here.Spec.Location, there.Spec.Location
	meters := geo.DistanceMeters([2]float64{a.Lon, a.Lat}, [2]float64{b.Lon, b.Lat})
	return rtt.Prior(meters, rtt.DefaultAccess, rtt.DefaultAccess)
}

// Links are what the own Site says of the ways to others; the caller keeps them as they
// are.
func (w *World) Links() []mesh.SiteLink {
	for _, s := range w.own().Sites {
		if s.Metadata.Name == w.site {
			return s.Spec.Links
		}
	}
	return nil
}

// linkTo returns what a site says of the way to another, the zero link if nothing.
func linkTo(s *mesh.Site, to string) mesh.SiteLink {
	for _, l := range s.Spec.Links {
		if l.To == to {
			return l
		}
	}
	return mesh.SiteLink{}
}
