package edgeproxy

import (
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/capsule"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
)

// sitePackets is siteStreams of a service of datagrams, on a listener named udp.
func sitePackets(endpoints, gateways map[string]string) mesh.Objects {
	o := siteStreams(endpoints, gateways)
	u := udpTo()
	o.Gateways[0].Spec.Listeners[0] = u.Gateways[0].Spec.Listeners[0]
	o.TCPRoutes, o.UDPRoutes = nil, u.UDPRoutes
	o.Services[0].Spec.Ports = u.Services[0].Spec.Ports
	short := mesh.Duration(1500 * time.Millisecond)
	o.TrafficPolicies = []*mesh.TrafficPolicy{{
		Metadata: mesh.ObjectMeta{Name: "short", Namespace: "default"},
		Spec:     mesh.TrafficPolicySpec{TargetRefs: []mesh.PolicyTargetRef{{Group: mesh.MeshGroup, Kind: mesh.KindMeshService, Name: "echo"}}, Timeouts: &mesh.PolicyTimeouts{Idle: &short}},
	}}
	return o
}

// TestConnectUDP has datagrams of one site's clients answered by another, of all sizes, and
// sessions end by silence at both.
func TestConnectUDP(t *testing.T) {
	logA, linesA := logged(t, "%PROTOCOL% %RESPONSE_FLAGS% %UPSTREAM_SITE% %UPSTREAM_CLUSTER%")
	logB, linesB := logged(t, "%PROTOCOL% %REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %DOWNSTREAM_PEER_URI_SAN%")
	p := relayedBy(t, sitePackets, map[string]string{"b": udpBackend(t, udpNamed("b"))}, Deps{AccessLog: logA}, Deps{AccessLog: logB})
	c := p.a.udp()
	for _, size := range []int{0, 1, 17, 60, 61, 1472, 9000, 30000} {
		payload := string(noise(size))
		if got := c.ask(payload); got != "b "+payload {
			t.Errorf("%d bytes: %d came back", size, len(got))
		}
	}
	other := p.a.udp()
	if got := other.ask("x"); got != "b x" {
		t.Errorf("another client: %q", got)
	}
	p.a.atRest() // by silence
	p.b.atRest()
	for _, x := range []*proxy{p.a, p.b} {
		if s := x.sessions(); s.Ended[""] != 2 || len(s.Ended) != 1 || s.FromClients < 9 || s.FromBackend < 9 || len(s.Dropped) != 0 {
			t.Errorf("sessions %+v", s)
		}
	}
	if l := p.b.Loads(nil)[0]; fmt.Sprint(l.From) != "[{a 2}]" || l.InFlight != 0 {
		t.Errorf("loads of b: %+v", l)
	}
	for _, l := range linesA(2) {
		if l != "UDP - b default/echo" {
			t.Errorf("log of a: %q", l)
		}
	}
	for _, l := range linesB(2) {
		if l != "HTTP/2 CONNECT /.well-known/masque/udp/echo.default._udp/80/ 200 spiffe://mesh.example/site/a/ns/meridian/sa/a-1" {
			t.Errorf("log of b: %q", l)
		}
	}
}

// TestConnectUDPGoesWhereItIsServed follows the gate, home's endpoints, and a cut.
func TestConnectUDPGoesWhereItIsServed(t *testing.T) {
	p := relayedBy(t, sitePackets, map[string]string{"a": udpBackend(t, udpNamed("a")), "b": udpBackend(t, udpNamed("b"))}, Deps{}, Deps{})
	pick := func(i int, then ...int) {
		p.sharing.mu.Lock()
		p.sharing.pick, p.sharing.then = i, then
		p.sharing.mu.Unlock()
	}
	served := func() string { t.Helper(); return p.a.udp().ask("x") }
	if got := served(); got != "b x" {
		t.Errorf("the gate says b: %q", got)
	}
	pick(upstream.Home)
	if got := served(); got != "a x" {
		t.Errorf("the gate says home: %q", got)
	}
	pick(upstream.Home, 0)
	home := p.endpoints["a"]
	delete(p.endpoints, "a")
	p.a.apply(p.objectsA())
	if got := served(); got != "b x" {
		t.Errorf("home has no endpoint: %q", got)
	}
	p.endpoints["a"] = home
	p.a.apply(p.objectsA())
	pick(0, upstream.Home)
	away := p.endpoints["b"]
	delete(p.endpoints, "b")
	p.b.apply(p.objectsB()) // never passed on, though b knows of a's
	p.endpoints["b"] = away
	if got := served(); got != "a x" {
		t.Errorf("b cannot serve: %q", got)
	}
	p.b.apply(p.objectsB())
	c := p.a.udp()
	if got := c.ask("x"); got != "b x" {
		t.Fatalf("before the cut: %q", got)
	}
	p.wire.cut()
	if got := c.ask("y"); got != "a y" {
		t.Errorf("the session after the cut: %q", got)
	}
}

