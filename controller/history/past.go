package history

import (
	"sort"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

const (
	// Every is the time between two moments that are noted.
	Every = 10 * time.Second
	// Keep is how far back they go.
	Keep = 6 * time.Hour
	// MaxMoments bounds what is kept.
	MaxMoments = 512
	// MaxBytes bounds what it takes, whichever of the two is met first.
	MaxBytes = 4 << 20
)

// Moment is how the mesh looked from one site.
type Moment struct {
	At    time.Time    `json:"at"`
	Sites []SiteMoment `json:"sites"`
	Flows []Flow       `json:"flows"`
	// Cuts are the ways from this site that did not work.
	Cuts []Cut `json:"cuts,omitempty"`
}

// SiteMoment is one site, whatever was known of it.
type SiteMoment struct {
	Site    string `json:"site"`
	Status  string `json:"status"`
	Traffic string `json:"traffic,omitempty"`
	// Load is the part of the slots that was in use; nil where none are known.
	Load *float32 `json:"load,omitempty"`
	// ServedPerS are requests from everywhere, InFlight those that ran.
	ServedPerS float32 `json:"servedPerS"`
	InFlight   int     `json:"inFlight"`

	busy, slots float64
}

// Flow is what one site served for the users of another, in requests per second.
type Flow struct {
	From string  `json:"from"`
	To   string  `json:"to"`
	PerS float32 `json:"perS"`
}

// Cut is a way that did not work, and why.
type Cut struct {
	From string `json:"from"`
	To   string `json:"to"`
	Why  string `json:"why"`
}

// Add takes in the load of one more of the site's services.
func (m *SiteMoment) Add(r *mesh.ServiceReport) {
	if r.Learned != mesh.SlotsLowerBound { // by a bound it would look busier than it is
		m.busy += r.Arrivals * r.ServiceTimeMS / 1000
		m.slots += r.Slots
	}
	if m.slots > 0 {
		load := float32(m.busy / m.slots)
		m.Load = &load
	}
	m.ServedPerS += float32(r.Arrivals)
	m.InFlight += r.InFlight
}

// bytes is about what a moment takes in memory; names are shared with the world.
func (m *Moment) bytes() int {
	n := 96 + 112*len(m.Sites) + 40*len(m.Flows)
	for _, c := range m.Cuts {
		n += 48 + len(c.Why)
	}
	return n
}

// Past is the last hours of the mesh, the finer the nearer: where there is no room for
// another moment, the one goes whose neighbours are nearest to each other for their
// age. The zero value is ready. It belongs to one goroutine.
type Past struct {
	moments []Moment // the oldest first
	bytes   int
}

// Due reports whether another moment is to be noted. A clock that was set back begins anew.
func (p *Past) Due(now time.Time) bool {
	n := len(p.moments)
	return n == 0 || now.Sub(p.moments[n-1].At) >= Every || now.Before(p.moments[n-1].At)
}

// Note keeps a moment, which must not be changed afterwards. Those that are later by a
// clock that was set back since are forgotten.
func (p *Past) Note(m Moment) {
	n := len(p.moments)
	for n > 0 && !p.moments[n-1].At.Before(m.At) {
		n--
		p.bytes -= p.moments[n].bytes()
	}
	clear(p.moments[n:])
	p.moments = append(p.moments[:n], m)
	p.bytes += m.bytes()
	for len(p.moments) > 1 && m.At.Sub(p.moments[0].At) > Keep {
		p.remove(0)
	}
	for len(p.moments) > 1 && (len(p.moments) > MaxMoments || p.bytes > MaxBytes) {
		p.remove(p.least(m.At))
	}
}

// least is the moment that is missed least.
func (p *Past) least(now time.Time) int {
	best, found := 0, false
	var least float64
	for i := 1; i < len(p.moments)-1; i++ {
		gap := p.moments[i+1].At.Sub(p.moments[i-1].At).Seconds()
		if x := gap / now.Sub(p.moments[i].At).Seconds(); !found || x < least {
			best, least, found = i, x, true
		}
	}
	return best
}

func (p *Past) remove(i int) {
	p.bytes -= p.moments[i].bytes()
	copy(p.moments[i:], p.moments[i+1:])
	last := len(p.moments) - 1
	p.moments[last] = Moment{}
	p.moments = p.moments[:last]
}

// Times are those of the moments kept, the oldest first.
func (p *Past) Times() []time.Time {
	out := make([]time.Time, len(p.moments))
	for i := range p.moments {
		out[i] = p.moments[i].At
	}
	return out
}

// At returns the last moment that is not after a time, or else the first there is;
// nothing where none is kept. It is not to be changed.
func (p *Past) At(t time.Time) (Moment, bool) {
	if len(p.moments) == 0 {
		return Moment{}, false
	}
	i := sort.Search(len(p.moments), func(i int) bool { return p.moments[i].At.After(t) })
	return p.moments[max(0, i-1)], true
}
