//go:build root

package controller_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/controller"
	"github.com/meridian-mesh/meridian/controller/export"
)

// backend works on some requests at once and lets the others wait.
type backend struct {
	addr   string
	served atomic.Int64
}

func newBackend(t *testing.T, slots int, each time.Duration) *backend {
	t.Helper()
	b := &backend{}
	free := make(chan struct{}, slots)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.addr = l.Addr().String()
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		free <- struct{}{}
		time.Sleep(each)
		<-free
		b.served.Add(1)
		fmt.Fprintln(w, "ok")
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return b
}

// haproxy starts an unmodified HAProxy for a site: its users' backend has all
// sites, and what the other site sends has a backend of its own.
func haproxy(t *testing.T, site, other string, here *backend, users, east, eastOther int) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "mha") //nolint:usetesting // a Unix socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "s")
	config := fmt.Sprintf(`global
  stats socket %s mode 600 level admin
defaults
  mode http
  timeout connect 2s
  timeout client 30s
  timeout server 30s
frontend users
  bind 127.0.0.1:%d
  default_backend shop
frontend east
  bind 127.0.0.1:%d
  default_backend shop_from_%s
backend shop
  balance roundrobin
  server %s %s weight 256
  server %s 127.0.0.1:%d weight 0
backend shop_from_%s
  server %s %s
`, socket, users, east, other, site, here.addr, other, eastOther, other, site, here.addr)
	path := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("haproxy", "-db", "-f", path)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("haproxy (Debian package haproxy): %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	})
	within(t, 10*time.Second, "haproxy", func() bool { _, err := os.Stat(socket); return err == nil })
	return socket
}

// TestRootHAProxyFollows needs no root but a HAProxy. One of two sites gets half as
// much again as it can serve; its unmodified HAProxy, fed by its controller, sends
// the rest to the other site, and the queue that was there goes.
func TestRootHAProxyFollows(t *testing.T) {
	backends := map[string]*backend{"a": newBackend(t, 4, 20*time.Millisecond), "b": newBackend(t, 8, 20*time.Millisecond)}
	free := freePorts(t, 4)
	users := map[string]int{"a": free[0], "b": free[1]}
	east := map[string]int{"a": free[2], "b": free[3]}
	sockets := map[string]string{
		"a": haproxy(t, "a", "b", backends["a"], users["a"], east["a"], east["b"]),
		"b": haproxy(t, "b", "a", backends["b"], users["b"], east["b"], east["a"]),
	}
	follow := func(site, other string) controller.Export {
		return controller.Export{HAProxy: []export.HAProxy{{
			Socket: sockets[site], Service: "default/shop", Backend: "shop", From: map[string]string{other: "shop_from_" + other},
		}}}
	}
	eds := filepath.Join(t.TempDir(), "eds.json")
	hubConfig := controller.Config{Site: "a", Hub: true, Export: follow("a", "b")}
	hubConfig.Export.EnvoyFile = eds
	hub := start(t, hubConfig)
	leaf := leafConfig("b", hub.run.Leaf, hub)
	leaf.Export = follow("b", "a")
	start(t, leaf)
	doc := "apiVersion: mesh.meridian.dev/v1alpha1\nkind: MeshService\nmetadata: {name: shop}\nspec:\n  ports: [{port: 80}]\n  export: {scope: mesh}\n  endpoints:\n"
	for site, slots := range map[string]int{"a": 4, "b": 8} {
		doc += fmt.Sprintf("  - {address: %q, site: %s, capacity: {concurrency: %d, serviceTime: 20ms}}\n", backends[site].addr, site, slots)
	}
	for i, site := range []string{"a", "b"} {
		doc += fmt.Sprintf("---\napiVersion: mesh.meridian.dev/v1alpha1\nkind: Site\nmetadata: {name: %s}\nspec:\n  location: {type: Point, coordinates: [%g, 0]}\n  gateways: [{address: \"127.0.0.1:%d\"}]\n", site, float64(i)/10, east[site])
	}
	hub.must(doc)

	// 300 a second where 200 can be served.
	var mu sync.Mutex
	var took []time.Duration
	var failed atomic.Int64
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 512}}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(time.Second / 300)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			wg.Go(func() {
				begin := time.Now()
				resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", users["a"]))
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
				if err != nil || resp.StatusCode != http.StatusOK {
					failed.Add(1)
					return
				}
				mu.Lock()
				took = append(took, time.Since(begin))
				mu.Unlock()
			})
		}
	})
	median := func(last int) time.Duration {
		mu.Lock()
		defer mu.Unlock()
		if len(took) < last {
			return time.Hour
		}
		x := slices.Clone(took[len(took)-last:])
		slices.Sort(x)
		return x[len(x)/2]
	}
	within(t, 30*time.Second, "requests to leave the hot site", func() bool { return backends["b"].served.Load() > 300 })
	within(t, 30*time.Second, "the queue to go", func() bool { return median(300) < 60*time.Millisecond })
	time.Sleep(3 * time.Second)
	close(stop)
	wg.Wait()
	if m := median(600); m > 80*time.Millisecond || failed.Load() > 0 {
		t.Errorf("median %s after settling, %d failed", m, failed.Load())
	}
	t.Logf("median %s after settling; served at a %d, at b %d", median(600), backends["a"].served.Load(), backends["b"].served.Load())
	if data, err := os.ReadFile(eds); err != nil || !strings.Contains(string(data), `"zone": "b"`) {
		t.Errorf("the file for Envoy: %v\n%s", err, data)
	}
}

func freePorts(t *testing.T, n int) (ports []int) {
	t.Helper()
	var held []net.Listener
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, l)
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	for _, l := range held {
		_ = l.Close()
	}
	return ports
}
