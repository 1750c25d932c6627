//go:build root

package netns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

// programs builds the real binaries once.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "meridian-netns-")
	if err != nil {
		return "", err
	}
	for _, p := range []string{"cmd/sitecontroller", "cmd/edgeproxy", "cmd/meridian", "examples/echo"} {
		out, err := exec.Command("go", "build", "-o", filepath.Join(dir, filepath.Base(p)), "../../"+p).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", p, err, out)
		}
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := programs(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// site is one place with a controller, a proxy and a backend.
type site struct {
	*Place
	t     *testing.T
	name  string
	dir   string // of the controller
	node  string // of the proxy
	bin   string
	procs map[string]*proc
	api   *siteapi.Client
	admin *http.Client
	users *http.Client
}

// proc is a process of a site, by its role.
type proc struct {
	cmd  *exec.Cmd
	done chan struct{}
}

const (
	controllerRole = "sitecontroller"
	proxyRole      = "edgeproxy"
	backendRole    = "echo"
)

func newSite(t *testing.T, p *Place, name string) *site {
	t.Helper()
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	// A Unix socket's path has 108 bytes at most.
	dir, err := os.MkdirTemp("", "mnt") //nolint:usetesting // t.TempDir is too long for that, and kept when a test fails
	if err != nil {
		t.Fatal(err)
	}
	s := &site{Place: p, t: t, name: name, dir: filepath.Join(dir, "c"), node: filepath.Join(dir, "n"), bin: bin, procs: map[string]*proc{}}
	if err := os.MkdirAll(s.node, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for role := range s.procs {
			s.signal(role, syscall.SIGKILL)
		}
		if t.Failed() {
			t.Logf("%s: files and logs are in %s", name, dir)
			return
		}
		_ = os.RemoveAll(dir)
	})
	if s.api, err = siteapi.Dial("unix:" + s.socket("api")); err != nil {
		t.Fatal(err)
	}
	unixDial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.socket("admin"))
	}
	s.admin = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: unixDial, DisableKeepAlives: true}}
	inside := func(_ context.Context, network, addr string) (c net.Conn, err error) {
		err = p.Do(func() error {
			c, err = net.DialTimeout(network, addr, 2*time.Second)
			return err
		})
		return c, err
	}
	s.users = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: inside}}
	return s
}

func (s *site) socket(name string) string { return filepath.Join(filepath.Dir(s.dir), name) }

// start starts a program of the site; its log is a file beside the data folder.
func (s *site) start(role string, args ...string) {
	s.t.Helper()
	s.startAt(s.bin, role, args...)
}

