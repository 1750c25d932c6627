package edgeproxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// udpBackend answers each datagram by what serve makes of it, nothing for nil.
func udpBackend(t *testing.T, serve func(from *net.UDPAddr, p []byte) []byte) string {
	t.Helper()
	return udpBackendOn(t, "127.0.0.1:0", serve)
}

func udpBackendOn(t *testing.T, addr string, serve func(from *net.UDPAddr, p []byte) []byte) string {
	t.Helper()
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.UDPConn).SetReadBuffer(4 << 20)
	t.Cleanup(func() { c.Close() })
	go func() {
		p := make([]byte, 64<<10)
		for {
			n, from, err := c.ReadFrom(p)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			if reply := serve(from.(*net.UDPAddr), p[:n]); reply != nil {
				_, _ = c.WriteTo(reply, from)
			}
		}
	}()
	return c.LocalAddr().String()
}

// udpNamed answers with its name before what was sent.
func udpNamed(name string) func(*net.UDPAddr, []byte) []byte {
	return func(_ *net.UDPAddr, p []byte) []byte { return append([]byte(name+" "), p...) }
}

func echoUDP(_ *net.UDPAddr, p []byte) []byte { return p }

// udpTo passes the datagrams of a listener named udp on to the addresses.
func udpTo(addrs ...string) mesh.Objects { return udpOn("127.0.0.1", addrs...) }

func udpOn(address string, addrs ...string) mesh.Objects {
	s := service("echo", addrs...)
	s.Spec.Ports = []mesh.ServicePort{{Port: 80, Protocol: mesh.PortUDP}}
	g := gatewayOn(address, mesh.Listener{Name: "udp", Protocol: mesh.ProtocolUDP})
	if address == "" {
		g.Spec.Addresses = nil
	}
	return mesh.Objects{
		Gateways: []*mesh.Gateway{g},
		UDPRoutes: []*mesh.UDPRoute{{
			Metadata: mesh.ObjectMeta{Name: "all", Namespace: "default"},
			Spec:     mesh.UDPRouteSpec{ParentRefs: []mesh.ParentRef{{Name: "ingress"}}, Rules: []mesh.StreamRouteRule{{BackendRefs: []mesh.BackendRef{backendRef("echo")}}}},
		}},
		Services: []*mesh.MeshService{s},
	}
}

// udpClient is a client of one address.
type udpClient struct {
	*net.UDPConn
	t testing.TB
}

func (p *proxy) udp() *udpClient { return dialUDP(p.t, p.addr("udp")) }

func dialUDP(t testing.TB, to netip.AddrPort) *udpClient {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &udpClient{c, t}
}

// ask sends a datagram until something is answered: UDP may lose it.
func (c *udpClient) ask(p string) string {
	c.t.Helper()
	b := make([]byte, 64<<10)
	for range 40 {
		if _, err := c.Write([]byte(p)); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			c.t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		n, err := c.Read(b)
		if err == nil {
			return string(b[:n])
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, syscall.ECONNREFUSED) {
			c.t.Fatal(err)
		}
	}
	c.t.Fatalf("no answer to %q", p)
	return ""
}

// sessions returns the counts of the service, zero when there are none.
func (p *proxy) sessions() SessionCount {
	for _, c := range p.Stats().Sessions {
		if c.Service == "default/echo" {
			return c
		}
	}
	return SessionCount{}
}

