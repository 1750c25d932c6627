package loop

import (
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	smallSlab   = 4 << 10
	largeSlab   = 16 << 10
	regionBytes = 256 << 10
	// coldAfter is how long a slab lies free before its pages go back.
	coldAfter = int64(30e9)
)

// Chunk is a slab and what it holds: bytes [r, w) of b.
type Chunk struct {
	next  *Chunk
	class *class
	b     []byte
	r, w  int
}

type class struct {
	size  int
	free  []*Chunk // a stack: what is used is warm, the bottom grows cold
	cold  int      // of free, from the bottom: never used, or their pages were given back
	low   int      // least length of free since the last trim
	total int
}

// Slabs hands out buffers that lie outside the Go heap, where neither the
// collector nor its pacing sees them. It belongs to one loop.
type Slabs struct {
	// Most bounds Warm as long as free slabs have pages to give back; 0 is no bound.
	Most int

	small, large class
	mapped       int64
	warm         int
}

// Get returns an empty chunk with room for n bytes, at most 16 KiB.
func (s *Slabs) Get(n int) *Chunk {
	c := &s.large
	if n <= smallSlab {
		c = &s.small
		c.size = smallSlab
	} else {
		c.size = largeSlab
	}
	if len(c.free) == 0 {
		s.grow(c)
	}
	k := c.free[len(c.free)-1]
	c.free = c.free[:len(c.free)-1]
	c.low = min(c.low, len(c.free))
	if len(c.free) < c.cold {
		c.cold = len(c.free)
		s.warm += c.size
		if o := s.other(c); s.Most > 0 && s.warm > s.Most && o.total > 0 {
			s.cool(o, (s.warm-s.Most+o.size-1)/o.size)
		}
	}
	return k
}

func (s *Slabs) other(c *class) *class {
	if c == &s.small {
		return &s.large
	}
	return &s.small
}

// cool gives the pages of n free slabs back to the kernel, of those that are free
// for longest, and returns of how many.
func (s *Slabs) cool(c *class, n int) int {
	n = max(0, min(n, len(c.free)-c.cold))
	for _, k := range c.free[c.cold:][:n] {
		// Fails only for a wrong range.
		_ = unix.Madvise(k.b, unix.MADV_DONTNEED)
	}
	c.cold += n
	s.warm -= n * c.size
	return n
}

// Put takes a chunk back.
func (s *Slabs) Put(k *Chunk) {
	k.next, k.r, k.w = nil, 0, 0
	k.class.free = append(k.class.free, k)
}

func (s *Slabs) grow(c *class) {
	m, err := unix.Mmap(-1, 0, regionBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		// As when the Go heap cannot grow: nothing sensible is left to do.
		panic(fmt.Sprintf("loop: map %d bytes for buffers: %v", regionBytes, err))
	}
	s.mapped += regionBytes
	n := regionBytes / c.size
	chunks := make([]Chunk, n)
	if cap(c.free) < c.total+n {
		c.free = make([]*Chunk, 0, 2*(c.total+n)) // room for all, so that Put never grows it
	}
	c.total += n
	c.cold = n
	for i := range chunks {
		chunks[i] = Chunk{class: c, b: m[i*c.size : (i+1)*c.size : (i+1)*c.size]}
		c.free = append(c.free, &chunks[i])
	}
}

// Trim gives the pages of slabs that were free since the last Trim back to the
// kernel, at most limit of them, and returns how many.
func (s *Slabs) Trim(limit int) int {
	given := 0
	for _, c := range []*class{&s.small, &s.large} {
		given += s.cool(c, min(limit-given, c.low-c.cold))
		c.low = len(c.free)
	}
	return given
}

// Release gives the pages of free slabs back to the kernel, however lately they
// were used, at most limit of them.
func (s *Slabs) Release(limit int) {
	for _, c := range []*class{&s.small, &s.large} {
		c.low = len(c.free)
	}
	s.Trim(limit)
}

// Mapped is how many bytes of address space the slabs take.
func (s *Slabs) Mapped() int64 { return s.mapped }

// Warm is how many bytes of slabs have pages: what they add to the process's
// resident memory, at most.
func (s *Slabs) Warm() int { return s.warm }

// InUse is how many bytes of slabs are handed out.
func (s *Slabs) InUse() int {
	return (s.small.total-len(s.small.free))*smallSlab + (s.large.total-len(s.large.free))*largeSlab
}

// List is a queue of bytes in chunks. The zero List is empty.
type List struct {
	head, tail *Chunk
	n          int
}

// Len is the number of bytes queued.
func (l *List) Len() int { return l.n }

// Room returns at least n bytes of free space at the end, to be filled from the
// front and taken with Commit; nil when n is over 16 KiB.
func (l *List) Room(s *Slabs, n int) []byte {
	if t := l.tail; t != nil && len(t.b)-t.w >= n {
		return t.b[t.w:t.w:len(t.b)]
	}
	if n > largeSlab {
		return nil
	}
	if l.tail != nil {
		n = largeSlab // it is a queue of some length: fewer, larger pieces
	}
	k := s.Get(n)
	l.push(k)
	return k.b[0:0:len(k.b)]
}

// Spare is how many bytes fit the end without another chunk.
func (l *List) Spare() int {
	if l.tail == nil {
		return 0
	}
	return len(l.tail.b) - l.tail.w
}

// Commit takes n bytes that were written into the space Room returned.
func (l *List) Commit(n int) {
	l.tail.w += n
	l.n += n
}

func (l *List) push(k *Chunk) {
	if l.tail == nil {
		l.head = k
	} else {
		l.tail.next = k
	}
	l.tail = k
}

// Append copies p to the end.
func (l *List) Append(s *Slabs, p []byte) {
	for len(p) > 0 {
		if l.tail == nil || l.tail.w == len(l.tail.b) {
			n := min(len(p), largeSlab)
			if l.tail != nil {
				n = largeSlab
			}
			l.push(s.Get(n))
		}
		t := l.tail
		n := copy(t.b[t.w:], p)
		t.w += n
		l.n += n
		p = p[n:]
	}
}

// Front returns the first contiguous bytes, nil when empty.
func (l *List) Front() []byte { return l.At(0) }

// At returns the contiguous bytes from offset off on, nil at the end.
func (l *List) At(off int) []byte {
	for k := l.head; k != nil; k = k.next {
		n := k.w - k.r
		if off < n {
			return k.b[k.r+off : k.w]
		}
		off -= n
	}
	return nil
}

// Drop removes n bytes from the front.
func (l *List) Drop(s *Slabs, n int) {
	l.n -= n
	for l.head != nil {
		k := l.head
		have := k.w - k.r
		if n < have {
			k.r += n
			return
		}
		n -= have
		l.head = k.next
		if l.head == nil {
			l.tail = nil
		}
		s.Put(k)
	}
}

// CopyTo copies the whole list to the front of dst and returns its length.
func (l *List) CopyTo(dst []byte) int {
	n := 0
	for k := l.head; k != nil; k = k.next {
		n += copy(dst[n:], k.b[k.r:k.w])
	}
	return n
}

// Free empties the list.
func (l *List) Free(s *Slabs) {
	for l.head != nil {
		k := l.head
		l.head = k.next
		s.Put(k)
	}
	*l = List{}
}

// Move appends all of from to l and leaves from empty.
func (l *List) Move(from *List) {
	if from.head == nil {
		return
	}
	if l.tail == nil {
		l.head = from.head
	} else {
		l.tail.next = from.head
	}
	l.tail = from.tail
	l.n += from.n
	*from = List{}
}
