package siteapi

import (
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Traffic is who talks to whom in the mesh as its proxies see it: what the sites told
// last, added up.
type Traffic struct {
	Now time.Time `json:"now"`
	// Sites are those whose traffic is in it, Silent those that told of none in the
	// last ten minutes.
	Sites  []TrafficSite      `json:"sites"`
	Silent []string           `json:"silent,omitempty"`
	Edges  []mesh.TrafficEdge `json:"edges"`
	Rest   []mesh.TrafficRest `json:"rest,omitempty"`
	Delays Delays             `json:"delays"`
}

// TrafficSite is a site's part.
type TrafficSite struct {
	Site string `json:"site"`
	// AgeMS is the time since it told, Edges how many pairs it tells apart.
	AgeMS float64 `json:"ageMs"`
	Edges int     `json:"edges"`
}

// Delays are ms one way between sites, in the form of the scheduler's delaysFile.
type Delays struct {
	Sites []string `json:"sites"`
	// OneWayMS[i][j] is from Sites[i] to Sites[j], -1 where nobody knows.
	OneWayMS [][]float64 `json:"oneWayMs"`
}
