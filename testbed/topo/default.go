package topo

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/paulmach/orb"

	"github.com/meridian-mesh/meridian/geo"
	"github.com/meridian-mesh/meridian/geo/rtt"
)

// victoria are six places in Victoria, Australia, with their real coordinates.
// Slots, service times and the aggregation hop are assumptions: a metropolitan
// ring takes half a millisecond, a regional town 3.5 to 5 ms to its exchange and
// back, a remote one 10 ms. With them and [rtt.Prior]'s fibre the round trips
// between the sites are 1 to 25 ms, of the order of the service times: where a
// request is served matters as much as how long it waits there.
var victoria = []Site{
	{Name: "melbourne", Title: "Melbourne CBD", Location: orb.Point{144.9631, -37.8136}, Slots: 6, ServiceTime: 15 * time.Millisecond, Access: 500 * time.Microsecond},
	{Name: "footscray", Title: "Footscray", Location: orb.Point{144.8999, -37.8010}, Slots: 3, ServiceTime: 15 * time.Millisecond, Access: 500 * time.Microsecond},
	{Name: "geelong", Title: "Geelong", Location: orb.Point{144.3607, -38.1499}, Slots: 3, ServiceTime: 18 * time.Millisecond, Access: 3500 * time.Microsecond},
	{Name: "ballarat", Title: "Ballarat", Location: orb.Point{143.8503, -37.5622}, Slots: 2, ServiceTime: 16 * time.Millisecond, Access: 4 * time.Millisecond},
	{Name: "bendigo", Title: "Bendigo", Location: orb.Point{144.2794, -36.7570}, Slots: 2, ServiceTime: 20 * time.Millisecond, Access: 5 * time.Millisecond},
	{Name: "mildura", Title: "Mildura", Location: orb.Point{142.1560, -34.2080}, Slots: 2, ServiceTime: 40 * time.Millisecond, Access: 10 * time.Millisecond},
}

// usersPerSlot is how many users live around a site for each of its slots.
const usersPerSlot = 12

// Default is the embedded demo topology. The seed places the users.
func Default(seed uint64) *Topology {
	t := &Topology{
		Title:   "six sites in Victoria, Australia (real coordinates; capacities and aggregation hops assumed)",
		Sites:   append([]Site(nil), victoria...),
		msPerKM: 2 * rtt.Stretch / rtt.FibreKMPerMS,
	}
	r := rand.New(rand.NewPCG(seed, 0))
	for _, s := range t.Sites {
		for range s.Slots * usersPerSlot {
			t.Users = append(t.Users, User{Position: around(r, s.Location, 2500)})
		}
	}
	if err := t.settle(); err != nil {
		panic(err) // the table above is wrong
	}
	return t
}

// around draws a position from a round bell with the given deviation in metres.
func around(r *rand.Rand, center orb.Point, meters float64) orb.Point {
	return geo.Destination(center, r.Float64()*360, meters*math.Abs(r.NormFloat64()))
}
