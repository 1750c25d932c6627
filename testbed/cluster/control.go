package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a start may take on a machine with much else to do.
const patience = 3 * time.Minute

// first is the first process of the cluster's process namespace. It becomes the
// parent of what others leave behind, so it does nothing but wait, and what must be
// done does a child.
func (p *place) first(args []string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to ourselves: %w", err)
	}
	cmd := p.self("control", args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{os.NewFile(3, "api"), os.NewFile(4, "ready")}
	if err := cmd.Start(); err != nil {
		return err
	}
	for _, f := range cmd.ExtraFiles {
		_ = f.Close()
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil {
			return err
		}
		if pid == cmd.Process.Pid {
			return errors.New("the control plane ended")
		}
	}
}

// control runs the control plane and the nodes until one of them ends.
func (p *place) control(count, port int) error {
	api, err := net.FileListener(os.NewFile(3, "api"))
	if err != nil {
		return err
	}
	ready := os.NewFile(4, "ready")
	unix.CloseOnExec(4)
	// Processes as this namespace counts them.
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := configure([]string{
		"link set lo up",
		"link add lan0 type bridge",
		fmt.Sprintf("addr add %s/%d dev lan0", controlAddress, lanBits),
		"link set lan0 up",
		"route add local " + freeCIDR + " dev lo",
	}); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return err
	}
	d := &daemons{logs: p.file("logs"), ended: make(chan error, 1)}
	kube := p.program("kube")
	if _, err := d.start("etcd", exec.Command(kube, p.etcd()...)); err != nil {
		return err
	}
	if _, err := d.start("kube-apiserver", exec.Command(kube, p.apiserver(port)...)); err != nil {
		return err
	}
	go relay(api, fmt.Sprintf("%s:%d", controlAddress, port))
	list := nodes(count)
	processes := make([]int, len(list))
	for i, n := range list {
		if processes[i], err = p.startNode(d, n, count); err != nil {
			return err
		}
	}
	client, err := p.client()
	if err != nil {
		return err
	}
	url := fmt.Sprintf("https://127.0.0.1:%d", port)
	if err := d.wait("the API server", func(ctx context.Context) error {
		_, err := get(ctx, client, url+"/readyz")
		return err
	}); err != nil {
		return err
	}
	if _, err := d.start("kube-controller-manager", exec.Command(kube, p.controllers()...)); err != nil {
		return err
	}
	if _, err := d.start("meridian-scheduler", exec.Command(p.program("meridian-scheduler"), p.scheduler()...)); err != nil {
		return err
	}
	if err := d.wait("the nodes", func(ctx context.Context) error { return nodesReady(ctx, client, url, count) }); err != nil {
		return err
	}
	// Without it no pod is let in.
	if err := d.wait("the default service account", func(ctx context.Context) error {
		_, err := get(ctx, client, url+"/api/v1/namespaces/default/serviceaccounts/default")
		return err
	}); err != nil {
		return err
	}
	b, err := json.Marshal(processes)
	if err != nil {
		return err
	}
	if _, err := ready.Write(append(b, '\n')); err != nil {
		return err
	}
	_ = ready.Close()
	return <-d.ended
}

// startNode starts a node's first process in namespaces of its own and joins it to
// the network.
func (p *place) startNode(d *daemons, n node, count int) (int, error) {
	cmd := p.self("node", fmt.Sprint(count), n.Name)
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC}
	joined, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	pid, err := d.start(n.Name, cmd)
	if err != nil {
		return 0, err
	}
	if err := configure([]string{
		fmt.Sprintf("link add %s type veth peer name eth0 netns %d", n.Name, pid),
		"link set " + n.Name + " master lan0 up",
		fmt.Sprintf("route add %s via %s", n.Pods, n.Address),
	}); err != nil {
		return 0, err
	}
	return pid, joined.Close() // the node waits for it
}

// daemons are processes that should not end.
type daemons struct {
	logs  string
	ended chan error
}

// start starts one, with a log of its name.
func (d *daemons) start(name string, cmd *exec.Cmd) (pid int, err error) {
	log, err := os.Create(d.logs + "/" + name + ".log")
	if err != nil {
		return 0, err
	}
	cmd.Stdout, cmd.Stderr = log, log
	err = cmd.Start()
	_ = log.Close()
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		err := cmd.Wait()
		if err == nil {
			err = errors.New("status 0")
		}
		select {
		case d.ended <- fmt.Errorf("%s ended: %w: see %s.log", name, err, name):
		default: // the first one counts
		}
	}()
	return cmd.Process.Pid, nil
}

// wait asks until there is no error, one of the daemons has ended, or patience has.
func (d *daemons) wait(what string, ask func(context.Context) error) error {
	ctx, done := context.WithTimeout(context.Background(), patience)
	defer done()
	for {
		once, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := ask(once)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case err := <-d.ended:
			return err
		case <-ctx.Done():
			return fmt.Errorf("%s: not ready after %s: %w", what, patience, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// configure runs lines of iproute2's ip.
func configure(lines []string) error {
	for _, line := range lines {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", line, err, out)
		}
	}
	return nil
}

// relay hands connections made on this machine's loopback on to the API server. The
// listener was made there, so it is there that it listens.
func relay(l net.Listener, to string) {
	for {
		near, err := l.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, "the API server's port on this machine:", err)
			return
		}
		go func() {
			defer func() { _ = near.Close() }()
			far, err := net.Dial("tcp", to)
			if err != nil {
				return // the client sees its connection closed, and tries again
			}
			defer func() { _ = far.Close() }()
			back := make(chan struct{})
			go func() {
				defer close(back)
				_, _ = io.Copy(far, near)
				_ = far.(*net.TCPConn).CloseWrite()
			}()
			_, _ = io.Copy(near, far)
			_ = near.(*net.TCPConn).CloseWrite()
			<-back
		}()
	}
}

// client is an administrator's.
func (p *place) client() (*http.Client, error) {
	pair, err := tls.LoadX509KeyPair(p.file("pki", "apiserver-to-kubelet.crt"), p.file("pki", "apiserver-to-kubelet.key"))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(p.file("pki", "ca.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}}}, nil
}

func get(ctx context.Context, c *http.Client, url string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return b, err
}

func nodesReady(ctx context.Context, c *http.Client, url string, want int) error {
	b, err := get(ctx, c, url+"/api/v1/nodes")
	if err != nil {
		return err
	}
	var list struct {
		Items []struct {
			Spec   struct{ Taints []struct{ Key string } }
			Status struct {
				Conditions []struct{ Type, Status string }
			}
		}
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	ready := 0
	for _, n := range list.Items {
		for _, c := range n.Status.Conditions {
			if c.Type == "Ready" && c.Status == "True" && len(n.Spec.Taints) == 0 {
				ready++
			}
		}
	}
	if ready < want {
		return fmt.Errorf("%d of %d nodes are ready", ready, want)
	}
	return nil
}
