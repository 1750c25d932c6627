package world

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/membership"
)

// Hub is the owner of the objects that come from the hub. Any other owner is the
// name of a site.
const Hub = "hub"

// SiteLabel on an object limits it to one site: only that site compiles it into
// its snapshot. Site objects are everybody's and ignore it.
const SiteLabel = mesh.MeshGroup + "/site"

// OwnedError refuses a write to an object that somebody else owns.
type OwnedError struct {
	Key   mesh.Key
	Owner string
}

// Error names the owner and what to do.
func (e *OwnedError) Error() string {
	if e.Owner == Hub {
		return fmt.Sprintf("%s is owned by the hub: change it there (meridian --server of the hub)", e.Key)
	}
	return fmt.Sprintf("%s is owned by site %s: change it there", e.Key, e.Owner)
}

// Object is one object and its owner. Doc points to the kind's struct and must
// not be changed.
type Object struct {
	Key   mesh.Key
	Owner string
	Doc   any
	// Shadowed reports that another owner's object of the same key is in force.
	Shadowed bool
}

// World is the state. The zero value is not usable; see [New].
type World struct {
	site  string
	owner string

	objects map[mesh.Key]map[string]any
	version uint64
	cache   compiled
	narrow  map[*mesh.MeshService]narrow // of objects that are there

	reports map[topic]map[string]info    // by reporter
	rhythms map[string]membership.Rhythm // of the sites' controllers, over the bus
	nodes   map[string]node
	ways    map[string]*way
	doubles map[string]*double // by "site NAME" or "node NAME"
}

// New returns the empty world of a site. owner is who its own writes belong to:
// [Hub] or the site's name.
func New(site, owner string) *World {
	return &World{
		site: site, owner: owner,
		objects: map[mesh.Key]map[string]any{},
		narrow:  map[*mesh.MeshService]narrow{},
		reports: map[topic]map[string]info{},
		rhythms: map[string]membership.Rhythm{},
		nodes:   map[string]node{},
		ways:    map[string]*way{},
		doubles: map[string]*double{},
	}
}

// Site is the name of the site whose world it is.
func (w *World) Site() string { return w.site }

// Owner is who this world's own writes belong to.
func (w *World) Owner() string { return w.owner }

// Version changes whenever an object does, and only then.
func (w *World) Version() uint64 { return w.version }

// Set takes in an object of an owner, as its bucket has it.
func (w *World) Set(owner string, key mesh.Key, doc any) {
	m := w.objects[key]
	if m == nil {
		m = map[string]any{}
		w.objects[key] = m
	}
	w.widen(m[owner])
	m[owner] = doc
	w.version++
}

// Remove takes in that an owner no longer has an object.
func (w *World) Remove(owner string, key mesh.Key) {
	m := w.objects[key]
	doc, ok := m[owner]
	if !ok {
		return
	}
	w.widen(doc)
	delete(m, owner)
	if len(m) == 0 {
		delete(w.objects, key)
	}
	w.version++
}

// Claim returns an [OwnedError] when the world's owner must not write key.
func (w *World) Claim(key mesh.Key) error {
	if len(w.objects[key]) == 0 {
		return nil
	}
	if _, mine := w.objects[key][w.owner]; mine {
		return nil
	}
	return &OwnedError{key, inForce(w.objects[key])}
}

// inForce picks among owners of one key. Two can only meet when the hub writes
// an object that a site, unseen by the hub, already has: the site's stands, as it
// did while the site was alone, and the hub's is shown as shadowed.
func inForce(m map[string]any) string {
	owners := slices.Sorted(maps.Keys(m))
	for _, o := range owners {
		if o != Hub {
			return o
		}
	}
	return Hub
}

// Get returns the object in force.
func (w *World) Get(key mesh.Key) (Object, bool) {
	m := w.objects[key]
	if len(m) == 0 {
		return Object{}, false
	}
	o := inForce(m)
	return Object{Key: key, Owner: o, Doc: m[o]}, true
}

// Of returns an owner's object, in force or not; nil where it has none.
func (w *World) Of(owner string, key mesh.Key) any { return w.objects[key][owner] }

// List returns all objects by kind, namespace, name and owner, shadowed ones too.
func (w *World) List() []Object {
	var out []Object
	for key, m := range w.objects {
		first := inForce(m)
		for owner, doc := range m {
			out = append(out, Object{key, owner, doc, owner != first})
		}
	}
	slices.SortFunc(out, func(a, b Object) int {
		return cmp.Or(compareKeys(a.Key, b.Key), cmp.Compare(a.Owner, b.Owner))
	})
	return out
}

func compareKeys(a, b mesh.Key) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// Forget drops soft state that is older than maxAge at now, so that a world does
// not grow with every process that ever reported. The last word of a site that
// has a Site object stays: since when it is silent is worth knowing.
func (w *World) Forget(now time.Time, maxAge time.Duration) {
	maps.DeleteFunc(w.reports, func(t topic, voices map[string]info) bool {
		last := ""
		if t.service == "" && len(w.objects[siteKey(t.site)]) > 0 {
			n, _ := w.Freshest(t.site, "")
			last = n.Reporter
		}
		maps.DeleteFunc(voices, func(reporter string, r info) bool {
			return now.Sub(r.at) > maxAge && (last == "" || reporter != last)
		})
		return len(voices) == 0
	})
	maps.DeleteFunc(w.rhythms, func(site string, _ membership.Rhythm) bool { return len(w.reports[topic{site: site}]) == 0 })
	maps.DeleteFunc(w.doubles, func(_ string, d *double) bool { return now.Sub(d.heard) > maxAge })
	maps.DeleteFunc(w.nodes, func(_ string, n node) bool { return now.Sub(n.at) > maxAge })
}

func siteKey(name string) mesh.Key {
	return mesh.Key{Kind: mesh.KindSite, Namespace: mesh.DefaultNamespace, Name: name}
}
