package authz

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// dim is what a case may be found by.
type dim uint8

const (
	dimExact dim = iota
	dimPrefix
	dimNetwork
	dimIdentity
	dimHost
	dimWildHost
	dimHeader
	dimHeaderName
	dimNamespace
	dimSite
	dimPort
	dimMethod
	dimPlain // clients without an identity
	dimAlways
	dimensions
)

// dims is a set of dimensions.
type dims uint32

func (d dims) has(x dim) bool { return d&(1<<x) != 0 }

// Keys are hashes, and what is found by one is compared in full: that two things have
// the same key costs time and decides nothing.

func seedOf(d dim) uint64 { return mix(0xcbf29ce484222325, uint64(d)+1) }

// mix is a step of FNV-1a on a word.
func mix(h, v uint64) uint64 { return (h ^ v) * 0x100000001b3 }

func hashString(h uint64, s string) uint64 {
	for i := range len(s) {
		h = mix(h, uint64(s[i]))
	}
	return h
}

func hashBytes(h uint64, s []byte) uint64 {
	for _, c := range s {
		h = mix(h, uint64(c))
	}
	return h
}

// hashNetwork is the key of a network: its length, whether it is of version 4, and its
// address in two words.
func hashNetwork(bits int, four bool, high, low uint64) uint64 {
	h := mix(seedOf(dimNetwork), uint64(bits)<<1|b2u(four))
	h = mix(h, high)
	return mix(h^h>>32, low)
}

