package authz

import (
	"bytes"
	"fmt"
	"strings"
)

// maxSegments bounds the segments of an identity that are compared one by one; a
// longer identity is matched by patterns that end in an asterisk only.
const maxSegments = 16

// pattern is an identity with asterisks.
type pattern struct {
	scheme   string // with ://
	segments []string
	// wild has a bit for each segment that is an asterisk; open says that the last one
	// stands for all that follow, and is not among segments.
	wild uint32
	open bool
}

func parsePattern(text string) (pattern, error) {
	at := strings.Index(text, "://")
	if at <= 0 {
		return pattern{}, fmt.Errorf("%q is not a pattern of identities", text)
	}
	p := pattern{scheme: text[:at+3], segments: strings.Split(text[at+3:], "/")}
	if n := len(p.segments); n > 1 && p.segments[n-1] == "*" {
		p.segments, p.open = p.segments[:n-1], true
	}
	if len(p.segments) > maxSegments {
		return pattern{}, fmt.Errorf("%q has more than %d segments", text, maxSegments)
	}
	for i, s := range p.segments {
		if s == "*" {
			p.wild |= 1 << i
		}
	}
	return p, nil
}

// identity is an identity cut into segments.
type identity struct {
	text     []byte
	scheme   []byte
	segments [maxSegments][]byte
	hashes   [maxSegments]uint64
	start    uint64 // of the scheme
	n        int
	long     bool // it has more than these
}

// cut takes an identity apart; false where it is none.
func (id *identity) cut(text []byte) bool {
	at := bytes.Index(text, schemeEnd)
	if at <= 0 {
		return false
	}
	id.text, id.scheme, id.n, id.long = text, text[:at+len(schemeEnd)], 0, false
	id.start = hashBytes(seedOf(dimIdentity), id.scheme)
	rest := text[at+len(schemeEnd):]
	for {
		if id.n == maxSegments {
			id.long = true
			return true
		}
		i := bytes.IndexByte(rest, '/')
		s := rest
		if i >= 0 {
			s = rest[:i]
		}
		id.segments[id.n], id.hashes[id.n] = s, hashBytes(0, s)
		id.n++
		if i < 0 {
			return true
		}
		rest = rest[i+1:]
	}
}

var schemeEnd = []byte("://")

// namespace is what follows /ns/, empty where nothing does.
func (id *identity) namespace() []byte {
	for i := 1; i+1 < id.n; i++ { // segment 0 is the trust domain
		if string(id.segments[i]) == "ns" {
			return id.segments[i+1]
		}
	}
	return nil
}

func (p *pattern) match(id *identity) bool {
	if string(id.scheme) != p.scheme || id.n < len(p.segments) {
		return false
	}
	if p.open {
		if id.n == len(p.segments) { // an asterisk stands for one segment at least
			return false
		}
	} else if id.n != len(p.segments) || id.long {
		return false
	}
	for i, s := range p.segments {
		if p.wild&(1<<i) == 0 && string(id.segments[i]) != s {
			return false
		}
	}
	return true
}

// shape is which segments of a pattern are compared.
type shape struct {
	n    int
	wild uint32
	open bool
}

func (p *pattern) shape() shape { return shape{len(p.segments), p.wild, p.open} }

func (p *pattern) key() uint64 {
	h := p.shape().seed(hashString(seedOf(dimIdentity), p.scheme))
	for i, s := range p.segments {
		if p.wild&(1<<i) == 0 {
			h = mix(h, hashString(0, s))
		}
	}
	return h
}

// seed goes on from the hash of a scheme.
func (s shape) seed(start uint64) uint64 {
	return mix(mix(start, uint64(s.n)<<1|b2u(s.open)), uint64(s.wild))
}

// key is that of all patterns of the shape that match.
func (id *identity) key(s shape) (uint64, bool) {
	if id.n < s.n || !s.open && id.n != s.n {
		return 0, false
	}
	h := s.seed(id.start)
	for i := range s.n {
		if s.wild&(1<<i) == 0 {
			h = mix(h, id.hashes[i])
		}
	}
	return h, true
}
