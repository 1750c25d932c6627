package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// node runs one node's programs in the namespaces that this process was started in.
func (p *place) node(count int, name string) error {
	list := nodes(count)
	i := slices.IndexFunc(list, func(n node) bool { return n.Name == name })
	if i < 0 {
		return fmt.Errorf("no node %q", name)
	}
	n := list[i]
	if err := unix.Sethostname([]byte(n.Name)); err != nil {
		return err
	}
	if err := p.hide(n); err != nil {
		return err
	}
	// Closed when the network card is there.
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	lines := []string{
		"link set lo up",
		fmt.Sprintf("addr add %s/%d dev eth0", n.Address, lanBits),
		"link set eth0 up",
		"route add default via " + controlAddress,
	}
	for _, other := range list {
		if other.Name != n.Name {
			lines = append(lines, fmt.Sprintf("route add %s via %s", other.Pods, other.Address))
		}
	}
	if err := configure(lines); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return err
	}
	d := &daemons{logs: p.file("logs"), ended: make(chan error, 1)}
	if _, err := d.start(n.Name+"-containerd", exec.Command("containerd", "--config", p.file(n.Name, "containerd.toml"))); err != nil {
		return err
	}
	if err := d.wait("containerd", func(ctx context.Context) error {
		c, err := (&net.Dialer{}).DialContext(ctx, "unix", containerdSocket)
		if err == nil {
			err = c.Close()
		}
		return err
	}); err != nil {
		return err
	}
	if err := d.wait("the image "+pauseImage, func(ctx context.Context) error {
		return importImage(ctx, p.program("pause.tar"))
	}); err != nil {
		return err
	}
	kube := p.program("kube")
	if _, err := d.start(n.Name+"-kubelet", exec.Command(kube, p.kubelet(n)...)); err != nil {
		return err
	}
	if _, err := d.start(n.Name+"-kube-proxy", exec.Command(kube, "kube-proxy", "--config", p.file(n.Name, "proxy.yaml"))); err != nil {
		return err
	}
	return <-d.ended
}

// hide gives the node folders of its own in place of the machine's, and shows the
// kubelet the kernel settings that it wants.
func (p *place) hide(n node) error {
	for dir, own := range map[string]string{"/var/lib": "var-lib", "/var/log": "var-log"} {
		if err := unix.Mount(p.file(n.Name, own), dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("hide %s: %w", dir, err)
		}
	}
	if err := unix.Mount("run", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("hide /run: %w", err)
	}
	for key := range kernelSettings {
		to := filepath.Join("/proc/sys", key)
		if _, err := os.Stat(to); err != nil {
			return fmt.Errorf("kernel setting %s: %w", key, err)
		}
		if err := unix.Mount(p.kernelSetting(key), to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("show %s: %w", to, err)
		}
	}
	return nil
}

// importImage runs in a node.
func importImage(ctx context.Context, file string) error {
	out, err := exec.CommandContext(ctx, "ctr", "--namespace", "k8s.io", "images", "import", file).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ctr images import %s: %w: %s", file, err, out)
	}
	return nil
}