// TestConnectUDPHostile sends what no proxy would.
func TestConnectUDPHostile(t *testing.T) {
	p := startProxy(t, Config{Site: "b", Loops: 1}, Deps{}, sitePackets(map[string]string{"b": udpBackend(t, echoUDP)}, nil))
	h := p.rawH2("eastwest")
	const path = "/.well-known/masque/udp/echo.default._udp/80/"
	ask := func(path string, more ...string) uint32 {
		return h.ask(false, append([]string{":method", "CONNECT", ":protocol", "connect-udp", ":scheme", "http", ":authority", "b", ":path", path}, more...)...)
	}
	for at, want := range map[string]string{
		path: "200",
		"/.well-known/masque/udp/echo.default._udp/81/":   "404",
		"/.well-known/masque/udp/other.default._udp/80/":  "404",
		"/.well-known/masque/udp/192.0.2.1/443/":          "404",
		"/.well-known/masque/udp/echo.default._udp/80":    "404",
		"/.well-known/masque/udp/echo.default._udp/80/?a": "404",
		"/": "404",
	} {
		if got := h.status(ask(at)); got != want {
			t.Errorf("%s: %s, want %s", at, got, want)
		}
	}
	if got := h.status(h.connect("echo.default._udp:80")); got != "404" {
		t.Errorf("a UDP port by a plain CONNECT: %s", got)
	}
	says := func(id uint32, want string) {
		t.Helper()
		h.read(func() bool { return strings.Contains(h.got[id], want) })
	}
	id := ask(path)
	h.status(id)
	mixed := append([]byte{0x17, 3, 'a', 'b', 'c'}, capsule.Append(nil, []byte("hello"))...) // an unknown type first
	mixed = append(mixed, 0, 3, 2, 'n', 'o')                                                 // then another context
	h.WriteData(id, false, mixed[:7])
	h.WriteData(id, false, mixed[7:])
	says(id, `"\x00\x06\x00hello"`)
	// A datagram that no path takes is dropped, and the session goes on.
	big := capsule.Append(nil, make([]byte, capsule.MaxDatagram))
	for len(big) > 0 {
		n := min(len(big), 16<<10)
		h.WriteData(id, false, big[:n])
		big = big[n:]
	}
	eventually(t, func() bool { return p.sessions().Dropped["too_big"] == 1 }, "the datagram is dropped")
	h.WriteData(id, false, capsule.Append(nil, []byte("on")))
	says(id, `"\x00\x03\x00on"`)
	// One that is cut by the stream's end never was.
	h.WriteData(id, true, capsule.Append(nil, []byte("cut"))[:4])
	says(id, "END")
	// What is none at all ends the stream.
	for _, wrong := range [][]byte{{0, 0}, {0, 0x80, 1, 0, 0, 0}, {9, 0xc0, 0, 0, 1, 0, 0, 0, 0}} {
		id := ask(path)
		h.status(id)
		h.WriteData(id, false, wrong)
		says(id, "RST")
	}
	// A client that takes nothing: what waits is bounded, the rest is dropped and counted.
	slow := p.rawH2("eastwest")
	id = slow.ask(false, ":method", "CONNECT", ":protocol", "connect-udp", ":scheme", "http", ":authority", "b", ":path", path)
	slow.status(id)
	// It gives no window back: 64 KiB of answers fit, and as much waits at the proxy.
	for range 60 {
		if err := slow.WriteData(id, false, capsule.Append(nil, make([]byte, 8000))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond) // the datagrams' own way must not lose them
	}
	eventually(t, func() bool { return p.sessions().Dropped["busy"] > 0 }, "datagrams are dropped")
	if n := p.memoryInUse(); n > 512<<10 {
		t.Errorf("%d bytes of buffers", n)
	}
	slow.c.Close()
	h.c.Close()
	p.atRest()
}

// TestConnectUDPAllocatesNothing sends many datagrams through two proxies, in the clear.
func TestConnectUDPAllocatesNothing(t *testing.T) {
	objects := func(endpoints, gateways map[string]string) mesh.Objects {
		o := sitePackets(endpoints, gateways)
		o.TrafficPolicies = nil
		return o
	}
	b := startProxy(t, Config{Site: "b", Loops: 1}, Deps{}, objects(map[string]string{"b": quietUDP(t)}, nil))
	a := startProxy(t, Config{Site: "a", Loops: 1}, Deps{Sharing: &decided{pick: 0}},
		objects(map[string]string{"b": "127.0.0.1:9"}, map[string]string{"b": b.addr("eastwest").String()}))
	c := a.udp()
	c.ask("x")
	buf := make([]byte, 1000)
	const datagrams = 3000
	send := func() {
		for range datagrams {
			if _, err := c.Write(buf); err != nil {
				t.Fatal(err)
			}
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := c.Read(buf); err != nil {
				t.Fatal(err)
			}
		}
	}
	send()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	send()
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; !raceEnabled && n > datagrams/5 {
		t.Errorf("%d allocations in %d datagrams", n, datagrams)
	}
}

// quietUDP echoes datagrams without allocating.
func quietUDP(t *testing.T) string {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		p := make([]byte, 2048)
		for {
			n, from, err := c.ReadFromUDPAddrPort(p)
			if err != nil {
				return
			}
			if _, err := c.WriteToUDPAddrPort(p[:n], from); err != nil {
				return
			}
		}
	}()
	return c.LocalAddr().String()
}
