//go:build root

package datapath

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/internal/nstest"
)

// These tests settle what this kernel does with encapsulated packets, by programs
// that only push and pop. What they show is written down in docs/adr/0017; the
// datapath is built on it.

// spikeRig is two nodes, a client on the first and a server on the second.
type spikeRig struct {
	t                            *testing.T
	client, nodeA, nodeB, server *nstest.Namespace
	colls                        []*ebpf.Collection
}

func newSpikeRig(t *testing.T, underlays int, mtu int) *spikeRig {
	r := &spikeRig{t: t, client: nstest.New(t, "c"), nodeA: nstest.New(t, "a"), nodeB: nstest.New(t, "b"), server: nstest.New(t, "s")}
	nstest.Veth(r.client, "eth0", r.nodeA, "c0")
	nstest.Veth(r.server, "eth0", r.nodeB, "s0")
	for i := range underlays {
		u := fmt.Sprintf("u%d", i)
		nstest.Veth(r.nodeA, u, r.nodeB, u)
		for _, n := range []*nstest.Namespace{r.nodeA, r.nodeB} {
			n.IP(fmt.Sprintf("link set %s mtu %d", u, mtu))
		}
	}
	// Client and server believe to be on one link; the nodes' programs make it so.
	for i, n := range []*nstest.Namespace{r.client, r.server} {
		peer := []*nstest.Namespace{r.server, r.client}[i]
		n.IP(fmt.Sprintf("addr add 192.0.2.%d/24 dev eth0", i+1))
		n.IP(fmt.Sprintf("-6 addr add 2001:db8::%d/64 dev eth0 nodad", i+1))
		n.IP(fmt.Sprintf("neigh add 192.0.2.%d lladdr %s dev eth0", 2-i, macOf(t, peer, "eth0")))
		n.IP(fmt.Sprintf("-6 neigh add 2001:db8::%d lladdr %s dev eth0", 2-i, macOf(t, peer, "eth0")))
	}
	return r
}

func macOf(t testing.TB, n *nstest.Namespace, name string) net.HardwareAddr {
	t.Helper()
	return interfaceOf(t, n, name).HardwareAddr
}

