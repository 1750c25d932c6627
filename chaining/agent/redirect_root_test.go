//go:build root

package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/internal/nstest"
)

// TestMain lets the test program be the processes whose connections are redirected.
func TestMain(m *testing.M) {
	if address := os.Getenv("MERIDIAN_TEST_ASKS"); address != "" {
		asks(address)
		return
	}
	os.Exit(m.Run())
}

// asks sends one request for each connection until its input ends, and then says how many
// were answered and how many not, with the last reason.
func asks(address string) {
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(done)
	}()
	answered, failed, last := 0, 0, ""
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		select {
		case <-done:
			fmt.Printf("%d %d %s\n", answered, failed, last)
			return
		default:
		}
		r, err := client.Get(address)
		if err == nil {
			_, err = io.Copy(io.Discard, r.Body)
			r.Body.Close()
		}
		if err == nil && r.StatusCode != http.StatusOK {
			err = errors.New(r.Status)
		}
		if err != nil {
			failed, last = failed+1, err.Error()
			continue
		}
		answered++
	}
}

// groupOf makes a control group until the test ends, and returns its path and its name.
func groupOf(t *testing.T, name string) (path, group string) {
	t.Helper()
	root := ""
	mounts, err := os.Open("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	defer mounts.Close()
	for s := bufio.NewScanner(mounts); s.Scan(); {
		if f := strings.Fields(s.Text()); f[2] == "cgroup2" {
			root = f[1]
			break
		}
	}
	if root == "" {
		t.Skip("cgroup v2 is mounted nowhere")
	}
	group = fmt.Sprintf("/meridian-agent-%d-%s", os.Getpid(), name)
	path = filepath.Join(root, group)
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		var err error
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if err = os.Remove(path); err == nil {
				return
			}
		}
		t.Error(err)
	})
	return path, group
}

// startIn starts a program in a control group and a namespace.
func startIn(t *testing.T, n *nstest.Namespace, group string, cmd *exec.Cmd) {
	t.Helper()
	fd, err := unix.Open(group, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	if err := n.Start(cmd); err != nil {
		t.Fatal(err)
	}
}

// whose serves HTTP in a namespace: every answer is the name, and the client's address.
func whose(t *testing.T, n *nstest.Namespace, address, name string) {
	t.Helper()
	var l net.Listener
	if err := n.Do(func() (err error) { l, err = net.Listen("tcp", address); return err }); err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "%s %s", name, host)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }() // it ends when the test does
	t.Cleanup(func() { s.Close(); <-done })
}

const redirected = `apiVersion: mesh.meridian.dev/v1alpha1
kind: ChainNode
metadata: {name: edge}
spec:
  redirect:
    controlGroups: [%s]
    proxy: {controlGroup: %s, addresses: ["10.1.0.1:15001", "[fd00:1::1]:15001"]}
    destinations: [{network: 10.2.0.0/24}]
    exclude: {destinations: [{network: 10.2.0.2/32, ports: [8089]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: node}
spec:
  gatewayClassName: meridian
  listeners: [{name: outbound, port: 15001, protocol: mesh.meridian.dev/Outbound}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: shop}
spec:
  ports: [{port: 80}]
  addresses: [10.96.0.10, "fd00:96::10"]
  endpoints: [{address: "10.2.0.2:9001"}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: shop-v2}
spec:
  ports: [{port: 80}]
  endpoints: [{address: "10.2.0.2:9002"}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{group: mesh.meridian.dev, kind: MeshService, name: shop}]
  rules:
  - matches: [{path: {value: /v2}}]
    backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: shop-v2, port: 80}]
  - matches: [{path: {value: /v1}}]
    backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: shop, port: 80}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: cart}
spec:
  ports: [{port: 80}, {port: 5432, protocol: tcp}]
  addresses: [10.96.0.11]
  endpoints: [{address: "10.2.0.2:9003"}]
`

