package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// smallest is the smallest useful file, with a port that the kernel chooses.
func smallest(endpoints ...string) string {
	for i, e := range endpoints {
		endpoints[i] = fmt.Sprintf("{address: %q}", e)
	}
	return fmt.Sprintf(`apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: ingress}
spec:
  gatewayClassName: meridian
  addresses: [{type: IPAddress, value: 127.0.0.1}]
  listeners: [{name: http, port: 0, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: all}
spec:
  parentRefs: [{name: ingress}]
  rules:
  - backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: echo, port: 80}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: echo}
spec:
  ports: [{name: http, port: 80, protocol: http}]
  endpoints: [%s]
`, strings.Join(endpoints, ", "))
}

// ingress is the URL of the listener of the smallest file.
func (p *proxy) ingress() string { return "http://" + p.listener("default/ingress/http") }

func TestSmallestFile(t *testing.T) {
	a, b := startBackend(t, "a", nil), startBackend(t, "b", nil)
	path := filepath.Join(t.TempDir(), "mesh.yaml")
	put(t, path, smallest(a.address(), b.address()))
	p := start(t, t.TempDir(), "--config", path)
	for range 40 {
		if status, body := fetch(t, p.ingress()+"/x"); status != 200 {
			t.Fatalf("%d %s", status, body)
		}
	}
	if a.requests.Load() == 0 || b.requests.Load() == 0 {
		t.Errorf("a served %d, b %d", a.requests.Load(), b.requests.Load())
	}
	p.says("/upstreams", `"requests": `+fmt.Sprint(a.requests.Load()))
	p.says("/metrics", `meridian_requests_total{service="default/echo",class="2xx",flag=""} 40`)
	for _, page := range []string{"/", "/healthz", "/readyz?verbose", "/metrics", "/config", "/config?format=yaml", "/upstreams", "/upstreams?format=text", "/weights", "/weights?format=text", "/debug/pprof/", "/debug/pprof/goroutine?debug=1"} {
		if status, body := p.ask(page); status != 200 || body == "" {
			t.Errorf("%s: %d %q", page, status, body)
		}
	}
}

// What /config?format=yaml says is a configuration that serves the same.
func TestConfigRoundTrip(t *testing.T) {
	a := startBackend(t, "a", nil)
	path := filepath.Join(t.TempDir(), "mesh.yaml")
	put(t, path, smallest(a.address()))
	_, body := start(t, t.TempDir(), "--config", path).ask("/config?format=yaml")
	again := filepath.Join(t.TempDir(), "again.yaml")
	put(t, again, body)
	p := start(t, t.TempDir(), "--config", again)
	if status, got := fetch(t, p.ingress()); status != 200 || got != "a\n" {
		t.Errorf("%d %q", status, got)
	}
}

func TestReload(t *testing.T) {
	a, b := startBackend(t, "a", nil), startBackend(t, "b", nil)
	path := filepath.Join(t.TempDir(), "mesh.yaml")
	put(t, path, smallest(a.address()))
	p := start(t, t.TempDir(), "--config", path)
	serves := func(want string) {
		t.Helper()
		if status, got := fetch(t, p.ingress()); status != 200 || got != want+"\n" {
			t.Fatalf("%d %q, want %s", status, got, want)
		}
	}
	serves("a")

	put(t, path, strings.Replace(smallest(b.address()), "parentRefs", "parentRef", 1))
	fault := path + ":13:3: spec: unknown field \"parentRef\""
	p.says("/readyz?verbose", fault)
	p.says("/config", "unknown field")
	p.says("/metrics", "meridian_config_last_reload_successful 0\n")
	p.says("/metrics", `meridian_config_refusals_total{reason="invalid"} 1`+"\n")
	if !strings.Contains(p.stderr.String(), path+":13:3") {
		t.Errorf("the log does not name the place")
	}
	if status, _ := p.ask("/readyz"); status != 200 {
		t.Errorf("a refused file took the node out of service: %d", status)
	}
	serves("a")

	put(t, path, smallest(b.address()))
	p.says("/metrics", "meridian_config_last_reload_successful 1\n")
	serves("b")
	p.says("/metrics", "meridian_config_generation_counter 2\n")

	reloads := strings.Count(p.stderr.String(), "read again")
	p.signal(syscall.SIGHUP)
	eventually(t, "SIGHUP reads again", func() bool { return strings.Count(p.stderr.String(), "read again") > reloads })
	serves("b")
	if _, body := p.ask("/metrics"); !strings.Contains(body, "meridian_config_generation_counter 2\n") {
		t.Error("reading the same again made a new generation")
	}
}

