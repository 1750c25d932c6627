// Package journal is what a controller remembers of the changes of its configuration:
// per owner, bounded, with what stood there before, so that it can be shown and gone
// back to. It is about what came in force here: an object that this build refused is
// not in it.
//
// An owner's journal knows every change of that owner after its floor; the state of
// any revision from the floor on can be told from the present one by undoing what
// came later. What comes from a Kubernetes cluster is kept apart and shorter, since a
// rollout there must not push out what people did.
//
// The package is pure. A Journal belongs to one goroutine.
package journal

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Bounds of one owner's journal.
const (
	// MaxChanges is how many changes are kept, and MaxBrought how many of them may be
	// of objects that were brought from a cluster.
	MaxChanges = 1000
	MaxBrought = 200
	// MaxBytes bounds the objects in them, before and after.
	MaxBytes = 2 << 20
)

// Change is one object as it was and as it became.
type Change struct {
	// Owner is the hub or a site, Revision that of its bucket.
	Owner    string    `json:"owner"`
	Revision uint64    `json:"revision"`
	At       time.Time `json:"at"`
	// Who asked for it, empty where that is not known: a site does not hear who
	// changed what at the hub.
	Who string   `json:"who,omitempty"`
	Key mesh.Key `json:"key"`
	// Before and After are nil where there was no such object.
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
	// Gap says that Before is not known, because the change came while nobody looked.
	Gap bool `json:"gap,omitempty"`
	// Cluster is the Kubernetes cluster that the object was brought from.
	Cluster string `json:"cluster,omitempty"`
}

// size is what a change counts against [MaxBytes].
func (c *Change) size() int { return len(c.Before) + len(c.After) }

// Journal has the changes of all owners.
type Journal struct {
	owners map[string]*book
}

// book is one owner's.
type book struct {
	changes []Change
	floor   uint64
	high    uint64
	live    map[mesh.Key]uint64
	bytes   int
	brought int
}

// New returns a journal that knows no owner.
func New() *Journal { return &Journal{owners: map[string]*book{}} }

// Knows reports whether an owner's changes are followed.
func (j *Journal) Knows(owner string) bool { return j.owners[owner] != nil }

// Owners are those whose changes are followed, sorted.
func (j *Journal) Owners() []string { return slices.Sorted(maps.Keys(j.owners)) }

// Floor is the lowest revision of an owner whose state is known, and high the newest.
func (j *Journal) Floor(owner string) (floor, high uint64) {
	if b := j.owners[owner]; b != nil {
		return b.floor, b.high
	}
	return 0, 0
}

// Changes are those of an owner that are remembered, the oldest first. The caller must
// not change them.
func (j *Journal) Changes(owner string) []Change {
	if b := j.owners[owner]; b != nil {
		return b.changes
	}
	return nil
}

// Note takes a change in and reports whether it was one: the same object written again
// is none, nor is what happened before the owner was known ([Journal.Begin]).
func (j *Journal) Note(c Change) bool {
	b := j.owners[c.Owner]
	if b == nil {
		return false
	}
	b.high = max(b.high, c.Revision)
	if b.live[c.Key] <= c.Revision {
		if c.After == nil {
			delete(b.live, c.Key)
		} else {
			b.live[c.Key] = c.Revision
		}
	}
	if !c.Gap && bytes.Equal(c.Before, c.After) {
		return false
	}
	b.changes = append(b.changes, c)
	b.bytes += c.size()
	if c.Cluster != "" {
		b.brought++
	}
	if c.Gap && c.Cluster == "" {
		b.floor = max(b.floor, c.Revision)
	}
	b.trim()
	return true
}

// trim keeps the bounds. What was brought from a cluster goes first where there is
// much of it; with the oldest of the others the floor rises.
func (b *book) trim() {
	for b.brought > MaxBrought {
		b.drop(slices.IndexFunc(b.changes, func(c Change) bool { return c.Cluster != "" }))
	}
	for len(b.changes) > MaxChanges || b.bytes > MaxBytes && len(b.changes) > 1 {
		b.drop(0)
	}
}

func (b *book) drop(i int) {
	c := &b.changes[i]
	b.bytes -= c.size()
	if c.Cluster != "" {
		b.brought--
	} else {
		b.floor = max(b.floor, c.Revision)
	}
	b.changes = slices.Delete(b.changes, i, i+1)
}

// Present is an object as an owner's bucket has it.
type Present struct {
	Revision uint64
	At       time.Time
	Value    json.RawMessage
	Cluster  string
}

// Begin follows an owner from now on, whose bucket stands at revision high with the
// given objects, and returns the changes that came while nobody looked: between what
// an earlier run knew and now. An owner that was never followed begins with none, and
// with high for a floor.
func (j *Journal) Begin(owner string, high uint64, objects map[mesh.Key]Present, now time.Time) []Change {
	b := j.owners[owner]
	if b == nil {
		b = &book{floor: high, high: high, live: map[mesh.Key]uint64{}}
		for key, p := range objects {
			b.live[key] = p.Revision
		}
		j.owners[owner] = b
		return nil
	}
	var missed []Change
	for key, p := range objects {
		if b.live[key] == p.Revision {
			continue
		}
		before, known := b.last(key)
		missed = append(missed, Change{
			Owner: owner, Revision: p.Revision, At: p.At, Key: key, Cluster: p.Cluster,
			Before: before, After: p.Value, Gap: !known && b.live[key] != 0,
		})
	}
	for key := range b.live {
		if _, still := objects[key]; !still {
			before, known := b.last(key)
			missed = append(missed, Change{Owner: owner, Revision: high, At: now, Key: key, Before: before, Gap: !known})
		}
	}
	slices.SortFunc(missed, func(x, y Change) int {
		return cmp.Or(cmp.Compare(x.Revision, y.Revision), compareKeys(x.Key, y.Key))
	})
	var noted []Change
	for _, c := range missed {
		if j.Note(c) {
			noted = append(noted, c)
		}
	}
	b.high = high
	return noted
}

// last is what the journal knows to be the newest state of an object.
func (b *book) last(key mesh.Key) (after json.RawMessage, known bool) {
	for i := len(b.changes) - 1; i >= 0; i-- {
		if b.changes[i].Key == key {
			return b.changes[i].After, true
		}
	}
	return nil, false
}

// Author is who asked for an object's change at a revision, empty where that is not
// known.
func (j *Journal) Author(owner string, key mesh.Key, revision uint64) string {
	changes := j.Changes(owner)
	for i := len(changes) - 1; i >= 0; i-- {
		if c := &changes[i]; c.Revision == revision && c.Key == key {
			return c.Who
		}
	}
	return ""
}

// AsOf says how an owner's objects that changed after a revision stood at it; nil
// where there was none. What did not change since is not in it.
func (j *Journal) AsOf(owner string, revision uint64) (map[mesh.Key]Change, error) {
	b := j.owners[owner]
	switch {
	case b == nil:
		return nil, fmt.Errorf("nothing is remembered of what %s owns", owner)
	case revision > b.high:
		return nil, fmt.Errorf("there is no revision %d of what %s owns: the newest is %d", revision, owner, b.high)
	case revision < b.floor:
		return nil, fmt.Errorf("revision %d of what %s owns is not remembered any more: the oldest that is known is %d", revision, owner, b.floor)
	}
	out := map[mesh.Key]Change{}
	for _, c := range b.changes {
		if _, earlier := out[c.Key]; !earlier && c.Revision > revision {
			out[c.Key] = c
		}
	}
	return out, nil
}

func compareKeys(a, b mesh.Key) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}
