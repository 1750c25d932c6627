package reactor

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func start(t *testing.T) *Loop {
	t.Helper()
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if l.Post(func() {}) {
			t.Error("a loop that has ended takes posts")
		}
	})
	return l
}

func TestTimersFireInOrderAndNeverEarly(t *testing.T) {
	l := start(t)
	const n = 500
	type firing struct{ due, at time.Duration }
	var got []firing
	done := make(chan struct{})
	l.Call(func() {
		r := rand.New(rand.NewPCG(1, 2))
		base := l.Elapsed()
		for range n {
			due := base + time.Duration(r.IntN(int(200*time.Millisecond)))
			tm := l.NewTimer(func() {
				got = append(got, firing{due, l.Elapsed()})
				if len(got) == n {
					close(done)
				}
			})
			tm.Set(due + time.Hour)
			tm.Set(due) // a second Set replaces the first
			stopped := l.NewTimer(func() { t.Error("a stopped timer fired") })
			stopped.Set(due)
			stopped.Stop()
		}
	})
	<-done
	late := make([]time.Duration, 0, n)
	for i, f := range got {
		if f.at < f.due {
			t.Fatalf("timer due at %v fired at %v", f.due, f.at)
		}
		if i > 0 && f.due < got[i-1].due {
			t.Fatalf("timer due at %v fired after one due at %v", f.due, got[i-1].due)
		}
		late = append(late, f.at-f.due)
	}
	slices.Sort(late)
	t.Logf("late: median %v, p99 %v, max %v", late[n/2], late[n*99/100], late[n-1])
	// Generous: a busy machine delays any thread; the median of an idle one is some 60 us.
	if late[n/2] > 20*time.Millisecond {
		t.Errorf("median lateness %v", late[n/2])
	}
}

func TestTimerHeapMatchesSorting(t *testing.T) {
	l := &Loop{}
	r := rand.New(rand.NewPCG(3, 4))
	var fired, want []time.Duration
	timers := make([]*Timer, 0, 300)
	for range 300 {
		var tm *Timer
		tm = l.NewTimer(func() { fired = append(fired, tm.at) })
		timers = append(timers, tm)
	}
	for range 2000 {
		tm := timers[r.IntN(len(timers))]
		if r.IntN(3) == 0 {
			tm.Stop()
		} else {
			tm.Set(time.Duration(r.IntN(1000)))
		}
	}
	for _, tm := range timers {
		if tm.Active() {
			want = append(want, tm.at)
		}
	}
	slices.Sort(want)
	l.now = time.Hour
	l.fire()
	if !slices.Equal(fired, want) {
		t.Fatalf("fired %v, want %v", fired, want)
	}
}

func TestPostFromManyGoroutines(t *testing.T) {
	l := start(t)
	count := 0
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				l.Post(func() { count++ })
			}
		})
	}
	wg.Wait()
	l.Call(func() {})
	if count != 8000 {
		t.Fatalf("%d of 8000 posts ran", count)
	}
}

// closer checks that no event reaches a handler whose descriptor an earlier
// handler of the same batch closed and replaced.
type closer struct {
	l     *Loop
	fd    int
	other *closer
	hits  *int
}

// replace registers a descriptor that is never ready, in the place of the one
// that was closed.
func (c *closer) replace() {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK)
	if err == nil {
		err = c.l.Register(fd, Readable, &closer{l: c.l, fd: fd, hits: c.hits})
	}
	if err != nil {
		panic(err)
	}
}

func (c *closer) Ready(uint32) {
	*c.hits++
	if o := c.other; o != nil && o.fd >= 0 {
		c.l.Unregister(o.fd)
		_ = unix.Close(o.fd)
		o.fd = -1
		c.replace()
	}
	c.l.Unregister(c.fd)
	_ = unix.Close(c.fd)
	c.fd = -1
}

func TestEventOfAClosedDescriptorIsDropped(t *testing.T) {
	l := start(t)
	hits := 0
	l.Call(func() {
		var pair [2]*closer
		for i := range pair {
			fd, err := unix.Eventfd(1, unix.EFD_NONBLOCK) // ready at once
			if err != nil {
				t.Error(err)
				return
			}
			pair[i] = &closer{l: l, fd: fd, hits: &hits}
		}
		pair[0].other, pair[1].other = pair[1], pair[0]
		for _, c := range pair {
			if err := l.Register(c.fd, Readable, c); err != nil {
				t.Error(err)
			}
		}
	})
	time.Sleep(20 * time.Millisecond)
	l.Call(func() {})
	if hits != 1 {
		t.Fatalf("%d handlers ran, want 1: the other was closed before its turn", hits)
	}
}

func TestDialToAClosedPortReportsRefusal(t *testing.T) {
	fd, addr, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	if addr.Port() == 0 {
		t.Fatal("no port")
	}
	_ = unix.Close(fd)
	c, err := Dial(addr)
	if err == nil {
		time.Sleep(10 * time.Millisecond)
		err = ConnectError(c)
		_ = unix.Close(c)
	}
	if err == nil {
		t.Fatal("no error from a port nobody listens on")
	}
}