func interfaceOf(t testing.TB, n *nstest.Namespace, name string) *net.Interface {
	t.Helper()
	var ifc *net.Interface
	if err := n.Do(func() (err error) {
		ifc, err = net.InterfaceByName(name)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return ifc
}

// attach runs program on what comes in at in; out is where it sends the result,
// dst the Ethernet address it sends to.
func (r *spikeRig) attach(n *nstest.Namespace, in, program, out string, dst net.HardwareAddr, outerV6 bool) *ebpf.Collection {
	r.t.Helper()
	spec, err := loadSpike()
	if err != nil {
		r.t.Fatal(err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		r.t.Fatalf("load: %+v", err)
	}
	r.t.Cleanup(coll.Close)
	r.colls = append(r.colls, coll)
	to := interfaceOf(r.t, n, out)
	w := spikeWire{Out: uint32(to.Index)}
	copy(w.Dst[:], dst)
	copy(w.Src[:], to.HardwareAddr)
	if outerV6 {
		w.Tunnel.V6 = 1
		w.Tunnel.Local = tunnelWords(netip.MustParseAddr("fd00::1"))
		w.Tunnel.Remote = tunnelWords(netip.MustParseAddr("fd00::2"))
	} else {
		w.Tunnel.Local = tunnelWords(netip.MustParseAddr("198.51.100.1"))
		w.Tunnel.Remote = tunnelWords(netip.MustParseAddr("198.51.100.2"))
	}
	for i := range uint32(2) {
		if err := coll.Maps["wires"].Put(i, w); err != nil {
			r.t.Fatal(err)
		}
	}
	from := interfaceOf(r.t, n, in)
	if err := n.Do(func() error {
		l, err := link.AttachTCX(link.TCXOptions{Interface: from.Index, Program: coll.Programs[program], Attach: ebpf.AttachTCXIngress})
		if err == nil {
			r.t.Cleanup(func() { l.Close() })
		}
		return err
	}); err != nil {
		r.t.Fatalf("attach %s to %s: %v", program, in, err)
	}
	return coll
}

// What the programs count, as in spike.c.
const (
	seenPushed = iota
	seenPopped
	seenFailed
	seenAlready
	seenGSO
	seenTransit
	seenError
)

func seen(t *testing.T, c *ebpf.Collection, what uint32) (n uint64) {
	t.Helper()
	var perCPU []uint64
	if err := c.Maps["seen"].Lookup(what, &perCPU); err != nil {
		t.Fatal(err)
	}
	for _, v := range perCPU {
		n += v
	}
	return n
}

func (r *spikeRig) report() {
	r.t.Helper()
	for i, c := range r.colls {
		r.t.Logf("program %d: pushed %d popped %d failed %d already %d gso %d transit %d error %d", i, seen(r.t, c, 0), seen(r.t, c, 1), seen(r.t, c, 2), seen(r.t, c, 3), seen(r.t, c, 4), seen(r.t, c, 5), seen(r.t, c, 6))
	}
}

// bulk sends size bytes over TCP and returns the rate in Gbit/s.
func bulk(from, to *nstest.Namespace, addr string, size int64, limit time.Duration) (float64, error) {
	deadline := time.Now().Add(limit)
	var l net.Listener
	if err := to.Do(func() (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	}); err != nil {
		return 0, err
	}
	defer l.Close()
	got := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- err
			return
		}
		defer c.Close()
		_ = c.SetDeadline(deadline)
		n, err := io.Copy(io.Discard, c)
		if err == nil && n != size {
			err = fmt.Errorf("got %d bytes of %d", n, size)
		}
		got <- err
	}()
	var c net.Conn
	begin := time.Now()
	if err := from.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", l.Addr().String(), limit)
		return err
	}); err != nil {
		return 0, err
	}
	_ = c.SetDeadline(deadline)
	buf := make([]byte, 256<<10)
	for left := size; left > 0; {
		n, err := c.Write(buf[:min(left, int64(len(buf)))])
		if err != nil {
			c.Close()
			return 0, err
		}
		left -= int64(n)
	}
	c.Close()
	if err := <-got; err != nil {
		return 0, err
	}
	return float64(size) * 8 / time.Since(begin).Seconds() / 1e9, nil
}

const spikeBytes = 64 << 20

func TestRootSpikeGPE(t *testing.T) {
	for _, outerV6 := range []bool{false, true} {
		for _, tso := range []string{"on", "off"} {
			t.Run(fmt.Sprintf("outerV6=%v,tso=%s", outerV6, tso), func(t *testing.T) {
				r := newSpikeRig(t, 1, 1600)
				for _, n := range []*nstest.Namespace{r.nodeA, r.nodeB} {
					setOffload(t, n, "u0", tso == "on")
				}
				mac := func(n *nstest.Namespace, i string) net.HardwareAddr { return macOf(t, n, i) }
				push := r.attach(r.nodeA, "c0", "gpe_push", "u0", mac(r.nodeB, "u0"), outerV6)
				pop := r.attach(r.nodeB, "u0", "gpe_pop", "s0", mac(r.server, "eth0"), outerV6)
				r.attach(r.nodeB, "s0", "gpe_push", "u0", mac(r.nodeA, "u0"), outerV6)
				r.attach(r.nodeA, "u0", "gpe_pop", "c0", mac(r.client, "eth0"), outerV6)
				for _, addr := range []string{"192.0.2.2:0", "[2001:db8::2]:0"} {
					gso := seen(t, pop, seenGSO)
					rate, err := bulk(r.client, r.server, addr, spikeBytes, 20*time.Second)
					if err != nil {
						r.report()
						t.Fatalf("%s: %v", addr, err)
					}
					t.Logf("%s: %.1f Gbit/s", addr, rate)
					if kept := seen(t, pop, seenGSO) - gso; (kept > 0) != (tso == "on") {
						t.Errorf("%s: %d packets of several segments arrived with tso %s", addr, kept, tso)
					}
					if seen(t, push, seenGSO) == 0 {
						t.Errorf("%s: the sender sent no packet of several segments: nothing was tested", addr)
					}
				}
				for i, c := range r.colls {
					if n := seen(t, c, seenFailed); n != 0 {
						t.Errorf("program %d failed %d times, last error %d", i, n, seen(t, c, seenError))
					}
				}
			})
		}
	}
}

