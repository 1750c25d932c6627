package datagram

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
)

const (
	// leastID is the shortest connection ID that tells connections apart, longestID
	// the longest there is (RFC 9000 17.2).
	leastID   = 4
	longestID = 20
	// mostIDs bounds what is known of all clients, idsEach of one session's.
	mostIDs = 100_000
	idsEach = 4
	// Versions whose long headers are read (RFC 9000, RFC 9369).
	quic1, quic2 = 1, 0x6b3343cf
)

// ID is a QUIC connection ID.
type ID struct {
	bytes [longestID]byte
	len   uint8
}

func idOf(p []byte) (id ID) {
	id.len = uint8(copy(id.bytes[:], p))
	return id
}

// IDs knows at which endpoints the QUIC connections are that servers have named, so
// that a client whose address changes (RFC 9000 9, rebinding of a NAT) comes to the
// same one. What a server names later is encrypted and is not known here: a client
// that changes its connection ID with its address is taken for a new one. Methods may
// be called from any goroutine.
type IDs struct {
	lengths atomic.Uint32 // bit n: IDs of n bytes are known
	mu      sync.Mutex
	known   map[ID]*place
}

type place struct {
	endpoint *upstream.Endpoint
	sessions int
}

// NewIDs knows none.
func NewIDs() *IDs { return &IDs{known: map[ID]*place{}} }

// Held are the connection IDs of one session.
type Held struct {
	ids [idsEach]ID
	n   int
}

// Learn notes the ID that a server gives itself in a datagram to a client: the source
// connection ID of a long header.
func (t *IDs) Learn(h *Held, p []byte, at *upstream.Endpoint) {
	_, source, ok := longHeader(p)
	if !ok || len(source) < leastID || h.n == idsEach {
		return
	}
	id := idOf(source)
	for _, known := range h.ids[:h.n] {
		if known == id {
			return
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	known := t.known[id]
	switch {
	case known == nil && len(t.known) == mostIDs:
		return
	case known == nil:
		known = &place{endpoint: at}
		t.known[id] = known
		t.lengths.Or(1 << id.len)
	case known.endpoint != at:
		return // whoever named it first keeps it
	}
	known.sessions++
	h.ids[h.n] = id
	h.n++
}

// Find says at which endpoint the connection of a client's datagram is, nil where
// that is not known, and has the session hold its ID.
func (t *IDs) Find(h *Held, p []byte) *upstream.Endpoint {
	lengths := t.lengths.Load()
	if lengths == 0 || len(p) == 0 || h.n == idsEach {
		return nil
	}
	if to, _, ok := longHeader(p); ok {
		if len(to) < leastID {
			return nil
		}
		return t.hold(h, idOf(to))
	}
	if p[0]&0xc0 != 0x40 { // a short header has the fixed bit alone
		return nil
	}
	for n := leastID; n <= longestID && n < len(p); n++ {
		if lengths&(1<<n) == 0 {
			continue
		}
		if at := t.hold(h, idOf(p[1:1+n])); at != nil {
			return at
		}
	}
	return nil
}

func (t *IDs) hold(h *Held, id ID) *upstream.Endpoint {
	t.mu.Lock()
	defer t.mu.Unlock()
	known := t.known[id]
	if known == nil {
		return nil
	}
	known.sessions++
	h.ids[h.n] = id
	h.n++
	return known.endpoint
}

// Forget gives up what a session holds.
func (t *IDs) Forget(h *Held) {
	if h.n == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range h.ids[:h.n] {
		known := t.known[id]
		if known.sessions--; known.sessions == 0 {
			delete(t.known, id)
		}
	}
	h.n = 0
	if len(t.known) == 0 {
		t.lengths.Store(0)
	}
}

// longHeader reads the connection IDs of a QUIC packet with a long header
// (RFC 8999 5.1, of the versions that are known).
func longHeader(p []byte) (to, from []byte, ok bool) {
	if len(p) < 7 || p[0]&0x80 == 0 {
		return nil, nil, false
	}
	if v := binary.BigEndian.Uint32(p[1:]); v != quic1 && v != quic2 {
		return nil, nil, false
	}
	n := int(p[5])
	if n > longestID || len(p) < 7+n {
		return nil, nil, false
	}
	to = p[6 : 6+n]
	m := int(p[6+n])
	if m > longestID || len(p) < 7+n+m {
		return nil, nil, false
	}
	return to, p[7+n : 7+n+m], true
}
