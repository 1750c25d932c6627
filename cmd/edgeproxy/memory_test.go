package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// rss is what the kernel says a process has in memory.
func rss(t *testing.T, pid int) int64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(data))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// flood keeps n connections open that each did what open does, and renews those
// that the proxy gave up, until stop.
type flood struct {
	addr  string
	stop  atomic.Bool
	all   sync.WaitGroup
	open  func(net.Conn) error
	held  atomic.Int64
	tries atomic.Int64
}

func (f *flood) run(workers, each int) {
	for range workers {
		f.all.Go(func() {
			conns := make([]net.Conn, each)
			defer func() {
				for _, c := range conns {
					if c != nil {
						c.Close()
					}
				}
			}()
			one := make([]byte, 1)
			for round := 0; !f.stop.Load(); round++ {
				for i, c := range conns {
					if f.stop.Load() {
						return
					}
					if c != nil && round%8 == i%8 && dead(c, one) {
						c.Close()
						f.held.Add(-1)
						conns[i], c = nil, nil
					}
					if c != nil {
						continue
					}
					f.tries.Add(1)
					c, err := net.DialTimeout("tcp", f.addr, 5*time.Second)
					if err != nil {
						continue
					}
					if err := f.open(c); err != nil {
						c.Close()
						continue
					}
					f.held.Add(1)
					conns[i] = c
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
}

// dead reports whether the other side ended the connection, without reading what
// a slow reader leaves.
func dead(c net.Conn, one []byte) bool {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		n, _, err := unix.Recvfrom(int(fd), one, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		gone = err == nil && n == 0 || err != nil && err != unix.EAGAIN
	})
	return gone || err != nil
}

// TestMemoryLimit floods a proxy with each kind of client that holds memory: it
// stays within its limit, lives, serves others meanwhile, and all of them after.
func TestMemoryLimit(t *testing.T) {
	const limit = 40 << 20 // with what the kernel keeps of sockets: less is resident
	large := bytes.Repeat([]byte("x"), 4<<20)
	a := startBackend(t, "a", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/large" {
			_, _ = w.Write(large)
			return
		}
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			fmt.Fprintln(w, "a")
		}
	})
	head := "GET /?" + strings.Repeat("q", 3000) + " HTTP/1.1\r\nHost: x\r\n"
	long := head + "X-Long: " + strings.Repeat("v", 12<<10)
	for _, tt := range []struct {
		name string
		n    int
		open func(net.Conn) error
	}{
		{"idle", 16000, func(c net.Conn) error {
			if _, err := io.WriteString(c, head+"\r\n"); err != nil {
				return err
			}
			_, err := c.Read(make([]byte, 1024))
			return err
		}},
		{"slow heads", 6000, func(c net.Conn) error { _, err := io.WriteString(c, long); return err }},
		{"slow bodies", 4000, func(c net.Conn) error {
			_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"+strings.Repeat("b", 8<<10))
			return err
		}},
		{"slow readers", 1500, func(c net.Conn) error {
			if err := c.(*net.TCPConn).SetReadBuffer(4096); err != nil {
				return err
			}
			_, err := io.WriteString(c, "GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
			return err
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			config := filepath.Join(t.TempDir(), "mesh.yaml")
			put(t, config, smallest(a.address()))
			p := start(t, t.TempDir(), "--config", config, "--memory-limit", "40MiB")
			f := &flood{addr: p.listener("default/ingress/http"), open: tt.open}
			f.run(8, tt.n/8)
			var most, served, refused int64
			// However fast this machine is now: until the limit is felt, and for a while then.
			felt := time.Time{}
			for began := time.Now(); felt.IsZero() || time.Since(felt) < 2*time.Second || served == 0; time.Sleep(5 * time.Millisecond) {
				if time.Since(began) > time.Minute {
					t.Errorf("after a minute: the limit was felt: %v, %d others served", !felt.IsZero(), served)
					break
				}
				most = max(most, rss(t, p.cmd.Process.Pid))
				if status, _ := fetch(t, p.ingress()); status == 200 {
					served++
				} else {
					refused++
				}
				if _, metrics := p.ask("/metrics"); felt.IsZero() && shed(metrics) {
					felt = time.Now()
				}
			}
			held := f.held.Load()
			f.stop.Store(true)
			f.all.Wait()
			_, metrics := p.ask("/metrics")
			for line := range strings.Lines(metrics) {
				if strings.HasPrefix(line, "meridian_memory") {
					t.Log(strings.TrimSpace(line))
				}
			}
			t.Logf("at most %.1f MiB resident, %d of %d connections held (%d tries); of others %d served, %d not", float64(most)/(1<<20), held, tt.n, f.tries.Load(), served, refused)
			if most > limit {
				t.Errorf("%.1f MiB resident, limit 40", float64(most)/(1<<20))
			}
			eventually(t, "everybody is served again", func() bool {
				for range 20 {
					if status, _ := fetch(t, p.ingress()); status != 200 {
						return false
					}
				}
				return true
			})
		})
	}
}

// shed reports whether connections were given up for memory.
func shed(metrics string) bool {
	return !strings.Contains(metrics, `meridian_memory_shed_connections_total{reason="idle"} 0`+"\n") ||
		!strings.Contains(metrics, `meridian_memory_shed_connections_total{reason="slow"} 0`+"\n")
}

func TestSize(t *testing.T) {
	for _, tt := range []struct {
		text string
		want size
		back string
	}{{"64MiB", 64 << 20, "64MiB"}, {"1GiB", 1 << 30, "1GiB"}, {"1536KiB", 1536 << 10, "1536KiB"}, {"1024", 1024, "1KiB"}, {"0", 0, "0"}} {
		var s size
		if err := s.UnmarshalText([]byte(tt.text)); err != nil || s != tt.want || s.String() != tt.back {
			t.Errorf("%s: %d %s %v", tt.text, s, s, err)
		}
	}
	for _, bad := range []string{"", "64MB", "-1", "1.5GiB", "MiB", "99999999999GiB"} {
		if err := new(size).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
