package view

import (
	"github.com/meridian-mesh/meridian/edgeproxy/lb"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
)

// Choice makes the picks of one loop; it is what a picker sees of a service for
// the time of one pick.
type Choice struct {
	// Loop is the loop's number.
	Loop int

	service *Service
	draw    uint64
	now     int64
	sick    bool // health is not looked at
	cold    bool // nor whether an endpoint is warm
}

var _ lb.Loads = (*Choice)(nil)

// Pick chooses a home endpoint for a request that has tried some already. With
// keyed, draw is the hash of what is to stay at one endpoint, else a random
// number. now is of the loops' clock.
func (c *Choice) Pick(s *Service, tried []int, draw uint64, keyed bool, now int64) (int, bool) {
	p := s.Pickers[c.Loop]
	if keyed {
		p = s.Keyed
	}
	return c.pick(p, s, tried, draw, now)
}

// PickPacket chooses a home endpoint for a UDP session; draw is the hash of what
// tells it apart.
func (c *Choice) PickPacket(s *Service, tried []int, draw uint64, now int64) (int, bool) {
	return c.pick(s.Packets, s, tried, draw, now)
}

func (c *Choice) pick(p lb.Picker, s *Service, tried []int, draw uint64, now int64) (int, bool) {
	*c = Choice{Loop: c.Loop, service: s, draw: draw, now: now, sick: s.Panic.Load()}
	i, ok := p.Pick(c, tried, draw)
	if !ok && s.SlowStart.Window > 0 {
		// Those that are warm are down or tried: better a cold one than none.
		c.cold = true
		i, ok = p.Pick(c, tried, draw)
	}
	c.service = nil
	return i, ok
}

// Usable implements [lb.Endpoints].
func (c *Choice) Usable(i int) bool {
	h := &c.service.Home[i].Health
	if c.cold {
		why, _ := h.Load()
		return why == 0 || c.sick
	}
	return c.sick || h.In(c.draw, i)
}

// InFlight implements [lb.Endpoints].
func (c *Choice) InFlight(i int) int { return int(c.service.Home[i].InFlight.Load()) }

// Latency implements [lb.Endpoints].
func (c *Choice) Latency(i int) float64 {
	return c.service.Home[i].Cells[c.Loop].Latency.At(c.now)
}

// Reported implements [lb.Loads].
func (c *Choice) Reported() bool { return c.service.Cells[c.Loop].Reported }

// Load implements [lb.Loads].
func (c *Choice) Load(i int) *lb.Load { return &c.service.Home[i].Cells[c.Loop].Load }

// Now implements [lb.Loads].
func (c *Choice) Now() int64 { return c.now }

// Sticks reports whether a session that names home endpoint i stays there. A
// weight of 0 or a cold start takes no new sessions and keeps those it has.
func (s *Service) Sticks(i int) bool {
	why, _ := s.Home[i].Health.Load()
	return why == 0 || s.Panic.Load()
}

// Place is where a session lives: at a home endpoint or, with Home being
// [upstream.Home], at Remotes[Remote].
type Place struct{ Home, Remote int }

// Session finds the place of a session's token.
func (s *Service) Session(token uint64) (Place, bool) {
	p, ok := s.places[token]
	return p, ok
}

// Key is what a service's consistent hashing goes by.
type Key uint8

// Keys. BySource is the client's address.
const (
	ByNothing Key = iota
	BySource
	ByHeader
)

// Cookie is how a service's sessions are marked.
type Cookie struct {
	Name string
	// Prefix and Suffix surround the token in a Set-Cookie field's value.
	Prefix, Suffix []byte
}

// AppendTo appends the value of a Set-Cookie field.
func (c *Cookie) AppendTo(dst []byte, token uint64) []byte {
	return append(lb.AppendToken(append(dst, c.Prefix...), token), c.Suffix...)
}

func atHome(i int) Place   { return Place{Home: i} }
func atRemote(i int) Place { return Place{Home: upstream.Home, Remote: i} }
