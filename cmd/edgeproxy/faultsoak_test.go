package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// soakTime is the variable with how long [TestFaultSoak] takes.
const soakTime = "MERIDIAN_SOAK"

// unruly is a backend that does as the script says.
type unruly struct {
	t    *testing.T
	addr string
	mode atomic.Pointer[string]
	mu   sync.Mutex
	l    net.Listener
	open map[net.Conn]bool
}

func startUnruly(t *testing.T) *unruly {
	u := &unruly{t: t, addr: "127.0.0.1:0", open: map[net.Conn]bool{}}
	u.behave("")
	u.up()
	u.addr = u.l.Addr().String()
	t.Cleanup(u.down)
	return u
}

func (u *unruly) behave(mode string) { u.mode.Store(&mode) }

// up listens, at the same port as before; down closes all there is.
func (u *unruly) up() {
	l, err := net.Listen("tcp", u.addr)
	if err != nil {
		u.t.Error(err)
		return
	}
	u.mu.Lock()
	u.l = l
	u.mu.Unlock()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			u.mu.Lock()
			u.open[c] = true
			u.mu.Unlock()
			go func() {
				u.serve(c.(*net.TCPConn))
				c.Close()
				u.mu.Lock()
				delete(u.open, c)
				u.mu.Unlock()
			}()
		}
	}()
}

func (u *unruly) down() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.l.Close()
	for c := range u.open {
		c.Close()
	}
}

func (u *unruly) serve(c *net.TCPConn) {
	in := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		mode := *u.mode.Load()
		if mode == "reset" && rand.IntN(4) == 0 {
			c.SetLinger(0)
			return
		}
		if mode == "cut" && rand.IntN(4) == 0 { // an end where a body should go on
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
			c.CloseWrite()
			io.Copy(io.Discard, in)
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		if mode == "close" && rand.IntN(2) == 0 { // a body that runs to the end
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\n\r\n%s", body)
			return
		}
		size := len(body)
		if req.URL.Path == "/large" {
			size = 4 << 20
		}
		if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size); err != nil {
			return
		}
		if size > len(body) {
			body = make([]byte, size)
		}
		if _, err := c.Write(body); err != nil {
			return
		}
	}
}

// names is a DNS server that knows one name, or is silent.
type names struct {
	addr   string
	silent atomic.Bool
	asked  atomic.Int64
}

func startNames(t *testing.T) *names {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	n := &names{addr: c.LocalAddr().String()}
	go func() {
		for buf := make([]byte, 2048); ; {
			k, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			n.asked.Add(1)
			var m dnsmessage.Message
			if n.silent.Load() || m.Unpack(buf[:k]) != nil {
				continue
			}
			m.Response = true
			m.Additionals = nil
			if m.Questions[0].Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 1},
					Body:   &dnsmessage.AResource{A: netip.MustParseAddr("127.0.0.1").As4()},
				}}
			}
			if b, err := m.Pack(); err == nil {
				_, _ = c.WriteTo(b, from)
			}
		}
	}()
	return n
}

// flagsOf sums finished requests by response flag.
func flagsOf(metrics string) map[string]int {
	sums := map[string]int{}
	for _, m := range regexp.MustCompile(`(?m)^meridian_requests_total\{.*flag="([^"]*)"\} (\S+)$`).FindAllStringSubmatch(metrics, -1) {
		if v, err := strconv.ParseFloat(m[2], 64); err == nil && v > 0 {
			sums[m[1]] += int(v)
		}
	}
	return sums
}

