//go:build cluster

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

// gatewayAPI is the version of the Gateway API whose CRDs are installed.
const gatewayAPI = "sigs.k8s.io/gateway-api@v1.6.3"

// cluster is a running one, used through its command and its API server as a user
// would.
type cluster struct {
	program string
	state
	api *rest.RESTClient
	cc  *rest.Config
}

// start builds the command and a cluster, and takes it away when the test ends. When
// the test is killed the cluster ends as well.
func start(t *testing.T, name string) *cluster {
	t.Helper()
	c := &cluster{program: filepath.Join(t.TempDir(), "cluster")}
	goBuild(t, nil, c.program, "./testbed/cluster")
	began := time.Now()
	cmd := exec.Command(c.program, "run", "--name", name)
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGTERM}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	stop := owned(t, cmd)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("the cluster: %v\n%s", err, complaint.Bytes())
		}
		for _, h := range leftovers(t, name) {
			t.Errorf("the cluster left %s", h)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the cluster did not start: %v", errors.Join(err, stop()))
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	t.Logf("%s (with building %.1f s)", strings.TrimSpace(line), time.Since(began).Seconds())
	text, err := exec.Command(c.program, "status", "--name", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &c.state); err != nil {
		t.Fatal(err)
	}
	if c.cc, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig); err != nil {
		t.Fatal(err)
	}
	c.cc.QPS, c.cc.Burst = 500, 500
	c.cc.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	if c.api, err = rest.UnversionedRESTClientFor(c.cc); err != nil {
		t.Fatal(err)
	}
	return c
}

// owned starts a process of the test's and returns what ends it in order, which is
// done at the latest when the test ends. A process ends with the thread that
// started it, so that one stays.
func owned(t *testing.T, cmd *exec.Cmd) (stop func() error) {
	t.Helper()
	started, done := make(chan error), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			done <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	var ended bool
	stop = func() error {
		if ended {
			return nil
		}
		ended = true
		_ = cmd.Process.Signal(unix.SIGTERM)
		select {
		case err := <-done:
			return err
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
			return errors.Join(fmt.Errorf("%s was told to end and did not", cmd), <-done)
		}
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}

// leftovers are what is left of a cluster that has ended.
func leftovers(t *testing.T, name string) (left []string) {
	t.Helper()
	p, err := newPlace(name, "")
	if err != nil {
		t.Fatal(err)
	}
	all, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range all {
		if dir := filepath.Join(h.dir, p.cgroup()); exists(dir) {
			left = append(left, dir)
		}
	}
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, p.dir) {
			left = append(left, "the mount "+line)
		}
	}
	entries, err := os.ReadDir(p.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "lock" {
			left = append(left, p.file(e.Name()))
		}
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range processes {
		if b, err := os.ReadFile(file); err == nil && bytes.Contains(b, []byte(p.dir+"/")) {
			left = append(left, "the process "+string(bytes.ReplaceAll(b, []byte{0}, []byte{' '})))
		}
	}
	return left
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func goBuild(t *testing.T, env []string, out string, packages ...string) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"build", "-o", out}, packages...)...)
	cmd.Dir, cmd.Env = filepath.Join("..", ".."), append(os.Environ(), env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %v: %v\n%s", packages, err, text)
	}
}

// command runs a verb of the cluster's command to its end.
func (c *cluster) command(t *testing.T, verb string, args ...string) {
	t.Helper()
	if out, err := c.cmd(verb, args...).CombinedOutput(); err != nil {
		t.Fatalf("cluster %s %v: %v\n%s", verb, args, err, out)
	}
}

func (c *cluster) cmd(verb string, args ...string) *exec.Cmd {
	return exec.Command(c.program, append([]string{verb, "--name", c.Name}, args...)...)
}

