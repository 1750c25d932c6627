package hpack

// table is a dynamic table (RFC 7541 2.3.2). Its strings lie one after the other
// in data, oldest first, and move to the front when there is no room behind them.
type table struct {
	max  int // as the encoder says
	size int // by the rules of RFC 7541 4.1
	ring []slot
	head int // of the oldest in ring
	n    int
	data []byte
	// writes counts changes, so that an encoder knows its entries by number.
	writes uint64
}

type slot struct {
	at          uint32 // in data
	name, value uint16
	static      uint8
}

// reset empties the table for another connection.
func (t *table) reset(max int) {
	t.max, t.size, t.head, t.n, t.data, t.writes = max, 0, 0, 0, t.data[:0], 0
}

// get returns the i-th youngest entry, from 0.
func (t *table) get(i int) (entry, bool) {
	if i >= t.n {
		return entry{}, false
	}
	s := &t.ring[(t.head+t.n-1-i)&(len(t.ring)-1)]
	mid, end := s.at+uint32(s.name), s.at+uint32(s.name)+uint32(s.value)
	return entry{name: t.data[s.at:mid:mid], value: t.data[mid:end:end], static: s.static}, true
}

func (t *table) resize(max int) {
	t.max = max
	t.shrink(max)
}

// shrink evicts the oldest entries until size is at most max.
func (t *table) shrink(max int) {
	for t.size > max {
		s := &t.ring[t.head]
		t.size -= int(s.name) + int(s.value) + overhead
		t.head = (t.head + 1) & (len(t.ring) - 1)
		t.n--
	}
	if t.n == 0 {
		t.head, t.data = 0, t.data[:0]
	}
}

// add inserts a field, which must not lie in the table's own memory. One larger
// than the table empties it, which is no fault (RFC 7541 4.4).
func (t *table) add(name, value []byte, static uint8) {
	size := len(name) + len(value) + overhead
	if size > t.max {
		t.shrink(0)
		return
	}
	t.shrink(t.max - size)
	if t.n == len(t.ring) {
		t.grow()
	}
	if len(t.data)+size-overhead > cap(t.data) {
		t.compact(size - overhead)
	}
	t.ring[(t.head+t.n)&(len(t.ring)-1)] = slot{at: uint32(len(t.data)), name: uint16(len(name)), value: uint16(len(value)), static: static}
	t.data = append(append(t.data, name...), value...)
	t.n++
	t.size += size
	t.writes++
}

func (t *table) grow() {
	ring := make([]slot, max(8, 2*len(t.ring)))
	for i := range t.n {
		ring[i] = t.ring[(t.head+i)&(len(t.ring)-1)]
	}
	t.ring, t.head = ring, 0
}

// compact makes room for need bytes. Twice what can live at once is kept, so that
// moving costs no more than writing did.
func (t *table) compact(need int) {
	live := t.data[:0]
	if want := min(2*t.max, 2*(t.size+need)+256); cap(t.data) < want {
		live = make([]byte, 0, want)
	}
	from := uint32(0)
	if t.n > 0 {
		from = t.ring[t.head].at
	}
	live = append(live, t.data[from:]...)
	for i := range t.n {
		t.ring[(t.head+i)&(len(t.ring)-1)].at -= from
	}
	t.data = live
}
