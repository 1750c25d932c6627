// Package hpack is header compression for HTTP/2 (RFC 7541): [Decoder] and
// [Encoder] each hold one direction's dynamic table. It is pure and allocates
// nothing in steady state: strings are slices of the block, of the caller's
// scratch memory or of the static table.
//
// A decoder counts what it decodes, not what it reads: the caller bounds the
// decoded bytes (see [Decoder.Field]), so that a few bytes that name a large
// entry again and again are as dear as the fields they stand for.
package hpack

import "errors"

// Faults of a block. Each is a connection error COMPRESSION_ERROR (RFC 9113 4.3):
// the tables of the two sides are out of step from there.
var (
	ErrTruncated = errors.New("hpack: block ends inside a field")
	ErrInteger   = errors.New("hpack: integer out of range")
	ErrIndex     = errors.New("hpack: index of no entry")
	ErrHuffman   = errors.New("hpack: invalid Huffman coding")
	ErrTableSize = errors.New("hpack: table size over the limit or out of place")
)

// overhead is what an entry counts beyond its strings (RFC 7541 4.1).
const overhead = 32

// DefaultTableSize is a table's size until settings say otherwise (RFC 9113 6.5.2).
const DefaultTableSize = 4096

// The static table's names that a codec treats apart, by index; several entries
// have the name of the first.
const (
	Authority  = 1
	Method     = 2
	Path       = 4
	Scheme     = 6
	Status     = 8
	LastPseudo = 14
	Cookie     = 32
	Length     = 28 // content-length
	Host       = 38
)

// maxInteger bounds every integer: no index, size or length is near it.
const maxInteger = 1 << 24

// appendInteger writes n with a prefix of bits bits below the pattern first
// (RFC 7541 5.1).
func appendInteger(dst []byte, first byte, bits uint, n int) []byte {
	limit := 1<<bits - 1
	if n < limit {
		return append(dst, first|byte(n))
	}
	dst = append(dst, first|byte(limit))
	for n -= limit; n >= 128; n >>= 7 {
		dst = append(dst, byte(n)|128)
	}
	return append(dst, byte(n))
}

// integer reads an integer with a prefix of bits bits at in[0], which exists.
func integer(in []byte, bits uint) (v, n int, err error) {
	limit := 1<<bits - 1
	v = int(in[0]) & limit
	if v < limit {
		return v, 1, nil
	}
	for shift := uint(0); shift <= 21; shift += 7 {
		n++
		if n == len(in) {
			return 0, 0, ErrTruncated
		}
		v += int(in[n]&127) << shift
		if v > maxInteger {
			return 0, 0, ErrInteger
		}
		if in[n] < 128 {
			return v, n + 1, nil
		}
	}
	return 0, 0, ErrInteger
}
