package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// lineage is a proxy and those that took over from it. What they say goes to one
// file: a pipe would keep the first from ending before the last.
type lineage struct {
	*proxy
	log string
}

func startLineage(t *testing.T, binary string, env []string, args ...string) *lineage {
	t.Helper()
	l := &lineage{log: filepath.Join(t.TempDir(), "stderr")}
	f, err := os.Create(l.log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l.proxy = &proxy{t: t, state: t.TempDir(), stderr: &output{}, ended: make(chan struct{})}
	l.cmd = program(t, append([]string{"--admin", "127.0.0.1:0", "--loops", "2", "--state-dir", l.state}, args...)...)
	if binary != "" {
		l.cmd.Path, l.cmd.Args[0] = binary, binary
	}
	l.cmd.Env = append(l.cmd.Env, env...)
	l.cmd.Stderr = f
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { l.err = l.cmd.Wait(); close(l.ended) }()
	t.Cleanup(func() {
		if l.readRunFile(); l.run.PID > 0 && l.run.PID != l.cmd.Process.Pid {
			_ = syscall.Kill(l.run.PID, syscall.SIGKILL)
		}
		l.kill()
		if said := l.said(); t.Failed() || strings.Contains(said, "panic:") || strings.Contains(said, "DATA RACE") {
			t.Errorf("edgeproxy said:\n%s", said)
		}
	})
	l.waitReady()
	return l
}

func (l *lineage) said() string {
	data, err := os.ReadFile(l.log)
	if err != nil {
		l.t.Error(err)
	}
	return string(data)
}

// gone reports whether a process ended; init may not have buried it yet.
func gone(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(data, []byte(") Z "))
}

// upgrade has the youngest process replaced and waits until it has ended.
func (l *lineage) upgrade() {
	l.t.Helper()
	old := l.run.PID
	if err := syscall.Kill(old, syscall.SIGUSR2); err != nil {
		l.t.Fatal(err)
	}
	eventually(l.t, "another process serves", func() bool { l.readRunFile(); return l.run.PID != 0 && l.run.PID != old })
	eventually(l.t, "the old one ends", func() bool { return gone(old) })
}

// rawClient asks over kept connections as a strict client does: it goes on to a
// new one only when told so, and repeats nothing.
type rawClient struct {
	addr string
	path string
	keep bool
}

func (c *rawClient) run(stop *atomic.Bool, pause time.Duration, did func(error)) {
	var conn net.Conn
	var r *bufio.Reader
	for !stop.Load() {
		if conn == nil {
			var err error
			if conn, err = net.Dial("tcp", c.addr); err != nil {
				did(err)
				continue
			}
			r = bufio.NewReader(conn)
		}
		last, err := c.ask(conn, r)
		did(err)
		if err != nil || last || !c.keep {
			conn.Close()
			conn = nil
		}
		time.Sleep(pause)
	}
	if conn != nil {
		conn.Close()
	}
}

func (c *rawClient) ask(conn net.Conn, r *bufio.Reader) (last bool, err error) {
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", c.path); err != nil {
		return false, err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return false, err
	}
	body, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != 200 || !bytes.HasSuffix(body, []byte("end\n"))) {
		err = fmt.Errorf("%d %q", resp.StatusCode, body)
	}
	return resp.Close, err
}

