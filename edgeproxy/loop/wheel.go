package loop

import "math/bits"

const (
	wheelBits   = 6
	wheelSlots  = 1 << wheelBits
	wheelLevels = 6 // 64^6 ms is over two years
	tickNS      = 1_000_000
	detached    = 0xff
)

// Expirer is told when one of its timers is due.
type Expirer interface {
	Expire(t *Timer, now int64)
}

// Timer is a deadline that lives inside its owner. The zero Timer with Owner set
// is ready for [Wheel.Set]; Kind is the owner's.
type Timer struct {
	Owner Expirer
	Kind  uint8

	level, slot uint8
	tick        int64
	next, prev  *Timer
}

// Armed reports whether the timer waits to expire.
func (t *Timer) Armed() bool { return t.next != nil }

func (t *Timer) unlink() {
	t.next.prev, t.prev.next = t.prev, t.next
	t.next, t.prev = nil, nil
}

func (t *Timer) before(head *Timer) {
	t.prev, t.next = head.prev, head
	head.prev.next = t
	head.prev = t
}

// Wheel is a hierarchical timing wheel of 1 ms ticks: setting, moving and
// clearing a timer takes constant time and no memory. A timer never expires
// early. The wheel knows no clock: times are nanoseconds of the caller's.
type Wheel struct {
	now      int64 // tick
	occupied [wheelLevels]uint64
	slots    [wheelLevels][wheelSlots]Timer
	due      Timer // heads the slot being emptied
}

// Init starts the wheel at a time.
func (w *Wheel) Init(now int64) {
	w.now = now / tickNS
	for l := range w.slots {
		for s := range w.slots[l] {
			h := &w.slots[l][s]
			h.next, h.prev = h, h
		}
	}
}

// Set arms the timer for a time, moving it if it was armed. A time not after the
// wheel's present expires on the next tick.
func (w *Wheel) Set(t *Timer, when int64) {
	w.Clear(t)
	t.tick = max((when+tickNS-1)/tickNS, w.now+1)
	w.insert(t)
}

func (w *Wheel) insert(t *Timer) {
	// The highest bit in which the deadline differs from the present names the
	// level, so a level's slots are always ahead of the present within one turn.
	l := (63 - bits.LeadingZeros64(uint64(t.tick^w.now))) / wheelBits
	if l >= wheelLevels {
		l = wheelLevels - 1
		t.tick = w.now | (1<<(wheelBits*wheelLevels) - 1)
	}
	s := int(t.tick>>(wheelBits*l)) & (wheelSlots - 1)
	t.level, t.slot = uint8(l), uint8(s)
	t.before(&w.slots[l][s])
	w.occupied[l] |= 1 << s
}

// Clear disarms the timer; it may be unarmed.
func (w *Wheel) Clear(t *Timer) {
	if t.next == nil {
		return
	}
	t.unlink()
	if t.level == detached {
		return
	}
	if h := &w.slots[t.level][t.slot]; h.next == h {
		w.occupied[t.level] &^= 1 << t.slot
	}
}

// next returns the earliest tick at which a slot has to be emptied.
func (w *Wheel) next() (tick int64, level int, ok bool) {
	for l, occ := range w.occupied {
		if occ != 0 {
			base := w.now >> (wheelBits * (l + 1)) << wheelBits
			return (base | int64(bits.TrailingZeros64(occ))) << (wheelBits * l), l, true
		}
	}
	return 0, 0, false
}

// Next returns a time before which no timer expires, false when none is armed.
func (w *Wheel) Next() (int64, bool) {
	t, _, ok := w.next()
	return t * tickNS, ok
}

// Advance moves the present to now and expires what is due, in order of ticks.
// Expirers may set and clear any timer.
func (w *Wheel) Advance(now int64) {
	target := now / tickNS
	for {
		tick, level, ok := w.next()
		if !ok || tick > target {
			w.now = max(w.now, target)
			return
		}
		w.now = tick
		s := int(tick>>(wheelBits*level)) & (wheelSlots - 1)
		w.empty(level, s, now)
	}
}

func (w *Wheel) empty(level, s int, now int64) {
	h := &w.slots[level][s]
	due := &w.due
	due.next, due.prev = h.next, h.prev
	due.next.prev, due.prev.next = due, due
	h.next, h.prev = h, h
	w.occupied[level] &^= 1 << s
	for t := due.next; t != due; t = t.next {
		t.level = detached
	}
	for due.next != due {
		t := due.next
		t.unlink()
		if t.tick > w.now {
			w.insert(t)
		} else {
			t.Owner.Expire(t, now)
		}
	}
}
