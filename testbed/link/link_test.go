package link

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/testbed/reactor"
)

func loop(t *testing.T) *reactor.Loop {
	t.Helper()
	l, err := reactor.New()
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
	})
	return l
}

// server accepts on loopback and serves each connection with fn.
func server(t *testing.T, fn func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				fn(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

func echo(c *net.TCPConn) { _, _ = io.Copy(c, c) }

func relay(t *testing.T, rtt time.Duration, target netip.AddrPort) *Relay {
	t.Helper()
	r, err := Open(loop(t), rtt, target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func dial(t *testing.T, r *Relay) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

func roundTrip(t *testing.T, c net.Conn) time.Duration {
	t.Helper()
	start := time.Now()
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	var b [4]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		t.Fatal(err)
	}
	if string(b[:]) != "ping" {
		t.Fatalf("got %q", b)
	}
	return time.Since(start)
}

func TestDelayIsTheRoundTripAndNeverLess(t *testing.T) {
	for _, rtt := range []time.Duration{0, 3 * time.Millisecond, 17 * time.Millisecond} {
		r := relay(t, rtt, server(t, echo))
		c := dial(t, r)
		if first := roundTrip(t, c); first < 2*rtt {
			t.Errorf("rtt %v: the first answer of a fresh connection took %v, want at least two round trips", rtt, first)
		}
		var took []time.Duration
		for range 30 {
			took = append(took, roundTrip(t, c))
		}
		slices.Sort(took)
		t.Logf("rtt %v: min %v, median %v, max %v", rtt, took[0], took[15], took[29])
		if took[0] < rtt {
			t.Errorf("rtt %v: an answer came after %v", rtt, took[0])
		}
		// Some 0.1 ms over on an idle machine; ten milliseconds allow for a busy one.
		if took[15] > rtt+10*time.Millisecond {
			t.Errorf("rtt %v: median %v", rtt, took[15])
		}
	}
}

func TestBytesKeepOrderUnderBackPressure(t *testing.T) {
	r := relay(t, 8*time.Millisecond, server(t, echo))
	const conns, size = 64, 300 << 10 // more than the relay holds
	var wg sync.WaitGroup
	for i := range conns {
		c := dial(t, r)
		wg.Go(func() {
			src := make([]byte, size)
			g := rand.NewChaCha8([32]byte{byte(i)})
			_, _ = g.Read(src) // never fails
			go func() {
				if _, err := c.Write(src); err != nil {
					t.Error(err)
				}
				if err := c.CloseWrite(); err != nil {
					t.Error(err)
				}
			}()
			time.Sleep(time.Duration(i%7) * 5 * time.Millisecond) // slow readers fill the relay
			got, err := io.ReadAll(c)
			if err != nil {
				t.Error(err)
			}
			if sha256.Sum256(got) != sha256.Sum256(src) {
				t.Errorf("connection %d: %d bytes came back different", i, len(got))
			}
		})
	}
	wg.Wait()
	n := r.Counters()
	if n.Forward != conns*size || n.Backward != conns*size || n.Connections != conns {
		t.Errorf("counters %+v", n)
	}
	wait(t, "connections to be gone", func() bool { return r.Counters().Open == 0 })
}

func TestRelayHoldsABoundedAmount(t *testing.T) {
	release := make(chan struct{})
	r := relay(t, time.Millisecond, server(t, func(c *net.TCPConn) {
		if err := c.SetReadBuffer(4 << 10); err != nil {
			t.Error(err)
		}
		<-release
		_, _ = io.Copy(io.Discard, c)
	}))
	c := dial(t, r)
	// The kernel's own buffers on the way take some megabytes.
	const limit = 24 << 20
	total, piece := 0, make([]byte, 256<<10)
	for total < limit {
		if err := c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, err := c.Write(piece)
		total += n
		if err != nil {
			break
		}
	}
	close(release)
	if total >= limit {
		t.Fatalf("wrote %d bytes to a target that reads nothing", total)
	}
}

func TestHalfCloseReachesTheTarget(t *testing.T) {
	r := relay(t, 2*time.Millisecond, server(t, func(c *net.TCPConn) {
		b, err := io.ReadAll(c) // ends only by the caller's half-close
		if err != nil {
			t.Error(err)
		}
		_, _ = c.Write(append([]byte("got "), b...))
	}))
	c := dial(t, r)
	_, _ = c.Write([]byte("all"))
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil || string(got) != "got all" {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestResetOfTheTargetReachesTheCaller(t *testing.T) {
	r := relay(t, 2*time.Millisecond, server(t, func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1))
		_ = c.SetLinger(0)
	}))
	c := dial(t, r)
	_, _ = c.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("got %v, want a reset", err)
	}
}

func TestNobodyAtTheTargetIsARefusalAfterARoundTrip(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().(*net.TCPAddr).AddrPort()
	ln.Close()
	for _, target := range []netip.AddrPort{addr, {}} {
		r := relay(t, 6*time.Millisecond, target)
		start := time.Now()
		c := dial(t, r)
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("got %v, want a reset", err)
		}
		if d := time.Since(start); d < 6*time.Millisecond {
			t.Errorf("refused after %v, sooner than news can travel", d)
		}
		if n := r.Counters(); n.Refused != 1 {
			t.Errorf("counters %+v", n)
		}
		r.SetTarget(server(t, echo))
		roundTrip(t, dial(t, r))
	}
}

