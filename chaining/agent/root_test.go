//go:build root

package agent

import (
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
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/internal/nstest"
)

// site is one node with a client, a server and router functions, and a real agent.
type site struct {
	t                    *testing.T
	client, server, node *nstest.Namespace
	routers              []*nstest.Namespace
	dir, binary, pins    string
	process              *exec.Cmd
	datapath             string // for --datapath; empty: auto
	name                 string // of the ChainNode; empty: edge
	interval             string // of health probes; empty: 100ms
}

func newSite(t *testing.T, routers int) *site {
	s := &site{t: t, client: nstest.New(t, "c"), server: nstest.New(t, "s"), node: nstest.New(t, "n"), dir: t.TempDir()}
	s.node.Sysctl("net.ipv4.ip_forward", "1")
	s.node.Sysctl("net.ipv4.conf.all.rp_filter", "0")
	s.node.Sysctl("net.ipv4.conf.default.rp_filter", "0")
	for i, h := range []*nstest.Namespace{s.client, s.server} {
		port := []string{"c0", "s0"}[i]
		nstest.Veth(h, "eth0", s.node, port)
		h.IP(fmt.Sprintf("addr add 10.%d.0.2/24 dev eth0", i+1))
		s.node.IP(fmt.Sprintf("addr add 10.%d.0.1/24 dev %s", i+1, port))
		h.IP(fmt.Sprintf("route add default via 10.%d.0.1", i+1))
	}
	for i := 1; i <= routers; i++ {
		r := nstest.New(t, fmt.Sprintf("r%d", i))
		r.Sysctl("net.ipv4.ip_forward", "1")
		r.Sysctl("net.ipv4.conf.all.rp_filter", "0")
		r.Sysctl("net.ipv4.conf.default.rp_filter", "0")
		for side, name := range []string{"l", "r"} {
			nstest.Veth(s.node, fmt.Sprintf("f%d%s", i, name), r, "eth"+name)
			s.node.IP(fmt.Sprintf("addr add 10.9.%d.%d/30 dev f%d%s", i, 4*side+1, i, name))
			r.IP(fmt.Sprintf("addr add 10.9.%d.%d/30 dev eth%s", i, 4*side+2, name))
			r.IP(fmt.Sprintf("route add 10.%d.0.0/24 via 10.9.%d.%d", side+1, i, 4*side+1))
		}
		s.routers = append(s.routers, r)
	}
	s.binary = filepath.Join(s.dir, "chainagent")
	s.build("chainagent")
	mount := t.TempDir()
	if err := unix.Mount("bpf", mount, "bpf", 0, ""); err != nil {
		t.Skipf("a BPF file system cannot be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s.pins = filepath.Join(mount, "chains")
	return s
}

// build compiles one of the repository's programs.
func (s *site) build(name string) string {
	s.t.Helper()
	binary := filepath.Join(s.dir, name)
	if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/"+name).CombinedOutput(); err != nil {
		s.t.Fatalf("%v: %s", err, out)
	}
	return binary
}

// mac is the address of a router's interface.
func (s *site) mac(router int, name string) string {
	var ifc *net.Interface
	if err := s.routers[router].Do(func() (err error) {
		ifc, err = net.InterfaceByName(name)
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
	return ifc.HardwareAddr.String()
}

// write makes the documents: functions name their routers, by index.
func (s *site) write(paths int, functions ...[]int) {
	s.t.Helper()
	var b strings.Builder
	b.WriteString(`apiVersion: mesh.meridian.dev/v1alpha1
kind: ChainNode
metadata: {name: edge}
spec:
  ports: [{interface: c0}, {interface: s0}]
`)
	var names []string
	for i, routers := range functions {
		name := fmt.Sprintf("router-%d", i+1)
		names = append(names, name)
		fmt.Fprintf(&b, "---\napiVersion: mesh.meridian.dev/v1alpha1\nkind: NetworkFunction\nmetadata: {name: %s}\nspec:\n  health: {probe: icmp, interval: %s}\n  instances:\n", name, cmp.Or(s.interval, "100ms"))
		for _, r := range routers {
			fmt.Fprintf(&b, "  - {name: r%d, node: edge, left: f%dl, right: f%dr, leftMAC: %q, rightMAC: %q, address: 10.9.%d.2}\n",
				r+1, r+1, r+1, s.mac(r, "ethl"), s.mac(r, "ethr"), r+1)
		}
	}
	fmt.Fprintf(&b, `---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ServiceChain
metadata: {name: web}
spec:
  functions: [%s]
  paths: %d
  ingress: {node: edge, interface: c0}
  egress: {node: edge, interface: s0}
  demand: {packetsPerSecond: 20000}
  match: [{sources: [10.1.0.0/24], destinations: [10.2.0.0/24]}]
`, strings.Join(names, ", "), paths)
	if err := os.WriteFile(filepath.Join(s.dir, "chains.yaml"), []byte(b.String()), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) start() {
	s.t.Helper()
	s.launch("--config", filepath.Join(s.dir, "chains.yaml"))
	s.until("the agent is ready", func(st *Status) bool { return st.Ready })
}

// launch starts the agent and does not wait for it.
func (s *site) launch(args ...string) {
	s.t.Helper()
	args = append([]string{"--node", cmp.Or(s.name, "edge"), "--pins", s.pins, "--drain-timeout", "1s"}, args...)
	if s.datapath != "" {
		args = append(args, "--datapath", s.datapath)
	}
	s.process = exec.Command(s.binary, args...)
	log, err := os.OpenFile(filepath.Join(s.dir, s.name+"log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.process.Stdout, s.process.Stderr = log, log
	if err := s.node.Start(s.process); err != nil {
		s.t.Fatal(err)
	}
	p := s.process
	s.t.Cleanup(func() {
		if p.ProcessState == nil {
			_ = p.Process.Kill() // it may have ended meanwhile
			_ = p.Wait()
		}
		if s.t.Failed() {
			text, _ := os.ReadFile(filepath.Join(s.dir, s.name+"log"))
			s.t.Logf("log of the agent:\n%s", text)
		}
	})
}

func (s *site) end(sig os.Signal) {
	s.t.Helper()
	if err := s.process.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
	err := s.process.Wait()
	if sig == syscall.SIGTERM && err != nil {
		s.t.Errorf("agent: %v", err)
	}
}

func (s *site) get(path string) (string, error) {
	var body []byte
	err := s.node.Do(func() error {
		c, err := net.DialTimeout("tcp", "127.0.0.1:15010", time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		client := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}, Timeout: 5 * time.Second}
		r, err := client.Get("http://agent" + path)
		if err != nil {
			return err
		}
		defer r.Body.Close()
		body, err = io.ReadAll(r.Body)
		return err
	})
	return string(body), err
}

// until waits for the agent's status to be as wished.
func (s *site) until(what string, ok func(*Status) bool) {
	s.t.Helper()
	var last string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		text, err := s.get("/status")
		if err != nil {
			last = err.Error()
			continue
		}
		var st Status
		if err := json.Unmarshal([]byte(text), &st); err != nil {
			s.t.Fatalf("%v in %s", err, text)
		}
		if ok(&st) {
			return
		}
		last = text
	}
	s.t.Fatalf("not within 20 s: %s; last %s", what, last)
}

// An instance dies: its flows move within 300 ms, the others notice nothing.
func TestRootInstanceDies(t *testing.T) {
	s := newSite(t, 3)
	s.write(2, []int{0, 1}, []int{2})
	s.start()
	const flows = 24
	run := func() (moved, untouched int, worst time.Duration) {
		var streams []*nstest.Stream
		for range flows {
			streams = append(streams, nstest.StartStream(t, s.client, s.server, "10.2.0.2:0", 5*time.Millisecond))
		}
		time.Sleep(400 * time.Millisecond)
		for _, st := range streams {
			if st.Answered() == 0 {
				t.Fatal("a flow does not pass")
			}
		}
		s.routers[0].IP("link set ethl down")
		time.Sleep(900 * time.Millisecond)
		s.routers[0].IP("link set ethl up")
		s.routers[0].IP("route replace 10.1.0.0/24 via 10.9.1.1")
		for _, st := range streams {
			gap := st.Gap()
			hops := st.Halt()
			lost := st.Sent() - st.Answered()
			if len(hops) != 1 {
				t.Errorf("a flow has TTL %v at the server: it passed beside the chain", hops)
			}
			if lost == 0 {
				untouched++
				continue
			}
			moved++
			worst = max(worst, gap)
		}
		return moved, untouched, worst
	}
	// Others use this machine too: the bound holds when it holds in one of three runs.
	for try := 1; ; try++ {
		moved, untouched, worst := run()
		t.Logf("of %d flows %d moved, the slowest in %v; %d lost nothing", flows, moved, worst, untouched)
		if moved == 0 || untouched < flows/4 {
			t.Fatal("the dead instance had none or nearly all of the flows, or others lost packets")
		}
		if worst <= 300*time.Millisecond {
			break
		}
		if try == 3 {
			t.Errorf("flows took %v to move, at most 300 ms are allowed", worst)
			break
		}
		s.until("the instance is back", func(st *Status) bool { return len(st.Down) == 0 })
	}
	metrics, err := s.get("/metrics")
	if err != nil || !strings.Contains(metrics, "meridian_chain_hop_packets_total{spi=") {
		t.Errorf("metrics: %v\n%s", err, metrics)
	}
}

// The agent is killed and started again, stopped and started again, under load.
func TestRootAgentEnds(t *testing.T) {
	s := newSite(t, 2)
	s.write(1, []int{0}, []int{1})
	s.start()
	stream := nstest.StartStream(t, s.client, s.server, "10.2.0.2:0", 500*time.Microsecond)
	r := nstest.StartRequests(t, s.client, s.server, "10.2.0.2:0", 2, 2)
	for range 3 {
		for _, sig := range []os.Signal{syscall.SIGKILL, syscall.SIGTERM} {
			s.end(sig)
			time.Sleep(50 * time.Millisecond)
			s.start()
		}
	}
	sent, lost, hops := stream.Stop()
	r.Stop()
	t.Logf("%v; %d datagrams, %d lost, TTL at the server %v", r, sent, lost, hops)
	if lost != 0 || len(hops) != 1 {
		t.Errorf("%d lost, TTL at the server %v", lost, hops)
	}
	s.end(syscall.SIGTERM)
	if out, err := s.node.Run(t.Context(), s.binary, "--detach", "--pins", s.pins); err != nil {
		t.Fatal(err, out)
	}
	if _, err := os.Stat(s.pins); !os.IsNotExist(err) {
		t.Errorf("pins are left: %v", err)
	}
}

// A function comes into a chain and goes again by the documents, under load.
func TestRootDocumentsChange(t *testing.T) {
	s := newSite(t, 3)
	s.write(1, []int{0}, []int{1})
	s.start()
	stream := nstest.StartStream(t, s.client, s.server, "10.2.0.2:0", 500*time.Microsecond)
	r := nstest.StartRequests(t, s.client, s.server, "10.2.0.2:0", 2, 2)
	reload := func(what string, functions int) {
		t.Helper()
		if err := s.process.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		s.until(what, func(st *Status) bool {
			for _, p := range st.Paths {
				if len(p.Stops) != functions {
					return false
				}
			}
			return st.Ready && st.View == "remove"
		})
	}
	s.write(1, []int{0}, []int{1}, []int{2})
	reload("three functions", 3)
	s.write(1, []int{2})
	reload("one function", 1)
	sent, lost, hops := stream.Stop()
	r.Stop()
	t.Logf("%v; %d datagrams, %d lost, TTL at the server %v", r, sent, lost, hops)
	if lost != 0 || hops[62] == 0 || hops[61] == 0 || hops[63] == 0 || len(hops) != 3 {
		t.Errorf("%d lost, TTL at the server %v", lost, hops)
	}
	// A fault changes nothing and is told.
	if err := os.WriteFile(filepath.Join(s.dir, "chains.yaml"), []byte("kind: Nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.process.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.until("the fault is told", func(st *Status) bool { return !st.Ready && strings.Contains(st.Fault, "Nonsense") })
}

// TCP, UDP and ICMP pass the shipped firewall, tagger and NAT, as NSH-aware
// processes, in order and back.
func TestRootFunctions(t *testing.T) { functionsInOrder(t, newSite(t, 0)) }

func functionsInOrder(t *testing.T, s *site) {
	meridian := s.build("meridian")
	var docs strings.Builder
	docs.WriteString("apiVersion: mesh.meridian.dev/v1alpha1\nkind: ChainNode\nmetadata: {name: edge}\nspec: {ports: [{interface: c0}, {interface: s0}]}\n")
	processes := map[string]*exec.Cmd{}
	for i, args := range [][]string{
		{"firewall", "--rule", "allow:tcp", "--rule", "allow:icmp", "--rule", "allow:udp:1024-65535"},
		{"tagger"},
		{"nat44", "--public", "10.3.0.9"},
	} {
		ns := nstest.New(t, args[0])
		port, node, own := fmt.Sprintf("p%d", i), fmt.Sprintf("10.9.10%d.1", i), fmt.Sprintf("10.9.10%d.2", i)
		nstest.Veth(s.node, port, ns, "eth0")
		s.node.IP("link set " + port + " mtu 1600")
		ns.IP("link set eth0 mtu 1600")
		s.node.IP("addr add " + node + "/30 dev " + port)
		ns.IP("addr add " + own + "/30 dev eth0")
		cmd := exec.Command(meridian, append([]string{"function", args[0], "--listen", own}, args[1:]...)...)
		log, err := os.Create(filepath.Join(s.dir, args[0]))
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdout, cmd.Stderr = log, log
		if err := ns.Start(cmd); err != nil {
			t.Fatal(err)
		}
		processes[args[0]] = cmd
		t.Cleanup(func() {
			_ = cmd.Process.Kill() // it may have ended by itself
			_ = cmd.Wait()
			log.Close()
			if t.Failed() {
				text, _ := os.ReadFile(log.Name())
				t.Logf("%s: %s", args[0], text)
			}
		})
		var mac string
		if err := ns.Do(func() error {
			ifc, err := net.InterfaceByName("eth0")
			mac = ifc.HardwareAddr.String()
			return err
		}); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&docs, `---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: %s}
spec:
  attach: vxlanGPE
  process: true
  changesTuple: %v
  health: {probe: nsh-echo, interval: 1s, failures: 3}
  instances: [{name: %s-1, node: edge, left: %s, leftMAC: %q, address: %s}]
`, args[0], args[0] == "nat44", args[0], port, mac, own)
	}
	docs.WriteString(`---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ServiceChain
metadata: {name: web}
spec:
  functions: [firewall, tagger, nat44]
  ingress: {node: edge, interface: c0}
  egress: {node: edge, interface: s0}
  match: [{interfaces: [c0], sources: [10.1.0.0/24], destinations: [10.2.0.0/24]}]
`)
	if err := os.WriteFile(filepath.Join(s.dir, "chains.yaml"), []byte(docs.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if out, err := s.client.Run(ctx, "ping", "-q", "-i0.01", "-c50", "-W5", "10.2.0.2"); err != nil || !strings.Contains(out, " 0% packet loss") {
		metrics, _ := s.get("/metrics")
		t.Fatalf("ping: %v\n%s\n%s", err, out, metrics)
	}
	// One after the other: processes that are overloaded lose packets, as any do.
	stream := nstest.StartStream(t, s.client, s.server, "10.2.0.2:0", 5*time.Millisecond)
	time.Sleep(time.Second)
	sent, lost, hops := stream.Stop()
	var from string
	if err := s.server.Do(func() error {
		l, err := net.Listen("tcp", "10.2.0.2:8080")
		if err != nil {
			return err
		}
		defer l.Close()
		sent := make(chan error, 1)
		go func() {
			sent <- s.client.Do(func() error {
				c, err := net.DialTimeout("tcp", "10.2.0.2:8080", 10*time.Second)
				if err != nil {
					return err
				}
				defer c.Close()
				_, err = c.Write(make([]byte, 4<<20))
				return err
			})
		}()
		c, err := l.Accept()
		if err != nil {
			return err
		}
		defer c.Close()
		from = c.RemoteAddr().String()
		if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, c)
		if err == nil && n != 4<<20 {
			err = fmt.Errorf("%d bytes of %d came", n, 4<<20)
		}
		if serr := <-sent; err == nil {
			err = serr
		}
		return err
	}); err != nil {
		metrics, _ := s.get("/metrics")
		t.Errorf("bulk: %v\n%s", err, metrics)
	}
	if !strings.HasPrefix(from, "10.3.0.9:") {
		t.Errorf("the server sees %s, not the NAT's address", from)
	}
	r := nstest.StartRequests(t, s.client, s.server, "10.2.0.2:0", 2, 2)
	time.Sleep(time.Second)
	r.Stop()
	t.Logf("%v; %d datagrams, %d lost, TTL at the server %v; bulk from %s", r, sent, lost, hops, from)
	if lost > 0 {
		t.Errorf("%d of %d datagrams were lost", lost, sent)
	}
	s.until("every function answers probes", func(st *Status) bool { return len(st.Down) == 0 })
	text, err := s.get("/counters")
	if err != nil || !strings.Contains(text, `"tagger-1"`) {
		t.Errorf("probes: %v %s", err, text)
	}
	// SIGTERM has it answer no more probes, while it still serves.
	if err := processes["tagger"].Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.until("the function that drains is out", func(st *Status) bool {
		return len(st.Down) == 1 && strings.Contains(st.Down["tagger-1"], "no echo through the function")
	})
}
