//go:build root

package datapath

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/internal/nstest"
)

// optPath is the option of tags.c.
const optPath = 0x4d45

// controlGroup makes a control group of version 2 with this process in it, until the test
// ends.
func controlGroup(t *testing.T) string {
	t.Helper()
	mounts, err := os.Open("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	defer mounts.Close()
	root := ""
	for s := bufio.NewScanner(mounts); s.Scan(); {
		if f := strings.Fields(s.Text()); f[2] == "cgroup2" {
			root = f[1]
		}
	}
	if root == "" {
		root = t.TempDir()
		if err := unix.Mount("none", root, "cgroup2", 0, ""); err != nil {
			t.Fatalf("no cgroup2 is mounted, nor can be: %v", err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	}
	self, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	before := root
	for line := range strings.Lines(string(self)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			before = filepath.Join(root, path)
		}
	}
	group := filepath.Join(root, fmt.Sprintf("meridian-tags-%d", os.Getpid()))
	move := func(to string) error {
		return os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte(fmt.Sprint(os.Getpid())), 0)
	}
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(move(before), os.Remove(group)); err != nil {
			t.Error(err)
		}
	})
	if err := move(group); err != nil {
		t.Fatal(err)
	}
	return group
}

// option asks a connection for an option, or sets it.
func option(t *testing.T, c net.Conn, call uintptr, level, name int, value uint32) (uint32, error) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var errno unix.Errno
	if err := raw.Control(func(fd uintptr) {
		n := uint32(unsafe.Sizeof(value))
		if call == unix.SYS_GETSOCKOPT {
			_, _, errno = unix.Syscall6(call, fd, uintptr(level), uintptr(name), uintptr(unsafe.Pointer(&value)), uintptr(unsafe.Pointer(&n)), 0)
		} else {
			_, _, errno = unix.Syscall6(call, fd, uintptr(level), uintptr(name), uintptr(unsafe.Pointer(&value)), uintptr(n), 0)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if errno != 0 {
		return value, errno
	}
	return value, nil
}

// TestRootSpikeTags settles what a proxy without privileges can learn of the chain by which
// a connection came, and how it can say by which another is to go. What it shows is
// written down in docs/adr/0033.
func TestRootSpikeTags(t *testing.T) {
	client, node := nstest.New(t, "c"), nstest.New(t, "n")
	nstest.Veth(client, "eth0", node, "c0")
	client.IP("addr add 192.0.2.1/24 dev eth0")
	node.IP("addr add 192.0.2.2/24 dev c0")
	spec, err := loadTags()
	if err != nil {
		t.Fatal(err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(coll.Close)
	group := controlGroup(t)
	for program, at := range map[string]ebpf.AttachType{"asked": ebpf.AttachCGroupGetsockopt, "told": ebpf.AttachCGroupSetsockopt} {
		l, err := link.AttachCgroup(link.CgroupOptions{Path: group, Attach: at, Program: coll.Programs[program]})
		if err != nil {
			t.Fatalf("%s: %v", program, err)
		}
		t.Cleanup(func() { l.Close() })
	}
	port := interfaceOf(t, node, "c0")
	for program, at := range map[string]ebpf.AttachType{"came": ebpf.AttachTCXIngress, "left": ebpf.AttachTCXEgress} {
		if err := node.Do(func() error {
			l, err := link.AttachTCX(link.TCXOptions{Interface: port.Index, Program: coll.Programs[program], Attach: at})
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		}); err != nil {
			t.Fatalf("%s: %v", program, err)
		}
	}
	cell := func(i uint32) (v uint32) {
		t.Helper()
		if err := coll.Maps["cells"].Lookup(i, &v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	set := func(i, v uint32) {
		t.Helper()
		if err := coll.Maps["cells"].Put(i, v); err != nil {
			t.Fatal(err)
		}
	}
	var listener, away net.Listener
	if err := errors.Join(
		node.Do(func() (err error) { listener, err = net.Listen("tcp", "192.0.2.2:80"); return err }),
		client.Do(func() (err error) { away, err = net.Listen("tcp", "192.0.2.1:80"); return err }),
	); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close(); away.Close() })
	accepted := func() net.Conn {
		t.Helper()
		var out net.Conn
		if err := client.Do(func() (err error) { out, err = net.DialTimeout("tcp", "192.0.2.2:80", 5*time.Second); return err }); err != nil {
			t.Fatal(err)
		}
		in, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { out.Close(); in.Close() })
		return in
	}

	const path = 4711<<8 | 253
	// A connection of no chain: the option is none.
	if v, err := option(t, accepted(), unix.SYS_GETSOCKOPT, unix.SOL_IP, optPath, 0); !errors.Is(err, unix.ENOPROTOOPT) {
		t.Errorf("without a path: %d, %v", v, err)
	}
	set(0, path)
	in := accepted()
	if v, err := option(t, in, unix.SYS_GETSOCKOPT, unix.SOL_IP, optPath, 0); err != nil || v != path {
		t.Errorf("the accepted socket came by %d, %v, want %d", v, err, path)
	}
	// The mark of the packets stays with them, unless the namespace asks for it.
	mark := func(c net.Conn) uint32 {
		t.Helper()
		v, err := option(t, c, unix.SYS_GETSOCKOPT, unix.SOL_SOCKET, unix.SO_MARK, 0)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if v := mark(in); v != 0 {
		t.Errorf("the accepted socket has mark %d", v)
	}
	set(1, 0)
	if _, err := in.Write([]byte("answer")); err != nil || cell(1) != 0 {
		t.Errorf("an answer left with mark %d, %v", cell(1), err)
	}
	node.Sysctl("net.ipv4.tcp_fwmark_accept", "1")
	in = accepted()
	if v := mark(in); v != path {
		t.Errorf("with tcp_fwmark_accept the accepted socket has mark %d, want %d", v, path)
	}
	set(1, 0)
	if _, err := in.Write([]byte("answer")); err != nil || cell(1) != path {
		t.Errorf("with tcp_fwmark_accept an answer left with mark %d, %v", cell(1), err)
	}

	// A thread without privileges may not set a mark, but may say its path.
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its privileges
		h, none := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
		var out net.Conn
		if err := node.Do(func() (err error) { out, err = net.DialTimeout("tcp", "192.0.2.1:80", 5*time.Second); return err }); err != nil {
			done <- err
			return
		}
		defer out.Close()
		if err := unix.Capset(&h, &none[0]); err != nil {
			done <- err
			return
		}
		if _, err := option(t, out, unix.SYS_SETSOCKOPT, unix.SOL_SOCKET, unix.SO_MARK, path); !errors.Is(err, unix.EPERM) {
			done <- fmt.Errorf("SO_MARK without privileges: %w", err)
			return
		}
		set(1, 0)
		if _, err := option(t, out, unix.SYS_SETSOCKOPT, unix.SOL_IP, optPath, path+1); err != nil {
			done <- fmt.Errorf("saying the path: %w", err)
			return
		}
		if _, err := out.Write([]byte("request")); err != nil {
			done <- err
			return
		}
		if v := cell(1); v != path+1 {
			done <- fmt.Errorf("a request left with mark %d, want %d", v, path+1)
			return
		}
		if v, err := option(t, out, unix.SYS_GETSOCKOPT, unix.SOL_SOCKET, unix.SO_MARK, 0); err != nil || v != path+1 {
			done <- fmt.Errorf("its socket has mark %d, %w", v, err)
			return
		}
		done <- nil
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}

	// What asking costs, for each connection.
	const calls = 20_000
	began := time.Now()
	for range calls {
		if _, err := option(t, in, unix.SYS_GETSOCKOPT, unix.SOL_IP, optPath, 0); err != nil {
			t.Fatal(err)
		}
	}
	asking := time.Since(began)
	began = time.Now()
	for range calls {
		mark(in)
	}
	t.Logf("asking for the path takes %v, for the mark %v", asking/calls, time.Since(began)/calls)
}