// TestRootRedirected: a real agent and a real proxy take what processes in a namespace
// of their own, as pods are, send to addresses that no machine has.
func TestRootRedirected(t *testing.T) {
	s := newSite(t, 0)
	s.client.IP("link set lo up")
	s.client.IP("addr add fd00:1::2/64 dev eth0 nodad")
	s.node.IP("addr add fd00:1::1/64 dev c0 nodad")
	s.client.IP("-6 route add default via fd00:1::1")
	s.server.IP("route replace default via 10.2.0.1")
	for port, name := range map[string]string{"9001": "one", "9002": "two", "9003": "three", "8088": "outside", "8089": "spared"} {
		whose(t, s.server, "10.2.0.2:"+port, name)
	}
	pods, podsName := groupOf(t, "pods")
	proxyGroup, proxyName := groupOf(t, "proxy")
	config := filepath.Join(s.dir, "chains.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, redirected, podsName, proxyName), 0o600); err != nil {
		t.Fatal(err)
	}
	proxyBinary := s.build("edgeproxy")
	log, err := os.Create(filepath.Join(s.dir, "proxy.log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("log of the proxy:\n%s", text)
		}
	})
	startProxy := func() *exec.Cmd {
		t.Helper()
		cmd := exec.Command(proxyBinary, "--config", config, "--admin", "off", "--drain-timeout", "1s")
		cmd.Stdout, cmd.Stderr = log, log
		startIn(t, s.node, proxyGroup, cmd)
		t.Cleanup(func() {
			if cmd.ProcessState == nil {
				_ = cmd.Process.Kill() // it may have ended meanwhile
				_ = cmd.Wait()
			}
		})
		return cmd
	}
	proxy := startProxy()
	s.start()
	get := func(url string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, "curl", "-sS", "-g", "--max-time", "10", "-w", " %{http_code}", url)
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		startIn(t, s.client, pods, cmd)
		if err := cmd.Wait(); err != nil {
			return out.String() + ": " + err.Error()
		}
		return out.String()
	}
	until := func(url, want string) {
		t.Helper()
		last := ""
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if last = get(url); last == want {
				return
			}
		}
		t.Fatalf("%s: %q, want %q", url, last, want)
	}
	expect := func(url, want string) {
		t.Helper()
		if got := get(url); got != want {
			t.Errorf("%s: %q, want %q", url, got, want)
		}
	}
	// The proxy is seen to listen a second after it does, at most.
	until("http://10.96.0.10/v1", "one 10.2.0.1 200")
	until("http://[fd00:96::10]/v1", "one 10.2.0.1 200")
	expect("http://10.96.0.10/v2", "two 10.2.0.1 200")
	expect("http://[fd00:96::10]/v2", "two 10.2.0.1 200")
	expect("http://10.96.0.10/", "no route matches this request\n 404") // no rule of the service's route
	expect("http://10.96.0.11/", "three 10.2.0.1 200")
	expect("http://10.96.0.11:5432/", "three 10.2.0.1 200")
	expect("http://10.2.0.2:8088/", "outside 10.2.0.1 200") // through the proxy, to where it was to go
	expect("http://10.2.0.2:8089/", "spared 10.1.0.2 200")  // straight
	if got := get("http://10.2.0.2:8090/"); !strings.Contains(got, " 000") {
		t.Errorf("to a port that nobody listens at: %q", got)
	}
	if got := get("http://10.1.0.1:15001/"); !strings.Contains(got, " 000") {
		t.Errorf("to the proxy itself: %q", got)
	}

	// The agent is killed and starts again, over and over, under load: nothing is lost.
	load := exec.Command("/proc/self/exe")
	load.Env = append(os.Environ(), "MERIDIAN_TEST_ASKS=http://10.96.0.10/v1")
	in, err := load.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	load.Stdout = &said
	startIn(t, s.client, pods, load)
	for range 3 {
		time.Sleep(200 * time.Millisecond)
		s.end(syscall.SIGKILL)
		time.Sleep(200 * time.Millisecond)
		s.start()
	}
	in.Close()
	if err := load.Wait(); err != nil {
		t.Fatal(err)
	}
	var answered, failed int
	if _, err := fmt.Sscan(said.String(), &answered, &failed); err != nil || answered < 100 || failed != 0 {
		t.Errorf("answered, failed: %s, %v", said.String(), err)
	}
	t.Logf("with the agent killed three times: %s", said.String())

	// Without the proxy what can go straight does; with it again, it does not.
	if err := proxy.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := proxy.Wait(); err != nil {
		t.Error(err)
	}
	until("http://10.2.0.2:8088/", "outside 10.1.0.2 200")
	startProxy()
	until("http://10.2.0.2:8088/", "outside 10.2.0.1 200")
	s.until("connections are counted", func(st *Status) bool {
		return st.Redirect != nil && st.Redirect.Fault == "" && st.Redirect.Redirected > 100 && st.Redirect.Excluded > 0 && st.Redirect.NotListening > 0
	})

	// What is taken out of the kernel is gone.
	s.end(syscall.SIGTERM)
	until("http://10.2.0.2:8088/", "outside 10.2.0.1 200")
	if out, err := exec.Command(s.binary, "--detach", "--pins", s.pins).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	expect("http://10.2.0.2:8088/", "outside 10.1.0.2 200")
}
