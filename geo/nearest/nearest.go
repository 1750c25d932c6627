// Package nearest finds the k places nearest to a position on the earth. It is
// right across the antimeridian and at the poles, where an index over plane
// degrees is not: places are kept as unit vectors in a k-d tree, and the straight
// line between two vectors grows with the distance on the ground.
package nearest

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/paulmach/orb"

	"github.com/meridian-mesh/meridian/geo"
)

// Place is a named position.
type Place struct {
	Name     string
	Position orb.Point
}

// Found is a place and its distance from the position that was asked for.
type Found struct {
	Place
	DistanceMeters float64
}

// Index is an immutable set of places. The zero Index is empty. It may be read
// from many goroutines; With and Without return a changed copy.
type Index struct {
	nodes  []node // k-d tree in order: the middle of a range is its root
	places map[string]orb.Point
}

type node struct {
	at   [3]float64
	name string
}

// New makes an index of places. A position off the earth or a name that is there
// twice is an error.
func New(places []Place) (*Index, error) {
	ix := &Index{places: make(map[string]orb.Point, len(places))}
	for _, p := range places {
		if err := geo.Check(p.Position); err != nil {
			return nil, fmt.Errorf("place %q: %w", p.Name, err)
		}
		if _, twice := ix.places[p.Name]; twice {
			return nil, fmt.Errorf("place %q is there twice", p.Name)
		}
		ix.places[p.Name] = p.Position
	}
	ix.build()
	return ix, nil
}

func (ix *Index) build() {
	ix.nodes = make([]node, 0, len(ix.places))
	for name, p := range ix.places {
		ix.nodes = append(ix.nodes, node{geo.Vector(p), name})
	}
	order(ix.nodes, 0)
}

func order(ns []node, axis int) {
	if len(ns) < 2 {
		return
	}
	slices.SortFunc(ns, func(a, b node) int {
		return cmp.Or(cmp.Compare(a.at[axis], b.at[axis]), cmp.Compare(a.name, b.name))
	})
	mid := len(ns) / 2
	order(ns[:mid], (axis+1)%3)
	order(ns[mid+1:], (axis+1)%3)
}

// Len counts the places.
func (ix *Index) Len() int { return len(ix.places) }

// With returns an index that also has the place, or has it at its new position.
func (ix *Index) With(p Place) (*Index, error) {
	if err := geo.Check(p.Position); err != nil {
		return nil, fmt.Errorf("place %q: %w", p.Name, err)
	}
	next := &Index{places: maps.Clone(ix.places)}
	if next.places == nil {
		next.places = map[string]orb.Point{}
	}
	next.places[p.Name] = p.Position
	next.build()
	return next, nil
}

// Without returns an index that lacks the named place.
func (ix *Index) Without(name string) *Index {
	next := &Index{places: maps.Clone(ix.places)}
	delete(next.places, name)
	next.build()
	return next
}

// Nearest appends to dst the k places nearest to p, the nearest first, places at
// the same distance by name, and returns it. It does not allocate while dst has
// room for k.
func (ix *Index) Nearest(dst []Found, p orb.Point, k int) []Found {
	k = min(k, len(ix.nodes))
	if k <= 0 || geo.Check(p) != nil {
		return dst
	}
	s := search{ix: ix, from: p, at: geo.Vector(p), dst: dst, base: len(dst), k: k}
	s.descend(ix.nodes, 0)
	return s.dst
}

// search is one call of Nearest. dst[base:] is the best so far, sorted.
type search struct {
	ix      *Index
	from    orb.Point
	at      [3]float64
	dst     []Found
	base, k int
}

func (s *search) descend(ns []node, axis int) {
	if len(ns) == 0 {
		return
	}
	mid := len(ns) / 2
	root := &ns[mid]
	near, far := ns[:mid], ns[mid+1:]
	plane := s.at[axis] - root.at[axis]
	if plane > 0 {
		near, far = far, near
	}
	s.descend(near, (axis+1)%3)
	s.offer(root)
	if s.reaches(math.Abs(plane)) {
		s.descend(far, (axis+1)%3)
	}
}

// reaches reports whether a place beyond a plane at that chord may still be
// among the k. The margin covers the rounding of either side: a place is only
// left out when it is surely farther, so that ties go by name and never by the
// shape of the tree.
func (s *search) reaches(chord float64) bool {
	if len(s.dst)-s.base < s.k {
		return true
	}
	worst := s.dst[len(s.dst)-1].DistanceMeters
	angle := min(worst/geo.EarthRadiusMeters, math.Pi)
	return chord <= 2*math.Sin(angle/2)+1e-7
}

func (s *search) offer(n *node) {
	f := Found{Place{n.name, s.ix.places[n.name]}, 0}
	f.DistanceMeters = geo.DistanceMeters(s.from, f.Position)
	if len(s.dst)-s.base == s.k {
		if compare(f, s.dst[len(s.dst)-1]) >= 0 {
			return
		}
		s.dst = s.dst[:len(s.dst)-1]
	}
	i := len(s.dst)
	s.dst = append(s.dst, f)
	for ; i > s.base && compare(f, s.dst[i-1]) < 0; i-- {
		s.dst[i] = s.dst[i-1]
	}
	s.dst[i] = f
}

func compare(a, b Found) int {
	return cmp.Or(cmp.Compare(a.DistanceMeters, b.DistanceMeters), cmp.Compare(a.Name, b.Name))
}
