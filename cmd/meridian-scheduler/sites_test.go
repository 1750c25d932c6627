//go:build kube

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// localAddress is an address of this machine that an EndpointSlice takes: it refuses
// those of loopback. What is sent there stays on the machine.
func localAddress(t *testing.T) string {
	t.Helper()
	list, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	t.Skip("this machine has no IPv4 address besides loopback's, which endpoints of Kubernetes cannot have")
	return ""
}

// backend answers every request with its name.
func backend(t *testing.T, host, name string) int {
	t.Helper()
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) }), ReadHeaderTimeout: time.Minute}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.1.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// prober asks a proxy.
type prober struct{ addr string }

// until asks for a path until the answer's body, or its status, is as wanted.
func (p *prober) until(t *testing.T, path, want string, within time.Duration) {
	t.Helper()
	got := ""
	for end := time.Now().Add(within); ; time.Sleep(2 * time.Millisecond) {
		ctx, done := context.WithTimeout(t.Context(), 5*time.Second)
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.addr+path, nil)
		if err != nil {
			t.Error(err)
		}
		if resp, err := http.DefaultClient.Do(r); err == nil {
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			got = cmp.Or(string(body), resp.Status)
			if resp.StatusCode != http.StatusOK {
				got = strconv.Itoa(resp.StatusCode)
			}
		} else {
			got = err.Error()
		}
		done()
		if got == want {
			return
		}
		if time.Now().After(end) {
			t.Errorf("%s%s answers %q, want %q within %s", p.addr, path, got, want, within)
			return
		}
	}
}

// buildMesh builds the programs and returns their folder.
func buildMesh(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin, "./cmd/sitecontroller", "./cmd/edgeproxy")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// site is a controller that bridges the cluster, and its proxy.
type site struct {
	name       string
	api        string
	controller *exec.Cmd
	proxy      *exec.Cmd
	log        *bytes.Buffer
	once       sync.Once
}

func startSite(t *testing.T, bin, name, kubeconfig, pool string) *site {
	t.Helper()
	s := &site{name: name, log: &bytes.Buffer{}}
	data := t.TempDir()
	s.controller = exec.Command(filepath.Join(bin, "sitecontroller"), "--site", name, "--data", data, "--kube="+kubeconfig, "--kube-addresses", pool)
	s.controller.Stdout, s.controller.Stderr = s.log, s.log
	if err := s.controller.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.stop(t)
		if t.Failed() {
			t.Logf("controller of site %s:\n%s", name, s.log)
		}
	})
	var run struct {
		NATS, API string
		TokenFile string
	}
	eventually(t, "the controller's run file", func() string {
		b, err := os.ReadFile(filepath.Join(data, "run.json"))
		if err == nil {
			err = json.Unmarshal(b, &run)
		}
		if err != nil {
			return err.Error()
		}
		return ""
	})
	s.api = run.API
	proxy := exec.Command(filepath.Join(bin, "edgeproxy"), "--config", run.NATS, "--site", name, "--nats-token-file", run.TokenFile, "--admin", "127.0.0.1:0", "--state-dir", t.TempDir())
	log := &bytes.Buffer{}
	proxy.Stdout, proxy.Stderr = log, log
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	s.proxy = proxy
	t.Cleanup(func() {
		_ = proxy.Process.Kill()
		_ = proxy.Wait()
		if t.Failed() {
			t.Logf("proxy of site %s:\n%s", name, log)
		}
	})
	return s
}

// stop ends the controller in order.
func (s *site) stop(t *testing.T) {
	s.once.Do(func() {
		_ = s.controller.Process.Signal(syscall.SIGTERM)
		if err := s.controller.Wait(); err != nil {
			t.Errorf("controller of site %s: %v", s.name, err)
		}
	})
}

// processorTime is what processes have used of the processors, to a hundredth of a
// second (proc_pid_stat(5): utime and stime).
func processorTime(t *testing.T, list ...*exec.Cmd) (sum time.Duration) {
	t.Helper()
	for _, c := range list {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		f := strings.Fields(rest)
		for _, ticks := range f[11:13] {
			n, err := strconv.Atoi(ticks)
			if err != nil {
				t.Fatal(err)
			}
			sum += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return sum
}

func residentKiB(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no VmRSS")
	return 0
}
