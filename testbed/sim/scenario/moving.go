package scenario

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/meridian-mesh/meridian/geo"
	"github.com/meridian-mesh/meridian/testbed/sim"
)

const (
	// stepS is how often users are looked at.
	stepS = 1.0
	// gapKM is the room that a waiting car takes on the road.
	gapKM = 0.008
)

// plane are positions in km around the first one, which is right for a city.
type plane struct{ x, y []float64 }

func flatten(sites []sim.Site) plane {
	p := plane{make([]float64, len(sites)), make([]float64, len(sites))}
	for i := range sites {
		d := geo.DistanceMeters(sites[0].Location, sites[i].Location) / 1000
		a := geo.BearingDegrees(sites[0].Location, sites[i].Location) * math.Pi / 180
		p.x[i], p.y[i] = d*math.Sin(a), d*math.Cos(a)
	}
	return p
}

func (p plane) nearest(x, y float64) int {
	best, least := 0, math.Inf(1)
	for i := range p.x {
		if d := (p.x[i]-x)*(p.x[i]-x) + (p.y[i]-y)*(p.y[i]-y); d < least {
			best, least = i, d
		}
	}
	return best
}

func (mv *Moving) users(sites []sim.Site) (*sim.Users, error) {
	if mv.Users < 1 || mv.Users > 1e6 || !(mv.KmH > 0 && mv.KmH < 2000) {
		return nil, fmt.Errorf("%d users at %v km/h", mv.Users, mv.KmH)
	}
	u := &sim.Users{Home: make([]int, mv.Users), EveryMS: stepS * 1000}
	switch mv.Path {
	case "waypoint":
		u.Mover = func() func(float64, []int) { return mv.waypoint(flatten(sites)) }
	case "road":
		if mv.Until <= mv.From {
			return nil, fmt.Errorf("an accident from %v until %v", mv.From, mv.Until)
		}
		u.Mover = func() func(float64, []int) { return mv.road(flatten(sites)) }
	default:
		return nil, fmt.Errorf("path %q: want waypoint or road", mv.Path)
	}
	u.Mover()(0, u.Home)
	return u, nil
}

// waypoint is the random waypoint model: everybody walks straight to a place drawn
// at random in the area of the sites, then to another.
func (mv *Moving) waypoint(p plane) func(float64, []int) {
	r := rand.New(rand.NewPCG(mv.Seed, 0x3a7))
	x0, x1, y0, y1 := slices.Min(p.x), slices.Max(p.x), slices.Min(p.y), slices.Max(p.y)
	place := func() (float64, float64) { return x0 + r.Float64()*(x1-x0), y0 + r.Float64()*(y1-y0) }
	type walker struct{ x, y, tx, ty, speed float64 }
	all := make([]walker, mv.Users)
	for k := range all {
		w := &all[k]
		w.x, w.y = place()
		w.tx, w.ty = place()
		w.speed = mv.KmH / 3600 * (0.5 + r.Float64())
	}
	last := 0.0
	return func(atS float64, home []int) {
		dt := atS - last
		last = atS
		for k := range all {
			w := &all[k]
			for left := w.speed * dt; left > 0; {
				d := math.Hypot(w.tx-w.x, w.ty-w.y)
				if d > left {
					w.x += (w.tx - w.x) / d * left
					w.y += (w.ty - w.y) / d * left
					break
				}
				left -= d
				w.x, w.y = w.tx, w.ty
				w.tx, w.ty = place()
				if d == 0 {
					break
				}
			}
			home[k] = p.nearest(w.x, w.y)
		}
	}
}

// road is a road along the sites in order, driven one way and then anew from its
// start. While the accident blocks it at Km, cars pile up behind.
func (mv *Moving) road(p plane) func(float64, []int) {
	r := rand.New(rand.NewPCG(mv.Seed, 0x40ad))
	along := make([]float64, len(p.x)) // km at which each site stands
	for i := 1; i < len(p.x); i++ {
		along[i] = along[i-1] + math.Hypot(p.x[i]-p.x[i-1], p.y[i]-p.y[i-1])
	}
	length := along[len(along)-1]
	type car struct {
		at, speed float64
		id        int
	}
	cars := make([]car, mv.Users)
	for k := range cars {
		cars[k] = car{length * r.Float64(), mv.KmH / 3600 * (0.8 + 0.4*r.Float64()), k}
	}
	last := 0.0
	return func(atS float64, home []int) {
		dt := atS - last
		last = atS
		blocked := atS >= mv.From.Seconds() && atS < mv.Until.Seconds()
		slices.SortFunc(cars, func(a, b car) int {
			switch {
			case a.at > b.at:
				return -1
			case a.at < b.at:
				return 1
			}
			return a.id - b.id
		})
		tail := mv.Km
		for k := range cars {
			c := &cars[k]
			next := c.at + c.speed*dt
			if blocked && c.at <= mv.Km && next > tail {
				next = math.Max(c.at, tail)
				tail -= gapKM
			}
			if c.at = next; c.at >= length {
				c.at = math.Mod(c.at, math.Max(length, 1e-9))
			}
			best := 0
			for i := range along {
				if math.Abs(along[i]-c.at) < math.Abs(along[best]-c.at) {
					best = i
				}
			}
			home[c.id] = best
		}
	}
}
