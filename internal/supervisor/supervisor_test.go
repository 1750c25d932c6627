package supervisor

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// listen stands where systemd would and returns what it hears.
func listen(t *testing.T) <-chan string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	said := make(chan string, 1000)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			said <- string(buf[:n])
		}
	}()
	return said
}

func hear(t *testing.T, said <-chan string) string {
	t.Helper()
	select {
	case s := <-said:
		return s
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was said for 20 s")
		return ""
	}
}

func TestTell(t *testing.T) {
	said := listen(t)
	Tell(slog.Default(), Ready)
	if got := hear(t, said); got != Ready {
		t.Errorf("heard %q", got)
	}
	TellReloading(slog.Default())
	if got := hear(t, said); !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") {
		t.Errorf("heard %q", got)
	}
}

func TestTellNobody(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	t.Setenv("NOTIFY_SOCKET", "")
	Tell(log, Ready)
	if out.Len() != 0 {
		t.Errorf("without a supervisor it logs %s", &out)
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
	Tell(log, Ready)
	if !strings.Contains(out.String(), "the supervisor is not told") {
		t.Errorf("a supervisor that is gone: %s", &out)
	}
}

// TestWatchdog: it is fed while the process answers, not while it hangs, and again
// when it does not.
func TestWatchdog(t *testing.T) {
	said := listen(t)
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", "")
	var hangs atomic.Bool
	asked := make(chan bool, 1000)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- FeedWatchdog(ctx, slog.New(slog.DiscardHandler), func(ctx context.Context) error {
			h := hangs.Load()
			asked <- h
			if h {
				<-ctx.Done()
				return errors.New("hangs")
			}
			return nil
		})
	}()
	for range 2 {
		if got := hear(t, said); got != watchdog {
			t.Fatalf("heard %q", got)
		}
	}
	hangs.Store(true)
	for n := 0; n < 3; { // asked while it hangs
		if <-asked {
			n++
		}
	}
	for len(said) > 0 {
		<-said
	}
	for n := 0; n < 3; {
		if <-asked {
			n++
		}
	}
	if len(said) != 0 {
		t.Errorf("fed while the process hangs: %q", <-said)
	}
	hangs.Store(false)
	if got := hear(t, said); got != watchdog {
		t.Fatalf("heard %q", got)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestWatchdogOfNobody(t *testing.T) {
	listen(t)
	alive := func(context.Context) error { t.Error("asked though nobody watches"); return nil }
	for _, tt := range []struct{ usec, pid, want string }{
		{"", "", ""},
		{"20000", "1", ""}, // process 1 is watched
		{"soon", "", `WATCHDOG_USEC "soon"`},
		{"-1", "", `WATCHDOG_USEC "-1"`},
	} {
		t.Setenv("WATCHDOG_USEC", tt.usec)
		t.Setenv("WATCHDOG_PID", tt.pid)
		err := FeedWatchdog(t.Context(), slog.Default(), alive)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

func TestRun(t *testing.T) {
	said := listen(t)
	t.Setenv("WATCHDOG_USEC", "10000000")
	t.Setenv("WATCHDOG_PID", "")
	ready := make(chan struct{})
	failed := errors.New("failed")
	err := Run(t.Context(), slog.Default(), ready, func(context.Context) error { return nil }, func(context.Context) error {
		if len(said) != 0 {
			t.Errorf("said before it is ready: %q", <-said)
		}
		close(ready)
		for _, want := range []string{Ready, watchdog} {
			if got := hear(t, said); got != want {
				t.Errorf("heard %q, want %q", got, want)
			}
		}
		return failed
	})
	if !errors.Is(err, failed) {
		t.Errorf("ended with %v", err)
	}
	if got := hear(t, said); got != Stopping {
		t.Errorf("heard %q", got)
	}
	// A watchdog that cannot be fed ends the process, which would else be killed.
	t.Setenv("WATCHDOG_USEC", "soon")
	err = Run(t.Context(), slog.Default(), ready, nil, func(ctx context.Context) error { <-ctx.Done(); return nil })
	if err == nil || !strings.Contains(err.Error(), "WATCHDOG_USEC") {
		t.Errorf("ended with %v", err)
	}
}