// startAt is start for a program in another folder.
func (s *site) startAt(folder, role string, args ...string) {
	s.t.Helper()
	log, err := os.OpenFile(s.socket(role+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(folder, role), args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := s.Start(cmd); err != nil {
		s.t.Fatal(err)
	}
	p := &proc{cmd, make(chan struct{})}
	go func() { _ = cmd.Wait(); close(p.done) }()
	s.procs[role] = p
}

// signal sends a signal; SIGKILL returns when the process is gone.
func (s *site) signal(role string, sig syscall.Signal) {
	p := s.procs[role]
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(sig)
	if sig == syscall.SIGKILL {
		<-p.done
		delete(s.procs, role)
	}
}

func (s *site) startController(more ...string) {
	s.t.Helper()
	_ = os.Remove(filepath.Join(s.dir, siteapi.RunFileName))
	s.start(controllerRole, append([]string{"--data", s.dir, "--api", "unix:" + s.socket("api"), "--listen", "127.0.0.1:4222"}, more...)...)
}

func (s *site) startProxy() {
	s.t.Helper()
	s.start(proxyRole, "--config", "nats://127.0.0.1:4222", "--site", s.name, "--node", "n1", "--loops", "1",
		"--nats-token-file", filepath.Join(s.dir, "node.token"), "--trust-key", filepath.Join(s.dir, "site.pub"),
		"--state-dir", s.node, "--admin", "unix:"+s.socket("admin"))
}

// run runs the command line at the site and returns what it says.
func (s *site) run(args ...string) string {
	s.t.Helper()
	ctx, done := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer done()
	out, err := s.Run(ctx, filepath.Join(s.bin, "meridian"), args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func (s *site) status(ctx context.Context) (*siteapi.Status, error) {
	ctx, done := context.WithTimeout(ctx, 3*time.Second)
	defer done()
	return s.api.Status(ctx)
}

// applied is what the proxy serves.
func (s *site) applied() (g mesh.Generation, sites map[string]float64, err error) {
	resp, err := s.admin.Get("http://admin/config")
	if err != nil {
		return g, nil, err
	}
	defer resp.Body.Close()
	var v struct {
		Generation *mesh.Generation `json:"generation"`
		Objects    *mesh.Objects    `json:"objects"`
	}
	data, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(data, &v)
	}
	if err != nil {
		return g, nil, err
	}
	if v.Generation == nil || v.Objects == nil {
		return g, nil, errors.New("nothing is served yet")
	}
	sites = map[string]float64{}
	for _, o := range v.Objects.Sites {
		sites[o.Metadata.Name] = o.Spec.Location.Lon
	}
	return *v.Generation, sites, nil
}

func within(t *testing.T, d time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > d {
			t.Fatalf("not within %s: %s", d, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return time.Since(begin)
}

// newMesh starts a hub and sites that join it by token, each with a proxy and a
// backend, and a service that all of them share.
func newMesh(t *testing.T, n *Network) []*site {
	t.Helper()
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return newMeshOf(t, n, bin)
}

// newMeshOf is newMesh with the programs of a folder.
func newMeshOf(t *testing.T, n *Network, bin string) []*site {
	t.Helper()
	var sites []*site
	for i, p := range n.Places {
		s := newSite(t, p, fmt.Sprintf("s%d", i))
		s.bin = bin
		sites = append(sites, s)
	}
	hub := sites[0]
	hub.run("--data", hub.dir, "site", "init", "--name", hub.name, "--location", "144.9,-37.8",
		"--gateway", hub.Addr.String()+":15443", "--advertise", hub.Addr.String(), "--leaf-listen", "0.0.0.0:7422")
	hub.startController()
	for i, s := range sites {
		if s != hub {
			token := ""
			within(t, 20*time.Second, "the hub to make a token", func() bool {
				ctx, done := context.WithTimeout(t.Context(), 3*time.Second)
				defer done()
				made, err := hub.api.CreateToken(ctx, siteapi.TokenRequest{Site: s.name})
				if err == nil {
					token = made.Token
				}
				return err == nil
			})
			s.run("--data", s.dir, "join", token, "--prepare", "--location", fmt.Sprintf("%g,-37.8", 144.9+float64(i)/10), "--gateway", s.Addr.String()+":15443")
			s.startController()
		}
		s.start(backendRole, "127.0.0.1:9001")
	}
	var doc strings.Builder
	doc.WriteString(ingress)
	for _, s := range sites {
		fmt.Fprintf(&doc, "  - {address: \"127.0.0.1:9001\", site: %s, capacity: {concurrency: 8, serviceTime: 5ms}}\n", s.name)
	}
	applySoon(t, hub, doc.String())
	for _, s := range sites {
		within(t, 20*time.Second, "the controller of "+s.name, func() bool { _, err := siteapi.ReadRunFile(s.dir); return err == nil })
		s.startProxy()
	}
	for _, s := range sites {
		within(t, 30*time.Second, "users of "+s.name+" to be served", func() bool { return s.ask() == nil })
	}
	return sites
}

const ingress = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: ingress}
spec:
  gatewayClassName: meridian
  listeners:
  - {name: http, port: 8080, protocol: HTTP}
  - {name: east, port: 15443, protocol: mesh.meridian.dev/EastWest}
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
  export: {scope: mesh}
  endpoints:
`

// apply writes documents at a site; the outcome of an error is not known.
func apply(ctx context.Context, s *site, yaml string) error {
	ctx, done := context.WithTimeout(ctx, 5*time.Second)
	defer done()
	r, err := s.api.Apply(ctx, siteapi.ApplyRequest{Documents: []siteapi.Document{{Name: "test.yaml", YAML: yaml}}})
	if err != nil {
		return err
	}
	if len(r.Faults) > 0 {
		return errors.New(r.Faults[0].String())
	}
	return nil
}

func applySoon(t *testing.T, s *site, yaml string) {
	t.Helper()
	err := apply(t.Context(), s, yaml)
	for end := time.Now().Add(20 * time.Second); err != nil; err = apply(t.Context(), s, yaml) {
		if time.Now().After(end) {
			t.Fatalf("no change at %s within 20s: %v", s.name, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// register is a value that is written into the configuration: a Site's longitude.
func register(name string, value int) string {
	return fmt.Sprintf("apiVersion: mesh.meridian.dev/v1alpha1\nkind: Site\nmetadata: {name: %s}\nspec:\n  location: {type: Point, coordinates: [%g, 0]}\n",
		name, longitude(value))
}

// longitude gives each value of up to 100,000 one of its own.
func longitude(value int) float64 { return float64(value) / 1000 }

// ask is one user's request.
func (s *site) ask() error {
	resp, err := s.users.Get("http://127.0.0.1:8080/")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	return nil
}

// usage counts what the users of a site see.
type usage struct {
	ok, failed atomic.Int64
	first      atomic.Pointer[string]
}

// serveUsers sends a request each 5 ms until ctx ends.
func (s *site) serveUsers(ctx context.Context, u *usage) {
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if err := s.ask(); err == nil {
			u.ok.Add(1)
		} else if ctx.Err() == nil {
			u.failed.Add(1)
			why := err.Error()
			u.first.CompareAndSwap(nil, &why)
		}
	}
}
