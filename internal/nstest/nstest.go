// Package nstest gives tests network namespaces of their own: it makes them,
// joins them by veth pairs, runs programs and functions inside, and takes all of
// it away when the test ends. It needs root and iproute2; tests that use it carry
// the build tag root and run by `make test-root`.
package nstest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// folder is where iproute2 keeps namespaces by name.
const folder = "/run/netns"

var made atomic.Int64

// A Namespace is one network namespace. Its methods may be called from any goroutine.
type Namespace struct {
	// Name is what `ip netns` knows it by, unique on the machine.
	Name string
	t    testing.TB
}

// New makes a namespace with its loopback up. It skips the test, naming what is
// missing, where namespaces cannot be made.
func New(t testing.TB, role string) *Namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: network namespaces cannot be made")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("no ip command (Debian package iproute2)")
	}
	n := &Namespace{Name: fmt.Sprintf("mnt%d-%d-%s", os.Getpid(), made.Add(1), role), t: t}
	ip(t, "netns", "add", n.Name)
	t.Cleanup(func() { ip(t, "netns", "del", n.Name) })
	n.IP("link set lo up")
	return n
}

// Path is the file that stands for the namespace.
func (n *Namespace) Path() string { return filepath.Join(folder, n.Name) }

// IP runs one line of iproute2's ip in the namespace and fails the test when it fails.
func (n *Namespace) IP(line string) string {
	n.t.Helper()
	return ip(n.t, append([]string{"-n", n.Name}, strings.Fields(line)...)...)
}

// Sysctl writes one value below /proc/sys, as the namespace sees it.
func (n *Namespace) Sysctl(key, value string) {
	n.t.Helper()
	path := filepath.Join("/proc/sys", strings.ReplaceAll(key, ".", "/"))
	if err := n.Do(func() error { return os.WriteFile(path, []byte(value), 0o644) }); err != nil {
		n.t.Fatalf("%s: sysctl %s: %v", n.Name, key, err)
	}
}

// Do calls f on a thread that is in the namespace. What f starts (sockets,
// processes) stays there; goroutines that it starts are elsewhere.
func (n *Namespace) Do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		// The thread is never unlocked: it ends with the goroutine, so no other
		// goroutine ever finds itself in the wrong namespace.
		runtime.LockOSThread()
		done <- n.enter(f)
	}()
	return <-done
}

func (n *Namespace) enter(f func() error) error {
	fd, err := unix.Open(n.Path(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("namespace %s: %w", n.Name, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter namespace %s: %w", n.Name, err)
	}
	return f()
}

// Run runs a program to its end and returns its standard output.
func (n *Namespace) Run(ctx context.Context, name string, args ...string) (string, error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := n.Start(cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("%s %s in %s: %w: %s%s", name, strings.Join(args, " "), n.Name, err, out.Bytes(), errs.Bytes())
	}
	return out.String(), nil
}

// Start starts cmd in the namespace; the caller waits for it.
func (n *Namespace) Start(cmd *exec.Cmd) error {
	return n.Do(cmd.Start)
}

// Veth joins two namespaces by a pair of interfaces, both up.
func Veth(a *Namespace, ifA string, b *Namespace, ifB string) {
	a.t.Helper()
	ip(a.t, "link", "add", ifA, "netns", a.Name, "type", "veth", "peer", "name", ifB, "netns", b.Name)
	a.IP("link set " + ifA + " up")
	b.IP("link set " + ifB + " up")
}

func ip(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
