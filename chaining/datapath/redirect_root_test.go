//go:build root

package datapath

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/internal/nstest"
)

// groups are control groups of one test, below one of its own.
type groups struct {
	t    *testing.T
	root string
	name string // of the test's own, below root
}

func newGroups(t *testing.T) *groups {
	t.Helper()
	root, err := cgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	g := &groups{t: t, root: root, name: fmt.Sprintf("/meridian-redirect-%d-%d", os.Getpid(), time.Now().UnixNano()%1e6)}
	g.make("")
	return g
}

// make makes a group below the test's own and returns its name as a Redirection has it.
func (g *groups) make(name string) string {
	g.t.Helper()
	name = filepath.Join(g.name, name)
	if err := os.Mkdir(filepath.Join(g.root, name), 0o755); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { g.remove(name) })
	return name
}

func (g *groups) remove(name string) {
	g.t.Helper()
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err = os.Remove(filepath.Join(g.root, name)); err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
	}
	g.t.Error(err)
}

// TestMain lets the test program be the processes whose connections its tests redirect.
func TestMain(m *testing.M) {
	if address := os.Getenv("MERIDIAN_TEST_SERVES"); address != "" {
		serves(address)
		return
	}
	if os.Getenv("MERIDIAN_TEST_CONNECTS") != "" {
		connects()
		return
	}
	os.Exit(m.Run())
}

// connects reads addresses, and says of each what a connection to it found: what was read
// from it, and who the kernel says is at the other end.
func connects() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		c, err := net.DialTimeout("tcp", in.Text(), 10*time.Second)
		if err != nil {
			fmt.Printf("error %v\n", err)
			continue
		}
		if answer, err := io.ReadAll(c); err != nil {
			fmt.Printf("error %v\n", err)
		} else {
			fmt.Printf("%s %s\n", answer, c.RemoteAddr())
		}
		c.Close()
	}
}

// serves answers connections with the address, and with where they were to go at first.
func serves(address string) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("listening")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprintf(c, "%s<%s", address, originalDestination(c))
			}()
		}
	}()
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends
}

// originalDestination asks as any proxy does.
func originalDestination(c net.Conn) string {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err.Error()
	}
	level := unix.SOL_IP
	if a := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); !a.Unmap().Is4() {
		level = unix.SOL_IPV6
	}
	answer := ""
	if err := raw.Control(func(fd uintptr) {
		var sa unix.RawSockaddrInet6
		n := uint32(unsafe.Sizeof(sa))
		if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, uintptr(level), unix.SO_ORIGINAL_DST, uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&n)), 0); errno != 0 {
			answer = "none" // ENOPROTOOPT, or ENOENT where connections are tracked
			return
		}
		if sa.Family == unix.AF_INET {
			in := (*unix.RawSockaddrInet4)(unsafe.Pointer(&sa))
			answer = netip.AddrPortFrom(netip.AddrFrom4(in.Addr), networkOrder(in.Port)).String()
			return
		}
		answer = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), networkOrder(sa.Port)).String()
	}); err != nil {
		return err.Error()
	}
	return answer
}

// process is the test program in a control group and a namespace.
type process struct {
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Reader
	end func()
}

func (g *groups) start(n *nstest.Namespace, group string, user uint32, env string) *process {
	g.t.Helper()
	fd, err := unix.Open(filepath.Join(g.root, group), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		g.t.Fatal(err)
	}
	defer unix.Close(fd)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), env)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	if user != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: user, Gid: user}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		g.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		g.t.Fatal(err)
	}
	if err := n.Start(cmd); err != nil {
		g.t.Fatal(err)
	}
	end := sync.OnceFunc(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			g.t.Error(err)
		}
	})
	g.t.Cleanup(end)
	return &process{g.t, in, bufio.NewReader(out), end}
}

func (g *groups) client(n *nstest.Namespace, group string, user uint32) *process {
	return g.start(n, group, user, "MERIDIAN_TEST_CONNECTS=1")
}

func (g *groups) server(n *nstest.Namespace, group, address string) *process {
	g.t.Helper()
	p := g.start(n, group, 0, "MERIDIAN_TEST_SERVES="+address)
	if said := p.line(); said != "listening" {
		g.t.Fatalf("server at %s: %s", address, said)
	}
	return p
}

func (p *process) line() string {
	p.t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// ask returns what a connection to the address found, see [connects].
func (p *process) ask(address string) string {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.in, address); err != nil {
		p.t.Fatal(err)
	}
	return p.line()
}

// pinFolder is one on a BPF file system of the test's own.
func pinFolder(t *testing.T) string {
	t.Helper()
	mount := t.TempDir()
	if err := MountPins(mount); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(mount, "pins")
}

