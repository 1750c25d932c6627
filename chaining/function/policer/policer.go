// Package policer bounds rates by token buckets, one for each flow source or one
// for all: a single-rate policer with a burst (RFC 2697 with two colours). What is
// beyond is dropped or gets another DSCP. The package is pure.
package policer

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/meridian-mesh/meridian/chaining/flow"
	"github.com/meridian-mesh/meridian/chaining/function"
)

// Config is a policer's.
type Config struct {
	// BitsPerS is the committed rate of each direction, Burst what may go at once, in
	// bytes.
	BitsPerS float64
	Burst    int
	// PerSource has a bucket for each address that is on the chain's beginning.
	PerSource bool
	// Remark gives packets beyond the rate this DSCP instead of dropping them; -1 drops.
	Remark int
}

// maxBuckets bounds memory. Beyond it sources share the bucket of their hash.
const maxBuckets = 1 << 16

// Policer is the function.
type Policer struct {
	config  Config
	buckets map[bucketKey]*bucket
	packet  flow.Packet
}

type bucketKey struct {
	d    function.Direction
	addr [16]byte
}

type bucket struct {
	tokens float64 // bytes
	at     time.Duration
}

// New makes a policer.
func New(c Config) (*Policer, error) {
	switch {
	case !(c.BitsPerS > 0):
		return nil, fmt.Errorf("policer: rate of %v bit/s: use one above 0", c.BitsPerS)
	case c.Burst < 1500:
		return nil, fmt.Errorf("policer: burst of %d bytes: a full-size packet of 1500 would never pass", c.Burst)
	case c.Remark < -1 || c.Remark > 63:
		return nil, fmt.Errorf("policer: DSCP %d: use 0 to 63, or -1 to drop", c.Remark)
	}
	return &Policer{config: c, buckets: make(map[bucketKey]*bucket)}, nil
}

// Process implements function.Function.
func (f *Policer) Process(b []byte, d function.Direction, now time.Duration) function.Result {
	p := &f.packet
	if !flow.Parse(b, p) {
		return function.Result{Drop: "malformed"}
	}
	k := bucketKey{d: d}
	if f.config.PerSource {
		if k.addr = p.Src; d == function.Back {
			k.addr = p.Dst
		}
		if len(f.buckets) >= maxBuckets && f.buckets[k] == nil {
			h := flow.Mix(binary.LittleEndian.Uint64(k.addr[8:]))
			k.addr = [16]byte{15: byte(h)}
		}
	}
	q := f.buckets[k]
	if q == nil {
		q = &bucket{tokens: float64(f.config.Burst), at: now}
		f.buckets[k] = q
	}
	q.tokens = min(float64(f.config.Burst), q.tokens+max(0, (now-q.at).Seconds())*f.config.BitsPerS/8)
	q.at = max(q.at, now)
	if q.tokens >= float64(p.Length) {
		q.tokens -= float64(p.Length)
		return function.Result{Packet: b}
	}
	if f.config.Remark < 0 {
		return function.Result{Drop: "rate"}
	}
	remark(b, p.Version, uint8(f.config.Remark))
	return function.Result{Packet: b}
}

// remark writes a DSCP; ECN stays.
func remark(b []byte, version, dscp uint8) {
	if version == 6 {
		b[0] = b[0]&0xf0 | dscp>>2
		b[1] = b[1]&0x3f | dscp<<6
		return
	}
	old := [2]byte{b[0], b[1]}
	b[1] = b[1]&3 | dscp<<2
	binary.BigEndian.PutUint16(b[10:], function.Adjust(binary.BigEndian.Uint16(b[10:]), old[:], b[:2]))
}
