package upstream

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestBuckets(t *testing.T) {
	for i, bound := range Bounds {
		// At the bound itself rounding of its square root may go either way.
		if got := Bucket(bound - bound/1000 - time.Microsecond); got > i {
			t.Errorf("just under %v: bucket %d, want at most %d", bound, got, i)
		}
		if got := Bucket(bound + bound/1000 + time.Microsecond); got != i+1 {
			t.Errorf("just over %v: bucket %d, want %d", bound, got, i+1)
		}
	}
	if !slices.IsSorted(Bounds[:]) || Bounds[0] != 64*time.Microsecond || Bounds[len(Bounds)-1] < time.Minute {
		t.Errorf("bounds %v", Bounds)
	}
	for _, d := range []time.Duration{-1, 0, 1, time.Hour, 1 << 62} {
		if i := Bucket(d); i < 0 || i >= Buckets {
			t.Errorf("%v: bucket %d", d, i)
		}
	}
}

// TestPoolAgainstTwin drives a pool and plain slices with the same operations.
func TestPoolAgainstTwin(t *testing.T) {
	reg := NewRegistry(1)
	var keys []PoolKey
	for i := range 2 {
		e := reg.Endpoint(EndpointKey{Addr: netip.MustParseAddrPort(fmt.Sprintf("10.0.0.%d:1", i))})
		for chain := range uint32(2) {
			keys = append(keys, PoolKey{Endpoint: e, Protocol: 1, Chain: chain})
		}
	}
	type conn struct {
		idle Idle[*conn]
		at   int64
		in   bool
	}
	r := rand.New(rand.NewPCG(5, 5))
	p := NewPool[*conn](0)
	twin := map[PoolKey][]*conn{}
	remove := func(c *conn) {
		c.in = false
		for k, l := range twin {
			if i := slices.Index(l, c); i >= 0 {
				twin[k] = slices.Delete(l, i, i+1)
			}
		}
	}
	var all []*conn
	const limit = 5
	for now := range int64(20_000) {
		key := keys[r.IntN(len(keys))]
		switch r.IntN(5) {
		case 0, 1:
			c := &conn{at: now, in: true}
			c.idle.Conn = c
			all = append(all, c)
			twin[key] = append(twin[key], c)
			old, over := p.Put(&c.idle, key, now, limit)
			if over != (len(twin[key]) > limit) || over && old != twin[key][0] {
				t.Fatalf("Put over %v", over)
			}
			if over {
				remove(old)
			}
		case 2:
			c, ok := p.Take(key)
			l := twin[key]
			if ok != (len(l) > 0) || ok && c != l[len(l)-1] {
				t.Fatal("Take is not last in, first out")
			}
			if ok {
				remove(c)
			}
		case 3:
			if len(all) > 0 {
				c := all[r.IntN(len(all))] // in the pool or not
				p.Remove(&c.idle)
				remove(c)
			}
		case 4:
			before := now - 10
			for {
				c, ok := p.Expired(before)
				if !ok {
					break
				}
				if !c.in || c.at >= before {
					t.Fatal("one expired that was not due")
				}
				remove(c)
			}
			for _, l := range twin {
				if len(l) > 0 && l[0].at < before {
					t.Fatal("one that was due did not expire")
				}
			}
		}
		n := 0
		for k, l := range twin {
			n += len(l)
			_ = k
		}
		if p.Len() != n {
			t.Fatalf("%d in the pool, want %d", p.Len(), n)
		}
	}
}

func TestSourcesAreBounded(t *testing.T) {
	reg := NewRegistry(1)
	seen := map[int]bool{}
	for i := range 2 * MaxSources {
		k := reg.Source(fmt.Sprint(i))
		if k < 0 || k >= MaxSources || k != 0 && seen[k] || (k == 0) != (i >= MaxSources-1) {
			t.Fatalf("site %d has index %d", i, k)
		}
		seen[k] = true
	}
	if reg.Source("3") != reg.Source("3") || reg.SourceNames()[reg.Source("3")] != "3" {
		t.Error("indexes are not stable")
	}
}
