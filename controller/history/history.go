// Package history is what a controller remembers of the time before now, in memory and
// bounded; one that starts anew begins with nothing. [Demand] is that of a site's own
// users for each service, for an hour: what a change can be tried on (meridian apply
// --prove). [Past] is how the mesh looked for the last hours, for people.
//
// The package is pure. A Demand and a Past belong to one goroutine each.
package history

import (
	"maps"
	"slices"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

const (
	// Step is the time over which demand is averaged.
	Step = 30 * time.Second
	// Steps is how many of them are kept: an hour.
	Steps = 120
	// MaxServices bounds what is kept; services beyond it are counted by Missed.
	MaxServices = 1024
)

// Demand is the last hour of a site. The zero value is ready.
type Demand struct {
	// step is the number of the present one since the clock's origin, first that of the
	// first one ever.
	step, first int64
	begun       bool
	samples     float64 // of the present step
	services    map[mesh.ServiceKey]*past
	missed      int
}

// past is one service: the mean by step, the present one's the sum so far.
type past struct {
	perS [Steps]float32
	sum  float64
}

// Note takes the demand of every service at a time, measured from any origin by a
// clock that is never set back. It is to be called at regular intervals; a service
// that is left out has none. Times before the last are ignored.
func (d *Demand) Note(at time.Duration, perS map[mesh.ServiceKey]float64) {
	step := int64(at / Step)
	switch {
	case !d.begun:
		d.begun, d.step, d.first = true, step, step
		d.services = map[mesh.ServiceKey]*past{}
	case step < d.step:
		return
	case step > d.step:
		d.close(step)
	}
	d.samples++
	d.missed = 0
	for _, key := range slices.Sorted(maps.Keys(perS)) {
		p := d.services[key]
		if p == nil {
			if len(d.services) >= MaxServices {
				d.missed++
				continue
			}
			p = &past{}
			d.services[key] = p
		}
		p.sum += perS[key]
	}
}

// close ends the present step and those up to the next one, in which nobody looked.
func (d *Demand) close(next int64) {
	for key, p := range d.services {
		p.perS[d.step%Steps] = float32(p.sum / d.samples)
		p.sum = 0
		gone := true
		for k := d.step + 1; k < next && k <= d.step+Steps; k++ {
			p.perS[k%Steps] = 0
		}
		for _, x := range p.perS {
			gone = gone && x == 0
		}
		if gone {
			delete(d.services, key)
		}
	}
	d.step, d.samples = next, 0
}

// Missed is how many services there was no place for when demand was last noted.
func (d *Demand) Missed() int { return d.missed }

// Series is one service's demand, by steps of [Step]: the oldest first, the last one
// not over yet.
type Series struct {
	Service mesh.ServiceKey `json:"service"`
	PerS    []float64       `json:"perS"`
}

// Series returns what is known, by service. All have as many steps, zeros where a
// service was not there.
func (d *Demand) Series() []Series {
	if !d.begun {
		return nil
	}
	from := max(d.first, d.step-Steps+1)
	var out []Series
	for _, key := range slices.Sorted(maps.Keys(d.services)) {
		p := d.services[key]
		s := Series{Service: key}
		for k := from; k < d.step; k++ {
			s.PerS = append(s.PerS, float64(p.perS[k%Steps]))
		}
		s.PerS = append(s.PerS, p.sum/max(1, d.samples))
		out = append(out, s)
	}
	return out
}
