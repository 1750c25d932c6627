package natstest

import (
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// nodeEnv makes a test binary that imports this package a NATS server instead.
const nodeEnv = "MERIDIAN_TEST_NATS_NODE"

func init() {
	if spec := os.Getenv(nodeEnv); spec != "" {
		fmt.Fprintln(os.Stderr, serve(spec))
		os.Exit(1)
	}
}

// node is one server of a cluster, as its process is told.
type node struct {
	Name, Dir, Token string
	Client, Route    int
	Routes           []int
}

// serve runs the server until the process is killed.
func serve(spec string) error {
	var n node
	if err := json.Unmarshal([]byte(spec), &n); err != nil {
		return err
	}
	o := &natsserver.Options{
		ServerName: n.Name, Host: "127.0.0.1", Port: n.Client, NoSigs: true, NoLog: true, Authorization: n.Token,
		JetStream: true, StoreDir: n.Dir, SyncAlways: true, JetStreamMaxMemory: 32 << 20, JetStreamMaxStore: 128 << 20,
		Cluster: natsserver.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: n.Route},
	}
	for _, port := range n.Routes {
		o.Routes = append(o.Routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", port)})
	}
	s, err := natsserver.NewServer(o)
	if err != nil {
		return err
	}
	s.Start()
	// An orphan must not outlive the test that was killed.
	for os.Getppid() != 1 {
		time.Sleep(200 * time.Millisecond)
	}
	return nil
}

// Cluster is a NATS of several servers, each in a process of its own.
type Cluster struct {
	// URL has all servers; TokenFile what to connect with.
	URL, TokenFile string
	t              *testing.T
	nodes          []node
	procs          []*exec.Cmd
}

// NewCluster starts n servers with JetStream. They need a moment to elect a leader.
func NewCluster(t *testing.T, n int) *Cluster {
	t.Helper()
	dir := t.TempDir()
	c := &Cluster{t: t, TokenFile: dir + "/token", procs: make([]*exec.Cmd, n)}
	token := fmt.Sprintf("test-%x", time.Now().UnixNano())
	if err := os.WriteFile(c.TokenFile, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	ports := freePorts(t, 2*n)
	var urls []string
	for i := range n {
		c.nodes = append(c.nodes, node{
			Name: fmt.Sprintf("n%d", i), Dir: fmt.Sprintf("%s/n%d", dir, i), Token: token,
			Client: ports[2*i], Route: ports[2*i+1],
		})
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", ports[2*i]))
	}
	c.URL = strings.Join(urls, ",")
	for i := range n {
		for j := range n {
			if j != i {
				c.nodes[i].Routes = append(c.nodes[i].Routes, c.nodes[j].Route)
			}
		}
		c.Start(i)
		t.Cleanup(func() { c.Kill(i) })
	}
	return c
}

// Start starts a server that is not running.
func (c *Cluster) Start(i int) {
	c.t.Helper()
	spec, err := json.Marshal(c.nodes[i])
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), nodeEnv+"="+string(spec))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.procs[i] = cmd
}

// Signal sends one server a signal.
func (c *Cluster) Signal(i int, s syscall.Signal) {
	if p := c.procs[i]; p != nil {
		_ = p.Process.Signal(s)
	}
}

// Kill ends a server as a crash would.
func (c *Cluster) Kill(i int) {
	if p := c.procs[i]; p != nil {
		_ = p.Process.Kill()
		_ = p.Wait()
		c.procs[i] = nil
	}
}

func freePorts(t *testing.T, n int) (ports []int) {
	t.Helper()
	// All are held until all are known, so that no two are the same.
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
