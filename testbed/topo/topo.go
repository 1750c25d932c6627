// Package topo describes the networks that the demo, the simulator and the
// experiments run on: sites with a position and a capacity, users around them,
// and the round trip between any two sites. A Topology is a value; nothing here
// listens, measures or looks at a clock, and the same seed gives the same
// Topology.
package topo

import (
	"fmt"
	"time"

	"github.com/paulmach/orb"

	"github.com/meridian-mesh/meridian/geo"
	"github.com/meridian-mesh/meridian/geo/nearest"
)

// Site is a place with workloads.
type Site struct {
	// Name is an RFC 1123 label; Title is for people.
	Name, Title string
	Location    orb.Point
	// Slots is how many requests it works on at once, ServiceTime the mean time of one.
	Slots       int
	ServiceTime time.Duration
	// Access is the round trip to the first aggregation point of its operator,
	// part of every RTT to and from the site.
	Access time.Duration
}

// Capacity is the rate at which the site is full, in requests per second.
func (s Site) Capacity() float64 { return float64(s.Slots) / s.ServiceTime.Seconds() }

// User is somebody who sends requests.
type User struct {
	Position orb.Point
	// Home is the index of the nearest site in Topology.Sites.
	Home int
}

// Topology is a set of sites and users.
type Topology struct {
	// Title says where it is and what is assumed about it.
	Title string
	Sites []Site
	Users []User

	msPerKM float64
}

// RTT is the round trip between two sites, 0 between a site and itself: the
// aggregation hop at either end and the way between them.
func (t *Topology) RTT(i, j int) time.Duration {
	if i == j {
		return 0
	}
	a, b := &t.Sites[i], &t.Sites[j]
	km := geo.DistanceMeters(a.Location, b.Location) / 1000
	rtt := a.Access + b.Access + time.Duration(t.msPerKM*km*float64(time.Millisecond))
	return rtt.Round(10 * time.Microsecond)
}

// Capacity is the rate at which all sites are full, in requests per second.
func (t *Topology) Capacity() float64 {
	var sum float64
	for _, s := range t.Sites {
		sum += s.Capacity()
	}
	return sum
}

// UsersOf counts the users whose home is the site.
func (t *Topology) UsersOf(site int) int {
	n := 0
	for _, u := range t.Users {
		if u.Home == site {
			n++
		}
	}
	return n
}

// settle gives every user the nearest site as home.
func (t *Topology) settle() error {
	places := make([]nearest.Place, len(t.Sites))
	index := make(map[string]int, len(t.Sites))
	for i, s := range t.Sites {
		places[i] = nearest.Place{Name: s.Name, Position: s.Location}
		index[s.Name] = i
	}
	ix, err := nearest.New(places)
	if err != nil {
		return fmt.Errorf("sites: %w", err)
	}
	found := make([]nearest.Found, 0, 1)
	for i := range t.Users {
		u := &t.Users[i]
		if found = ix.Nearest(found[:0], u.Position, 1); len(found) == 0 {
			return fmt.Errorf("user %d at %v has no site", i, u.Position)
		}
		u.Home = index[found[0].Name]
	}
	return nil
}
