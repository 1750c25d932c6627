package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
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

// lifeTime is the variable with how long [TestLife] takes, at the full rate.
const lifeTime = "MERIDIAN_LIFE"

// lifeConfig has an HTTP and a TCP listener, and a second HTTP listener when second is set.
func lifeConfig(second bool, stream string, endpoints ...string) string {
	text := smallest(endpoints...)
	listeners := "{name: http, port: 0, protocol: HTTP}, {name: tcp, port: 0, protocol: TCP}"
	if second {
		listeners += ", {name: second, port: 0, protocol: HTTP}"
	}
	return strings.Replace(text, "{name: http, port: 0, protocol: HTTP}", listeners, 1) + fmt.Sprintf(`---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: all}
spec:
  parentRefs: [{name: ingress, sectionName: tcp}]
  rules:
  - backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: stream, port: 80}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: stream}
spec:
  ports: [{name: tcp, port: 80, protocol: tcp}]
  endpoints: [{address: %q}]
`, stream)
}

// lifeBackend echoes bodies, and what a tunnel carries after a request to switch.
func lifeBackend(t *testing.T, name string) *backend {
	return startBackend(t, name, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
				t.Error(err)
			}
			if _, err := io.Copy(w, r.Body); err != nil {
				panic(http.ErrAbortHandler)
			}
			return
		}
		c, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		io.Copy(c, buffered)
	})
}

// echoStreams is a TCP server that sends back what it gets.
func echoStreams(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	return l.Addr().String()
}

// poster sends a body over a kept connection at a steady rate and wants it back. As
// a strict client it goes to a new connection only when told so and repeats nothing.
type poster struct {
	addr  string
	body  []byte
	every time.Duration
}

func (p *poster) run(stop *atomic.Bool, did func(error)) {
	var conn net.Conn
	var in *bufio.Reader
	got := make([]byte, len(p.body))
	for next := time.Now(); !stop.Load(); {
		time.Sleep(time.Until(next))
		next = next.Add(p.every)
		if conn == nil {
			var err error
			if conn, err = net.Dial("tcp", p.addr); err != nil {
				did(err)
				continue
			}
			in = bufio.NewReader(conn)
		}
		last, err := p.ask(conn, in, got)
		did(err)
		if err != nil || last {
			conn.Close()
			conn = nil
		}
	}
	if conn != nil {
		conn.Close()
	}
}

func (p *poster) ask(conn net.Conn, in *bufio.Reader, got []byte) (last bool, err error) {
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return false, err
	}
	sent := make(chan error, 1)
	head := fmt.Sprintf("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", len(p.body))
	go func() {
		_, err := conn.Write(append([]byte(head), p.body...))
		sent <- err
	}()
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		return false, fmt.Errorf("response: %w", err)
	}
	n, err := io.ReadFull(res.Body, got)
	if err != nil || res.StatusCode != 200 || !bytes.Equal(got, p.body) {
		return false, fmt.Errorf("status %d, %d bytes of %d, %v", res.StatusCode, n, len(p.body), err)
	}
	if n, err := res.Body.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		return false, fmt.Errorf("after the body: %d bytes, %v", n, err)
	}
	return res.Close, <-sent
}

// tunnel exchanges messages for as long as lives and ends in order, by a half
// close of its own; only then may the other side close.
func tunnel(addr, opening string, lives time.Duration, opened func()) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(lives + time.Minute)); err != nil {
		return err
	}
	in := bufio.NewReader(conn)
	if opening != "" {
		if _, err := io.WriteString(conn, opening); err != nil {
			return err
		}
		res, err := http.ReadResponse(in, nil)
		if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
			return fmt.Errorf("opening: %v %w", res, err)
		}
	}
	for n, end := 0, time.Now().Add(lives); n == 0 || time.Now().Before(end); n++ {
		if _, err := fmt.Fprintf(conn, "message %d\n", n); err != nil {
			return err
		}
		if got, err := in.ReadString('\n'); err != nil || got != fmt.Sprintf("message %d\n", n) {
			return fmt.Errorf("message %d: %q %w", n, got, err)
		}
		if n == 0 {
			opened()
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
		return fmt.Errorf("at the end: %q %w", rest, err)
	}
	return nil
}

// now is what the process that serves says of itself.
func (l *lineage) now() (run runFile) {
	data, err := os.ReadFile(filepath.Join(l.state, "run.json"))
	if err == nil {
		err = json.Unmarshal(data, &run)
	}
	if err != nil {
		return runFile{}
	}
	return run
}