// A packet that goes in and out of tunnels several times on one machine: the
// kernel refuses a second encapsulation, and the fallback carries it, segmented
// by a device without offload too.
func TestRootSpikeReencapsulation(t *testing.T) {
	for _, tso := range []string{"on", "off"} {
		t.Run("tso="+tso, func(t *testing.T) {
			r := newSpikeRig(t, 3, 1600)
			for _, n := range []*nstest.Namespace{r.nodeA, r.nodeB} {
				setOffload(t, n, "u2", tso == "on")
			}
			r.attach(r.nodeA, "c0", "gpe_push", "u0", macOf(t, r.nodeB, "u0"), false)
			r.attach(r.nodeB, "u0", "gpe_again", "u1", macOf(t, r.nodeA, "u1"), false)
			r.attach(r.nodeA, "u1", "gpe_again", "u2", macOf(t, r.nodeB, "u2"), false)
			r.attach(r.nodeB, "u2", "gpe_pop", "s0", macOf(t, r.server, "eth0"), false)
			r.attach(r.nodeB, "s0", "gpe_push", "u2", macOf(t, r.nodeA, "u2"), false)
			r.attach(r.nodeA, "u2", "gpe_pop", "c0", macOf(t, r.client, "eth0"), false)
			for _, addr := range []string{"192.0.2.2:0", "[2001:db8::2]:0"} {
				rate, err := bulk(r.client, r.server, addr, spikeBytes, 20*time.Second)
				r.report()
				if err != nil {
					t.Fatalf("%s: %v", addr, err)
				}
				t.Logf("%s: %.1f Gbit/s", addr, rate)
			}
		})
	}
}

