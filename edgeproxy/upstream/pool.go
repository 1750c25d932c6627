package upstream

// PoolKey says which idle connection may serve a request: everything that makes
// two connections to one place different.
type PoolKey struct {
	Endpoint *Endpoint
	Protocol uint8
	// Identity is who this proxy is on the connection, Chain the code point of the
	// service chain that its packets pass; 0 where there is none.
	Identity, Chain uint32
}

// Idle is a connection's place in a pool; it is embedded in the connection.
type Idle[C any] struct {
	Conn       C
	key        PoolKey
	since      int64
	next, prev *Idle[C]
}

type idleList[C any] struct {
	key        PoolKey
	head, tail *Idle[C]
	n          int
}

// Pool is one loop's connections that have room for a request. The one used last
// is taken first, so that what is not needed grows old and goes.
type Pool[C any] struct {
	// lists are those of an endpoint: nearly always one.
	lists map[*Endpoint][]*idleList[C]
	loop  int
	n     int
}

// NewPool makes the pool of a loop.
func NewPool[C any](loop int) *Pool[C] {
	return &Pool[C]{lists: map[*Endpoint][]*idleList[C]{}, loop: loop}
}

// Len is the number of connections in the pool.
func (p *Pool[C]) Len() int { return p.n }

func (p *Pool[C]) list(key *PoolKey) *idleList[C] {
	for _, l := range p.lists[key.Endpoint] {
		if l.key == *key {
			return l
		}
	}
	return nil
}

// Take removes and returns the connection of the key that was put last.
func (p *Pool[C]) Take(key PoolKey) (C, bool) {
	l := p.list(&key)
	if l == nil || l.head == nil {
		var none C
		return none, false
	}
	i := l.head
	p.unlink(l, i)
	return i.Conn, true
}

// Put adds a connection that has room. Where the key has limit connections
// already, the oldest leaves the pool and is returned for closing.
func (p *Pool[C]) Put(i *Idle[C], key PoolKey, now int64, limit int) (surplus C, over bool) {
	l := p.list(&key)
	if l == nil {
		l = &idleList[C]{key: key}
		p.lists[key.Endpoint] = append(p.lists[key.Endpoint], l)
	}
	i.key, i.since = key, now
	i.next = l.head
	if l.head != nil {
		l.head.prev = i
	} else {
		l.tail = i
	}
	l.head = i
	l.n++
	p.n++
	key.Endpoint.Cells[p.loop].Idle.Store(int64(l.n))
	if l.n > limit {
		old := l.tail
		p.unlink(l, old)
		return old.Conn, true
	}
	return surplus, false
}

// Remove takes a connection out; it may not be in.
func (p *Pool[C]) Remove(i *Idle[C]) {
	if i.key.Endpoint != nil {
		p.unlink(p.list(&i.key), i)
	}
}

// Expired removes and returns a connection that was put before the time, false
// when none is left. Endpoints without connections are forgotten.
func (p *Pool[C]) Expired(before int64) (C, bool) {
	for e, lists := range p.lists {
		used := false
		for _, l := range lists {
			if i := l.tail; i != nil && i.since < before {
				p.unlink(l, i)
				return i.Conn, true
			}
			used = used || l.head != nil
		}
		if !used {
			delete(p.lists, e)
		}
	}
	var none C
	return none, false
}

func (p *Pool[C]) unlink(l *idleList[C], i *Idle[C]) {
	if i.next != nil {
		i.next.prev = i.prev
	} else {
		l.tail = i.prev
	}
	if i.prev != nil {
		i.prev.next = i.next
	} else {
		l.head = i.next
	}
	l.n--
	p.n--
	i.key.Endpoint.Cells[p.loop].Idle.Store(int64(l.n))
	i.key, i.next, i.prev = PoolKey{}, nil, nil
}