// TestRootRedirect has real processes connect to addresses that no interface has.
func TestRootRedirect(t *testing.T) {
	n := nstest.New(t, "n")
	n.IP("link set lo up")
	n.IP("addr add 192.0.2.10/32 dev lo")
	n.IP("addr add 2001:db8::10/128 dev lo nodad")
	g := newGroups(t)
	shops, proxy, quiet := g.make("shops"), g.make("proxy"), g.make("shops/quiet")
	g.server(n, proxy, "127.0.0.1:15001")
	six := g.server(n, proxy, "[::1]:15001")
	g.server(n, g.make("backend"), "192.0.2.10:80")
	g.server(n, g.make("backend6"), "[2001:db8::10]:80")
	pins := pinFolder(t)
	r := NewRedirector(pins, "")
	t.Cleanup(func() { r.Close() })
	network := netip.MustParsePrefix
	w := Redirection{
		Groups: []string{shops}, Proxy: proxy,
		Proxy4: netip.MustParseAddrPort("127.0.0.1:15001"), Proxy6: netip.MustParseAddrPort("[::1]:15001"),
		Wanted: []Destination{{network("10.96.0.0/16"), 0}, {network("192.0.2.10/32"), 80}, {network("2001:db8::/64"), 0}},
	}
	apply := func() {
		t.Helper()
		if err := n.Do(func() error { return r.Redirect(&w) }); err != nil {
			t.Fatal(err)
		}
	}
	apply()
	shop, bystander := g.client(n, shops, 0), g.client(n, g.make("bystander"), 0)
	expect := func(p *process, address, want string) {
		t.Helper()
		if got := p.ask(address); got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
	// The proxy knows where they were to go, and they know nothing of the proxy.
	expect(shop, "10.96.0.1:80", "127.0.0.1:15001<10.96.0.1:80 10.96.0.1:80")
	expect(shop, "10.96.255.7:65535", "127.0.0.1:15001<10.96.255.7:65535 10.96.255.7:65535")
	expect(shop, "192.0.2.10:80", "127.0.0.1:15001<192.0.2.10:80 192.0.2.10:80")
	expect(shop, "[2001:db8::10]:80", "[::1]:15001<[2001:db8::10]:80 [2001:db8::10]:80")
	expect(bystander, "192.0.2.10:80", "192.0.2.10:80<none 192.0.2.10:80")
	// Who connects to the proxy by itself was to go nowhere else.
	expect(shop, "127.0.0.1:15001", "127.0.0.1:15001<none 127.0.0.1:15001")

	// What is excluded goes straight.
	w.SparedGroups, w.Users = []string{quiet}, []uint32{4711}
	apply()
	expect(g.client(n, quiet, 0), "192.0.2.10:80", "192.0.2.10:80<none 192.0.2.10:80")
	expect(g.client(n, shops, 4711), "192.0.2.10:80", "192.0.2.10:80<none 192.0.2.10:80")
	w.Spared = []Destination{{network("192.0.2.0/24"), 80}, {network("::/0"), 443}}
	apply()
	expect(shop, "192.0.2.10:80", "192.0.2.10:80<none 192.0.2.10:80")
	expect(shop, "10.96.0.1:80", "127.0.0.1:15001<10.96.0.1:80 10.96.0.1:80")
	w.Spared = nil
	apply()
	expect(shop, "192.0.2.10:80", "127.0.0.1:15001<192.0.2.10:80 192.0.2.10:80")

	// A proxy that shares its group is known by its user.
	w.Proxy, w.Shared = g.name, true
	apply()
	expect(g.client(n, proxy, 4711), "192.0.2.10:80", "192.0.2.10:80<none 192.0.2.10:80")
	expect(shop, "192.0.2.10:80", "127.0.0.1:15001<192.0.2.10:80 192.0.2.10:80")
	expect(g.client(n, proxy, 0), "192.0.2.10:80", "192.0.2.10:80<none 192.0.2.10:80") // none of Groups
	w.Groups = []string{g.name}
	apply()
	expect(g.client(n, proxy, 0), "192.0.2.10:80", "127.0.0.1:15001<192.0.2.10:80 192.0.2.10:80")
	expect(g.client(n, proxy, 4711), "192.0.2.10:80", "192.0.2.10:80<none 192.0.2.10:80")

	// Where the proxy does not listen, connections go straight, or fail where that is asked.
	six.end()
	expect(shop, "[2001:db8::10]:80", "[2001:db8::10]:80<none [2001:db8::10]:80")
	w.Closed = true
	apply()
	if got := shop.ask("[2001:db8::10]:80"); !strings.Contains(got, "refused") {
		t.Errorf("closed, without a proxy: %q", got)
	}
	c, err := r.Counts()
	if err != nil || c.Redirected == 0 || c.Spared != 4 || c.Opened != 1 || c.Failed != 0 {
		t.Errorf("counts %+v, %v", c, err)
	}

	// The next process takes over; without a redirection nothing is left.
	r.Close()
	expect(shop, "10.96.0.1:80", "127.0.0.1:15001<10.96.0.1:80 10.96.0.1:80")
	r = NewRedirector(pins, "")
	apply()
	expect(shop, "10.96.0.1:80", "127.0.0.1:15001<10.96.0.1:80 10.96.0.1:80")
	if err := r.Redirect(nil); err != nil {
		t.Fatal(err)
	}
	expect(shop, "192.0.2.10:80", "192.0.2.10:80<none 192.0.2.10:80")
	if _, err := os.Stat(filepath.Join(pins, redirectFolder)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pins are left: %v", err)
	}
}