func TestUpgrade(t *testing.T) {
	a := startBackend(t, "a", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" { // longer than an upgrade takes, in pieces
			for range 15 {
				fmt.Fprintln(w, "piece")
				w.(http.Flusher).Flush()
				time.Sleep(100 * time.Millisecond)
			}
		}
		fmt.Fprintln(w, "end")
	})
	config := filepath.Join(t.TempDir(), "mesh.yaml")
	put(t, config, smallest(a.address()))
	access := filepath.Join(t.TempDir(), "access.log")
	l := startLineage(t, "", nil, "--config", config, "--drain-timeout", "10s", "--access-log", access, "--access-log-format", "%PATH%")
	addr, first, adminAt := l.listener("default/ingress/http"), l.run.PID, l.run.Admin

	var stop atomic.Bool
	var clients sync.WaitGroup
	var asked, failed atomic.Int64
	did := func(what string) func(error) {
		return func(err error) {
			asked.Add(1)
			if err != nil {
				failed.Add(1)
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	load := func(n int, c rawClient, pause time.Duration, what string) {
		for range n {
			clients.Go(func() { c.run(&stop, pause, did(what)) })
		}
	}
	load(16, rawClient{addr, "/", true}, 5*time.Millisecond, "kept connection")
	load(4, rawClient{addr, "/", false}, 10*time.Millisecond, "new connection")
	load(4, rawClient{addr, "/slow", true}, 0, "slow response")
	load(1, rawClient{addr, "/slow", false}, 0, "slow response, new connection")
	clients.Go(func() {
		for !stop.Load() {
			status, body := fetch(t, "http://"+adminAt+"/healthz")
			if status == 0 { // the process that leaves may close a connection as it is asked
				status, body = fetch(t, "http://"+adminAt+"/healthz")
			}
			if status != 200 {
				t.Errorf("admin: %d %s", status, body)
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	time.Sleep(300 * time.Millisecond)
	for range 3 {
		l.upgrade()
		time.Sleep(200 * time.Millisecond)
	}
	stop.Store(true)
	clients.Wait()
	t.Logf("%d requests, %d failed", asked.Load(), failed.Load())
	if code := l.wait(); code != exitOK {
		t.Errorf("the first process ended with %d", code)
	}
	if l.listener("default/ingress/http") != addr || l.run.Admin != adminAt || l.run.PID == first {
		t.Errorf("%+v", l.run)
	}
	last := l.run.PID
	if err := syscall.Kill(last, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the last one ends", func() bool { return gone(last) })
	if n := len(lines(t, access)); int64(n) != asked.Load() {
		t.Errorf("%d lines in the access log of %d requests", n, asked.Load())
	}
	if strings.Contains(l.said(), "were cut") {
		t.Error("requests were cut")
	}
}

// Datagrams go on through upgrades: the sockets stay, and what they hold, and the
// endpoint goes on seeing each client at the same address.
func TestUpgrade_datagrams(t *testing.T) {
	echo, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	var seen sync.Map // what the endpoint takes for clients
	go func() {
		p := make([]byte, 2048)
		for {
			n, from, err := echo.ReadFrom(p)
			if err != nil {
				return
			}
			seen.Store(from.String(), true)
			_, _ = echo.WriteTo(p[:n], from)
		}
	}()
	config := filepath.Join(t.TempDir(), "mesh.yaml")
	put(t, config, strings.NewReplacer("HTTPRoute", "UDPRoute", "protocol: HTTP", "protocol: UDP", "protocol: http}", "protocol: udp}").
		Replace(smallest(echo.LocalAddr().String())))
	l := startLineage(t, "", nil, "--config", config, "--drain-timeout", "3s")
	addr, first := l.listener("default/ingress/http"), l.run.PID
	var stop atomic.Bool
	var clients sync.WaitGroup
	var asked, lost atomic.Int64
	for range 16 {
		c, err := net.Dial("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients.Go(func() {
			p := make([]byte, 64)
			for n := 0; !stop.Load(); n++ {
				asked.Add(1)
				want := fmt.Sprint(n)
				if _, err := c.Write([]byte(want)); err != nil {
					t.Errorf("datagram %d: %v", n, err)
					return
				}
				c.SetReadDeadline(time.Now().Add(20 * time.Second))
				if k, err := c.Read(p); err != nil || string(p[:k]) != want {
					lost.Add(1)
					t.Errorf("answer to datagram %d: %q, %v", n, p[:k], err)
					return
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	time.Sleep(200 * time.Millisecond)
	for range 2 {
		l.upgrade()
		time.Sleep(200 * time.Millisecond)
	}
	stop.Store(true)
	clients.Wait()
	t.Logf("%d datagrams, %d lost", asked.Load(), lost.Load())
	addresses := 0
	seen.Range(func(any, any) bool { addresses++; return true })
	if addresses != 16 {
		t.Errorf("the endpoint saw %d addresses of 16 clients", addresses)
	}
	if l.listener("default/ingress/http") != addr || l.run.PID == first {
		t.Errorf("%+v", l.run)
	}
	if code := l.wait(); code != exitOK {
		t.Errorf("the first process ended with %d", code)
	}
}

// An upgrade that fails changes nothing, and the log says why.
func TestUpgrade_fails(t *testing.T) {
	a := startBackend(t, "a", nil)
	dir := t.TempDir()
	config, binary := filepath.Join(dir, "mesh.yaml"), filepath.Join(dir, "edgeproxy")
	put(t, config, smallest(a.address()))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Link(self, binary); err != nil {
		data, rerr := os.ReadFile(self)
		if rerr != nil {
			t.Fatal(err, rerr)
		}
		if err := os.WriteFile(binary, data, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	l := startLineage(t, binary, nil, "--config", config)
	pid := l.run.PID
	tries := func(n int, why string) {
		t.Helper()
		if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it fails", func() bool { return strings.Count(l.said(), "upgrade failed") == n })
		if !strings.Contains(l.said(), why) {
			t.Errorf("the log does not say %q", why)
		}
		eventually(t, "it serves on", func() bool {
			status, body := fetch(t, l.ingress())
			l.readRunFile()
			return status == 200 && body == "a\n" && l.run.PID == pid
		})
		if status, _ := l.ask("/readyz"); status != 200 {
			t.Errorf("readyz says %d", status)
		}
	}
	// A file that cannot be served, and no good copy of an earlier one.
	put(t, config, strings.Replace(smallest(a.address()), "rules:", "rulez:", 1))
	l.says("/readyz?verbose", "rulez")
	if err := os.Remove(filepath.Join(l.state, "last-good.json")); err != nil {
		t.Fatal(err)
	}
	tries(1, "mesh.yaml:14:3: spec: unknown field")
	put(t, config, smallest(a.address()))
	// A program that is none of ours.
	if err := os.Remove(binary); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(binary, []byte("#!/bin/sh\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	tries(2, "exit status 3")
	if err := os.Remove(binary); err != nil {
		t.Fatal(err)
	}
	tries(3, "no such file")
}

// systemd is what it is to a service of Type=notify.
type systemd struct {
	t    *testing.T
	path string
	said chan string
}

func startSystemd(t *testing.T) *systemd {
	s := &systemd{t: t, path: filepath.Join(t.TempDir(), "notify"), said: make(chan string, 1000)}
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			s.said <- string(buf[:n])
		}
	}()
	return s
}

// hears waits for a message, passing over those of the watchdog.
func (s *systemd) hears(want string) {
	s.t.Helper()
	for {
		select {
		case got := <-s.said:
			if strings.HasPrefix(got, want) {
				return
			}
			if got != "WATCHDOG=1" && !strings.HasPrefix(got, "READY=1") {
				s.t.Errorf("heard %q before %q", got, want)
			}
		case <-time.After(20 * time.Second):
			s.t.Fatalf("not within 20 s: %s", want)
		}
	}
}

func TestNotify(t *testing.T) {
	s := startSystemd(t)
	a := startBackend(t, "a", nil)
	config := filepath.Join(t.TempDir(), "mesh.yaml")
	put(t, config, smallest(a.address()))
	l := startLineage(t, "", []string{"NOTIFY_SOCKET=" + s.path, "WATCHDOG_USEC=100000"}, "--config", config, "--drain-timeout", "1s")
	s.hears("READY=1")
	s.hears("WATCHDOG=1")
	l.signal(syscall.SIGHUP)
	s.hears("RELOADING=1\nMONOTONIC_USEC=")
	s.hears("READY=1")
	l.upgrade()
	s.hears(fmt.Sprintf("MAINPID=%d", l.run.PID))
	s.hears("WATCHDOG=1")
	if err := syscall.Kill(l.run.PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.hears("STOPPING=1")
}
