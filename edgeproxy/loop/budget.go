package loop

import (
	"math"
	"sync/atomic"
)

const (
	// leastRoom is what a loop keeps of its budget for what is not read from a
	// socket, such as answers of its own; nothing is read into less.
	leastRoom = 128 << 10
	// roomShare is the part of the room that one read may take. What is read may lie
	// in several buffers at one time: for the other side, for another attempt, and
	// left over.
	roomShare = 4
	// starveRest is how long sockets that there was no room to read wait for some.
	starveRest = int64(2e6)
)

// budget bounds what a loop takes of memory. It acts before anything is read: what
// comes from sockets is nearly all that fills buffers, so that the bound holds
// however fast it comes and however late somebody looks at the process.
type budget struct {
	// bytes is what may be spent in all, 0 without a bound.
	bytes atomic.Int64
	// spent counts up: memory of other kinds than buffers.
	spent atomic.Int64
	// reserved is for what is in buffers and may have to be copied without a read.
	reserved int
	// short is called when there is no room.
	short   func()
	starved *Conn // to be read when there is room
	again   Timer
}

// Spent is the sum of what [Loop.Spend] was told. It may be called from any goroutine.
func (l *Loop) Spent() int64 { return l.budget.spent.Load() }

// SetBudget lets buffers in use and what was spent since the loop began be n bytes
// together, 0 any number. It may be called from any goroutine.
func (l *Loop) SetBudget(n int64) { l.budget.bytes.Store(n) }

// Spend counts n bytes that the loop's owner took, other than buffers.
func (l *Loop) Spend(n int) { l.budget.spent.Add(int64(n)) }

// Reserve keeps n more bytes of the budget, or fewer where n is negative, for a copy
// of what is in buffers already.
func (l *Loop) Reserve(n int) { l.budget.reserved += n }

// OnShort has f called, at any point of a turn, when something is not read for
// want of room. f must not change a connection before the turn is over.
func (l *Loop) OnShort(f func()) { l.budget.short = f }

// Room is how many bytes may be read now, at most readBytes: 0 says that the budget
// is used up.
func (l *Loop) Room() int {
	b := l.budget.bytes.Load()
	if b == 0 {
		return readBytes
	}
	b -= l.budget.spent.Load()
	l.Slabs.Most = int(max(b, 1))
	left := int(b) - l.Slabs.InUse() - l.budget.reserved
	if left < leastRoom {
		return 0
	}
	return min(left/roomShare, readBytes)
}

// Left is what is left of the budget, in bytes; a great deal where there is none.
func (l *Loop) Left() int {
	b := l.budget.bytes.Load()
	if b == 0 {
		return math.MaxInt
	}
	return max(0, int(b-l.budget.spent.Load())-l.Slabs.InUse()-l.budget.reserved)
}

// Short notes that there was no room.
func (l *Loop) Short() {
	if l.budget.short != nil {
		l.budget.short()
	}
}

// starve has a connection read when there is room again.
func (l *Loop) starve(c *Conn) {
	l.Short()
	c.starved = true
	c.nextStarved = l.budget.starved
	l.budget.starved = c
	if !l.budget.again.Armed() {
		l.Wheel.Set(&l.budget.again, l.now+starveRest)
	}
}

type feeder Loop

// Expire reads what waited for room.
func (f *feeder) Expire(t *Timer, now int64) {
	l := (*Loop)(f)
	c := l.budget.starved
	l.budget.starved = nil
	for c != nil {
		next := c.nextStarved
		c.nextStarved = nil
		if c.fd < 0 {
			c.starved = false
			if c.dead {
				c.peer.Recycle()
			}
		} else if l.Room() == 0 {
			c.nextStarved = l.budget.starved
			l.budget.starved = c
		} else {
			c.starved = false
			c.Again()
		}
		c = next
	}
	if l.budget.starved != nil {
		l.Short()
		l.Wheel.Set(t, now+starveRest)
	}
}