func TestUDPBothWays(t *testing.T) {
	for _, address := range []string{"127.0.0.1", "::1"} {
		t.Run(address, func(t *testing.T) {
			p := startProxy(t, Config{}, Deps{}, udpOn(address, udpBackend(t, echoUDP)))
			c := p.udp()
			for _, size := range []int{0, 1, 17, 1472, 1473, 9000, 65507} {
				if address == "::1" && size == 65507 {
					size = 65000
				}
				if want := string(noise(size)); c.ask(want) != want {
					t.Errorf("%d bytes came back otherwise", size)
				}
			}
			eventually(t, func() bool { // counted after they were sent
				s := p.sessions()
				return s.Open == 1 && s.FromClients >= 7 && s.FromBackend >= 7 && len(s.Dropped) == 0
			}, "the datagrams to be counted")
			all := p.Connections(10)
			if len(all) != 1 || all[0].State != "datagrams" || all[0].Client != c.LocalAddr().String() {
				t.Fatalf("connections %+v", all)
			}
			one, ok := p.Connection(all[0].ID)
			if !ok || len(one.Requests) != 1 || one.Requests[0].Service != "default/echo" || len(one.Requests[0].Attempts) != 1 {
				t.Errorf("%+v %v", one, ok)
			}
		})
	}
}

// TestUDPSessions sends a client to one endpoint always, clients to all of them, and
// each to where another proxy would send it.
func TestUDPSessions(t *testing.T) {
	o := udpTo(udpBackend(t, udpNamed("a")), udpBackend(t, udpNamed("b")), udpBackend(t, udpNamed("c")))
	p, other := startProxy(t, Config{Loops: 2}, Deps{}, o), startProxy(t, Config{Loops: 1}, Deps{}, o)
	seen := map[string]int{}
	for range 60 {
		c := p.udp()
		first := c.ask("x")
		seen[first]++
		for range 3 {
			if again := c.ask("x"); again != first {
				t.Fatalf("%s, then %s", first, again)
			}
		}
		local := c.LocalAddr().(*net.UDPAddr)
		c.Close()
		same, err := net.DialUDP("udp", local, net.UDPAddrFromAddrPort(other.addr("udp")))
		if err != nil {
			t.Fatal(err)
		}
		if got := (&udpClient{same, t}).ask("x"); got != first {
			t.Errorf("%v: %s here, %s there", local, first, got)
		}
		same.Close()
	}
	if len(seen) != 3 {
		t.Errorf("60 clients went to %v", seen)
	}
}

// TestUDPAnswersFromTheAddressAsked has a client that takes answers only from where
// it sent to, as all do that connect their socket.
func TestUDPAnswersFromTheAddressAsked(t *testing.T) {
	p := startProxy(t, Config{}, Deps{}, udpOn("", udpBackend(t, echoUDP)))
	port := p.addr("udp").Port()
	for _, a := range []string{"127.0.0.1", "127.0.0.2", "127.9.9.9", "::1"} {
		if got := dialUDP(t, netip.AddrPortFrom(netip.MustParseAddr(a), port)).ask(a); got != a {
			t.Errorf("%s answered %q", a, got)
		}
	}
}

// TestUDPBeside serves TCP and UDP on one port.
func TestUDPBeside(t *testing.T) {
	o := udpTo(udpBackend(t, echoUDP))
	web := toOne(backend(t, http.NotFound))
	o.HTTPRoutes = web.HTTPRoutes
	o.HTTPRoutes[0].Spec.Rules[0].BackendRefs[0].Name = "web"
	web.Services[0].Metadata.Name = "web"
	o.Services = append(o.Services, web.Services...)
	free := netip.MustParseAddrPort(refused(t)).Port()
	o.Gateways[0].Spec.Listeners = []mesh.Listener{
		{Name: "udp", Port: int(free), Protocol: mesh.ProtocolUDP}, httpListener("http", int(free)),
	}
	p := startProxy(t, Config{}, Deps{}, o)
	if a, b := p.addr("udp"), p.addr("http"); a != b {
		t.Fatalf("%s and %s", a, b)
	}
	p.udp().ask("x")
	if status, _ := get(t, p.url("/")); status != 404 {
		t.Errorf("status %d", status)
	}
}

