package budget

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

const (
	day = 24 * time.Hour
	// scarcityMS is what a request costs where the part of the budget that is left is
	// half the part of the day that is left: about what a site two or three hundred
	// kilometers away costs more than one nearby, so that the link goes on carrying what
	// it is worth and loses what could go elsewhere as well.
	scarcityMS = 20
	// MostMS is the greatest price: what is dearer has no chance beside anything.
	MostMS = 10_000
	// goneAfter is the silence after which a node is taken to be gone, and what was left
	// to it is given to others.
	goneAfter = time.Minute
	// stir is the part of a grant by which it must change to be made anew.
	stir = 1. / 8
	// maxNodes bounds the nodes that are remembered of a link.
	maxNodes = 1024
)

// Limit is the budget of one link.
type Limit struct {
	Bytes uint64
	// Start is how long after midnight UTC its day begins.
	Start time.Duration
}

// LimitOf reads a declared budget.
func LimitOf(b *mesh.LinkBudget) Limit { return Limit{b.Bytes(), b.Start()} }

// node is what is known of one node's part.
type node struct {
	epoch, carried uint64
	granted        mesh.LinkGrant
	// held is the largest reading that may be in force at the node.
	held uint64
	// heard is when it last spoke, by the clock that is never set back.
	heard time.Duration
	gone  bool
	// missed says that it was gone when the day turned: after another one it is forgotten.
	missed bool
}

func (n *node) owed() uint64 {
	if n.gone || n.held <= n.carried {
		return 0
	}
	return n.held - n.carried
}

type link struct {
	Limit
	limited bool
	day     int64
	// ran is for how long the day has been counted, by the clock that is never set back.
	ran, last time.Duration
	since     uint64 // Unix ns when counting began
	used      uint64
	nodes     map[string]*node
}

// Book keeps the budgets of all links of a site. The zero value is ready.
type Book struct {
	links  map[string]*link
	serial uint64
}

// dayOf numbers the days that begin so long after midnight UTC.
func dayOf(at time.Time, start time.Duration) int64 {
	s := at.Unix() - int64(start/time.Second)
	d := s / int64(day/time.Second)
	if s%int64(day/time.Second) < 0 {
		d--
	}
	return d
}

// Tick takes the declared budgets, by the other site's name, at a moment of the wall
// clock and of one that is never set back, whose origin is that of the process. Days turn
// here. It comes before Note. A link whose budget was taken away is forgotten with its day.
func (b *Book) Tick(wall time.Time, clock time.Duration, limits map[string]Limit) {
	if b.links == nil {
		b.links = map[string]*link{}
	}
	if b.serial == 0 {
		b.serial = uint64(wall.UnixNano()) // so that no grant of another run has the same
	}
	for site, l := range limits {
		k := b.links[site]
		if k == nil {
			k = &link{day: dayOf(wall, l.Start), last: clock, since: uint64(wall.UnixNano()), nodes: map[string]*node{}}
			b.links[site] = k
		}
		k.Limit, k.limited = l, true
	}
	for site, k := range b.links {
		if _, ok := limits[site]; !ok {
			k.limited = false
		}
		k.ran += max(0, clock-k.last)
		k.last = max(k.last, clock)
		// A clock that was set back does not give the day's budget a second time, and one
		// that was set ahead and back does not hold it for ever.
		if today := dayOf(wall, k.Start); today > k.day || today < k.day && k.ran >= day {
			if !k.limited {
				delete(b.links, site)
				continue
			}
			k.turn(today)
		}
		for _, n := range k.nodes {
			n.gone = n.gone || clock-n.heard > goneAfter
		}
	}
}

func (k *link) turn(today int64) {
	k.day, k.ran, k.used = today, 0, 0
	for name, n := range k.nodes {
		if n.gone && n.missed {
			delete(k.nodes, name)
		}
		n.missed = n.gone
	}
}

