package hpack

import "bytes"

// Encoder writes one connection's header blocks. What it sends again and again it
// puts into the peer's table; what is secret or new each time it sends as it is.
type Encoder struct {
	table table
	limit int // what the peer allows
	own   int // what this side wants at most
	// least is the smallest size to announce before the next block, -1 for none.
	least int
	// recent maps a hash of a field to the number of its insertion.
	recent [recentSlots]insertion
}

type insertion struct {
	hash   uint32
	number uint64 // table.writes after it, 0 for none
	// seen says that the field was sent since another wanted its place: what is new
	// each time does not drive out what comes again.
	seen bool
}

const recentSlots = 64

// Reset makes the encoder as good as new for another connection, whose table takes
// at most own bytes of this side's memory.
func (e *Encoder) Reset(own int) {
	e.limit, e.own, e.least = DefaultTableSize, own, -1
	e.recent = [recentSlots]insertion{}
	e.table.reset(DefaultTableSize)
	if own < DefaultTableSize {
		e.resize(own)
	}
}

// Limit takes the peer's SETTINGS_HEADER_TABLE_SIZE.
func (e *Encoder) Limit(n int) {
	e.limit = n
	e.resize(min(n, e.own))
}

func (e *Encoder) resize(size int) {
	if size == e.table.max && e.least < 0 {
		return
	}
	if e.least < 0 || size < e.least {
		e.least = size
	}
	e.table.resize(size)
}

// AppendBegin starts a header block.
func (e *Encoder) AppendBegin(dst []byte) []byte {
	if e.least >= 0 { // RFC 7541 4.2: the smallest, then the last
		if e.least < e.table.max {
			dst = appendInteger(dst, 0x20, 5, e.least)
		}
		dst = appendInteger(dst, 0x20, 5, e.table.max)
		e.least = -1
	}
	return dst
}

// AppendIndexed writes the static table's i-th field.
func AppendIndexed(dst []byte, i int) []byte { return append(dst, 0x80|byte(i)) }

// AppendLiteral writes a field whose value is not worth a place in a table. name
// is in lower case; static is its index, 0 when it has none.
func AppendLiteral(dst []byte, static int, name, value []byte) []byte {
	return appendField(dst, 0, 4, static, name, value)
}

// AppendSecret writes a field that nobody on the way may put into a table (RFC
// 7541 7.1.3).
func AppendSecret(dst []byte, static int, name, value []byte) []byte {
	return appendField(dst, 0x10, 4, static, name, value)
}

func appendField(dst []byte, first byte, bits uint, index int, name, value []byte) []byte {
	dst = appendInteger(dst, first, bits, index)
	if index == 0 {
		dst = appendText(dst, name)
	}
	return appendText(dst, value)
}

// appendText writes a string literal as it is: Huffman coding would save a fifth
// of a head's bytes and cost more time than all the rest of it.
func appendText(dst, s []byte) []byte {
	return append(appendInteger(dst, 0, 7, len(s)), s...)
}

// AppendField writes a field that may come again: the second time it enters the
// peer's table, from then on it is an index.
func (e *Encoder) AppendField(dst []byte, static int, name, value []byte) []byte {
	size := len(name) + len(value) + overhead
	if size > e.table.max/4 {
		return AppendLiteral(dst, static, name, value)
	}
	h := hash(name, value)
	r := &e.recent[h%recentSlots]
	switch {
	case r.hash != h && r.seen && r.number > 0:
		r.seen = false
		return AppendLiteral(dst, static, name, value)
	case r.hash != h:
		*r = insertion{hash: h, seen: true}
		return AppendLiteral(dst, static, name, value)
	case r.number > 0:
		r.seen = true
		age := int(e.table.writes - r.number)
		if x, ok := e.table.get(age); ok && bytes.Equal(x.value, value) && bytes.Equal(x.name, name) {
			return appendInteger(dst, 0x80, 7, len(staticTable)+age)
		}
	}
	e.table.add(name, value, uint8(static))
	r.number = e.table.writes
	return appendField(dst, 0x40, 6, static, name, value)
}

// hash is FNV-1a over the length and up to eight octets of either end.
func hash(name, value []byte) uint32 {
	h := uint32(2166136261) ^ uint32(len(name))<<16 ^ uint32(len(value))
	for _, c := range name {
		h = (h ^ uint32(c)) * 16777619
	}
	if len(value) > 16 {
		for _, c := range value[:8] {
			h = (h ^ uint32(c)) * 16777619
		}
		value = value[len(value)-8:]
	}
	for _, c := range value {
		h = (h ^ uint32(c)) * 16777619
	}
	return h
}