// dial connects as a process in the control plane's network does.
func (c *cluster) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and nobody else finds
		// himself in the wrong network.
		runtime.LockOSThread()
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", c.Init), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			err = errors.Join(err, unix.Close(fd))
		}
		if err != nil {
			done <- result{nil, err}
			return
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// clusterWide are the kinds used here that are in no namespace.
var clusterWide = map[string]bool{"ClusterRole": true, "ClusterRoleBinding": true, "GatewayClass": true, "CustomResourceDefinition": true, "Node": true, "Namespace": true}

// objectPath is where the API server has an object, and its list when name is empty.
func objectPath(apiVersion, kind, name string) string {
	base := "/apis/"
	if !strings.Contains(apiVersion, "/") {
		base = "/api/"
	}
	base += apiVersion
	if !clusterWide[kind] {
		base += "/namespaces/default"
	}
	plural := strings.ToLower(kind) + "s"
	if strings.HasSuffix(kind, "s") {
		plural = strings.ToLower(kind) + "es"
	}
	base += "/" + plural
	if name != "" {
		base += "/" + name
	}
	return base
}

// apply makes objects as they stand in YAML documents.
func (c *cluster) apply(t *testing.T, documents string) {
	t.Helper()
	for _, doc := range strings.Split(documents, "\n---\n") {
		var o struct {
			APIVersion, Kind string
			Metadata         struct{ Name string }
		}
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Fatalf("%v:\n%s", err, doc)
		}
		if o.Kind == "" {
			continue // comments only
		}
		at := objectPath(o.APIVersion, o.Kind, o.Metadata.Name)
		eventually(t, "apply "+at, func() error {
			// A kind that was defined a moment ago is not served yet.
			_, err := c.api.Patch("application/apply-patch+yaml").AbsPath(at).Param("fieldManager", "test").Param("force", "true").
				Body([]byte(doc)).DoRaw(t.Context())
			return err
		})
	}
}

// merge changes fields of an object.
func (c *cluster) merge(t *testing.T, at, patch string) {
	t.Helper()
	if _, err := c.api.Patch("application/merge-patch+json").AbsPath(at).Body([]byte(patch)).DoRaw(t.Context()); err != nil {
		t.Fatalf("change %s: %v", at, err)
	}
}

func (c *cluster) post(t *testing.T, at, body string, into any) {
	t.Helper()
	b, err := c.api.Post().AbsPath(at).SetHeader("Content-Type", "application/json").Body([]byte(body)).DoRaw(t.Context())
	if err != nil {
		t.Fatalf("post %s: %v", at, err)
	}
	if into != nil {
		if err := json.Unmarshal(b, into); err != nil {
			t.Fatal(err)
		}
	}
}

func (c *cluster) get(t *testing.T, at string, into any, params ...string) {
	t.Helper()
	r := c.api.Get().AbsPath(at)
	for i := 0; i+1 < len(params); i += 2 {
		r.Param(params[i], params[i+1])
	}
	b, err := r.DoRaw(t.Context())
	if err != nil {
		t.Fatalf("get %s: %v", at, err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatalf("get %s: %v", at, err)
	}
}

// install installs the kinds of the Gateway API and of the mesh, and the rights and
// class of the bridge.
func (c *cluster) install(t *testing.T) {
	t.Helper()
	out, err := exec.Command("go", "mod", "download", "-json", gatewayAPI).Output()
	if err != nil {
		t.Fatalf("download %s: %v", gatewayAPI, err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	deploy := filepath.Join("..", "..", "deploy")
	for _, pattern := range []string{
		filepath.Join(module.Dir, "config", "crd", "standard", "gateway.networking.k8s.io_*s.yaml"),
		filepath.Join(deploy, "crds", "*.yaml"), filepath.Join(deploy, "kube", "*.yaml"),
	} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("no files %s: %v", pattern, err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(filepath.Base(f), "vap_") {
				c.apply(t, string(b))
			}
		}
	}
}

// account makes a service account with the bridge's rights and returns a kubeconfig
// that uses it.
func (c *cluster) account(t *testing.T) string {
	t.Helper()
	c.apply(t, `apiVersion: v1
kind: ServiceAccount
metadata: {name: bridge}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: bridge}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: meridian-sitecontroller}
subjects: [{kind: ServiceAccount, name: bridge, namespace: default}]
`)
	var token struct{ Status struct{ Token string } }
	c.post(t, objectPath("v1", "ServiceAccount", "bridge")+"/token", `{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}}`, &token)
	config, err := clientcmd.LoadFromFile(c.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range config.AuthInfos {
		u.ClientCertificateData, u.ClientKeyData, u.Token = nil, nil, token.Status.Token
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		t.Fatal(err)
	}
	return file
}

// eventually waits until there is no error.
func eventually(t *testing.T, what string, wrong func() error) {
	t.Helper()
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		err := wrong()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}