// Note takes what a node says of its way to a site at a moment of the clock that is never
// set back: when it started, what it has carried since, and the grant it has. What a node
// carried before its link had a budget does not count.
func (b *Book) Note(clock time.Duration, site, name string, epoch, carried uint64, has *mesh.LinkGrant) {
	k := b.links[site]
	if k == nil {
		return
	}
	n := k.nodes[name]
	switch {
	case n == nil && len(k.nodes) >= maxNodes:
		return // without a grant it carries nothing
	case n == nil:
		n = &node{epoch: epoch, carried: carried}
		if epoch >= k.since {
			k.used += carried
		}
		k.nodes[name] = n
	case epoch != n.epoch: // it was started anew, and its old grant went with it
		*n = node{epoch: epoch, carried: carried}
		k.used += carried
	case carried > n.carried:
		k.used += carried - n.carried
		n.carried = carried
	}
	n.heard, n.gone, n.missed = clock, false, false
	switch {
	case has == nil:
	case has.Serial == n.granted.Serial:
		n.held = n.granted.Most
	default: // one of before, or of another controller
		n.held = max(n.held, has.Most)
	}
}

// Share deals out what is left and returns the state of each link with a budget, by name.
// larger says that something was given: then the book's [Record] is to be on disk before
// anybody hears of it, or a later run could give the same again.
func (b *Book) Share(wall time.Time) (out []mesh.LinkState, larger bool) {
	for site, k := range b.links {
		if !k.limited {
			continue
		}
		larger = b.deal(k) || larger
		s := mesh.LinkState{Site: site, PriceMS: k.priceMS(wall), Grants: make(map[string]mesh.LinkGrant, len(k.nodes))}
		for name, n := range k.nodes {
			if !n.gone && n.granted.Serial > 0 {
				s.Grants[name] = n.granted
			}
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(x, y mesh.LinkState) int { return strings.Compare(x.Site, y.Site) })
	return out, larger
}

// deal makes grants anew so that every node has the same left, within what is not held
// by others, and reports whether one may go further than before.
func (b *Book) deal(k *link) (larger bool) {
	left, free := k.left(), k.left()
	names := make([]string, 0, len(k.nodes))
	for name, n := range k.nodes {
		free -= min(free, n.owed())
		if !n.gone {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return false
	}
	slices.Sort(names)
	part := left / uint64(len(names))
	for _, name := range names {
		n := k.nodes[name]
		most := n.carried + part
		if part > 0 { // more than it holds only from what nobody holds
			most = min(most, max(n.held, n.carried)+free)
		}
		if n.granted.Serial > 0 && near(most, n.granted.Most, part) {
			continue
		}
		if most > n.held {
			free -= min(free, most-max(n.held, n.carried))
			n.held, larger = most, true
		}
		b.serial++
		n.granted = mesh.LinkGrant{Epoch: n.epoch, Serial: b.serial, Most: most}
	}
	return larger
}

// near reports whether a grant need not be made anew.
func near(most, was, part uint64) bool {
	return math.Abs(float64(most)-float64(was)) <= stir*float64(part)
}

func (k *link) left() uint64 {
	if k.used >= k.Bytes {
		return 0
	}
	return k.Bytes - k.used
}

// priceMS is the scarcity of what is left, by the part of the day that is left.
func (k *link) priceMS(wall time.Time) float64 {
	left := float64(k.left()) / float64(k.Bytes)
	rest := k.turns(wall).Sub(wall).Seconds() / day.Seconds()
	if left <= 0 {
		return MostMS
	}
	return math.Min(MostMS, scarcityMS*math.Max(0, math.Min(1, rest)/left-1))
}

// turns is when the day of now ends.
func (k *link) turns(wall time.Time) time.Time {
	return time.Unix((dayOf(wall, k.Start)+1)*int64(day/time.Second)+int64(k.Start/time.Second), 0)
}

// Use is how a link stands.
type Use struct {
	Site        string
	Bytes, Used uint64
	PriceMS     float64
	// Turns is when the next day begins.
	Turns time.Time
}

// Spent reports whether nothing is left.
func (u *Use) Spent() bool { return u.Used >= u.Bytes }

// Uses returns how each link with a budget stands, by name.
func (b *Book) Uses(wall time.Time) []Use {
	var out []Use
	for site, k := range b.links {
		if k.limited {
			out = append(out, Use{site, k.Bytes, k.used, k.priceMS(wall), k.turns(wall)})
		}
	}
	slices.SortFunc(out, func(x, y Use) int { return strings.Compare(x.Site, y.Site) })
	return out
}
