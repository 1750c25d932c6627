package hpack

// Decoder reads one connection's header blocks.
type Decoder struct {
	table table
	limit int // what the table's size may be set to
	begun bool
}

// Field is a decoded field.
type Field struct {
	Name, Value []byte
	// Static is the index of the static table's first entry of that name, 0 when
	// it has none or the name was spelled out.
	Static uint8
}

// Reset makes the decoder as good as new for another connection, whose table may
// hold limit bytes, 65,535 at most.
func (d *Decoder) Reset(limit int) {
	d.limit = min(limit, 1<<16-1)
	d.table.reset(d.limit)
}

// Begin starts a header block: table sizes may stand at its beginning only.
func (d *Decoder) Begin() { d.begun = false }

// Field reads one representation from the front of in, which is not empty, and
// returns how many bytes it took. A field is there when f.Name is not nil: a change
// of the table's size has none. Strings that do not lie in in or in the static
// table are appended to dst, which is returned; they are valid as long as both are.
func (d *Decoder) Field(in []byte, f *Field, dst []byte) (n int, out []byte, err error) {
	if dst == nil {
		dst = []byte{} // so that an empty name is one
	}
	b := in[0]
	switch {
	case b >= 0x80: // RFC 7541 6.1: indexed
		i, n, err := integer(in, 7)
		if err != nil {
			return 0, dst, err
		}
		e, dynamic, ok := d.entry(i)
		if !ok {
			return 0, dst, ErrIndex
		}
		d.begun = true
		*f = Field{Name: e.name, Value: e.value, Static: e.static}
		if dynamic { // an insertion may move it
			dst, f.Name = keep(dst, e.name)
			dst, f.Value = keep(dst, e.value)
		}
		return n, dst, nil
	case b >= 0x40: // 6.2.1: literal with incremental indexing
		n, dst, err = d.literal(in, 6, f, dst)
		if err == nil {
			d.table.add(f.Name, f.Value, f.Static)
		}
		return n, dst, err
	case b >= 0x20: // 6.3: table size update
		size, n, err := integer(in, 5)
		if err != nil {
			return 0, dst, err
		}
		if size > d.limit || d.begun {
			return 0, dst, ErrTableSize
		}
		d.table.resize(size)
		*f = Field{}
		return n, dst, nil
	default: // 6.2.2, 6.2.3: literal without indexing, never indexed
		return d.literal(in, 4, f, dst)
	}
}

func (d *Decoder) entry(i int) (e entry, dynamic, ok bool) {
	if i < len(staticTable) {
		return staticTable[i], false, i > 0
	}
	e, ok = d.table.get(i - len(staticTable))
	return e, true, ok
}

func (d *Decoder) literal(in []byte, bits uint, f *Field, dst []byte) (int, []byte, error) {
	i, n, err := integer(in, bits)
	if err != nil {
		return 0, dst, err
	}
	d.begun = true
	f.Static = 0
	if i > 0 {
		e, dynamic, ok := d.entry(i)
		if !ok {
			return 0, dst, ErrIndex
		}
		f.Name, f.Static = e.name, e.static
		if dynamic {
			dst, f.Name = keep(dst, e.name)
		}
	} else {
		var k int
		if f.Name, k, dst, err = text(in[n:], dst); err != nil {
			return 0, dst, err
		}
		n += k
	}
	var k int
	if f.Value, k, dst, err = text(in[n:], dst); err != nil {
		return 0, dst, err
	}
	return n + k, dst, nil
}

func keep(dst, s []byte) (out, kept []byte) {
	from := len(dst)
	dst = append(dst, s...)
	return dst, dst[from:len(dst):len(dst)]
}

// text reads a string literal (RFC 7541 5.2).
func text(in, dst []byte) (s []byte, n int, out []byte, err error) {
	if len(in) == 0 {
		return nil, 0, dst, ErrTruncated
	}
	size, n, err := integer(in, 7)
	if err != nil {
		return nil, 0, dst, err
	}
	if size > len(in)-n {
		return nil, 0, dst, ErrTruncated
	}
	s = in[n : n+size : n+size]
	n += size
	if in[0] < 0x80 {
		return s, n, dst, nil
	}
	from := len(dst)
	if dst, err = appendHuffman(dst, s); err != nil {
		return nil, 0, dst, err
	}
	return dst[from:len(dst):len(dst)], n, dst, nil
}
