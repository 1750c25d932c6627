package reactor

import (
	"time"

	"golang.org/x/sys/unix"
)

// Timer is one function to be run at one instant. The zero value is not usable:
// see [Loop.NewTimer]. A timer can be set again and again without allocation.
type Timer struct {
	loop *Loop
	at   time.Duration
	fn   func()
	pos  int // place in the heap, -1 while unset
}

// NewTimer returns an unset timer that will run fn on the loop.
func (l *Loop) NewTimer(fn func()) *Timer { return &Timer{loop: l, fn: fn, pos: -1} }

// Set makes the timer fire at the given [Loop.Now], at once when that is past,
// and replaces an earlier setting.
func (t *Timer) Set(at time.Duration) {
	h := &t.loop.timers
	t.at = at
	if t.pos < 0 {
		t.pos = len(*h)
		*h = append(*h, t)
		h.up(t.pos)
		return
	}
	h.fix(t.pos)
}

// Stop unsets the timer.
func (t *Timer) Stop() {
	if t.pos >= 0 {
		t.loop.timers.remove(t.pos)
	}
}

// Active says whether the timer is set.
func (t *Timer) Active() bool { return t.pos >= 0 }

// fire runs what is due by the turn's clock. What a function sets for "now" or
// earlier fires in the same turn, bounded so that sockets are not starved.
func (l *Loop) fire() {
	for range 4096 {
		if len(l.timers) == 0 || l.timers[0].at > l.now {
			return
		}
		t := l.timers[0]
		l.timers.remove(0)
		t.fn()
	}
}

// arm points the timerfd at the earliest timer; most turns change nothing there.
func (l *Loop) arm() {
	if len(l.timers) == 0 {
		return // an armed descriptor wakes the loop once for nothing, which is cheaper than disarming
	}
	at := l.timers[0].at
	if at == l.armed && at > l.now {
		return
	}
	l.armed = at
	in := max(at-time.Since(l.base), 1) // 0 would disarm
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(in))}
	if err := unix.TimerfdSettime(l.timer, 0, &spec, nil); err != nil {
		panic("reactor: timerfd_settime refused a positive time: " + err.Error())
	}
}

// timerHeap is a binary heap by due time that knows each timer's place.
type timerHeap []*Timer

func (h timerHeap) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}

func (h timerHeap) up(i int) {
	for i > 0 {
		p := (i - 1) / 2
		if h[p].at <= h[i].at {
			return
		}
		h.swap(i, p)
		i = p
	}
}

func (h timerHeap) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && h[c+1].at < h[c].at {
			c++
		}
		if h[i].at <= h[c].at {
			return
		}
		h.swap(i, c)
		i = c
	}
}

func (h timerHeap) fix(i int) {
	h.up(i)
	h.down(i)
}

func (h *timerHeap) remove(i int) {
	last := len(*h) - 1
	t := (*h)[i]
	if i != last {
		h.swap(i, last)
	}
	(*h)[last] = nil
	*h = (*h)[:last]
	if i != last {
		h.fix(i)
	}
	t.pos = -1
}
