package budget

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const gb = 1_000_000_000

// proxy is one node as the protocol sees it: it carries pieces while its meter allows.
type proxy struct {
	name    string
	epoch   uint64
	carried uint64
	grant   *mesh.LinkGrant
	told    uint64 // of carried, what surely arrived
	safe    uint64 // of that, what is on disk
	left    bool
}

type letter struct {
	at    int
	apply func()
}

// TestNeverBeyond lets proxies spend as fast as they can, over a channel that loses,
// delays and repeats, while they and the controller die and start anew.
func TestNeverBeyond(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		limits := map[string]Limit{"far": {Bytes: gb}}
		book := &Book{}
		var post []letter
		var total, lost, unsafe, piece uint64
		piece = 1 + rnd.Uint64N(5_000_000)
		loss, delay := rnd.Float64()*0.5, 1+rnd.IntN(12)
		epoch := uint64(noon.UnixNano())
		var proxies []*proxy
		join := func() {
			epoch += 1e9
			proxies = append(proxies, &proxy{name: fmt.Sprint("p", len(proxies)), epoch: epoch})
		}
		for range 1 + rnd.IntN(4) {
			join()
		}
		record := book.Record()
		keep := func() {
			record, unsafe = book.Record(), 0
			for _, p := range proxies {
				p.safe = p.told
			}
		}
		clock, wall := time.Duration(0), noon
		book.Tick(wall, clock, limits)
		for step := range 1000 {
			clock, wall = clock+100*time.Millisecond, wall.Add(100*time.Millisecond)
			for _, p := range proxies {
				if p.left {
					continue
				}
				for range rnd.IntN(3) {
					if p.grant != nil && p.carried < p.grant.Most {
						p.carried += piece
						total += piece
					}
				}
				if rnd.Float64() < 0.002 { // it dies
					lost += p.carried - p.told
					unsafe += p.told - p.safe
					epoch += 1e9
					*p = proxy{name: p.name, epoch: epoch, left: rnd.IntN(4) == 0}
					continue
				}
				if rnd.Float64() < loss {
					continue
				}
				said := *p
				post = append(post, letter{step + rnd.IntN(delay), func() {
					if said.epoch < p.epoch {
						return // the world passes over reports of a process that is replaced
					}
					book.Note(clock, "far", said.name, said.epoch, said.carried, said.grant)
					p.told = max(p.told, said.carried)
				}})
			}
			if rnd.Float64() < 0.005 {
				join()
			}
			switch x := rnd.Float64(); {
			case x < 0.02:
				keep()
			case x < 0.025: // the controller dies, and begins with what it had kept
				data, err := json.Marshal(record)
				if err != nil {
					t.Fatal(err)
				}
				var r Record
				if err := json.Unmarshal(data, &r); err != nil {
					t.Fatal(err)
				}
				book, clock, post = Restore(r), 0, nil
				lost, unsafe = lost+unsafe, 0
				for _, p := range proxies {
					p.told = p.safe
				}
			}
			book.Tick(wall, clock, limits)
			for i := 0; i < len(post); i++ {
				if post[i].at <= step {
					post[i].apply()
					post = append(post[:i], post[i+1:]...)
					i--
				}
			}
			states, larger := book.Share(wall)
			if larger {
				keep()
			}
			for _, s := range states {
				for _, p := range proxies {
					g, ok := s.Grants[p.name]
					if !ok || rnd.Float64() < loss {
						continue
					}
					// Plans are ordered: a node takes none that is older than what it has.
					post = append(post, letter{step + rnd.IntN(delay), func() {
						if g.Epoch == p.epoch && (p.grant == nil || g.Serial > p.grant.Serial) {
							p.grant = &g
						}
					}})
				}
			}
		}
		// Each may have begun one piece when it was spent. What nobody was told by a process
		// that died, or only a controller that died too, is nobody's knowledge.
		if most := gb + lost + uint64(len(proxies))*piece; total > most {
			t.Errorf("seed %d: %d bytes carried of %d, with %d lost with their process", seed, total, gb, lost)
		}
	}
}

