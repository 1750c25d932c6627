package mesh

import (
	"encoding/json"
	"fmt"
)

// Site is a place with proxies and workloads.
type Site struct {
	TypeMeta
	Metadata ObjectMeta `json:"metadata"`
	Spec     SiteSpec   `json:"spec"`
}

// SiteSpec is the desired state of a Site.
type SiteSpec struct {
	// Location is the site's position, a GeoJSON Point (longitude first, RFC 7946).
	Location Location `json:"location"`
	// Parent is the enclosing site, area or region, if any.
	Parent string `json:"parent,omitempty"`
	// Gateways are the advertised addresses (host:port) of the site's east-west
	// listeners, the best first.
	Gateways []SiteGateway `json:"gateways,omitempty"`
	// Links say what is known of the way from this site to others.
	Links []SiteLink `json:"links,omitempty"`
	// Traffic is what the site takes of new requests, all of them where it is empty.
	Traffic string `json:"traffic,omitempty"`
	// MTLS is what the site's east-west listeners take; empty is [MTLSStrict].
	MTLS string `json:"mtls,omitempty"`
}

// What a site takes of new requests ([SiteSpec.Traffic]). What runs there ends there,
// and sessions stay where they are.
const (
	SiteAccepts  = "accept"   // its own users' and other sites'
	SiteCordoned = "cordoned" // its own users' only
	SiteDrained  = "drained"  // none while another site can take them
)

// TrafficReason is the annotation of a Site that says why its traffic is as it is.
const TrafficReason = MeshGroup + "/traffic-reason"

// Excluded says why other sites send nothing new to this one, empty where they may.
func (s *Site) Excluded() string {
	switch s.Spec.Traffic {
	case SiteCordoned, SiteDrained:
		return s.Spec.Traffic + " by its operator"
	}
	return ""
}

// Location is a GeoJSON Point; degrees, WGS 84.
type Location struct {
	Lon, Lat float64
}

type geoPoint struct {
	Type        string    `json:"type"`
	Coordinates []float64 `json:"coordinates"`
}

// MarshalJSON writes {"type":"Point","coordinates":[lon,lat]}.
func (l Location) MarshalJSON() ([]byte, error) {
	return json.Marshal(geoPoint{Type: "Point", Coordinates: []float64{l.Lon, l.Lat}})
}

// UnmarshalJSON reads a GeoJSON Point; a third coordinate (altitude) is ignored.
func (l *Location) UnmarshalJSON(b []byte) error {
	var p geoPoint
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	if p.Type != "Point" || len(p.Coordinates) < 2 || len(p.Coordinates) > 3 {
		return fmt.Errorf("want a GeoJSON Point with coordinates [longitude, latitude]")
	}
	l.Lon, l.Lat = p.Coordinates[0], p.Coordinates[1]
	return nil
}

// SiteGateway is one advertised address of a site.
type SiteGateway struct {
	Address string `json:"address"`
}

// SiteLink is one direction of a way between two sites, seen from the Site that holds it.
type SiteLink struct {
	To string `json:"to"`
	// RTT is the round-trip time when it is known beforehand; measured values
	// are blended into it.
	RTT *Duration `json:"rtt,omitempty"`
	// Address (host:port) reaches that site from here when the advertised one
	// does not (VPN, NAT, relay).
	Address string `json:"address,omitempty"`
	// Price is the cost of sending one request this way, in ms of delay.
	Price float64 `json:"price,omitempty"`
	// MaxRate is the most requests per second of one service that a proxy sends
	// this way, 0 for no limit.
	MaxRate float64 `json:"maxRate,omitempty"`
}
