package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// asProgram, when set, makes this test binary be edgeproxy: what is tested is
// what was compiled, with the race detector where the tests have it, and go test
// knows when a result is out of date.
const asProgram = "EDGEPROXY_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// program is edgeproxy with these arguments, not started.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	return cmd
}

// output collects what a process says while others read it.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// proxy is a running edgeproxy.
type proxy struct {
	t      *testing.T
	cmd    *exec.Cmd
	state  string
	stderr *output
	ended  chan struct{}
	err    error
	run    runFile
}

// launch starts the binary without waiting for it to serve.
func launch(t *testing.T, state string, args ...string) *proxy {
	t.Helper()
	p := &proxy{t: t, state: state, stderr: &output{}, ended: make(chan struct{})}
	args = append([]string{"--admin", "127.0.0.1:0", "--loops", "1", "--state-dir", state}, args...)
	p.cmd = program(t, args...)
	p.cmd.Stderr = p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.err = p.cmd.Wait(); close(p.ended) }()
	t.Cleanup(func() {
		p.kill()
		for _, bad := range []string{"panic:", "fatal error:", "DATA RACE"} {
			if strings.Contains(p.stderr.String(), bad) {
				t.Errorf("edgeproxy said %q", bad)
			}
		}
		if t.Failed() {
			t.Logf("edgeproxy %s said:\n%s", strings.Join(args, " "), p.stderr)
		}
	})
	return p
}

// start launches the binary and waits until it is ready.
func start(t *testing.T, state string, args ...string) *proxy {
	t.Helper()
	p := launch(t, state, args...)
	p.waitReady()
	return p
}

func (p *proxy) waitReady() {
	p.t.Helper()
	eventually(p.t, "edgeproxy is ready", func() bool {
		select {
		case <-p.ended:
			p.t.Fatalf("edgeproxy ended: %v", p.err)
		default:
		}
		p.readRunFile()
		if p.run.PID != p.cmd.Process.Pid || len(p.run.Listeners) == 0 {
			return false
		}
		status, _ := p.ask("/readyz")
		return status == http.StatusOK
	})
}

func (p *proxy) readRunFile() {
	data, err := os.ReadFile(filepath.Join(p.state, "run.json"))
	if err == nil {
		err = json.Unmarshal(data, &p.run)
	}
	if err != nil {
		p.run = runFile{}
	}
}

func (p *proxy) kill() {
	select {
	case <-p.ended:
	default:
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

func (p *proxy) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// wait returns the exit code, which must come soon.
func (p *proxy) wait() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		p.t.Fatal("edgeproxy does not end")
	}
	return p.cmd.ProcessState.ExitCode()
}

// listener is the address of the listener named gateway/name.
func (p *proxy) listener(name string) string {
	p.t.Helper()
	for _, l := range p.run.Listeners {
		if l.Gateway+"/"+l.Name == name {
			return l.Address
		}
	}
	p.t.Fatalf("no listener %s in %+v", name, p.run.Listeners)
	return ""
}

// ask reads an admin page.
func (p *proxy) ask(path string) (int, string) {
	if p.run.Admin == "" {
		return 0, ""
	}
	return fetch(p.t, "http://"+p.run.Admin+path)
}

// says waits until an admin page holds what is wanted.
func (p *proxy) says(path, want string) {
	p.t.Helper()
	body := ""
	defer func() {
		if p.t.Failed() {
			p.t.Logf("%s:\n%s", path, body)
		}
	}()
	eventually(p.t, path+" holds "+want, func() bool {
		_, body = p.ask(path)
		return strings.Contains(body, want)
	})
}

// client never keeps a connection, so that a test sees what a new user sees.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 15 * time.Second}

// fetch returns status 0 and the error's text when there is no response.
func fetch(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

// backend is a real HTTP server that answers with its name and counts.
type backend struct {
	*httptest.Server
	name     string
	requests atomic.Int64
}

func startBackend(t *testing.T, name string, serve http.HandlerFunc) *backend {
	t.Helper()
	b := &backend{name: name}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.requests.Add(1)
		w.Header().Set("X-Backend", name)
		if serve != nil {
			serve(w, r)
			return
		}
		fmt.Fprintln(w, name)
	}))
	t.Cleanup(func() {
		b.CloseClientConnections()
		b.Close()
	})
	return b
}

func (b *backend) address() string { return b.Listener.Addr().String() }

// slots makes a handler that works on n requests at once for d each, first come
// first served.
func slots(n int, d time.Duration) http.HandlerFunc {
	free := make(chan struct{}, n)
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case free <- struct{}{}:
		case <-r.Context().Done():
			return
		}
		time.Sleep(d)
		<-free
		fmt.Fprintln(w, "done")
	}
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what another process does; the bound is for a machine
// that is busy, not for the code.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// deadAddress is a loopback address where nobody listens.
func deadAddress(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// raw sends bytes and returns what comes until the other side closes.
func raw(t *testing.T, addr, send string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, send); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}
