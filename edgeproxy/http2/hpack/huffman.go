package hpack

// lengths are the bits of each octet's code in RFC 7541 appendix B. The code is
// canonical: codes of one length are consecutive in the order of their octets,
// and follow those of the next shorter length, so the lengths are all there is to
// know. The end-of-string symbol, 30 ones, is the last and never sent.
var lengths = [256]uint8{
	13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
	28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
	6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
	5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
	13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
	7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
	15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
	6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
	20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
	24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
	22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
	21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
	26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
	19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
	20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
	26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
}

const (
	longest = 30
	// fast is how many bits one look-up resolves: every code of up to that length.
	fast = 10
)

// huffman is the code in the forms that decoding needs.
var huffman = func() (h struct {
	// quick maps the next fast bits to octet<<8 | length, 0 for longer codes.
	quick [1 << fast]uint16
	// Of each length: the first code, the codes' number, and where their octets
	// begin in symbols.
	first, count, from [longest + 1]uint32
	symbols            [256]uint8
}) {
	at, code := uint32(0), uint32(0)
	for n := uint8(5); n <= longest; n++ {
		code <<= 1
		h.first[n], h.from[n] = code, at
		for s := range 256 {
			if lengths[s] != n {
				continue
			}
			h.symbols[at] = uint8(s)
			if n <= fast {
				for i := range uint32(1) << (fast - n) {
					h.quick[code<<(fast-n)|i] = uint16(s)<<8 | uint16(n)
				}
			}
			at++
			code++
		}
		h.count[n] = at - h.from[n]
	}
	return h
}()

// appendHuffman decodes a string. The padding is up to seven ones, nothing else
// (RFC 7541 5.2).
func appendHuffman(dst, in []byte) ([]byte, error) {
	var bits uint64 // at the top
	n := uint(0)    // valid bits
	for {
		for n <= 56 && len(in) > 0 {
			bits |= uint64(in[0]) << (56 - n)
			in = in[1:]
			n += 8
		}
		if q := huffman.quick[bits>>(64-fast)]; q != 0 && uint(q&0xff) <= n {
			dst = append(dst, byte(q>>8))
			bits <<= q & 0xff
			n -= uint(q & 0xff)
			continue
		}
		if n <= 7 {
			if bits != ^uint64(0)<<(64-n) {
				return dst, ErrHuffman
			}
			return dst, nil
		}
		size := uint(fast + 1)
		for ; ; size++ {
			if size > longest || size > n {
				return dst, ErrHuffman
			}
			code := uint32(bits >> (64 - size))
			if i := code - huffman.first[size]; code >= huffman.first[size] && i < huffman.count[size] {
				dst = append(dst, huffman.symbols[huffman.from[size]+i])
				break
			}
		}
		bits <<= size
		n -= size
	}
}
