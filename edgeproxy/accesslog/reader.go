package accesslog

import (
	"context"
	"net/netip"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// maxShown bounds one text of a request that a [Reader] hands out, so that many fit
// into a message.
const maxShown = 512

// The header fields that a [Reader]'s format has, by their place.
const (
	shownID = iota
	shownAgent
)

// Reader hands what loops say of requests to a function, as a [Log] writes it.
type Reader struct {
	*feed
	now   func() int64
	taken []byte
}

// NewReader makes a Reader with a ring of size bytes for each loop; now is the loops'
// clock. Its rings take records before Run begins, as far as there is room.
func NewReader(rings, size int, now func() int64) *Reader {
	f := &Format{request: []string{shownID: "x-request-id", shownAgent: "user-agent"}}
	return &Reader{feed: newFeed(f, rings, size), now: now}
}

// Lost counts records that found no room in a ring.
func (r *Reader) Lost() uint64 { return r.lost() }

// Run calls take with each request and its mark until ctx ends. end is when the
// request was over, on the loops' clock. The first record that comes
// after a pause wakes it at once; those that follow come together for a moment.
func (r *Reader) Run(ctx context.Context, take func(e mesh.EndedRequest, mark uint8, end int64)) {
	t := time.NewTimer(gather)
	defer t.Stop()
	for {
		if r.drain(take) {
			t.Reset(gather)
			select {
			case <-t.C:
			case <-ctx.Done():
				return
			}
			continue
		}
		r.waiting.Store(true)
		if r.drain(take) { // a record that came before the flag was seen
			r.waiting.Store(false)
			continue
		}
		select {
		case <-r.wake:
		case <-ctx.Done():
			return
		}
	}
}

func (r *Reader) drain(take func(mesh.EndedRequest, uint8, int64)) bool {
	found := false
	var e record
	for _, ring := range r.rings {
		r.taken = ring.take(r.taken[:0])
		for b := r.taken; len(b) > 0; found = true {
			b = r.format.read(b, &e)
			now, clock := time.Now(), r.now()
			take(e.ended(now.Add(time.Duration(e.start-clock))), e.mark, e.start+e.duration)
		}
	}
	return found
}

// ended is the record in words.
func (e *record) ended(began time.Time) mesh.EndedRequest {
	shown := func(b []byte) string { return string(b[:min(len(b), maxShown)]) }
	address := func(a netip.AddrPort) string {
		switch {
		case !a.IsValid():
			return ""
		case a.Port() == 0: // it is not known
			return a.Addr().String()
		}
		return a.String()
	}
	out := mesh.EndedRequest{
		Time: began, ID: shown(e.request[shownID]), UserAgent: shown(e.request[shownAgent]),
		Protocol: shown(e.protocol), Method: shown(e.method), Authority: shown(e.authority), Path: shown(e.path),
		Status: e.status, Flag: shown(e.flag), Details: shown(e.details),
		Client: address(e.client), Peer: address(e.peer), Identity: shown(e.identity),
		Gateway: shown(e.gateway), Rule: shown(e.route), Service: mesh.ServiceKey(shown(e.service)),
		ToSite: shown(e.site), Endpoint: address(e.upstream), Attempts: e.attempts,
		Received: e.received, Sent: e.sent, DurationMS: float64(e.duration) / 1e6,
	}
	if e.firstByte >= 0 {
		ms := float64(e.firstByte) / 1e6
		out.FirstByteMS = &ms
	}
	return out
}
