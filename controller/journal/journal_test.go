package journal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

func key(n int) mesh.Key {
	return mesh.Key{Kind: mesh.KindSite, Namespace: mesh.DefaultNamespace, Name: fmt.Sprint("s", n)}
}

// bucket is a bucket of objects with all its past, the dumb twin of the journal.
type bucket struct {
	revision uint64
	objects  map[mesh.Key]Present
	past     map[uint64]map[mesh.Key]string
}

func newBucket() *bucket {
	return &bucket{objects: map[mesh.Key]Present{}, past: map[uint64]map[mesh.Key]string{0: {}}}
}

func (b *bucket) state() map[mesh.Key]string {
	out := map[mesh.Key]string{}
	for k, p := range b.objects {
		out[k] = string(p.Value)
	}
	return out
}

// change does something at random and returns the change.
func (b *bucket) change(r *rand.Rand, size int) Change {
	k := key(r.IntN(12))
	before := b.objects[k].Value
	b.revision++
	c := Change{Owner: "hub", Revision: b.revision, At: time.Unix(int64(b.revision), 0).UTC(), Who: "me", Key: k, Before: before}
	if before != nil && r.IntN(3) == 0 {
		delete(b.objects, k)
	} else {
		c.After = json.RawMessage(fmt.Sprintf(`{"n":%d,"x":%q}`, r.IntN(3), strings.Repeat("x", r.IntN(size))))
		b.objects[k] = Present{Revision: b.revision, At: c.At, Value: c.After}
	}
	b.past[b.revision] = b.state()
	return c
}

// check undoes what came after each known revision and compares with the past.
func (b *bucket) check(t *testing.T, j *Journal) {
	t.Helper()
	floor, high := j.Floor("hub")
	if high != b.revision {
		t.Fatalf("at revision %d, want %d", high, b.revision)
	}
	for rev := floor; rev <= high; rev += 1 + (high-rev)/20 {
		then, err := j.AsOf("hub", rev)
		if err != nil {
			t.Fatal(err)
		}
		got := b.state()
		for k, c := range then {
			if c.Before == nil {
				delete(got, k)
			} else {
				got[k] = string(c.Before)
			}
		}
		if !maps.Equal(got, b.past[rev]) {
			t.Fatalf("revision %d: %v, want %v", rev, got, b.past[rev])
		}
	}
	for _, rev := range []uint64{floor - 1, high + 1} {
		if rev == floor-1 && floor == 0 {
			continue
		}
		if _, err := j.AsOf("hub", rev); err == nil || !strings.Contains(err.Error(), fmt.Sprint(rev)) {
			t.Fatalf("revision %d, known from %d to %d: %v", rev, floor, high, err)
		}
	}
}

// What is undone is what was, whatever was dropped, however often it was read back,
// and with changes that came while nobody looked.
func TestPastAtRandom(t *testing.T) {
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(seed, 8))
		b := newBucket()
		for range r.IntN(3) {
			b.change(r, 10)
		}
		j := New()
		if missed := j.Begin("hub", b.revision, b.objects, time.Unix(0, 0).UTC()); len(missed) != 0 {
			t.Fatalf("a first start missed %v", missed)
		}
		size := []int{10, 20_000}[seed%2]
		for step := range 3 * MaxChanges / 2 {
			if r.IntN(300) != 0 {
				j.Note(b.change(r, size))
				continue
			}
			b.check(t, j)
			// A restart, with some changes on the way that a bucket keeps the last of.
			text, err := j.Text()
			if err != nil {
				t.Fatal(err)
			}
			again, err := Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(again.Changes("hub"), j.Changes("hub")) || !reflect.DeepEqual(again.owners["hub"].live, j.owners["hub"].live) {
				t.Fatalf("seed %d step %d: reads otherwise than it was written", seed, step)
			}
			j = again
			seen, from := b.state(), b.revision
			for range r.IntN(4) {
				b.change(r, size)
			}
			missed := j.Begin("hub", b.revision, b.objects, time.Unix(0, 0).UTC())
			// What came in between is told as it is found: the last of each object.
			for rev := from + 1; rev <= b.revision; rev++ {
				for _, c := range missed {
					if c.Revision != rev {
						continue
					}
					if !c.Gap && seen[c.Key] != string(c.Before) {
						t.Fatalf("seed %d step %d: %s was %q, the journal says %q", seed, step, c.Key, seen[c.Key], c.Before)
					}
					delete(seen, c.Key)
					if c.After != nil {
						seen[c.Key] = string(c.After)
					}
				}
				b.past[rev] = maps.Clone(seen)
			}
		}
		b.check(t, j)
		if n := len(j.Changes("hub")); n > MaxChanges || j.owners["hub"].bytes > MaxBytes+40_000 {
			t.Fatalf("%d changes, %d bytes", n, j.owners["hub"].bytes)
		}
	}
}

