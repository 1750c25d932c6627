package loop

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
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
	done := make(chan error, 1)
	go func() { done <- l.Run() }()
	t.Cleanup(func() {
		l.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l
}

// on runs f on the loop and waits for it.
func on(l *Loop, f func()) {
	done := make(chan struct{})
	l.Post(Func(func() { f(); close(done) }))
	<-done
}

func TestPostRunsInOrder(t *testing.T) {
	l := start(t)
	var got []int
	done := make(chan struct{})
	for i := range 1000 {
		l.Post(Func(func() {
			if got = append(got, i); len(got) == 1000 {
				close(done)
			}
		}))
	}
	<-done
	for i, v := range got {
		if v != i {
			t.Fatalf("task %d ran in place %d", v, i)
		}
	}
}

func TestPostAfterTheEnd(t *testing.T) {
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	l.Stop()
	if err := l.Run(); err != nil {
		t.Fatal(err)
	}
	l.Post(Func(func() { t.Error("ran") })) // must neither run nor write to a closed descriptor
}

type expire func(now int64)

func (e expire) Expire(_ *Timer, now int64) { e(now) }

func TestTimersWakeTheLoop(t *testing.T) {
	l := start(t)
	for _, d := range []time.Duration{time.Millisecond, 20 * time.Millisecond, 80 * time.Millisecond} {
		var tm Timer
		fired := make(chan int64, 1)
		tm.Owner = expire(func(now int64) { fired <- now })
		var when int64
		on(l, func() {
			when = Now() + int64(d)
			l.Wheel.Set(&tm, when)
		})
		if now := <-fired; now < when {
			t.Errorf("fired %v early", time.Duration(when-now))
		}
	}
}

// echo is a Peer that sends back what it gets, in pieces of at most most bytes.
type echo struct {
	conn   Conn
	l      *Loop
	most   int
	failed chan error
	gone   atomic.Bool
}

func (e *echo) Input(in []byte) int {
	n := len(in)
	if e.most > 0 && n > e.most {
		n = e.most
		e.conn.Again()
	}
	e.conn.Out.Append(&e.l.Slabs, in[:n])
	e.conn.Dirty()
	return n
}
func (e *echo) Connected()       {}
func (e *echo) Written(int, int) {}
func (e *echo) Failed(err error) { e.failed <- err; e.conn.Close() }
func (e *echo) Recycle()         { e.gone.Store(true) }

func echoServer(t *testing.T, l *Loop, most int) (*Listener, chan *echo) {
	t.Helper()
	ln, err := Listen(netip.MustParseAddr("127.0.0.1"), 0)
	if err != nil {
		t.Fatal(err)
	}
	peers := make(chan *echo, 10)
	on(l, func() {
		_, err = l.Accept(ln, func(fd int, _ netip.AddrPort) {
			e := &echo{l: l, most: most, failed: make(chan error, 1)}
			if err := e.conn.Open(l, fd, e, true); err != nil {
				t.Error(err)
			}
			peers <- e
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln, peers
}

func TestConn(t *testing.T) {
	l := start(t)
	for _, most := range []int{0, 1000} {
		ln, peers := echoServer(t, l, most)
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.Repeat([]byte("0123456789"), 100_000)
		go func() {
			c.Write(want)
			c.(*net.TCPConn).SetLinger(-1)
		}()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("most %d: echo differs, %v", most, err)
		}
		e := <-peers
		c.Close()
		if err := <-e.failed; err != io.EOF {
			t.Errorf("the other side's close is %v, want EOF", err)
		}
		for !e.gone.Load() {
			time.Sleep(time.Millisecond)
		}
		on(l, func() {
			if n := l.Slabs.InUse(); n != 0 {
				t.Errorf("%d bytes of buffers held after close", n)
			}
		})
	}
}

// TestPause keeps a paused connection from reading, without turning all the time.
func TestPause(t *testing.T) {
	l := start(t)
	ln, peers := echoServer(t, l, 0)
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	e := <-peers
	on(l, e.conn.Pause)
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	before := l.Stats.Turns.Load()
	time.Sleep(100 * time.Millisecond)
	if n := l.Stats.Turns.Load() - before; n > 20 {
		t.Errorf("%d turns in 100 ms at rest", n)
	}
	if err := c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a paused connection answered %d bytes, %v", n, err)
	}
	on(l, e.conn.Resume)
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
		t.Errorf("%q %v", got, err)
	}
	on(l, e.conn.Pause)
	if err := c.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	c.Close()
	select {
	case err := <-e.failed:
		if err != syscall.ECONNRESET {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("a paused connection that watches for a reset did not see it")
	}
}

// dialled is a Peer that tells what becomes of a Dial.
type dialled struct {
	echo
	connected chan struct{}
}

func (d *dialled) Connected() { close(d.connected) }

func TestDial(t *testing.T) {
	l := start(t)
	ln, _ := echoServer(t, l, 0)
	d := &dialled{echo: echo{l: l, failed: make(chan error, 1)}, connected: make(chan struct{})}
	on(l, func() {
		if err := d.conn.Dial(l, ln.Addr(), 0, d); err != nil {
			t.Error(err)
		}
	})
	<-d.connected

	free, err := Listen(netip.MustParseAddr("127.0.0.1"), 0)
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	refused := &dialled{echo: echo{l: l, failed: make(chan error, 1)}, connected: make(chan struct{})}
	on(l, func() {
		if err := refused.conn.Dial(l, free.Addr(), 0, refused); err != nil {
			refused.failed <- err
		}
	})
	if err := <-refused.failed; !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("%v, want connection refused", err)
	}
}

// stale counts events of a descriptor.
type stale struct{ n int }

func (s *stale) Ready(uint32) { s.n++ }

// TestStaleEvents removes a descriptor and takes its slot again while its event
// is fetched already: nobody gets it.
func TestStaleEvents(t *testing.T) {
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	var p [2][2]int
	for i := range p {
		if err := unix.Pipe(p[i][:]); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(p[i][1], []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	var first, second, third stale
	h1, err := l.Add(p[0][0], unix.EPOLLIN, &first)
	if err != nil {
		t.Fatal(err)
	}
	h2, err := l.Add(p[1][0], unix.EPOLLIN, &second)
	if err != nil {
		t.Fatal(err)
	}
	n, err := l.wait()
	if err != nil || n != 2 {
		t.Fatal(n, err)
	}
	l.Del(p[0][0], h1)
	l.Del(p[1][0], h2)
	for range 2 {
		if _, err := l.Add(p[0][0], 0, &third); err != nil && !errors.Is(err, unix.EEXIST) {
			t.Fatal(err)
		}
	}
	l.dispatch(n)
	if first.n+second.n+third.n != 0 {
		t.Errorf("stale events were delivered: %d %d %d", first.n, second.n, third.n)
	}
}

func TestListenBothFamilies(t *testing.T) {
	ln, err := Listen(netip.Addr{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if ln.Addr().Port() == 0 {
		t.Error("no port")
	}
	if _, err := Listen(ln.Addr().Addr(), ln.Addr().Port()); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("the same port twice: %v", err)
	}
}

func TestQuota(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("self", "0::/a/b\n")
	self := filepath.Join(root, "self")
	if n, ok := quota(root, self); ok {
		t.Errorf("no limit gives %d", n)
	}
	write("a/cpu.max", "150000 100000\n")
	write("a/b/cpu.max", "max 100000\n")
	if n, ok := quota(root, self); !ok || n != 2 {
		t.Errorf("1.5 processors give %d %v, want 2", n, ok)
	}
	write("cpu.max", "100000 100000\n")
	if n, ok := quota(root, self); !ok || n != 1 {
		t.Errorf("the root's limit: %d %v, want 1", n, ok)
	}
	if Processors() < 1 || Default(1) != 1 || Default(2) != 1 || Default(8) != 4 {
		t.Error("loops by processors")
	}
}

func TestTokens(t *testing.T) {
	tokens := NewTokens(0)
	if err := tokens.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := tokens.Acquire(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second token of one: %v", err)
	}
	tokens.Release()
	if err := tokens.Acquire(t.Context()); err != nil {
		t.Error(err)
	}
}
