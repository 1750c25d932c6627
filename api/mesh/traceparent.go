package mesh

import (
	"encoding/hex"
	"hash/fnv"
	"math"
)

// TraceParent is the position of a request in a trace, as its traceparent header says it
// (W3C Trace Context, section 3.2).
type TraceParent struct {
	TraceID [16]byte
	// SpanID is who sent the request.
	SpanID  [8]byte
	Sampled bool
}

// traceParentLen is the length of version 00; later versions may add to it.
const traceParentLen = 55

// ParseTraceParent reads a header's value, and reports whether it is one. What is longer is
// taken for a later version, of which the same is read; version 255 and IDs of zeros
// only are invalid (3.2.2). It does not allocate.
func ParseTraceParent(b []byte) (p TraceParent, ok bool) {
	if len(b) < traceParentLen || b[2] != '-' || b[35] != '-' || b[52] != '-' {
		return p, false
	}
	var version, flags [1]byte
	if !lowerHex(version[:], b[:2]) || version[0] == 0xff || !lowerHex(p.TraceID[:], b[3:35]) || !lowerHex(p.SpanID[:], b[36:52]) || !lowerHex(flags[:], b[53:55]) {
		return TraceParent{}, false
	}
	if len(b) > traceParentLen && (version[0] == 0 || b[traceParentLen] != '-') || p.TraceID == [16]byte{} || p.SpanID == [8]byte{} {
		return TraceParent{}, false
	}
	p.Sampled = flags[0]&1 != 0
	return p, true
}

// lowerHex decodes hexadecimal digits, of which capital ones are not allowed (3.2).
func lowerHex(dst, src []byte) bool {
	for _, c := range src {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	_, err := hex.Decode(dst, src)
	return err == nil
}

// TraceSampled is the head's decision on a request: its caller's where the traceparent is
// valid, else that part (0 to 1) of all, by x-request-id, so that every proxy that a
// request passes decides the same. One without an ID is not traced. It does not allocate.
func TraceSampled(traceParent, id []byte, part float64) bool {
	if p, ok := ParseTraceParent(traceParent); ok {
		return p.Sampled
	}
	if len(id) == 0 || part <= 0 {
		return false
	}
	if part >= 1 {
		return true
	}
	return float64(hashOf(id)) < part*math.MaxUint64
}

// hashOf is FNV-1a with its bits mixed once more, since IDs that differ at their end only
// differ little in it.
func hashOf(b []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(b) // a hash never fails
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd // of MurmurHash3's finalizer
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
