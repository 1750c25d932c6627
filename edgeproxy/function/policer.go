package function

import (
	"hash/maphash"
	"math"
	"strconv"
	"sync/atomic"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

const (
	// sets and ways are the shape of the table of buckets, 8192 in 128 KiB: no more
	// are kept, and a bucket that is full again is worth nothing and needs no place.
	sets = 2048
	ways = 4
)

// policer is a token bucket in the form of the generic cell rate algorithm (ITU-T
// I.371): all that a bucket has to remember is the time at which it is full again.
// All loops share buckets.
type policer struct {
	per       string
	interval  int64 // ns between requests at the rate
	tolerance int64 // ns by which a burst may be early
	seed      maphash.Seed

	one   atomic.Int64 // the bucket of all
	table []bucket     // by key, ways of a set beside each other
}

// bucket is one key's; tag is 0 of one that nobody has used.
type bucket struct {
	tag  atomic.Uint64
	full atomic.Int64
}

func newPolicer(spec *mesh.RequestPolicer) *policer {
	burst := spec.Burst
	if burst == 0 {
		burst = int(max(1, math.Ceil(spec.Rate)))
	}
	p := &policer{per: spec.Per, interval: int64(max(1, math.Round(1e9/spec.Rate))), seed: maphash.MakeSeed()}
	p.tolerance = int64(burst-1) * p.interval
	if p.per == mesh.PolicePerClient || p.per == mesh.PolicePerHost || p.per == mesh.PolicePerIdentity {
		p.table = make([]bucket, sets*ways)
	}
	return p
}

func (p *policer) Request(q *Request) Verdict {
	at := &p.one
	if p.table != nil {
		at = p.bucket(p.key(q), q.Now)
	}
	wait, ok := p.take(at, q.Now)
	if ok {
		return Passed
	}
	q.Answer = Answer{Status: 429, Fields: append(q.Answer.Fields[:0], retryAfter(q, wait)), Body: tooMany}
	return Answered
}

var (
	nameRetryAfter = []byte("retry-after")
	tooMany        = []byte("too many requests\n")
)

// retryAfter says in whole seconds when the next request may come (RFC 9110 10.2.3).
func retryAfter(q *Request, wait int64) stream.Field {
	const second = 1e9
	q.text = strconv.AppendInt(q.text[:0], (wait+second-1)/second, 10)
	return stream.Field{Name: nameRetryAfter, Value: q.keep(q.text)}
}

// key is whose bucket a request takes from.
func (p *policer) key(q *Request) []byte {
	switch {
	case p.per == mesh.PolicePerHost:
		return q.Host
	case p.per == mesh.PolicePerIdentity && len(q.Identity) > 0:
		return q.Identity
	}
	return q.Address
}

// take takes a token, or says how long there will be none.
func (p *policer) take(at *atomic.Int64, now int64) (wait int64, ok bool) {
	for {
		full := at.Load()
		from := max(full, now)
		if early := from - now - p.tolerance; early > 0 {
			return early, false
		}
		if at.CompareAndSwap(full, from+p.interval) {
			return 0, true
		}
	}
}

// bucket finds a key's, or makes it one: first in place of a bucket that is full, else
// of the one that is full the soonest, whose key gets away with a few requests.
func (p *policer) bucket(key []byte, now int64) *atomic.Int64 {
	h := maphash.Bytes(p.seed, key)
	tag := h | 1
	set := p.table[h>>32%sets*ways:][:ways]
	var free, soonest *bucket
	for i := range set {
		b := &set[i]
		if b.tag.Load() == tag {
			return &b.full
		}
		switch full := b.full.Load(); {
		case full <= now:
			free = b
		case soonest == nil || full < soonest.full.Load():
			soonest = b
		}
	}
	if free == nil {
		free = soonest
		free.full.Store(now)
	}
	free.tag.Store(tag)
	return &free.full
}
