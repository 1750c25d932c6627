//go:build edge

package main

import (
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestSlowHTTPTest has slowhttptest attack with 4,000 connections by slow heads,
// slow bodies and slow readers: others are served throughout, memory stays within
// its limit, and the slots are free again within 15 s of the last connection
// that came.
func TestSlowHTTPTest(t *testing.T) {
	tool, err := exec.LookPath("slowhttptest")
	if err != nil {
		t.Fatalf("%v: install slowhttptest (Debian: apt-get install slowhttptest)", err)
	}
	const limit = 64 << 20
	page := strings.Repeat("x", 1<<20)
	a := startBackend(t, "a", func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil && r.URL.Path == "/page" {
			io.WriteString(w, page)
		}
	})
	for _, tt := range []struct {
		name string
		args []string
	}{
		{"heads", []string{"-H", "-i", "5", "-x", "24"}},
		{"bodies", []string{"-B", "-i", "5", "-x", "10", "-s", "8192"}},
		{"readers", []string{"-X", "-w", "512", "-y", "1024", "-n", "2", "-z", "32", "-k", "1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			config := filepath.Join(t.TempDir(), "mesh.yaml")
			put(t, config, smallest(a.address()))
			p := start(t, t.TempDir(), "--config", config, "--memory-limit", "64MiB")
			cmd := exec.Command(tool, append([]string{"-c", "4000", "-r", "1000", "-l", "30", "-p", "5", "-u", p.ingress() + "/page"}, tt.args...)...)
			out := &output{}
			cmd.Stdout, cmd.Stderr = out, out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			defer cmd.Process.Kill()
			var most, conns, came, served, failed int64
			var last, free time.Time // when the last connection came; when all were gone
			for began := time.Now(); free.IsZero(); time.Sleep(20 * time.Millisecond) {
				select {
				case err := <-ended:
					t.Logf("the tool ended after %.1f s: %v", time.Since(began).Seconds(), err)
					ended = nil
				default:
				}
				most = max(most, rss(t, p.cmd.Process.Pid))
				if status, body := fetch(t, p.ingress()+"/"); status != 200 {
					failed++
					t.Errorf("during the attack: %d %s", status, body)
				} else {
					served++
				}
				_, metrics := p.ask("/metrics")
				if n := gauge(t, metrics, "meridian_connections_total") - served - failed; n > came {
					came, last = n, time.Now()
				}
				n := gauge(t, metrics, "meridian_connections")
				conns = max(conns, n)
				if conns > 1000 && n <= 1 && time.Since(last) > time.Second || ended == nil && time.Since(began) > time.Minute {
					free = time.Now()
				}
			}
			_, metrics := p.ask("/metrics")
			for line := range strings.Lines(metrics) {
				if strings.HasPrefix(line, "meridian_slow") || strings.HasPrefix(line, "meridian_memory_") {
					t.Log(strings.TrimSpace(line))
				}
			}
			t.Logf("at most %d connections and %.1f MiB resident; all free %.1f s after the last came; of others %d served, %d not",
				conns, float64(most)/(1<<20), free.Sub(last).Seconds(), served, failed)
			if conns <= 1000 {
				t.Errorf("%d connections are no attack; slowhttptest said:\n%s", conns, out)
			}
			if free.Sub(last) > 15*time.Second {
				t.Errorf("slots were free after %v, want 15 s", free.Sub(last))
			}
			if most > limit {
				t.Errorf("%d bytes resident, limit %d", most, limit)
			}
		})
	}
}

// gauge is the value of a metric without labels.
func gauge(t *testing.T, metrics, name string) int64 {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(metrics)
	if m == nil {
		t.Fatalf("no metric %s in:\n%s", name, metrics)
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return int64(v)
}
