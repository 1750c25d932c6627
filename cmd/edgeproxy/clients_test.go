//go:build clients

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tool is a program that a test needs; where it is missing the test fails and says
// how to get it.
func tool(t *testing.T, how string, names ...string) string {
	t.Helper()
	for _, n := range names {
		if p, err := exec.LookPath(n); err == nil {
			return p
		}
	}
	t.Fatalf("%s is missing: %s", strings.Join(names, " or "), how)
	return ""
}

// ran is the output of a program that has to succeed.
func ran(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestClientCurl(t *testing.T) {
	curl := tool(t, "apt-get install curl", "curl")
	a := startBackend(t, "a", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Seen", fmt.Sprintf("%s %d %v %s", r.Method, r.ContentLength, r.TransferEncoding, r.Header.Get("Expect")))
		io.Copy(w, r.Body)
	})
	config := filepath.Join(t.TempDir(), "mesh.yaml")
	put(t, config, lifeConfig(false, echoStreams(t), a.address()))
	p := start(t, t.TempDir(), "--config", config)
	file := filepath.Join(t.TempDir(), "file")
	body := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
	put(t, file, body)
	for _, tt := range []struct {
		args       []string
		seen, body string
	}{
		{nil, "GET 0 []", ""},
		{[]string{"-I", "-o", os.DevNull}, "HEAD 0 []", ""},
		{[]string{"--http1.0"}, "GET 0 []", ""},
		{[]string{"--data-binary", "@" + file}, "POST 1048576 []", body}, // asks with Expect: 100-continue first
		{[]string{"-T", file}, "PUT 1048576 []", body},
		{[]string{"-T", file, "-H", "Transfer-Encoding: chunked"}, "PUT -1 [chunked]", body},
		{[]string{"-X", "DELETE"}, "DELETE 0 []", ""},
	} {
		out := ran(t, curl, append([]string{"-sS", "-D", "-", "--max-time", "30", p.ingress() + "/x"}, tt.args...)...)
		head, got, _ := strings.Cut(out, "\r\n\r\n")
		if strings.HasPrefix(got, "HTTP/1.1 ") { // the first was 100 (Continue)
			head, got, _ = strings.Cut(got, "\r\n\r\n")
		}
		if !strings.Contains(head, " 200 OK\r\n") || !strings.Contains(strings.ToLower(head), strings.ToLower("X-Seen: "+tt.seen)) || got != tt.body {
			t.Errorf("curl %s: %d bytes, %s", strings.Join(tt.args, " "), len(got), head)
		}
	}
	// One connection for many, and a byte tunnel by a TCP listener.
	if out := ran(t, curl, "-sS", "-o", os.DevNull, "-o", os.DevNull, "-w", "%{num_connects} ", p.ingress()+"/a", p.ingress()+"/b"); out != "1 0 " {
		t.Errorf("connections of two requests: %q", out)
	}
	cmd := exec.CommandContext(t.Context(), curl, "-sSN", "--max-time", "30", "telnet://"+p.listener("default/ingress/tcp"))
	cmd.Stdin = strings.NewReader("through the tunnel\n")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "through the tunnel\n" {
		t.Errorf("tunnel: %q %v", line, err)
	}
	// By itself curl ends a telnet session only when the other side does.
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
}

func TestClientWrk(t *testing.T) {
	wrk := tool(t, "apt-get install wrk", "wrk")
	a := startBackend(t, "a", nil)
	config := filepath.Join(t.TempDir(), "mesh.yaml")
	put(t, config, smallest(a.address()))
	p := start(t, t.TempDir(), "--config", config)
	out := ran(t, wrk, "-t1", "-c100", "-d3s", "--latency", p.ingress()+"/")
	t.Log(out)
	if strings.Contains(out, "Non-2xx") || strings.Contains(out, "Socket errors") || !strings.Contains(out, "requests in") || a.requests.Load() == 0 {
		t.Error("wrk is not content")
	}
}

// webSocketServer runs the ws package's server and returns its address and what it says.
func webSocketServer(t *testing.T) (string, *bufio.Scanner) {
	t.Helper()
	node := tool(t, "apt-get install nodejs", "node", "nodejs")
	if os.Getenv("NODE_PATH") == "" {
		t.Fatal("NODE_PATH is not set: npm install --prefix DIR ws@8, then NODE_PATH=DIR/node_modules")
	}
	cmd := exec.CommandContext(t.Context(), node, "testdata/ws-server.js")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	said := bufio.NewScanner(out)
	if !said.Scan() {
		t.Fatalf("the server said nothing: %v", said.Err())
	}
	return "127.0.0.1:" + said.Text(), said
}

func TestClientWebSocket(t *testing.T) {
	addr, _ := webSocketServer(t)
	config := filepath.Join(t.TempDir(), "mesh.yaml")
	put(t, config, smallest(addr))
	p := start(t, t.TempDir(), "--config", config)
	if out := ran(t, tool(t, "apt-get install nodejs", "node", "nodejs"), "testdata/ws-client.js", "ws://"+p.listener("default/ingress/http")+"/"); out != "ok\n" {
		t.Error(out)
	}
	p.says("/metrics", "meridian_tunnels 0\n")
	p.says("/metrics", "meridian_tunnels_total 51\n")
}

// TestClientBrowser opens a page that posts, fetches and talks by WebSocket: over
// HTTP/1.1, and over TLS, where a browser speaks HTTP/2 and opens WebSockets by it since
// the proxy offers that (RFC 8441).
func TestClientBrowser(t *testing.T) {
	for _, tt := range []struct{ name, scheme, via string }{{"plain", "http://", "1.1 "}, {"TLS", "https://", "2.0 "}} {
		t.Run(tt.name, func(t *testing.T) {
			addr, said := webSocketServer(t)
			mesh := smallest(addr)
			if tt.scheme == "https://" {
				mesh = overTLS(t, mesh)
			}
			config := filepath.Join(t.TempDir(), "mesh.yaml")
			put(t, config, mesh)
			p := start(t, t.TempDir(), "--config", config)
			via := browse(t, tt.scheme+p.listener("default/ingress/http")+"/page", said)
			if !strings.HasPrefix(via, tt.via) {
				t.Errorf("the WebSocket came to the proxy by %q, want HTTP/%s", via, tt.via)
			}
			p.says("/metrics", "meridian_tunnels_total 1\n")
		})
	}
}

// browse has a browser open a page of the ws-server, which reports, and returns the Via
// of its WebSocket.
func browse(t *testing.T, page string, said *bufio.Scanner) (via string) {
	t.Helper()
	browser := tool(t, "apt-get install chromium", "chromium", "chromium-browser", "google-chrome")
	cmd := exec.CommandContext(t.Context(), browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--ignore-certificate-errors", "--user-data-dir="+t.TempDir(), "--remote-debugging-port=0", page)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	report := make(chan [2]string, 1)
	go func() {
		via := ""
		for said.Scan() {
			if v, ok := strings.CutPrefix(said.Text(), "opened "); ok {
				via = v
			}
			if r, ok := strings.CutPrefix(said.Text(), "report "); ok {
				report <- [2]string{r, via}
				return
			}
		}
	}()
	select {
	case r := <-report:
		if r[0] != "ok" {
			t.Errorf("the page says %s", r[0])
		}
		return r[1]
	case <-time.After(90 * time.Second):
		cmd.Process.Kill()
		cmd.Wait()
		t.Errorf("the page never came to an end; the browser said\n%s", &log)
	}
	return ""
}