func descriptors(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestFaultSoak has clients ask without pause while a script lets backends restart,
// reset, end early and end late, lets clients be slow, and takes DNS and descriptors
// away. Each error has a flag that the fault of the moment explains, between faults
// there is none, and in the end memory and descriptors are what they were.
// MERIDIAN_SOAK=10m makes it that long; `make soak` does.
func TestFaultSoak(t *testing.T) {
	lasts, tick := time.Duration(0), 400*time.Millisecond // the script once
	if v := os.Getenv(soakTime); v != "" {
		var err error
		if lasts, err = time.ParseDuration(v); err != nil {
			t.Fatalf("%s: %v", soakTime, err)
		}
		tick = time.Second
	}
	a, b, dns := startUnruly(t), startUnruly(t), startNames(t)
	config := filepath.Join(t.TempDir(), "mesh.yaml")
	_, port, _ := net.SplitHostPort(b.addr)
	put(t, config, smallest(a.addr, "b.example:"+port)+`---
apiVersion: mesh.meridian.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: slow}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: ingress}]
  slowClients: {grace: 500ms, minBytesPerSecond: 2000}
`)
	p := start(t, t.TempDir(), "--config", config, "--resolver", dns.addr)
	pid, addr := p.cmd.Process.Pid, p.listener("default/ingress/http")

	var stop atomic.Bool
	var clients sync.WaitGroup
	var asked, failed atomic.Int64
	body := strings.Repeat("x", 20_000)
	for n := range 12 {
		clients.Go(func() {
			r := rand.New(rand.NewPCG(uint64(n), 1))
			var c net.Conn
			var in *bufio.Reader
			for !stop.Load() {
				time.Sleep(5 * time.Millisecond)
				if c == nil {
					var err error
					if c, err = net.Dial("tcp", addr); err != nil {
						t.Errorf("dial: %v", err)
						return
					}
					in = bufio.NewReader(c)
				}
				half, keep := r.IntN(20) == 0, r.IntN(10) > 0
				request := []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)}[r.IntN(2)]
				asked.Add(1)
				c.SetDeadline(time.Now().Add(30 * time.Second))
				ok, last := func() (bool, bool) {
					if _, err := io.WriteString(c, request); err != nil {
						return false, true
					}
					if half {
						c.(*net.TCPConn).CloseWrite()
					}
					res, err := http.ReadResponse(in, nil)
					if err != nil {
						return false, true
					}
					_, err = io.Copy(io.Discard, res.Body)
					return err == nil && res.StatusCode == 200, err != nil || res.Close
				}()
				if !ok {
					failed.Add(1)
				}
				if last || half || !keep {
					c.Close()
					c = nil
				}
			}
			if c != nil {
				c.Close()
			}
		})
	}
	hold := func(d time.Duration, first, more string) { // 20 clients that are too slow
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
				io.WriteString(c, first)
				for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
					if _, err := io.WriteString(c, more); err != nil {
						return
					}
				}
			})
		}
		all.Wait()
	}
	script := []struct {
		name    string
		fault   func()
		explain string // the flags that the fault may cause
		causes  string // the one that it has to cause, empty for none
	}{
		{"nothing", func() { time.Sleep(tick) }, "", ""},
		{"backend restarts", func() {
			for range 3 {
				a.down()
				time.Sleep(100 * time.Millisecond)
				a.up()
				time.Sleep(200 * time.Millisecond)
			}
		}, "UC UF UH UO", ""},
		{"all backends restart", func() {
			a.down()
			b.down()
			time.Sleep(300 * time.Millisecond)
			a.up()
			b.up()
		}, "UC UF UH UO", "UF"},
		{"backends reset", func() { a.behave("reset"); b.behave("reset"); time.Sleep(tick) }, "UC UH UO", "UC"},
		{"responses are cut", func() { a.behave("cut"); b.behave("cut"); time.Sleep(tick) }, "UC UH UO", "UC"},
		{"responses run to the close", func() { a.behave("close"); b.behave("close"); time.Sleep(tick) }, "", ""},
		{"slow bodies", func() {
			hold(2*tick+500*time.Millisecond, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n", "x")
		}, "SB", "SB"},
		{"slow readers", func() { hold(2*tick+500*time.Millisecond, "GET /large HTTP/1.1\r\nHost: x\r\n\r\n", "") }, "SR DC", "SR"},
		{"DNS is gone", func() {
			was := dns.asked.Load()
			dns.silent.Store(true)
			time.Sleep(1500 * time.Millisecond)
			eventually(t, "the name is asked for", func() bool { return dns.asked.Load() > was })
			dns.silent.Store(false)
		}, "", ""},
		{"no descriptors", func() {
			var old unix.Rlimit
			if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
				t.Error(err)
				return
			}
			none := unix.Rlimit{Cur: uint64(descriptors(t, pid)), Max: old.Max}
			if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &none, nil); err != nil {
				t.Error(err)
			}
			time.Sleep(tick)
			if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &old, nil); err != nil {
				t.Error(err)
			}
		}, "UF UH UO", ""},
	}
	flags := func() map[string]int {
		metrics := ""
		eventually(t, "the metrics can be read", func() bool {
			var status int
			status, metrics = p.ask("/metrics")
			return status == 200
		})
		return flagsOf(metrics)
	}
	time.Sleep(300 * time.Millisecond)
	opened := descriptors(t, pid)
	began, was := time.Now(), flags()
	total := map[string]int{}
	var resident []float64 // at the end of each round of the script
	for round := 0; round == 0 || time.Since(began) < lasts; round++ {
		for _, s := range script {
			s.fault()
			a.behave("")
			b.behave("")
			time.Sleep(300 * time.Millisecond) // what the fault hit comes to its end
			is := flags()
			for f, n := range is {
				if d := n - was[f]; f != "" && d > 0 {
					total[f] += d
					if !slices.Contains(strings.Fields(s.explain), f) {
						t.Errorf("%s: %d requests ended with %s, which that does not explain", s.name, d, f)
					}
				}
			}
			if s.causes != "" && is[s.causes] == was[s.causes] {
				t.Errorf("%s: no request ended with %s: the fault is none", s.name, s.causes)
			}
			if is[""] == was[""] {
				t.Errorf("%s: no request was served", s.name)
			}
			was = is
		}
		resident = append(resident, float64(rss(t, pid))/(1<<20))
	}
	stop.Store(true)
	clients.Wait()
	explained := 0
	for _, n := range total {
		explained += n
	}
	t.Logf("%d requests in %.0f s, %d failed; ended by flag: %v; resident after each round: %.1f MiB",
		asked.Load(), time.Since(began).Seconds(), failed.Load(), total, resident)
	if int(failed.Load()) > explained {
		t.Errorf("clients saw %d failures, only %d requests have a flag", failed.Load(), explained)
	}
	if slope := growth(resident); len(resident) >= 8 && slope > 2 {
		t.Errorf("memory grew by %.1f MiB from the first rounds to the last: %.1f", slope, resident)
	}
	eventually(t, "descriptors are what they were", func() bool { return descriptors(t, pid) <= opened+5 })
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	if code := p.wait(); code != exitOK {
		t.Errorf("it ended with %d", code)
	}
}

// growth is the line of least squares through the values, from its begin to its end;
// the first quarter is warm-up.
func growth(v []float64) float64 {
	v = v[len(v)/4:]
	var sx, sy, sxx, sxy float64
	for i, y := range v {
		x := float64(i)
		sx, sy, sxx, sxy = sx+x, sy+y, sxx+x*x, sxy+x*y
	}
	n := float64(len(v))
	if n < 2 {
		return 0
	}
	return (n*sxy - sx*sy) / (n*sxx - sx*sx) * (n - 1)
}
