package mesh

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"time"
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
	// Budget bounds what goes over the link in a day.
	Budget *LinkBudget `json:"budget,omitempty"`
}

// LinkBudget is how much a site's proxies may carry over a link in a day: the requests
// that they send there and the answers to them, as bytes of HTTP without what TLS adds.
type LinkBudget struct {
	// GigabytesPerDay is in units of 10^9 bytes.
	GigabytesPerDay float64 `json:"gigabytesPerDay"`
	// ResetAt is when a day begins: a time and its distance from UTC, such as
	// 06:00+10:00; without a distance it is UTC.
	ResetAt string `json:"resetAt,omitempty"`
}

// Bytes is the budget of one day, at least 1.
func (b *LinkBudget) Bytes() uint64 { return uint64(max(1, math.Round(b.GigabytesPerDay*1e9))) }

// Start is how long after midnight UTC a day of the budget begins, from 0 to less than 24
// hours. A text that validation refuses begins at midnight.
func (b *LinkBudget) Start() time.Duration {
	d, _ := parseDayTime(b.ResetAt)
	return d
}

const dayTime = `([01][0-9]|2[0-3]):[0-5][0-9](Z|[-+](0[0-9]|1[0-4]):[0-5][0-9])?`

var reDayTime = regexp.MustCompile(`^` + dayTime + `$`)

// parseDayTime returns the time after midnight UTC of HH:MM, HH:MMZ or HH:MM+HH:MM.
func parseDayTime(s string) (time.Duration, bool) {
	if !reDayTime.MatchString(s) {
		return 0, false
	}
	at, err := time.Parse("15:04Z07:00", s)
	if err != nil {
		if at, err = time.Parse("15:04", s); err != nil {
			return 0, false
		}
	}
	at = at.UTC()
	return time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute, true
}

func checkDayTime(s string) (string, string) {
	if _, ok := parseDayTime(s); !ok {
		return fmt.Sprintf("%q is no time of day", s), "hours and minutes and the distance from UTC, such as 06:00+10:00, or without it 06:00 for UTC"
	}
	return "", ""
}