func TestStartBroken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mesh.yaml")
	put(t, path, "kind: Gateway\n")
	p := launch(t, t.TempDir(), "--config", path)
	if code := p.wait(); code != exitFailed || !strings.Contains(p.stderr.String(), path+":1:") {
		t.Errorf("exit %d, said %s", code, p.stderr)
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "mesh.yaml")
	check := func() (int, string) {
		t.Helper()
		cmd := program(t, "--config", path, "--check")
		out, err := cmd.CombinedOutput()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), string(out)
	}
	put(t, path, smallest("127.0.0.1:9001", "127.0.0.1:9002"))
	if code, out := check(); code != 0 || !strings.Contains(out, "1 Gateway, 1 HTTPRoute, 1 MeshService") {
		t.Errorf("good file: exit %d: %s", code, out)
	}
	bad := strings.Replace(smallest("127.0.0.1:9001", "nowhere"), "gatewayClassName: meridian", "gatewayClassName: 7", 1)
	put(t, path, strings.Replace(bad, "rules:", "rulez:", 1))
	code, out := check()
	if code != exitFailed {
		t.Errorf("bad file: exit %d", code)
	}
	for _, want := range []string{path + ":5:", path + ":14:", path + ":22:", "rulez", "gatewayClassName", "nowhere"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
	put(t, path, strings.Replace(smallest("127.0.0.1:9001"), "name: echo, port", "name: ecco, port", 1))
	if code, out := check(); code != exitFailed || !strings.Contains(out, "ecco") {
		t.Errorf("dangling reference: exit %d: %s", code, out)
	}
	put(t, path, smallest("127.0.0.1:9001")+"---\napiVersion: mesh.meridian.dev/v1alpha1\nkind: Certificate\nmetadata: {name: shop}\nspec: {certificateFile: "+dir+"/shop.crt}\n")
	if code, out := check(); code != exitFailed || !strings.Contains(out, "Certificate/default/shop: spec: InvalidCertificate: "+dir+"/shop.crt does not exist") {
		t.Errorf("missing file: exit %d: %s", code, out)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("--check left %v behind (%v)", entries, err)
	}
}

func TestDrain(t *testing.T) {
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	a := startBackend(t, "a", func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-release
		fmt.Fprint(w, "late")
	})
	path := filepath.Join(t.TempDir(), "mesh.yaml")
	put(t, path, smallest(a.address()))
	p := start(t, t.TempDir(), "--config", path)
	type answer struct {
		status int
		body   string
	}
	got := make(chan answer, 1)
	go func() {
		status, body := fetch(t, p.ingress())
		got <- answer{status, body}
	}()
	<-arrived
	addr := p.listener("default/ingress/http")
	p.signal(syscall.SIGTERM)
	eventually(t, "a draining node takes no connection", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if status, body := p.ask("/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "stopping") {
		t.Errorf("readyz while draining: %d %q", status, body)
	}
	close(release)
	if g := <-got; g.status != 200 || g.body != "late" {
		t.Errorf("request in flight: %d %q", g.status, g.body)
	}
	if code := p.wait(); code != exitOK {
		t.Errorf("exit %d after a drain", code)
	}
	if _, err := os.Stat(filepath.Join(p.state, "run.json")); !os.IsNotExist(err) {
		t.Errorf("run.json is left: %v", err)
	}
}

func TestDrain_bounds(t *testing.T) {
	for _, tt := range []struct {
		name    string
		timeout string
		signals int
		code    int
	}{
		{"timeout", "300ms", 1, exitOK},
		{"second signal", "1h", 2, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			arrived, release := make(chan struct{}, 1), make(chan struct{})
			defer close(release)
			a := startBackend(t, "a", func(http.ResponseWriter, *http.Request) {
				arrived <- struct{}{}
				<-release
			})
			path := filepath.Join(t.TempDir(), "mesh.yaml")
			put(t, path, smallest(a.address()))
			p := start(t, t.TempDir(), "--config", path, "--drain-timeout", tt.timeout)
			go fetch(t, p.ingress())
			<-arrived
			p.signal(syscall.SIGTERM)
			eventually(t, "it drains", func() bool { return strings.Contains(p.stderr.String(), "draining") })
			if tt.signals > 1 {
				p.signal(syscall.SIGTERM)
			}
			if code := p.wait(); code != tt.code {
				t.Errorf("exit %d, want %d", code, tt.code)
			}
		})
	}
}