func TestCutResetsAndHealRestores(t *testing.T) {
	r := relay(t, time.Millisecond, server(t, echo))
	c := dial(t, r)
	roundTrip(t, c)
	r.Cut()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("open connection: %v, want a reset", err)
	}
	// The kernel may report the reset at connect or at the first read.
	if c, err := net.Dial("tcp", r.Addr().String()); err == nil {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Fatal("a cut link answered")
		}
		c.Close()
	}
	r.Heal()
	roundTrip(t, dial(t, r))
}

func TestBlackHoleIsSilentAndLosesNothing(t *testing.T) {
	r := relay(t, 2*time.Millisecond, server(t, echo))
	old := dial(t, r)
	roundTrip(t, old)
	r.BlackHole()
	fresh := dial(t, r)
	for _, c := range []*net.TCPConn{old, fresh} {
		if _, err := c.Write([]byte("late")); err != nil {
			t.Fatal(err)
		}
	}
	_ = old.SetReadDeadline(time.Now().Add(60 * time.Millisecond))
	if _, err := old.Read(make([]byte, 4)); !errors.Is(err, context.DeadlineExceeded) && !isTimeout(err) {
		t.Fatalf("got %v from a black hole, want silence", err)
	}
	r.Heal()
	for _, c := range []*net.TCPConn{old, fresh} {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		var b [4]byte
		if _, err := io.ReadFull(c, b[:]); err != nil || !bytes.Equal(b[:], []byte("late")) {
			t.Fatalf("after healing: %q, %v", b, err)
		}
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("waited 10 s for %s", what)
}

// TestCostOfAThousandMessagesASecond prints what 30 relays cost at the demo's
// message rate; the assertion only catches a relay that spins.
func TestCostOfAThousandMessagesASecond(t *testing.T) {
	if testing.Short() {
		t.Skip("takes two seconds")
	}
	l := loop(t)
	target := server(t, echo)
	var relays []*Relay
	var conns []net.Conn
	for range 30 {
		r, err := Open(l, 10*time.Millisecond, target)
		if err != nil {
			t.Fatal(err)
		}
		relays = append(relays, r)
		conns = append(conns, dial(t, r))
	}
	idle := cpu(t)
	time.Sleep(500 * time.Millisecond)
	idle = cpu(t) - idle
	busy := cpu(t)
	start := time.Now()
	var wg sync.WaitGroup
	for _, c := range conns {
		wg.Go(func() {
			for time.Since(start) < 1500*time.Millisecond {
				began := time.Now()
				roundTrip(t, c)
				time.Sleep(30*time.Millisecond - time.Since(began))
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	busy = cpu(t) - busy
	t.Logf("idle: %.1f %% of a core; 30 relays, 1,000 messages/s each way: %.1f %% with the test's own client and server",
		100*idle.Seconds()/0.5, 100*busy.Seconds()/took.Seconds())
	if idle > 250*time.Millisecond {
		t.Errorf("idle relays used %v of CPU in half a second", idle)
	}
	for _, r := range relays {
		r.Close()
	}
}

func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
