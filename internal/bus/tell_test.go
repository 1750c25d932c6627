package bus

import (
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// TestToldBeforeWatched: what a Refresh reads before anybody watches is not lost
// on who watches later.
func TestToldBeforeWatched(t *testing.T) {
	b := &Config{seen: map[mesh.Key]uint64{}}
	e := Entry{Key: mesh.Key{Kind: mesh.KindSite, Namespace: "default", Name: "a"}, Revision: 3}
	b.tell(e)
	if b.High() != 0 {
		t.Errorf("revision %d counts as seen, and nobody saw it", b.High())
	}
	var got []uint64
	b.take = func(e Entry) { got = append(got, e.Revision) }
	b.tell(e)
	b.tell(e)
	if len(got) != 1 || b.High() != 3 {
		t.Errorf("taken %v, seen up to %d", got, b.High())
	}
}