func TestAllIsUsed(t *testing.T) {
	book := &Book{}
	limits := map[string]Limit{"far": {Bytes: gb}}
	book.Tick(noon, 0, limits)
	carried := map[string]uint64{"a": 0, "b": 0, "c": 0}
	grant := map[string]mesh.LinkGrant{}
	for i := range 4000 {
		at := time.Duration(i) * 100 * time.Millisecond
		book.Tick(noon.Add(at), at, limits)
		for _, name := range []string{"a", "b", "c"} {
			if g, ok := grant[name]; ok {
				// a is busy, b less, c at rest.
				carried[name] = min(g.Most, carried[name]+map[string]uint64{"a": 3_000_000, "b": 300_000, "c": 0}[name])
				book.Note(at, "far", name, uint64(noon.UnixNano()), carried[name], &g)
			} else {
				book.Note(at, "far", name, uint64(noon.UnixNano()), 0, nil)
			}
		}
		states, _ := book.Share(noon.Add(at))
		for _, s := range states {
			for name, g := range s.Grants {
				grant[name] = g
			}
		}
	}
	if sum := carried["a"] + carried["b"]; sum < gb*98/100 || sum > gb {
		t.Errorf("%d of %d bytes were carried", sum, gb)
	}
	if u := book.Uses(noon)[0]; u.Used != carried["a"]+carried["b"] {
		t.Errorf("the book says %d", u.Used)
	}
}

func TestPriceRisesAsItRunsOut(t *testing.T) {
	book := &Book{}
	limits := map[string]Limit{"far": {Bytes: gb}}
	book.Tick(noon, 0, limits)
	last := -1.0
	for part := range 101 {
		book.Note(0, "far", "a", uint64(noon.UnixNano()), uint64(part)*gb/100, nil)
		u := book.Uses(noon)[0]
		switch {
		case u.PriceMS < last:
			t.Errorf("at %d %% the price falls from %g to %g ms", part, last, u.PriceMS)
		case part <= 50 && u.PriceMS != 0: // half of the day is left
			t.Errorf("at %d %% the price is %g ms", part, u.PriceMS)
		case part == 75 && u.PriceMS != scarcityMS:
			t.Errorf("with half of what the day needs left it is %g ms", u.PriceMS)
		case part == 100 && (u.PriceMS != MostMS || !u.Spent()):
			t.Errorf("at the end it is %g ms, spent %v", u.PriceMS, u.Spent())
		}
		last = u.PriceMS
	}
}

func TestDays(t *testing.T) {
	// Six in the evening of Melbourne's winter is eight UTC.
	spec := mesh.LinkBudget{GigabytesPerDay: 1, ResetAt: "18:00+10:00"}
	limits := map[string]Limit{"far": LimitOf(&spec)}
	use := func(b *Book, at time.Time) Use { return b.Uses(at)[0] }
	begin := time.Date(2026, 7, 1, 7, 59, 0, 0, time.UTC)
	book := &Book{}
	book.Tick(begin, 0, limits)
	note := func(carried uint64) {
		book.Note(0, "far", "a", uint64(begin.UnixNano()), carried, nil)
	}
	note(gb / 2)
	if got := use(book, begin).Turns; !got.Equal(begin.Add(time.Minute)) {
		t.Errorf("the day turns at %v", got)
	}
	book.Tick(begin.Add(59*time.Second), 59*time.Second, limits)
	if got := use(book, begin); got.Used != gb/2 {
		t.Errorf("before its end: %+v", got)
	}
	book.Tick(begin.Add(time.Minute), time.Minute, limits)
	if got := use(book, begin.Add(time.Minute)); got.Used != 0 || !got.Turns.Equal(begin.Add(time.Minute+day)) {
		t.Errorf("the day has not turned: %+v", got)
	}
	note(gb) // half a gigabyte more
	// The clock is set back: the budget of the day before is not given again, nor this one's
	// when it comes to the hour a second time.
	book.Tick(begin, 2*time.Minute, limits)
	book.Tick(begin.Add(time.Minute), 3*time.Minute, limits)
	if got := use(book, begin); got.Used != gb/2 {
		t.Errorf("after the clock was set back: %+v", got)
	}
	// It was set ahead by a year and back: within a day all is as it should be.
	book.Tick(begin.AddDate(1, 0, 0), 4*time.Minute, limits)
	note(gb + gb/4)
	book.Tick(begin.Add(5*time.Minute), 5*time.Minute, limits)
	if got := use(book, begin); got.Used != gb/4 {
		t.Errorf("after the clock was set ahead and back: %+v", got)
	}
	// Also where the controller starts anew meanwhile.
	book = Restore(book.Record())
	book.Tick(begin.Add(23*time.Hour), 22*time.Hour, limits)
	if got := use(book, begin); got.Used != gb/4 {
		t.Errorf("before a day has gone by: %+v", got)
	}
	book.Tick(begin.Add(25*time.Hour), 24*time.Hour+5*time.Minute, limits)
	if got := use(book, begin); got.Used != 0 {
		t.Errorf("after a day has gone by: %+v", got)
	}
}

