package loop

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// readBytes is the most one read takes; leftBytes is room before it for what
	// the codec left of earlier reads, which no head over its limit can exceed.
	readBytes = 64 << 10
	leftBytes = 80 << 10
	// secureBytes is the most one read takes for a transport that is not raw: with
	// what such a one has kept of a record before, all plaintext has room.
	secureBytes = 32 << 10
	// turnEvents bounds a turn, so that none takes long.
	turnEvents = 64
	rawBlockMS = 5
	// SlowTurn is how long a turn may take; longer ones are counted.
	SlowTurn = int64(5e6)
)

// Source is what a file descriptor's events go to.
type Source interface {
	Ready(events uint32)
}

// Task is work posted to a loop.
type Task interface{ Run() }

// Func makes a function a Task.
type Func func()

// Run calls f.
func (f Func) Run() { f() }

type slot struct {
	gen    uint32
	source Source
}

// Stats are a loop's counters, readable from any goroutine.
type Stats struct {
	// Mapped is the address space of buffers, Warm what of it has pages; bytes.
	Turns, SlowTurns, Syscalls, Mapped, Warm atomic.Uint64
	LongestTurnNS                            atomic.Int64
	_                                        [64]byte
}

// Loop is one event loop. Only its own goroutine may call its methods, except
// Post, Stop and Stats.
type Loop struct {
	Slabs Slabs
	Wheel Wheel
	Stats Stats
	// Watch is told of turns that descriptors begin; nil before Run for nobody.
	Watch *Watch

	ep, wake int
	now      int64
	turned   int64 // when the last turn was over
	in       []byte
	slots    []slot
	free     []uint32
	events   [turnEvents]unix.EpollEvent
	iovecs   [16]unix.Iovec
	to4      unix.SockaddrInet4
	to6      unix.SockaddrInet6
	calls    uint64
	woken    int // 1 when the events of this turn have that of wake
	stopped  bool
	trim     Timer

	budget budget

	late  []Task // for the end of this turn
	dirty *Conn  // to be flushed at the end of the turn
	dead  *Conn  // closed in this turn
	// resumed is a queue of those that have bytes left that they can take now.
	resumed, lastResumed *Conn

	mu     sync.Mutex
	inbox  []Task
	spare  []Task
	ended  bool
	posted atomic.Bool
}

// New opens a loop.
func New() (*Loop, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		_ = unix.Close(ep)
		return nil, fmt.Errorf("create eventfd: %w", err)
	}
	l := &Loop{ep: ep, wake: wake, in: make([]byte, leftBytes+readBytes), now: Now()}
	l.turned = l.now
	l.Wheel.Init(l.now)
	l.trim.Owner = (*trimmer)(l)
	l.Wheel.Set(&l.trim, l.now+coldAfter)
	l.budget.again.Owner = (*feeder)(l)
	if _, err := l.Add(wake, unix.EPOLLIN, (*waker)(l)); err != nil {
		_ = unix.Close(ep)
		_ = unix.Close(wake)
		return nil, err
	}
	return l, nil
}

type trimmer Loop

func (t *trimmer) Expire(tm *Timer, now int64) {
	l := (*Loop)(t)
	next := now + coldAfter
	if l.Slabs.Trim(64) == 64 {
		next = now + coldAfter/30 // more to give: soon again, not all in one turn
	}
	l.Wheel.Set(tm, next)
}

type waker Loop

func (w *waker) Ready(uint32) {
	var b [8]byte
	_, _ = sysRead(w.wake, b[:])
	w.calls++
	w.woken = 1
}

// Now is the time at which this turn began, on the clock of [Now].
func (l *Loop) Now() int64 { return l.now }

// Add registers a descriptor and returns the handle for Mod and Del.
func (l *Loop) Add(fd int, events uint32, s Source) (uint32, error) {
	var h uint32
	if n := len(l.free); n > 0 {
		h = l.free[n-1]
		l.free = l.free[:n-1]
	} else {
		h = uint32(len(l.slots))
		l.slots = append(l.slots, slot{})
	}
	l.slots[h].source = s
	if err := l.ctl(unix.EPOLL_CTL_ADD, fd, events, h); err != nil {
		l.release(h)
		return 0, err
	}
	return h, nil
}

// Mod changes what a registered descriptor waits for.
func (l *Loop) Mod(fd int, events uint32, h uint32) error {
	return l.ctl(unix.EPOLL_CTL_MOD, fd, events, h)
}

// Del forgets a descriptor; events of it that are already fetched are ignored.
func (l *Loop) Del(fd int, h uint32) {
	// Fails only where the descriptor is gone already.
	_ = l.ctl(unix.EPOLL_CTL_DEL, fd, 0, h)
	l.release(h)
}

func (l *Loop) release(h uint32) {
	l.slots[h].gen++
	l.slots[h].source = nil
	l.free = append(l.free, h)
}

