// Package reactor runs many sockets and precise timers on one thread: epoll for
// the sockets and a timerfd for the timers, so a timer fires within tens of
// microseconds where Go's own would round up to the next millisecond on an idle
// process. The testbed's relays, load generator and backends all run on it,
// because what they measure or imitate is of the order of a millisecond.
//
// A [Loop] belongs to the goroutine that runs it: handlers and timer functions
// run there, one after another, and every method except [Loop.Post] and
// [Loop.Elapsed] may be called only there (or before Run starts).
package reactor

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Events a [Handler] can wait for and be told of. Error and hang-up conditions
// are always told, as both Readable and Writable, so that the next system call
// on the descriptor reports what happened.
const (
	Readable = uint32(unix.EPOLLIN)
	Writable = uint32(unix.EPOLLOUT)
	// PeerClosed tells that the peer will send no more, also while Readable is
	// not waited for.
	PeerClosed = uint32(unix.EPOLLRDHUP)
)

// Handler is told what its descriptor is ready for. It runs on the loop's thread
// and must not block.
type Handler interface {
	Ready(events uint32)
}

// Loop is one epoll instance, its timers and the thread that serves them.
type Loop struct {
	epoll, timer, wake int

	base time.Time
	now  time.Duration

	slots []slot
	free  []int32
	byFD  map[int]int32

	timers timerHeap
	armed  time.Duration // when the timerfd will fire, 0 while disarmed

	mu      sync.Mutex
	posted  []func()
	spare   []func()
	waking  atomic.Bool
	stopped bool
}

// slot holds one registration. The generation guards against an event of a
// descriptor that an earlier handler of the same batch closed and reopened.
type slot struct {
	h    Handler
	fd   int
	gen  uint32
	want uint32
}

// New makes a loop with nothing registered.
func New() (*Loop, error) {
	l := &Loop{base: time.Now(), byFD: map[int]int32{}, epoll: -1, timer: -1, wake: -1}
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	if l.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		l.close()
		return nil, fmt.Errorf("timerfd_create: %w", err)
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		l.close()
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	if err := errors.Join(
		l.Register(l.timer, Readable, drain(l.timer)),
		l.Register(l.wake, Readable, drain(l.wake)),
	); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// drain empties an eventfd or timerfd: being woken is all it says.
type drain int

func (d drain) Ready(uint32) {
	var b [8]byte
	_, _ = unix.Read(int(d), b[:]) // EAGAIN only: the descriptor is non-blocking
}

func (l *Loop) close() {
	for _, fd := range []int{l.epoll, l.timer, l.wake} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// Base is the instant from which [Loop.Now] counts.
func (l *Loop) Base() time.Time { return l.base }

// Now is the time since Base, sampled once per turn.
func (l *Loop) Now() time.Duration { return l.now }

// Elapsed is the time since Base, read from the clock. Safe from any goroutine.
func (l *Loop) Elapsed() time.Duration { return time.Since(l.base) }

// Register tells h when fd, a non-blocking descriptor, is ready for one of want.
// The caller keeps the descriptor and calls Unregister before it closes it.
func (l *Loop) Register(fd int, want uint32, h Handler) error {
	var i int32
	if n := len(l.free); n > 0 {
		i, l.free = l.free[n-1], l.free[:n-1]
	} else {
		i = int32(len(l.slots))
		l.slots = append(l.slots, slot{})
	}
	s := &l.slots[i]
	s.h, s.fd, s.want = h, fd, want
	s.gen++
	ev := unix.EpollEvent{Events: want, Fd: i, Pad: int32(s.gen)}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		s.h = nil
		l.free = append(l.free, i)
		return fmt.Errorf("epoll add: %w", err)
	}
	l.byFD[fd] = i
	return nil
}

// Want changes what a registered descriptor waits for.
func (l *Loop) Want(fd int, want uint32) error {
	i, ok := l.byFD[fd]
	if !ok {
		return fmt.Errorf("descriptor %d is not registered", fd)
	}
	s := &l.slots[i]
	if s.want == want {
		return nil
	}
	ev := unix.EpollEvent{Events: want, Fd: i, Pad: int32(s.gen)}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_MOD, fd, &ev); err != nil {
		return fmt.Errorf("epoll mod: %w", err)
	}
	s.want = want
	return nil
}

// Unregister forgets a descriptor; unknown ones are ignored.
func (l *Loop) Unregister(fd int) {
	i, ok := l.byFD[fd]
	if !ok {
		return
	}
	_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, fd, nil) // fails only for a descriptor that is gone
	delete(l.byFD, fd)
	s := &l.slots[i]
	s.h = nil
	s.gen++
	l.free = append(l.free, i)
}

// Post runs fn on the loop soon. Safe from any goroutine; false says that the
// loop has ended and fn will never run.
func (l *Loop) Post(fn func()) bool {
	l.mu.Lock()
	if l.stopped {
		l.mu.Unlock()
		return false
	}
	l.posted = append(l.posted, fn)
	// Writing under the lock keeps the eventfd open: Run closes it under the same lock.
	if l.waking.CompareAndSwap(false, true) {
		one := [8]byte{1}
		_, _ = unix.Write(l.wake, one[:]) // a full counter wakes as well
	}
	l.mu.Unlock()
	return true
}

// Call runs fn on the loop and waits until it has run. It must not be called
// from the loop itself. False says that the loop has ended.
func (l *Loop) Call(fn func()) bool {
	done := make(chan struct{})
	if !l.Post(func() { fn(); close(done) }) {
		return false
	}
	<-done
	return true
}

// Run serves until ctx ends, on an OS thread of its own. What was posted before
// the end is run; descriptors that are still registered stay the caller's to close.
func (l *Loop) Run(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	stop := context.AfterFunc(ctx, func() { l.Post(func() {}) })
	defer stop()

	events := make([]unix.EpollEvent, 256)
	for ctx.Err() == nil {
		n, err := unix.EpollWait(l.epoll, events, -1)
		if err != nil && err != unix.EINTR {
			l.finish()
			return fmt.Errorf("epoll_wait: %w", err)
		}
		l.now = time.Since(l.base)
		l.fire()
		for i := range max(n, 0) {
			ev := &events[i]
			s := &l.slots[ev.Fd]
			if s.h == nil || int32(s.gen) != ev.Pad {
				continue
			}
			got := ev.Events
			if got&uint32(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
				got |= Readable | Writable | PeerClosed
			}
			s.h.Ready(got)
		}
		l.runPosted()
		l.arm()
	}
	l.finish()
	return nil
}

func (l *Loop) runPosted() {
	if !l.waking.Load() {
		return
	}
	l.mu.Lock()
	run := l.posted
	l.posted = l.spare[:0]
	l.waking.Store(false)
	l.mu.Unlock()
	for i, fn := range run {
		fn()
		run[i] = nil
	}
	l.spare = run
}

func (l *Loop) finish() {
	l.runPosted()
	l.mu.Lock()
	l.stopped = true
	left := l.posted
	l.posted = nil
	l.mu.Unlock()
	for _, fn := range left {
		fn()
	}
	l.mu.Lock()
	l.close()
	l.mu.Unlock()
}