// TestUDPEndpointGone kills the endpoint of a session: the kernel says so, and the
// session goes on at another one.
func TestUDPEndpointGone(t *testing.T) {
	nobody, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := nobody.LocalAddr().String()
	nobody.Close()
	p := startProxy(t, Config{}, Deps{}, udpTo(gone, udpBackend(t, udpNamed("alive"))))
	for range 12 {
		if got := p.udp().ask("x"); got != "alive x" {
			t.Fatalf("answer %q", got)
		}
	}
	for _, e := range p.Endpoints() {
		if e.Address == gone && e.ConnectFailures == 0 {
			t.Errorf("no failure counted: %+v", e)
		}
	}
}

func TestUDPNobodyThere(t *testing.T) {
	p := startProxy(t, Config{}, Deps{}, udpTo())
	c := p.udp()
	c.Write([]byte("x"))
	eventually(t, func() bool { return p.sessions().Dropped["no_route"] == 1 }, "the sessions to change")
	if s := p.sessions(); s.Open != 0 || s.Ended["UH"] != 1 {
		t.Errorf("%+v", s)
	}
}

// TestUDPIdle ends sessions by silence, those that are answered by the policy.
func TestUDPIdle(t *testing.T) {
	idle := mesh.Duration(300 * time.Millisecond)
	o := with(udpTo(udpBackend(t, echoUDP)), mesh.TrafficPolicySpec{Timeouts: &mesh.PolicyTimeouts{Idle: &idle}})
	p := startProxy(t, Config{}, Deps{}, o)
	c := p.udp()
	c.ask("x")
	if s := p.sessions(); s.Open != 1 {
		t.Errorf("%+v", s)
	}
	eventually(t, func() bool { s := p.sessions(); return s.Open == 0 && s.Ended[""] == 1 }, "the sessions to change")
	c.ask("y") // a new session
	if len(p.Connections(9)) != 1 {
		t.Error("no new session")
	}
}

// TestUDPFull has a client that is served take the place of one that was never
// answered, and none where all are.
func TestUDPFull(t *testing.T) {
	answer := func(from *net.UDPAddr, p []byte) []byte {
		if string(p) == "silent" {
			return nil
		}
		return p
	}
	p := startProxy(t, Config{Loops: 1, MaxListenerConnections: 3}, Deps{}, udpTo(udpBackend(t, answer)))
	kept := p.udp()
	kept.ask("x")
	for range 20 {
		p.udp().Write([]byte("silent"))
	}
	full := func() (n uint64) {
		for _, s := range p.Stats().Sessions {
			n += s.Dropped["full"]
		}
		return n
	}
	eventually(t, func() bool { return p.sessions().FromClients+full() >= 21 }, "the flood to be taken")
	before := full()
	one, two := p.udp(), p.udp()
	one.ask("1")
	two.ask("2")
	three := p.udp()
	three.Write([]byte("3"))
	eventually(t, func() bool { return full() > before }, "a datagram over the bound to be dropped")
	if got := kept.ask("still"); got != "still" {
		t.Error(got)
	}
	if n := len(p.Connections(9)); n != 3 {
		t.Errorf("%d sessions", n)
	}
}