// replaced has the process that serves be replaced and waits until it has ended.
func (l *lineage) replaced() error {
	old := l.now().PID
	if err := syscall.Kill(old, syscall.SIGUSR2); err != nil {
		return err
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if pid := l.now().PID; pid != 0 && pid != old && gone(old) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d, now %d serves, has not ended: %v", old, l.now().PID, !gone(old))
		}
	}
}

const switchToWebSocket = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// TestLife has 100 connections send bodies at a steady rate, with tunnels of both
// kinds in flight, while the node reloads ten times, with a listener that comes and
// goes, and is upgraded three times: no request fails, and no tunnel is cut that
// ends within the drain time. MERIDIAN_LIFE=60s makes it 2,000 requests a second
// for that long; `make test-life` does.
func TestLife(t *testing.T) {
	lasts, rate := 6*time.Second, 300
	if v := os.Getenv(lifeTime); v != "" {
		var err error
		if lasts, err = time.ParseDuration(v); err != nil {
			t.Fatalf("%s: %v", lifeTime, err)
		}
		rate = 2000
	}
	const conns, reloads, upgrades = 100, 10, 3
	a, b, stream := lifeBackend(t, "a"), lifeBackend(t, "b"), echoStreams(t)
	config := filepath.Join(t.TempDir(), "mesh.yaml")
	put(t, config, lifeConfig(false, stream, a.address()))
	drain := max(lasts/3, 5*time.Second)
	l := startLineage(t, "", nil, "--config", config, "--drain-timeout", drain.String())

	var stop atomic.Bool
	var clients sync.WaitGroup
	var requests, failed, tunnels, cut atomic.Int64
	asked := func(err error) {
		requests.Add(1)
		if err != nil && failed.Add(1) < 10 {
			t.Errorf("request: %v", err)
		}
	}
	tunnelled := func(what string, err error) {
		tunnels.Add(1)
		if err != nil && cut.Add(1) < 10 {
			t.Errorf("tunnel by %s: %v", what, err)
		}
	}
	addr, tcp := l.listener("default/ingress/http"), l.listener("default/ingress/tcp")
	began := time.Now()
	for i := range conns {
		p := &poster{addr, bytes.Repeat([]byte("0123456789abcdef"), 1<<(i%11)), time.Duration(conns) * time.Second / time.Duration(rate)}
		clients.Go(func() {
			time.Sleep(p.every * time.Duration(i) / conns)
			p.run(&stop, asked)
		})
	}
	for range 5 {
		clients.Go(func() {
			for !stop.Load() {
				tunnelled("upgrade", tunnel(addr, switchToWebSocket, drain/2, func() {}))
			}
		})
		clients.Go(func() {
			for !stop.Load() {
				tunnelled("TCP", tunnel(tcp, "", drain/2, func() {}))
			}
		})
	}
	clients.Go(func() {
		for n := range upgrades {
			time.Sleep(time.Until(began.Add(lasts * time.Duration(n+1) / (upgrades + 1))))
			if err := l.replaced(); err != nil {
				t.Errorf("upgrade %d: %v", n+1, err)
				return
			}
		}
	})
	for n := 1; n <= reloads; n++ {
		time.Sleep(time.Until(began.Add(lasts * time.Duration(n) / (reloads + 1))))
		second, endpoints := n%2 == 1, []string{a.address(), b.address()}
		if n%4 >= 2 {
			endpoints = endpoints[1:]
		}
		put(t, config, lifeConfig(second, stream, endpoints...))
		if err := syscall.Kill(l.now().PID, syscall.SIGHUP); err != nil && !errors.Is(err, syscall.ESRCH) { // it follows the file anyway
			t.Fatal(err)
		}
		at := ""
		eventually(t, fmt.Sprintf("reload %d is in force", n), func() bool {
			at = ""
			for _, l := range l.now().Listeners {
				if l.Name == "second" {
					at = l.Address
				}
			}
			return (at != "") == second
		})
		if second { // what is in flight there outlives the listener
			opened, ended := make(chan struct{}), make(chan struct{})
			clients.Go(func() {
				defer close(ended)
				tunnelled("a listener that goes", tunnel(at, switchToWebSocket, drain/2, func() { close(opened) }))
			})
			select {
			case <-opened:
			case <-ended:
			}
		}
	}
	time.Sleep(time.Until(began.Add(lasts)))
	stop.Store(true)
	clients.Wait()
	took := time.Since(began)
	t.Logf("%d requests in %.0f s, %d failed; %d tunnels, %d cut", requests.Load(), took.Seconds(), failed.Load(), tunnels.Load(), cut.Load())
	if code := l.wait(); code != exitOK {
		t.Errorf("the first process ended with %d", code)
	}
	if strings.Contains(l.said(), "were cut") {
		t.Error("a process cut what it had")
	}
}
