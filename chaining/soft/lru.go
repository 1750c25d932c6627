package soft

// lru remembers a bounded number of pairs and forgets what was not used for
// longest. It allocates when it is made and as its map grows to the bound.
type lru[K comparable, V any] struct {
	index map[K]int32
	slots []slot[K, V]
	// head is the youngest, tail the oldest; -1 in an empty list.
	head, tail int32
}

type slot[K comparable, V any] struct {
	key        K
	value      V
	prev, next int32
}

func newLRU[K comparable, V any](limit int) *lru[K, V] {
	return &lru[K, V]{index: make(map[K]int32, limit), slots: make([]slot[K, V], 0, limit), head: -1, tail: -1}
}

func (l *lru[K, V]) get(k K) (v V, ok bool) {
	i, ok := l.index[k]
	if !ok {
		return v, false
	}
	l.touch(i)
	return l.slots[i].value, true
}

func (l *lru[K, V]) put(k K, v V) {
	if i, ok := l.index[k]; ok {
		l.slots[i].value = v
		l.touch(i)
		return
	}
	var i int32
	if len(l.slots) < cap(l.slots) {
		i = int32(len(l.slots))
		l.slots = append(l.slots, slot[K, V]{})
	} else {
		i = l.tail
		l.unlink(i)
		delete(l.index, l.slots[i].key)
	}
	l.slots[i] = slot[K, V]{key: k, value: v}
	l.index[k] = i
	l.front(i)
}

func (l *lru[K, V]) touch(i int32) {
	if l.head != i {
		l.unlink(i)
		l.front(i)
	}
}

func (l *lru[K, V]) front(i int32) {
	s := &l.slots[i]
	s.prev, s.next = -1, l.head
	if l.head >= 0 {
		l.slots[l.head].prev = i
	}
	l.head = i
	if l.tail < 0 {
		l.tail = i
	}
}

func (l *lru[K, V]) unlink(i int32) {
	s := l.slots[i]
	if s.prev >= 0 {
		l.slots[s.prev].next = s.next
	} else {
		l.head = s.next
	}
	if s.next >= 0 {
		l.slots[s.next].prev = s.prev
	} else {
		l.tail = s.prev
	}
}

func (l *lru[K, V]) len() int { return len(l.index) }