func TestFlags(t *testing.T) {
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"--help", exitOK, "Examples:"},
		{"--version", exitOK, "edgeproxy "},
		{"", exitUsage, "--config is needed"},
		{"--config http://x", exitUsage, "nats://"},
		{"--config nats://x", exitUsage, "--site is needed"},
		{"--config x --nats-token-file y", exitUsage, "--nats-token-file"},
		{"--config x --trust-key y", exitUsage, "--trust-key"},
		{"--config x --workload a/b", exitUsage, "--workload is for --config nats://"},
		{"--config nats://x --site s --workload-token-file t", exitUsage, "whose token is it"},
		{"--config nats://x --site s --workload web", exitUsage, "want namespace/account"},
		{"--config nats://x --site s --workload meridian/n2", exitUsage, "those of nodes"},
		{"--config nats://x --site s --workload shop/a/b", exitUsage, "only letters"},
		{"--config x --loops -1", exitUsage, "--loops"},
		{"--config x --resolver 10.0.0.1", exitUsage, "-resolver"},
		{"--config x --client-max-age -1s", exitUsage, "--client-max-age"},
		{"--config x --client-max-requests -1", exitUsage, "--client-max-requests"},
		{"--config x --log-format xml", exitUsage, "xml"},
		{"--config x --log-level loud", exitUsage, "loud"},
		{"--config x y", exitUsage, `"y"`},
		{"--confg x", exitUsage, "confg"},
		{"--config /nonexistent --admin off", exitFailed, "no such file"},
		{"--config /nonexistent --admin 0.0.0.0:0", exitFailed, "--admin-allow-remote"},
	} {
		cmd := program(t, strings.Fields(tt.args)...)
		out, err := cmd.CombinedOutput()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if code := cmd.ProcessState.ExitCode(); code != tt.code || !strings.Contains(string(out), tt.want) {
			t.Errorf("edgeproxy %s: exit %d, want %d and %q:\n%s", tt.args, code, tt.code, tt.want, out)
		}
	}
}

// Nothing heavy comes along, and an idle node is small.
func TestWeight(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range strings.Lines(string(out)) {
		for _, heavy := range []string{"github.com/nats-io/nats-server", "google.golang.org/", "github.com/prometheus", "go.opentelemetry.io", "k8s.io/"} {
			if strings.HasPrefix(pkg, heavy) {
				t.Errorf("edgeproxy links %s", pkg)
			}
		}
	}
	binary := filepath.Join(t.TempDir(), "edgeproxy")
	if out, err := exec.Command("go", "build", "-tags", "nethttpomithttp2", "-trimpath", "-ldflags=-s -w", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	info, err := os.Stat(binary)
	if err != nil {
		t.Fatal(err)
	}
	if mib := float64(info.Size()) / (1 << 20); mib > 14.8 {
		t.Errorf("binary has %.2f MiB, over 14.8: it had 14.63", mib)
	}
	path := filepath.Join(t.TempDir(), "mesh.yaml")
	put(t, path, smallest(deadAddress(t)))
	cmd := exec.Command(binary, "--config", path, "--admin", "127.0.0.1:0")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	time.Sleep(time.Second)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	// Anonymous memory is the node's own; pages of the binary are shared and given back.
	sizes := map[string]float64{}
	for line := range strings.Lines(string(status)) {
		var kib float64
		if name, v, ok := strings.Cut(line, ":"); ok {
			if _, err := fmt.Sscan(v, &kib); err == nil {
				sizes[name] = kib / 1024
			}
		}
	}
	t.Logf("binary %.1f MiB; idle: resident %.1f MiB, of it anonymous %.1f MiB", float64(info.Size())/(1<<20), sizes["VmRSS"], sizes["RssAnon"])
	if sizes["VmRSS"] > 16 || sizes["RssAnon"] > 6 {
		t.Errorf("idle: resident %.1f MiB, anonymous %.1f MiB", sizes["VmRSS"], sizes["RssAnon"])
	}
}

// run.json is for programs: its fields are an interface.
func TestRunFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mesh.yaml")
	put(t, path, smallest(deadAddress(t)))
	p := start(t, t.TempDir(), "--config", path, "--site", "north", "--node", "n1")
	data, err := os.ReadFile(filepath.Join(p.state, "run.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if got["pid"] != float64(p.cmd.Process.Pid) || got["site"] != "north" || got["node"] != "n1" || got["admin"] != p.run.Admin {
		t.Errorf("run.json: %s", data)
	}
	l := got["listeners"].([]any)[0].(map[string]any)
	if l["gateway"] != "default/ingress" || l["name"] != "http" || l["protocol"] != "HTTP" || !strings.HasPrefix(l["address"].(string), "127.0.0.1:") {
		t.Errorf("listener: %v", l)
	}
}