func TestWhatWasBeforeTheBudgetIsFree(t *testing.T) {
	book := &Book{}
	book.Tick(noon, 0, nil)
	book.Note(0, "far", "a", uint64(noon.UnixNano()), gb, nil)
	later := noon.Add(time.Hour)
	limits := map[string]Limit{"far": {Bytes: gb}}
	book.Tick(later, time.Hour, limits)
	book.Note(time.Hour, "far", "a", uint64(noon.UnixNano()), 7*gb, nil)
	book.Note(time.Hour, "far", "a", uint64(noon.UnixNano()), 7*gb+1, nil)
	book.Note(time.Hour, "far", "b", uint64(later.Add(time.Second).UnixNano()), 2, nil)
	if got := book.Uses(later)[0].Used; got != 3 {
		t.Errorf("%d bytes are counted, want 3", got)
	}
	if g := grants(book, later); g["a"].Most <= 7*gb {
		t.Errorf("the grants are %v", g)
	}
}

// TestOneThatIsGone gives back what a node had that is not heard of any more.
func TestOneThatIsGone(t *testing.T) {
	book := &Book{}
	limits := map[string]Limit{"far": {Bytes: gb}}
	book.Tick(noon, 0, limits)
	book.Note(0, "far", "old", uint64(noon.UnixNano()), 0, nil)
	old := grants(book, noon)["old"]
	book.Note(0, "far", "old", uint64(noon.UnixNano()), 0, &old)
	at := 30 * time.Second
	book.Tick(noon.Add(at), at, limits)
	book.Note(at, "far", "new", uint64(noon.Add(at).UnixNano()), 0, nil)
	if g := grants(book, noon.Add(at))["new"]; g.Most != 0 {
		t.Errorf("one that was silent for half a minute has a grant of everything, and the new one of %d", g.Most)
	}
	at = 90 * time.Second
	book.Tick(noon.Add(at), at, limits)
	book.Note(at, "far", "new", uint64(noon.Add(at).UnixNano()), 0, nil)
	if g := grants(book, noon.Add(at)); g["new"].Most != gb || g["old"].Serial != 0 {
		t.Errorf("the grants are %v", g)
	}
}

func grants(b *Book, at time.Time) map[string]mesh.LinkGrant {
	states, _ := b.Share(at)
	return states[0].Grants
}

// TestAnotherController deals out nothing a second time where one before it, of which it
// has no record, has dealt out all.
func TestAnotherController(t *testing.T) {
	limits := map[string]Limit{"far": {Bytes: gb}}
	book := Restore(Record{})
	book.Tick(noon, 0, limits)
	book.Note(0, "far", "a", uint64(noon.UnixNano()), 0, &mesh.LinkGrant{Epoch: uint64(noon.UnixNano()), Serial: 5, Most: gb})
	book.Note(0, "far", "b", uint64(noon.UnixNano()), 0, nil)
	g := grants(book, noon)
	if g["b"].Most != 0 {
		t.Errorf("a may carry all, and b gets %d", g["b"].Most)
	}
	// Once a has a smaller part, b gets the rest.
	had := g["a"]
	book.Note(0, "far", "a", uint64(noon.UnixNano()), 0, &had)
	if g := grants(book, noon); g["b"].Most != gb-had.Most || had.Most == 0 {
		t.Errorf("a may carry %d, and b %d", had.Most, g["b"].Most)
	}
}