func TestRootSpikeAlready(t *testing.T) {
	r := newSpikeRig(t, 1, 1600)
	nstest.Veth(r.nodeB, "x0", r.nodeB, "x1")
	r.attach(r.nodeA, "c0", "gpe_push", "u0", macOf(t, r.nodeB, "u0"), false)
	r.attach(r.nodeB, "u0", "gpe_pop", "x0", macOf(t, r.nodeB, "x1"), false)
	strict := r.attach(r.nodeB, "x1", "gpe_push_strict", "u0", macOf(t, r.nodeA, "u0"), false)
	if err := r.client.Do(func() error {
		c, err := net.Dial("udp", "192.0.2.2:9")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("once"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a second encapsulation is tried", func() bool { return seen(t, strict, seenFailed) > 0 })
	if seen(t, strict, seenAlready) == 0 {
		t.Errorf("a second encapsulation of one packet failed with %d, not -EALREADY: grow's fallback is for that", seen(t, strict, seenError))
	}
}

// NSH straight on Ethernet keeps segmentation offload, and may not follow a tunnel.
func TestRootSpikeEther(t *testing.T) {
	t.Run("alone", func(t *testing.T) {
		r := newSpikeRig(t, 1, 1600)
		r.attach(r.nodeA, "c0", "ether_push", "u0", macOf(t, r.nodeB, "u0"), false)
		pop := r.attach(r.nodeB, "u0", "ether_pop", "s0", macOf(t, r.server, "eth0"), false)
		r.attach(r.nodeB, "s0", "ether_push", "u0", macOf(t, r.nodeA, "u0"), false)
		r.attach(r.nodeA, "u0", "ether_pop", "c0", macOf(t, r.client, "eth0"), false)
		for _, addr := range []string{"192.0.2.2:0", "[2001:db8::2]:0"} {
			rate, err := bulk(r.client, r.server, addr, spikeBytes, 20*time.Second)
			if err != nil {
				r.report()
				t.Fatalf("%s: %v", addr, err)
			}
			t.Logf("%s: %.1f Gbit/s", addr, rate)
		}
		if seen(t, pop, seenGSO) == 0 {
			t.Error("no packet of several segments arrived: offload is lost")
		}
	})
	t.Run("behind a tunnel", func(t *testing.T) {
		r := newSpikeRig(t, 1, 1600)
		nstest.Veth(r.nodeB, "x0", r.nodeB, "x1")
		nstest.Veth(r.nodeB, "y0", r.nodeB, "y1")
		nstest.Veth(r.nodeB, "z0", r.nodeB, "z1")
		for _, i := range []string{"x0", "x1", "y0", "y1", "z0", "z1"} {
			r.nodeB.IP("link set " + i + " mtu 1600")
		}
		r.attach(r.nodeA, "c0", "gpe_push", "u0", macOf(t, r.nodeB, "u0"), false)
		r.attach(r.nodeB, "u0", "gpe_pop", "x0", macOf(t, r.nodeB, "x1"), false)
		r.attach(r.nodeB, "x1", "ether_push", "y0", macOf(t, r.nodeB, "y1"), false)
		r.attach(r.nodeB, "y1", "bounce", "z0", macOf(t, r.nodeB, "z1"), false)
		r.attach(r.nodeB, "z1", "ether_pop", "s0", macOf(t, r.server, "eth0"), false)
		r.attach(r.nodeB, "s0", "gpe_push", "u0", macOf(t, r.nodeA, "u0"), false)
		r.attach(r.nodeA, "u0", "gpe_pop", "c0", macOf(t, r.client, "eth0"), false)
		rate, err := bulk(r.client, r.server, "192.0.2.2:0", 1<<20, 3*time.Second)
		t.Logf("with offload at the port: %.2f Gbit/s, %v", rate, err)
		r.report()
		if err == nil {
			t.Error("0x894F behind a tunnel keeps offload here: the datapath need not turn it off at such ports")
		}
		setOffload(t, r.nodeB, "y0", false)
		rate, err = bulk(r.client, r.server, "192.0.2.2:0", 16<<20, 20*time.Second)
		if err != nil {
			r.report()
			t.Fatalf("without offload at the port: %v", err)
		}
		t.Logf("without offload at the port: %.1f Gbit/s", rate)
	})
}

// What no device on the way takes disappears without a word: so the classifier has to look first.
func TestRootSpikeTooBig(t *testing.T) {
	r := newSpikeRig(t, 1, 1500)
	// Without IPv6 the kernel sends no router solicitations, which would be counted, too.
	for _, n := range []*nstest.Namespace{r.client, r.nodeA, r.nodeB, r.server} {
		if err := n.Do(func() error {
			return os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0)
		}); err != nil {
			t.Fatal(err)
		}
	}
	push := r.attach(r.nodeA, "c0", "gpe_push", "u0", macOf(t, r.nodeB, "u0"), false)
	pop := r.attach(r.nodeB, "u0", "gpe_pop", "s0", macOf(t, r.server, "eth0"), false)
	send := func(payload int) {
		if err := r.client.Do(func() error {
			c, err := net.Dial("udp", "192.0.2.2:9")
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write(make([]byte, payload))
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	send(1500 - 28) // one full packet
	send(1500 - 28 - GPE4Overhead - 40)
	eventually(t, "the small one arrives", func() bool { return seen(t, pop, seenPopped) > 0 })
	time.Sleep(200 * time.Millisecond)
	if pushed, popped := seen(t, push, seenPushed), seen(t, pop, seenPopped); pushed != 2 || popped != 1 {
		t.Errorf("pushed %d, popped %d", pushed, popped)
	}
}

func TestRootSpikeFrames(t *testing.T) {
	spec, err := loadSpike()
	if err != nil {
		t.Fatal(err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatalf("load: %+v", err)
	}
	defer coll.Close()
	for i := range uint32(2) {
		if err := coll.Maps["wires"].Put(i, spikeWire{Out: 1, Dst: [6]uint8{2, 0, 0, 0, 0, 1}, Src: [6]uint8{2, 0, 0, 0, 0, 2}}); err != nil {
			t.Fatal(err)
		}
	}
	inner := testUDP(t, "192.0.2.1", "192.0.2.2", 100)
	nshHeader := []byte{0x0f, 0xc6, 1, 1, 0, 0, 7, 255}
	nshHeader = append(nshHeader, make([]byte, 16)...)
	frame := append([]byte{2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 0x89, 0x4f}, nshHeader...)
	frame = append(frame, inner...)
	runOf := func(program string) []byte {
		t.Helper()
		out := make([]byte, 4096)
		opts := &ebpf.RunOptions{Data: frame, DataOut: out}
		if _, err := coll.Programs[program].Run(opts); err != nil {
			t.Fatal(program, err)
		}
		return opts.DataOut
	}
	if runOf("ether_refused"); seen(t, coll, seenError) != 524 {
		t.Errorf("adjust_room of a frame that is not IP: error -%d, expected -524 (ENOTSUPP)", seen(t, coll, seenError))
	}
	before := seen(t, coll, seenFailed)
	if got := runOf("ether_pop")[14:]; string(got) != string(inner) {
		t.Errorf("popped by tags:\n%x\nwant\n%x", got, inner)
	}
	if got := runOf("protocol_trick")[14:]; string(got) != string(inner) {
		t.Errorf("popped under another name:\n%x\nwant\n%x", got, inner)
	}
	if n := seen(t, coll, seenFailed) - before; n != 0 {
		t.Errorf("%d failures, last error %d", n, seen(t, coll, seenError))
	}
}

// A pinned link outlives its loader, takes a new program between two packets,
// and detaches with its pin.
func TestRootSpikePinning(t *testing.T) {
	r := newSpikeRig(t, 1, 1600)
	r.attach(r.nodeB, "u0", "gpe_pop", "s0", macOf(t, r.server, "eth0"), false)
	r.attach(r.nodeB, "s0", "gpe_push", "u0", macOf(t, r.nodeA, "u0"), false)
	r.attach(r.nodeA, "u0", "gpe_pop", "c0", macOf(t, r.client, "eth0"), false)

	dir := filepath.Join(t.TempDir(), "bpf")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Skipf("bpffs cannot be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	pin := filepath.Join(dir, "link")
	load := func() *ebpf.Collection {
		spec, err := loadSpike()
		if err != nil {
			t.Fatal(err)
		}
		coll, err := ebpf.NewCollection(spec)
		if err != nil {
			t.Fatal(err)
		}
		to := interfaceOf(t, r.nodeA, "u0")
		w := spikeWire{Out: uint32(to.Index)}
		copy(w.Dst[:], macOf(t, r.nodeB, "u0"))
		copy(w.Src[:], to.HardwareAddr)
		w.Tunnel.Local, w.Tunnel.Remote = tunnelWords(netip.MustParseAddr("198.51.100.1")), tunnelWords(netip.MustParseAddr("198.51.100.2"))
		if err := coll.Maps["wires"].Put(uint32(0), w); err != nil {
			t.Fatal(err)
		}
		return coll
	}
	first := load()
	in := interfaceOf(t, r.nodeA, "c0")
	if err := r.nodeA.Do(func() error {
		l, err := link.AttachTCX(link.TCXOptions{Interface: in.Index, Program: first.Programs["gpe_push"], Attach: ebpf.AttachTCXIngress})
		if err != nil {
			return err
		}
		if err := l.Pin(pin); err != nil {
			return err
		}
		return l.Close()
	}); err != nil {
		t.Fatal(err)
	}
	first.Close() // nobody holds anything now but the pin

	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	type result struct {
		out string
		err error
	}
	pinged := make(chan result, 1)
	go func() {
		out, err := r.client.Run(ctx, "ping", "-q", "-i0.002", "-c1000", "-W5", "192.0.2.2")
		pinged <- result{out, err}
	}()
	updates := 0
	for {
		select {
		case p := <-pinged:
			t.Logf("%d updates during\n%s", updates, p.out)
			if p.err != nil || lost(t, p.out) != 0 {
				t.Errorf("packets were lost: %v", p.err)
			}
			if updates < 10 {
				t.Errorf("only %d updates: nothing was tested", updates)
			}
			if err := os.Remove(pin); err != nil {
				t.Fatal(err)
			}
			eventually(t, "without the pin the program is gone", func() bool {
				short, done := context.WithTimeout(t.Context(), 5*time.Second)
				defer done()
				_, err := r.client.Run(short, "ping", "-q", "-c1", "-W1", "192.0.2.2")
				return err != nil
			})
			return
		default:
		}
		next := load()
		l, err := link.LoadPinnedLink(pin, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Update(next.Programs["gpe_push"]); err != nil {
			t.Fatal(err)
		}
		l.Close()
		next.Close()
		updates++
	}
}
