package loop

import (
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// drain reads what came, so that its level-triggered descriptor is silent again.
type drain struct {
	l  *Loop
	fd int
}

func (d drain) Ready(uint32) {
	var b [64]byte
	_, _ = d.l.Read(d.fd, b[:])
}

// TestWatch has bytes wake who sleeps, once and each of them, while tasks and timers do not.
func TestWatch(t *testing.T) {
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	w := new(Watch)
	l.Watch = w
	done := make(chan error, 1)
	go func() { done <- l.Run() }()
	defer func() {
		l.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	on(l, func() {
		if _, err := l.Add(pair[0], unix.EPOLLIN, drain{l, pair[0]}); err != nil {
			t.Error(err)
		}
	})
	send := func() {
		if _, err := syscall.Write(pair[1], []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	a, b := make(chan struct{}, 1), make(chan struct{}, 1)
	w.Sleep(a)
	w.Sleep(a)
	w.Sleep(b)
	fired := make(chan struct{})
	timer := Timer{Owner: expire(func(int64) { close(fired) })}
	on(l, func() { l.Wheel.Set(&timer, l.Now()+1) })
	<-fired
	on(l, func() {}) // the turns of the timer and of the tasks before are over
	if len(a)+len(b) > 0 {
		t.Fatal("tasks or a timer wake")
	}
	send()
	for _, c := range []chan struct{}{a, b} {
		select {
		case <-c:
		case <-time.After(10 * time.Second):
			t.Fatal("bytes wake nobody")
		}
	}
	send()
	on(l, func() {})
	on(l, func() {})
	if len(a)+len(b) > 0 {
		t.Fatal("who is awake is woken, or twice")
	}
}
