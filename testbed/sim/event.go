package sim

// Kinds of events. Those from evPolicy on are the policy's own.
const (
	evArrive uint8 = iota // a: site, b: version of its rate
	evEnter               // a: request
	evFinish              // a: request
	evAnswer              // a: request
	evLost                // a: request
	evChange              // a: index of the change
	evSample
	evMove // users move
	evPolicy
)

// event is something that happens at atNS. Of two at the same time the one that
// was scheduled first comes first, so that runs repeat exactly.
type event struct {
	atNS  int64
	order uint64 // of scheduling, shifted left by 8, and the kind
	a, b  int32
}

func (e *event) before(o *event) bool {
	return e.atNS < o.atNS || e.atNS == o.atNS && e.order < o.order
}

// queue is a heap with four children a node: half as deep as a binary one, and the
// four share a cache line or two.
type queue struct {
	heap  []event
	order uint64
}

func (q *queue) push(atNS int64, kind uint8, a, b int32) {
	q.order++
	e := event{atNS, q.order<<8 | uint64(kind), a, b}
	q.heap = append(q.heap, e)
	h := q.heap
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 4
		if !e.before(&h[up]) {
			break
		}
		h[i] = h[up]
		i = up
	}
	h[i] = e
}

// pop takes the first event; the queue must not be empty.
func (q *queue) pop() event {
	h := q.heap
	first := h[0]
	last := h[len(h)-1]
	h = h[:len(h)-1]
	q.heap = h
	if len(h) == 0 {
		return first
	}
	i := 0
	for {
		child := 4*i + 1
		if child >= len(h) {
			break
		}
		least := child
		for k := child + 1; k < min(child+4, len(h)); k++ {
			if h[k].before(&h[least]) {
				least = k
			}
		}
		if !h[least].before(&last) {
			break
		}
		h[i] = h[least]
		i = least
	}
	h[i] = last
	return first
}