func b2u(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// clause is one case of a rule: one of its sources with one of its accesses.
type clause struct {
	rule int32
	from *source // nil for anybody
	to   *access // nil for anything
}

// index finds the clauses that may match. Each clause is under the keys of one of its
// dimensions, that which finds the fewest others.
type index struct {
	clauses []clause
	places  map[uint64]span
	order   []int32 // of clauses, cut up by places
	always  []int32
	used    dims
	// What there is to look up.
	networks4 uint64    // lengths, by bit
	networks6 [3]uint64 // likewise; 128 is bit 0 of the last
	shapes    []shape
	prefixMax int // length of the longest prefix
	elements  int // most elements of a prefix
	exactMax  int
	labels    int                 // most labels of a wildcard host
	headers   map[uint64]struct{} // names
}

type span struct{ from, n int32 }

// keyed is what a source or an access can be found by.
type keyed struct{ keys [dimensions][]uint64 }

type builder struct {
	set     *Set
	clauses []clause
	err     error
}

func (b *builder) add(p *Policy, rules []compiledRule) {
	switch {
	case p.Action != mesh.ActionAllow:
	case p.DryRun:
		b.set.dryAllow = append(b.set.dryAllow, p)
	default:
		b.set.allow = append(b.set.allow, p)
	}
	for i := range rules {
		r := &rules[i]
		n := int32(len(b.set.rules))
		b.set.rules = append(b.set.rules, r.rule)
		from, to := r.from, r.to
		if len(from) == 0 {
			from = []*source{nil}
		}
		if len(to) == 0 {
			to = []*access{nil}
		}
		if len(b.clauses)+len(from)*len(to) > maxCases {
			b.err = fmt.Errorf("%s: the rules of %s have more than %d combinations of from and to: write lists inside of one from or to", p.Key, b.set.Target, maxCases)
			return
		}
		for _, f := range from {
			for _, t := range to {
				b.clauses = append(b.clauses, clause{n, f, t})
				b.note(p, f, t)
			}
		}
	}
}

// note remembers what policies look at.
func (b *builder) note(p *Policy, f *source, t *access) {
	var d dims
	if f != nil {
		if len(f.identities)+len(f.namespaces) > 0 || f.unauthenticated {
			d |= 1 << dimIdentity
		}
		if len(f.networks) > 0 {
			d |= 1 << dimNetwork
		}
	}
	if t != nil && len(t.paths) > 0 {
		d |= 1 << dimPrefix
		b.set.paths = true
	}
	if p.Action != mesh.ActionDeny {
		return
	}
	if p.DryRun {
		b.set.dryDenies |= d
	} else {
		b.set.denies |= d
	}
}

func (b *builder) finish() error {
	if b.err != nil {
		return b.err
	}
	var err error
	if b.set.requests, err = b.index(b.clauses, true); err != nil {
		return err
	}
	// Of connections that are passed on whole nobody knows what is inside: a case that
	// looks there never allows, and denies whatever it is.
	var outside []clause
	for _, c := range b.clauses {
		if c.to != nil && c.to.ofRequests() && b.set.rules[c.rule].Action == mesh.ActionAllow {
			continue
		}
		outside = append(outside, c)
	}
	b.set.connections, err = b.index(outside, false)
	return err
}

func (b *builder) index(clauses []clause, http bool) (index, error) {
	x := index{clauses: clauses, places: map[uint64]span{}, headers: map[uint64]struct{}{}}
	sources, accesses := map[*source]*keyed{}, map[*access]*keyed{}
	shapes := map[shape]bool{}
	frequency := map[uint64]int{}
	counted := 0
	count := func(k *keyed) {
		for _, keys := range k.keys {
			counted += len(keys)
			for _, key := range keys {
				frequency[key]++
			}
		}
	}
	for _, c := range clauses {
		if c.from != nil {
			if sources[c.from] == nil {
				sources[c.from] = sourceKeys(c.from)
			}
			count(sources[c.from])
		}
		if c.to != nil {
			if accesses[c.to] == nil {
				accesses[c.to] = accessKeys(c.to, http)
			}
			count(accesses[c.to])
		}
		if counted > maxKeys {
			return x, b.tooMany()
		}
	}
	type placed struct {
		key    uint64
		clause int32
	}
	var all []placed
	for i, c := range clauses {
		best, bestCost, bestKeys := dimAlways, int(^uint(0)>>1), []uint64(nil)
		weigh := func(k *keyed) {
			if k == nil {
				return
			}
			for d, keys := range k.keys {
				cost := 0
				for _, key := range keys {
					cost = max(cost, frequency[key])
				}
				if len(keys) > 0 && (cost < bestCost || cost == bestCost && len(keys) < len(bestKeys)) {
					best, bestCost, bestKeys = dim(d), cost, keys
				}
			}
		}
		weigh(sources[c.from])
		weigh(accesses[c.to])
		x.used |= 1 << best
		if best == dimAlways {
			x.always = append(x.always, int32(i))
			continue
		}
		x.note(best, c, shapes)
		for _, key := range bestKeys {
			all = append(all, placed{key, int32(i)})
		}
		if len(all) > maxKeys {
			return x, b.tooMany()
		}
	}
	slices.SortFunc(all, func(a, b placed) int {
		if a.key != b.key {
			if a.key < b.key {
				return -1
			}
			return 1
		}
		return int(a.clause - b.clause)
	})
	x.order = make([]int32, 0, len(all))
	for i, p := range all {
		if i > 0 && all[i-1] == p {
			continue
		}
		at := x.places[p.key]
		if at.n == 0 {
			at.from = int32(len(x.order))
		}
		at.n++
		x.places[p.key] = at
		x.order = append(x.order, p.clause)
	}
	for s := range shapes {
		x.shapes = append(x.shapes, s)
	}
	return x, nil
}

func (b *builder) tooMany() error {
	return fmt.Errorf("AuthorizationPolicies of %s: their lists have more than %d items together: name wider networks, prefixes or patterns", b.set.Target, maxKeys)
}

// note remembers what has to be looked up for clauses of a dimension.
func (x *index) note(d dim, c clause, shapes map[shape]bool) {
	switch d {
	case dimNetwork:
		for _, n := range c.from.networks {
			if n.Addr().Is4() {
				x.networks4 |= 1 << n.Bits()
			} else {
				x.networks6[n.Bits()/64] |= 1 << (n.Bits() % 64)
			}
		}
	case dimIdentity:
		for i := range c.from.identities {
			shapes[c.from.identities[i].shape()] = true
		}
	case dimExact, dimPrefix: // the keys of both, where an access has both
		for _, p := range c.to.paths {
			for _, text := range [...]string{p.light, p.folded} {
				if p.exact {
					x.exactMax = max(x.exactMax, len(text))
					x.used |= 1 << dimExact
				} else {
					x.prefixMax = max(x.prefixMax, len(text))
					x.elements = max(x.elements, strings.Count(text, "/"))
					x.used |= 1 << dimPrefix
				}
			}
		}
	case dimHost, dimWildHost:
		for _, h := range c.to.hosts {
			if h[0] == '.' {
				x.labels = max(x.labels, strings.Count(h, "."))
				x.used |= 1 << dimWildHost
			} else {
				x.used |= 1 << dimHost
			}
		}
	case dimHeader, dimHeaderName:
		for _, h := range c.to.headers {
			x.headers[hashString(seedOf(dimHeaderName), h.name)] = struct{}{}
		}
	}
}

func sourceKeys(s *source) *keyed {
	k := &keyed{}
	for i := range s.identities {
		k.keys[dimIdentity] = append(k.keys[dimIdentity], s.identities[i].key())
	}
	for _, name := range s.sites {
		k.keys[dimSite] = append(k.keys[dimSite], hashString(seedOf(dimSite), name))
	}
	for _, name := range s.namespaces {
		k.keys[dimNamespace] = append(k.keys[dimNamespace], hashString(seedOf(dimNamespace), name))
	}
	for _, n := range s.networks {
		k.keys[dimNetwork] = append(k.keys[dimNetwork], networkKey(n))
	}
	if s.unauthenticated {
		k.keys[dimPlain] = append(k.keys[dimPlain], seedOf(dimPlain))
	}
	return k
}

func networkKey(n netip.Prefix) uint64 {
	high, low := words(n.Addr())
	return hashNetwork(n.Bits(), n.Addr().Is4(), high, low)
}

// words is an address as two numbers; one of version 4 is in the second.
func words(a netip.Addr) (high, low uint64) {
	if a.Is4() {
		b := a.As4()
		return 0, uint64(binary.BigEndian.Uint32(b[:]))
	}
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}

func accessKeys(a *access, http bool) *keyed {
	k := &keyed{}
	for _, port := range a.ports {
		k.keys[dimPort] = append(k.keys[dimPort], mix(seedOf(dimPort), uint64(port)))
	}
	if len(a.ports) > 0 { // of a request whose port is not known
		k.keys[dimPort] = append(k.keys[dimPort], mix(seedOf(dimPort), 0))
	}
	if !http {
		return k
	}
	for _, m := range a.methods {
		k.keys[dimMethod] = append(k.keys[dimMethod], hashString(seedOf(dimMethod), strings.ToLower(m)))
	}
	for _, h := range a.hosts {
		d := dimHost
		if h[0] == '.' {
			d = dimWildHost
		}
		k.keys[dimHost] = append(k.keys[dimHost], hashString(seedOf(d), h))
	}
	for _, p := range a.paths {
		d := dimPrefix
		if p.exact {
			d = dimExact
		}
		k.keys[dimPrefix] = append(k.keys[dimPrefix], hashString(seedOf(d), p.light))
		if p.folded != p.light {
			k.keys[dimPrefix] = append(k.keys[dimPrefix], hashString(seedOf(d), p.folded))
		}
	}
	if len(a.headers) > 0 { // all must match: one is enough to find them
		h := a.headers[0]
		if h.value == "" {
			k.keys[dimHeader] = []uint64{hashString(seedOf(dimHeaderName), h.name)}
		} else {
			k.keys[dimHeader] = []uint64{hashString(hashString(seedOf(dimHeader), h.name), h.folded)}
		}
	}
	return k
}