// Objects of a cluster do not push out what people did, and do not raise the floor.
func TestBroughtIsKeptApart(t *testing.T) {
	j := New()
	j.Begin("hub", 0, nil, time.Time{})
	mine := Change{Owner: "hub", Revision: 1, Key: key(0), After: json.RawMessage(`{}`)}
	j.Note(mine)
	for rev := uint64(2); rev < 5*MaxBrought; rev++ {
		j.Note(Change{Owner: "hub", Revision: rev, Key: key(int(rev)), After: json.RawMessage(`{}`), Cluster: "east"})
	}
	changes := j.Changes("hub")
	if floor, _ := j.Floor("hub"); len(changes) != MaxBrought+1 || changes[0].Key != mine.Key || floor != 0 {
		t.Errorf("%d changes, the first of %v, floor %d", len(changes), changes[0].Key, floor)
	}
}

// An object of which only the present is known, changed while nobody looked, closes
// the way back before that; one that went, too.
func TestGap(t *testing.T) {
	j := New()
	at := map[mesh.Key]Present{
		key(1): {Revision: 1, Value: json.RawMessage(`{"n":1}`)}, key(2): {Revision: 2, Value: json.RawMessage(`{}`)},
		key(3): {Revision: 3, Value: json.RawMessage(`{}`)},
	}
	j.Begin("hub", 3, at, time.Time{})
	j.Note(Change{Owner: "hub", Revision: 4, Key: key(3), Before: at[key(3)].Value, After: json.RawMessage(`{"n":4}`)})
	text, err := j.Text()
	if err != nil {
		t.Fatal(err)
	}
	if j, err = Parse(text); err != nil {
		t.Fatal(err)
	}
	missed := j.Begin("hub", 8, map[mesh.Key]Present{
		key(1): {Revision: 5, Value: json.RawMessage(`{"n":5}`)},
		key(3): {Revision: 6, Value: json.RawMessage(`{"n":6}`)}, key(4): {Revision: 7, Value: json.RawMessage(`{}`)},
	}, time.Time{})
	want := []Change{
		{Owner: "hub", Revision: 5, Key: key(1), After: json.RawMessage(`{"n":5}`), Gap: true},
		{Owner: "hub", Revision: 6, Key: key(3), Before: json.RawMessage(`{"n":4}`), After: json.RawMessage(`{"n":6}`)},
		{Owner: "hub", Revision: 7, Key: key(4), After: json.RawMessage(`{}`)},
		{Owner: "hub", Revision: 8, Key: key(2), Gap: true},
	}
	if !reflect.DeepEqual(missed, want) {
		t.Errorf("missed\n%v, want\n%v", missed, want)
	}
	if floor, high := j.Floor("hub"); floor != 8 || high != 8 {
		t.Errorf("known from %d to %d, want 8 to 8", floor, high)
	}
}

func TestNoChange(t *testing.T) {
	j := New()
	c := Change{Owner: "hub", Revision: 1, Key: key(1), After: json.RawMessage(`{}`)}
	if j.Note(c) {
		t.Error("a change of an owner that is not followed")
	}
	j.Begin("hub", 0, nil, time.Time{})
	if !j.Note(c) {
		t.Error("a change is none")
	}
	c.Revision, c.Before = 2, c.After
	if j.Note(c) {
		t.Error("the same again is a change")
	}
	if _, high := j.Floor("hub"); high != 2 {
		t.Errorf("at %d", high)
	}
}

// Whatever a file has become, it is refused with the line, or its torn end is left out.
func TestDamagedText(t *testing.T) {
	j := New()
	j.Begin("hub", 0, nil, time.Time{})
	for rev := uint64(1); rev <= 3; rev++ {
		j.Note(Change{Owner: "hub", Revision: rev, At: time.Unix(1, 0).UTC(), Key: key(int(rev)), After: json.RawMessage(`{}`)})
	}
	text, err := j.Text()
	if err != nil {
		t.Fatal(err)
	}
	rows := bytes.SplitAfter(text, []byte("\n"))
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for name, c := range map[string]struct {
		text []byte
		want string
		n    int
	}{
		"whole":          {text, "", 3},
		"empty":          {nil, "", 0},
		"torn":           {text[:len(text)-5], "", 2},
		"head torn":      {rows[0][:20], "line 1: its checksum does not fit", 0},
		"damaged":        {bytes.Replace(text, []byte(`"s2"`), []byte(`"s9"`), 1), "line ", 0},
		"no head":        {join(rows[1:]...), "line 1: want where owners stand", 0},
		"two heads":      {join(rows[0], rows[0]), "line 2: want", 0},
		"unknown owner":  {join(rows[0], mustLine(t, Change{Owner: "zz", Key: key(1)})), `line 2: a change of "zz"`, 0},
		"appended later": {join(text, mustLine(t, Change{Owner: "hub", Revision: 4, Key: key(4), After: json.RawMessage(`{}`)})), "", 4},
	} {
		got, err := Parse(c.text)
		switch {
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %s", name, err, c.want)
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want == "" && len(got.Changes("hub")) != c.n:
			t.Errorf("%s: %d changes, want %d", name, len(got.Changes("hub")), c.n)
		}
	}
}

func mustLine(t *testing.T, c Change) []byte {
	t.Helper()
	l, err := Line(c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}
