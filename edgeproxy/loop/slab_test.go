package loop

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestListAgainstTwin drives a List and a plain byte slice with the same operations.
func TestListAgainstTwin(t *testing.T) {
	var s Slabs
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var l List
		var twin []byte
		next := byte(0)
		fill := func(p []byte) []byte {
			for i := range p {
				next++
				p[i] = next
			}
			return p
		}
		for range 200 {
			switch r.IntN(6) {
			case 0, 1:
				p := fill(make([]byte, r.IntN(1<<r.IntN(17))))
				l.Append(&s, p)
				twin = append(twin, p...)
			case 2:
				n := r.IntN(largeSlab + 1)
				room := l.Room(&s, n)
				if cap(room) < n {
					t.Fatalf("room for %d, want %d", cap(room), n)
				}
				p := fill(room[:r.IntN(n+1)])
				l.Commit(len(p))
				twin = append(twin, p...)
			case 3:
				n := r.IntN(len(twin) + 1)
				l.Drop(&s, n)
				twin = twin[n:]
			case 4:
				var other List
				p := fill(make([]byte, r.IntN(9000)))
				other.Append(&s, p)
				l.Move(&other)
				twin = append(twin, p...)
				if other.Len() != 0 || other.At(0) != nil {
					t.Fatal("Move left something")
				}
			case 5:
				if len(twin) > 0 {
					off := r.IntN(len(twin))
					if got := l.At(off); len(got) == 0 || !bytes.HasPrefix(twin[off:], got) {
						t.Fatalf("At(%d) differs", off)
					}
				}
			}
			got := make([]byte, len(twin))
			if l.Len() != len(twin) || l.CopyTo(got) != len(twin) || !bytes.Equal(got, twin) {
				t.Fatalf("list holds %d bytes, twin %d", l.Len(), len(twin))
			}
		}
		l.Free(&s)
		if n := s.InUse(); n != 0 {
			t.Fatalf("%d bytes in use after Free", n)
		}
	}
	if (&List{}).Room(&s, largeSlab+1) != nil {
		t.Error("room for more than a slab")
	}
}

func TestSlabsAllocateNothing(t *testing.T) {
	var s Slabs
	var l List
	p := make([]byte, 40_000)
	l.Append(&s, p)
	l.Free(&s)
	if n := testing.AllocsPerRun(100, func() {
		l.Append(&s, p[:1000])
		l.Append(&s, p)
		l.Free(&s)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

// TestTrim gives back what was not used for a whole period, and only that.
func TestTrim(t *testing.T) {
	var s Slabs
	var busy, l List
	l.Append(&s, make([]byte, 10*largeSlab))
	l.Free(&s)
	s.Trim(1000) // ends the period in which all were used
	busy.Append(&s, make([]byte, 3*largeSlab))
	busy.Free(&s)
	if got := s.Trim(1000); got != 10-3 {
		t.Errorf("gave back %d slabs of 10, 3 were in use in the period", got)
	}
	if got := s.Trim(1000); got != 3 {
		t.Errorf("then %d, want the 3 that were used before", got)
	}
	if got := s.Trim(1000); got != 0 {
		t.Errorf("gave back %d twice", got)
	}
	l.Append(&s, bytes.Repeat([]byte{7}, 4*largeSlab))
	if p := l.At(3 * largeSlab); len(p) != largeSlab || p[0] != 7 {
		t.Error("a slab that was given back cannot be used again")
	}
	l.Free(&s)
	if got := s.Trim(2); got != 0 {
		t.Errorf("gave back %d slabs that were just used", got)
	}
	if got := s.Trim(2); got != 2 {
		t.Errorf("gave back %d, the limit is 2", got)
	}
}

// TestWarm holds what has pages within the bound, whatever sizes are asked for:
// free slabs of one size give theirs back before the other takes more.
func TestWarm(t *testing.T) {
	s := Slabs{Most: 64 * largeSlab}
	var small, large List
	for range 3 {
		for range 200 {
			small.push(s.Get(1))
		}
		for range 14 {
			large.push(s.Get(largeSlab))
		}
		if s.Warm() != s.InUse() || s.Warm() != 200*smallSlab+14*largeSlab {
			t.Errorf("%d bytes warm, %d in use", s.Warm(), s.InUse())
		}
		small.Free(&s)
		for range 50 {
			large.push(s.Get(largeSlab))
		}
		if s.Warm() > s.Most || s.InUse() != s.Most {
			t.Errorf("%d bytes warm of %d, %d in use", s.Warm(), s.Most, s.InUse())
		}
		large.Free(&s)
		s.Release(10)
		if want := s.Most - 10*largeSlab; s.Warm() != want {
			t.Errorf("%d bytes warm, want %d", s.Warm(), want)
		}
		s.Release(1 << 30)
		if s.Warm() != 0 {
			t.Errorf("%d bytes warm when all was given back", s.Warm())
		}
	}
}