func (l *Loop) ctl(op, fd int, events uint32, h uint32) error {
	l.calls++
	ev := unix.EpollEvent{Events: events, Fd: int32(h), Pad: int32(l.slots[h].gen)}
	if err := unix.EpollCtl(l.ep, op, fd, &ev); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

// Post hands a task to the loop from any goroutine; tasks of one poster run in
// order. A loop whose Run returned drops it.
func (l *Loop) Post(t Task) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	l.inbox = append(l.inbox, t)
	if !l.posted.Swap(true) {
		b := [8]byte{1}
		_, _ = sysWrite(l.wake, b[:])
	}
}

// Stop makes Run return after the present turn.
func (l *Loop) Stop() { l.Post(Func(func() { l.stopped = true })) }

// Run turns until Stop. It locks its goroutine to the thread and closes the
// loop's own descriptors at the end.
func (l *Loop) Run() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer l.close()
	for !l.stopped {
		if err := l.turn(); err != nil {
			return err
		}
	}
	return nil
}

func (l *Loop) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	_ = unix.Close(l.ep)
	_ = unix.Close(l.wake)
}

func (l *Loop) turn() error {
	n, err := l.wait()
	if err != nil {
		return err
	}
	l.now = Now()
	l.woken = 0
	l.dispatch(n)
	if l.posted.Load() {
		l.deliver()
	}
	l.Wheel.Advance(l.now)
	l.settle()
	l.account()
	if l.Watch != nil && n > l.woken && l.Watch.Armed() {
		l.Watch.stir()
	}
	return nil
}

// dispatch hands out n fetched events, but for those of descriptors that were
// removed since.
func (l *Loop) dispatch(n int) {
	for i := range l.events[:n] {
		ev := &l.events[i]
		if s := &l.slots[ev.Fd]; s.source != nil && s.gen == uint32(ev.Pad) {
			s.source.Ready(ev.Events)
		}
	}
}

func (l *Loop) deliver() {
	l.mu.Lock()
	l.inbox, l.spare = l.spare[:0], l.inbox
	l.posted.Store(false)
	l.mu.Unlock()
	for i, t := range l.spare {
		t.Run()
		l.spare[i] = nil
	}
}

// Late has a task run at the end of this turn.
func (l *Loop) Late(t Task) { l.late = append(l.late, t) }

// settle ends the turn: what was held back to keep calls from nesting runs now.
func (l *Loop) settle() {
	for i := 0; i < len(l.late); i++ { // a task may add to them
		l.late[i].Run()
		l.late[i] = nil
	}
	l.late = l.late[:0]
	l.offerAgain()
	for l.dirty != nil {
		c := l.dirty
		l.dirty = c.nextDirty
		c.nextDirty, c.dirty = nil, false
		c.flush()
	}
	dead := l.dead
	l.dead = nil
	for dead != nil {
		c := dead
		dead = c.nextDead
		c.nextDead = nil
		if c.inResumed { // that list still goes through it
			c.nextDead = l.dead
			l.dead = c
			continue
		}
		if c.starved { // as does that list
			c.dead = true
			continue
		}
		c.peer.Recycle()
	}
}

func (l *Loop) account() {
	l.turned = Now()
	took := l.turned - l.now
	l.Stats.Turns.Add(1)
	l.Stats.Syscalls.Add(l.calls)
	l.calls = 0
	if took > SlowTurn {
		l.Stats.SlowTurns.Add(1)
	}
	if took > l.Stats.LongestTurnNS.Load() {
		l.Stats.LongestTurnNS.Store(took)
	}
	change(&l.Stats.Mapped, uint64(l.Slabs.mapped))
	change(&l.Stats.Warm, uint64(l.Slabs.warm))
}

// change stores a value that seldom is another one: a store locks the bus, a load
// does not.
func change(to *atomic.Uint64, v uint64) {
	if to.Load() != v {
		to.Store(v)
	}
}

// wait fetches events: at once when there is work, else with a short raw block,
// else as an ordinary blocking call until the next timer.
func (l *Loop) wait() (int, error) {
	ms := -1
	if l.resumed != nil {
		ms = 0
	} else if at, ok := l.Wheel.Next(); ok {
		ms = int(max(0, min((at-l.turned+tickNS-1)/tickNS, 1<<30)))
	}
	raw := ms
	if raw < 0 || raw > rawBlockMS {
		raw = rawBlockMS
	}
	l.calls++
	n, e := epollRaw(l.ep, l.events[:], raw)
	if e == 0 && n == 0 && raw != ms {
		if ms > 0 {
			ms -= raw
		}
		l.calls++
		n, e = epollBlock(l.ep, l.events[:], ms)
	}
	switch e {
	case 0:
		return n, nil
	case syscall.EINTR:
		return 0, nil
	}
	return 0, fmt.Errorf("epoll wait: %w", e)
}