// TestUDPReload changes what a listener's sessions go to.
func TestUDPReload(t *testing.T) {
	a, b := udpBackend(t, udpNamed("a")), udpBackend(t, udpNamed("b"))
	o := udpTo(a)
	p := startProxy(t, Config{Loops: 2}, Deps{}, o)
	clients := []*udpClient{p.udp(), p.udp(), p.udp(), p.udp()}
	for _, c := range clients {
		c.ask("x")
	}
	addr := p.addr("udp")
	p.apply(udpTo(a, b)) // nobody moves whose endpoint stays
	for _, c := range clients {
		if got := c.ask("y"); got != "a y" {
			t.Errorf("%q", got)
		}
	}
	p.apply(udpTo(b))
	for _, c := range clients {
		if got := c.ask("z"); got != "b z" {
			t.Errorf("%q", got)
		}
	}
	if p.addr("udp") != addr {
		t.Errorf("the listener moved from %s to %s", addr, p.addr("udp"))
	}
	p.apply(toOne(backend(t, http.NotFound)))
	if n := len(p.Connections(9)); n != 0 {
		t.Errorf("%d sessions of a listener that is gone", n)
	}
	for {
		if _, err := clients[0].Write([]byte("x")); errors.Is(err, syscall.ECONNREFUSED) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestUDPBulk sends bursts of joined datagrams (UDP_SEGMENT) both ways: nothing is
// reordered, merged or cut otherwise.
func TestUDPBulk(t *testing.T) {
	const size, burst, bursts = 1200, 40, 50
	var got atomic.Int64
	// The endpoint answers each burst's last datagram by a burst of its own.
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadBuffer(4 << 20)
	go func() {
		p := make([]byte, 64<<10)
		next := uint64(0)
		for {
			n, from, err := c.ReadFromUDPAddrPort(p)
			if err != nil {
				return
			}
			last := binary.BigEndian.Uint64(p)%burst == burst-1
			if seq := binary.BigEndian.Uint64(p); seq < next || n != size && !last || last && n != size/2 {
				t.Errorf("datagram %d of %d bytes after %d", seq, n, next)
			} else {
				next = seq + 1
				got.Add(1)
			}
			if last {
				sendJoined(t, c, from, binary.BigEndian.Uint64(p)/burst, size, burst)
			}
		}
	}()
	p := startProxy(t, Config{Loops: 1}, Deps{}, udpTo(c.LocalAddr().String()))
	client := p.udp()
	_ = client.SetReadBuffer(4 << 20)
	buf := make([]byte, 64<<10)
	for b := range uint64(bursts) {
		sendJoined(t, client.UDPConn, netip.AddrPort{}, b, size, burst)
		for i := range uint64(burst) {
			client.SetReadDeadline(time.Now().Add(20 * time.Second))
			n, err := client.Read(buf)
			want := size
			if i == burst-1 {
				want = size / 2
			}
			if err != nil || n != want || binary.BigEndian.Uint64(buf) != b*burst+i {
				t.Fatalf("burst %d, datagram %d: %d bytes, number %d, %v", b, i, n, binary.BigEndian.Uint64(buf), err)
			}
		}
	}
	if got.Load() != burst*bursts {
		t.Errorf("the endpoint got %d", got.Load())
	}
	eventually(t, func() bool { // counted after they were sent
		s := p.sessions()
		return s.FromClients == burst*bursts && s.FromBackend == burst*bursts
	}, "the datagrams to be counted")
	if calls := p.Stats().Loops[0].Syscalls; calls > burst*bursts/2 {
		t.Errorf("%d system calls for %d datagrams each way, want them joined", calls, burst*bursts)
	}
}

// sendJoined sends a burst of numbered datagrams of one size, the last one shorter.
func sendJoined(t *testing.T, c *net.UDPConn, to netip.AddrPort, n uint64, size, burst int) {
	p := make([]byte, size*(burst-1)+size/2)
	for i := range burst {
		binary.BigEndian.PutUint64(p[i*size:], n*uint64(burst)+uint64(i))
	}
	oob := make([]byte, unix.CmsgSpace(2))
	oob[0] = byte(unix.CmsgLen(2))
	binary.NativeEndian.PutUint32(oob[8:], unix.SOL_UDP)
	binary.NativeEndian.PutUint32(oob[12:], unix.UDP_SEGMENT)
	binary.NativeEndian.PutUint16(oob[16:], uint16(size))
	if _, _, err := c.WriteMsgUDPAddrPort(p, oob, to); err != nil {
		t.Error(err)
	}
}

// TestUDPHotPath has no allocation per datagram.
func TestUDPHotPath(t *testing.T) {
	backend, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	go func() {
		p := make([]byte, 2048)
		for {
			n, from, err := backend.ReadFromUDPAddrPort(p)
			if err != nil {
				return
			}
			_, _ = backend.WriteToUDPAddrPort(p[:n], from)
		}
	}()
	p := startProxy(t, Config{Loops: 1}, Deps{}, udpTo(backend.LocalAddr().String()))
	const clients, rounds = 8, 5_000
	var lost atomic.Int64
	run := func(n int, all []*udpClient) {
		var wg sync.WaitGroup
		for _, c := range all {
			wg.Go(func() {
				b := make([]byte, 64)
				for range n {
					c.SetReadDeadline(time.Now().Add(5 * time.Second))
					if _, err := c.Write(b); err != nil {
						lost.Add(1)
					} else if _, err := c.Read(b); err != nil {
						lost.Add(1)
					}
				}
			})
		}
		wg.Wait()
	}
	var all []*udpClient
	for range clients {
		all = append(all, p.udp())
	}
	run(100, all)
	runtime.GC()
	var before, after runtime.MemStats
	was, began := p.Stats().Loops[0].Syscalls, time.Now()
	runtime.ReadMemStats(&before)
	run(rounds, all)
	runtime.ReadMemStats(&after)
	took, calls, n := time.Since(began), p.Stats().Loops[0].Syscalls-was, float64(clients*rounds)
	t.Logf("%.0f rounds/s, %.2f system calls a round, %d objects, %d lost", n/took.Seconds(), float64(calls)/n, after.Mallocs-before.Mallocs, lost.Load())
	// The runtime's goroutines and timers allocate some a second, and the eight of
	// this test.
	if most := 200 + uint64(40*took.Seconds()); after.Mallocs-before.Mallocs > most {
		t.Errorf("%d objects for %.0f rounds, want at most %d: none per datagram", after.Mallocs-before.Mallocs, n, most)
	}
	// One to receive and one to send each way, and the wait between.
	if float64(calls) > 6*n {
		t.Errorf("%d system calls for %.0f rounds", calls, n)
	}
}

// TestUDPQUIC rebinds a client's address in the middle of what looks like a QUIC
// connection: by its connection ID it comes to the same endpoint.
func TestUDPQUIC(t *testing.T) {
	serve := func(name byte) func(*net.UDPAddr, []byte) []byte {
		return func(from *net.UDPAddr, p []byte) []byte {
			if p[0]&0x80 != 0 { // Initial: the server names itself
				id := slices.Concat([]byte{name}, p[6:6+7])
				return slices.Concat([]byte{0xc3, 0, 0, 0, 1, 0, 8}, id, []byte("hello"))
			}
			return append([]byte{0x43, name}, p[1:9]...)
		}
	}
	var addrs []string
	for i := range 8 {
		addrs = append(addrs, udpBackend(t, serve('A'+byte(i))))
	}
	p := startProxy(t, Config{Loops: 2}, Deps{}, udpTo(addrs...))
	for i := range 20 {
		c := p.udp()
		hello := c.ask("\xc3\x00\x00\x00\x01\x08" + fmt.Sprintf("client%02d", i) + "\x00rest")
		if !strings.HasSuffix(hello, "hello") {
			t.Fatalf("%q", hello)
		}
		id := hello[7:15]
		for range 3 {
			moved := p.udp()
			got := moved.ask("\x43" + id + "data")
			if got[1] != id[0] || !bytes.Equal([]byte(got[2:]), []byte(id)) {
				t.Errorf("client %d is at %c, its connection at %c", i, got[1], id[0])
			}
		}
	}
}

// TestUDPDrain ends when sessions are silent, not when their idle time is over.
func TestUDPDrain(t *testing.T) {
	p := startProxy(t, Config{Loops: 1}, Deps{}, udpTo(udpBackend(t, echoUDP)))
	p.udp().ask("x")
	ctx, done := context.WithTimeout(t.Context(), 20*time.Second)
	defer done()
	if err := p.Drain(ctx); err != nil {
		t.Error(err)
	}
}
