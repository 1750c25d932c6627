// Package capsule carries UDP datagrams on a stream of bytes: the DATAGRAM capsules of
// RFC 9297 3, as CONNECT-UDP (RFC 9298 5) uses them, with context 0. Capsules of other
// types, and datagrams of other contexts, are passed over, as both ask for.
package capsule

import "errors"

// MaxDatagram is the longest UDP payload (RFC 9298 5).
const MaxDatagram = 65527

// Overhead is the most that a datagram takes besides its payload.
const Overhead = 1 + 4 + 1

// maxPassed bounds a capsule that is passed over: who sends longer ones sends no datagrams.
const maxPassed = 1 << 20

// Faults of the sender, after which the stream is of no use.
var (
	ErrLong  = errors.New("capsule longer than any datagram")
	ErrShort = errors.New("datagram without a context")
)

// Append appends a datagram's capsule.
func Append(dst, payload []byte) []byte {
	n := len(payload) + 1
	dst = append(dst, 0) // DATAGRAM
	switch {
	case n < 1<<6:
		dst = append(dst, byte(n))
	case n < 1<<14:
		dst = append(dst, byte(n>>8)|0x40, byte(n))
	default:
		dst = append(dst, byte(n>>24)|0x80, byte(n>>16), byte(n>>8), byte(n))
	}
	return append(append(dst, 0), payload...) // context 0
}

// Reader takes datagrams from a stream whose bytes come in pieces. The zero Reader is at
// the start of one. It keeps at most one datagram's bytes.
type Reader struct {
	head [16]byte // of a capsule, as far as it came
	have int
	kept []byte // of a datagram that comes in pieces
	left int    // of it, or of what is passed over
	pass bool
	body bool
}

// Reset has the Reader begin anew, with the memory that it has.
func (r *Reader) Reset() { *r = Reader{kept: r.kept[:0]} }

// Within reports whether the stream is inside a capsule.
func (r *Reader) Within() bool { return r.have > 0 || r.body }

// varint reads a variable-length integer (RFC 9000 16), n is 0 while it is incomplete.
func varint(b []byte) (v uint64, n int) {
	if len(b) == 0 {
		return 0, 0
	}
	if n = 1 << (b[0] >> 6); len(b) < n {
		return 0, 0
	}
	v = uint64(b[0] & 0x3f)
	for _, c := range b[1:n] {
		v = v<<8 | uint64(c)
	}
	return v, n
}

// Next takes bytes from the front of in, up to the end of a datagram, and returns how
// many; payload is the datagram, borrowed until the next call, and whole says that there
// is one. Without it all of in was taken.
func (r *Reader) Next(in []byte) (n int, payload []byte, whole bool, err error) {
	for n < len(in) {
		if !r.body {
			r.head[r.have] = in[n]
			r.have++
			n++
			if err := r.begin(); err != nil {
				return n, nil, false, err
			}
			if !r.body {
				continue
			}
			r.have = 0
		}
		k := min(r.left, len(in)-n)
		switch {
		case r.pass:
		case k == r.left && len(r.kept) == 0:
			r.body, r.left = false, 0
			return n + k, in[n : n+k : n+k], true, nil
		default:
			r.kept = append(r.kept, in[n:n+k]...)
		}
		n += k
		if r.left -= k; r.left > 0 {
			continue
		}
		r.body = false
		if r.pass {
			r.pass = false
			continue
		}
		payload = r.kept
		r.kept = r.kept[:0]
		return n, payload, true, nil
	}
	// An empty datagram ends with its head.
	if r.body && r.left == 0 && !r.pass {
		r.body = false
		return n, nil, true, nil
	}
	return n, nil, false, nil
}

// begin looks whether a capsule's head is there: type, length and, of a datagram, context.
func (r *Reader) begin() error {
	b := r.head[:r.have]
	kind, k := varint(b)
	if k == 0 {
		return nil
	}
	length, m := varint(b[k:])
	if m == 0 {
		return nil
	}
	if kind != 0 {
		if length > maxPassed {
			return ErrLong
		}
		r.left, r.pass, r.body = int(length), true, length > 0
		if !r.body {
			r.have, r.pass = 0, false
		}
		return nil
	}
	switch {
	case length == 0:
		return ErrShort
	case length > MaxDatagram+8:
		return ErrLong
	}
	context, c := varint(b[k+m:])
	switch {
	case c == 0 && r.have-k-m >= int(length):
		return ErrShort // the context does not fit
	case c == 0:
		return nil
	case uint64(c) > length:
		return ErrShort
	}
	r.left, r.pass, r.body = int(length)-c, context != 0, true
	if !r.pass && r.left > MaxDatagram {
		return ErrLong
	}
	if r.pass && r.left == 0 {
		r.body, r.pass, r.have = false, false, 0
	}
	return nil
}
