package edgeproxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
)

// siteStreams is siteObjects of a service of whole connections, on a listener named tcp.
func siteStreams(endpoints, gateways map[string]string) mesh.Objects {
	o := tcpTo()
	o.Gateways[0].Spec.Listeners = append(o.Gateways[0].Spec.Listeners,
		mesh.Listener{Name: "eastwest", Protocol: mesh.ProtocolEastWest})
	sites := siteObjects(endpoints, gateways)
	o.Sites = sites.Sites
	o.Services[0].Spec.Export = &mesh.Export{Scope: mesh.ScopeMesh}
	o.Services[0].Spec.Endpoints = sites.Services[0].Spec.Endpoints
	for i := range o.Services[0].Spec.Endpoints {
		o.Services[0].Spec.Endpoints[i].Capacity = nil
	}
	return o
}

// relayed is two sites of one mesh: clients of a's listener are served by b.
type relayed struct {
	*family
	a, b      *proxy
	wire      *wire
	sharing   *decided
	endpoints map[string]string
	objectsA  func() mesh.Objects
	objectsB  func() mesh.Objects
}

func relaying(t testing.TB, home, away func(*net.TCPConn), depsA, depsB Deps) *relayed {
	t.Helper()
	endpoints := map[string]string{"b": tcpBackend(t, away)}
	if home != nil {
		endpoints["a"] = tcpBackend(t, home)
	}
	return relayedBy(t, siteStreams, endpoints, depsA, depsB)
}

func relayedBy(t testing.TB, objects func(endpoints, gateways map[string]string) mesh.Objects, endpoints map[string]string, depsA, depsB Deps) *relayed {
	t.Helper()
	p := &relayed{family: newFamily(t, "mesh.example"), endpoints: endpoints}
	p.objectsB = func() mesh.Objects { return trusting(objects(p.endpoints, nil), p.trust()) }
	p.b = startProxy(t, Config{Site: "b", Loops: 1}, depsB, p.objectsB())
	p.wire = newWire(t, p.b.addr("eastwest").String())
	p.objectsA = func() mesh.Objects {
		return trusting(objects(p.endpoints, map[string]string{"b": p.wire.l.Addr().String()}), p.trust())
	}
	p.sharing = &decided{pick: 0, then: []int{upstream.Home, upstream.None}}
	depsA.Sharing = p.sharing
	p.a = startProxy(t, Config{Site: "a", Loops: 1}, depsA, p.objectsA())
	for _, s := range []struct {
		p    *proxy
		name string
	}{{p.a, "a"}, {p.b, "b"}} {
		if err := s.p.SetIdentity(p.leaf(s.name, s.name+"-1", time.Now())); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// straight has a reach b without the relay that notes what goes over the link.
func (p *relayed) straight() {
	p.a.apply(trusting(siteStreams(p.endpoints, map[string]string{"b": p.b.addr("eastwest").String()}), p.trust()))
}

// atRest waits until nothing of a proxy is in use.
func (p *proxy) atRest() {
	p.t.Helper()
	is := ""
	defer func() {
		if p.t.Failed() {
			p.t.Log(is)
		}
	}()
	eventually(p.t, func() bool {
		open, inFlight := 0, int64(0)
		for _, s := range p.Stats().Streams {
			open += s.Open
		}
		for _, s := range p.Stats().Sessions {
			open += s.Open
		}
		for _, e := range p.Endpoints() {
			inFlight += int64(e.InFlight)
		}
		memory := p.memoryInUse()
		is = fmt.Sprintf("%d open, %d in flight, %d bytes", open, inFlight, memory)
		return open == 0 && inFlight == 0 && memory == 0
	}, "nothing is in use")
}

// TestConnectCarries has connections of one site's clients served by another: all sizes,
// both ways at once, ended by a half close.
func TestConnectCarries(t *testing.T) {
	logA, linesA := logged(t, "%PROTOCOL% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_CLUSTER%")
	logB, linesB := logged(t, "%PROTOCOL% %REQ(:METHOD)% %REQ(:AUTHORITY)% %RESPONSE_CODE% %BYTES_RECEIVED% %BYTES_SENT% %DOWNSTREAM_PEER_URI_SAN%")
	p := relaying(t, nil, echoTCP, Deps{AccessLog: logA}, Deps{AccessLog: logB})
	sizes := []int{0, 1, 1000, 64 << 10, 65<<10 + 7, 1 << 20, 6 << 20}
	var clients sync.WaitGroup
	total := 0
	for i := range 2 * len(sizes) {
		payload := noise(sizes[i%len(sizes)])
		total += len(payload)
		clients.Go(func() {
			c, err := net.Dial("tcp", p.a.addr("tcp").String())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(60 * time.Second))
			go func() {
				c.Write(payload)
				c.(*net.TCPConn).CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, payload) {
				t.Errorf("%d bytes: %d came back, %v", len(payload), len(got), err)
			}
		})
	}
	clients.Wait()
	n := uint64(2 * len(sizes))
	for _, x := range []*proxy{p.a, p.b} {
		x.streamCount("default/echo", "", n)
		if got := x.Stats().Streams[0]; got.FromClients != uint64(total) || got.FromBackend != uint64(total) || got.Open != 0 {
			t.Errorf("%d bytes each way, stats %+v", total, got)
		}
		if r := x.Stats().Requests; len(r) != 0 {
			t.Errorf("connections were counted as requests: %v", r)
		}
	}
	if l := p.b.Loads(nil)[0]; fmt.Sprint(l.From) != fmt.Sprintf("[{a %d}]", n) || l.Arrivals != n || l.InFlight != 0 {
		t.Errorf("loads of b: %+v", l)
	}
	if l := p.a.Loads(nil)[0]; l.Demand != n || l.Arrivals != 0 || l.InFlight != 0 {
		t.Errorf("loads of a: %+v", l)
	}
	for _, l := range linesA(int(n)) {
		if !strings.HasPrefix(l, "TCP - ") || !strings.HasSuffix(l, " default/echo") {
			t.Errorf("log of a: %q", l)
		}
	}
	for _, l := range linesB(int(n)) {
		if !strings.HasPrefix(l, "HTTP/2 CONNECT echo.default._tcp:80 200 ") || !strings.HasSuffix(l, " spiffe://mesh.example/site/a/ns/meridian/sa/a-1") {
			t.Errorf("log of b: %q", l)
		}
	}
	p.wire.mu.Lock()
	for i, seen := range p.wire.seen {
		if _, err := records(seen[:min(len(seen), 1<<20)]); err != nil {
			t.Errorf("direction %d: %v", i, err)
		}
	}
	p.wire.mu.Unlock()
	p.a.apply(p.objectsA()) // sites without new identities: pooled connections stay
	p.a.atRest()
	p.b.atRest()
}

// TestConnectSpeaksFirst has a server that greets, as those of mail and databases do, and
// one that ends first and reads on.
func TestConnectSpeaksFirst(t *testing.T) {
	got := make(chan []byte, 1)
	p := relaying(t, nil, func(c *net.TCPConn) {
		io.WriteString(c, "bye")
		c.CloseWrite()
		all, _ := io.ReadAll(c)
		got <- all
	}, Deps{}, Deps{})
	c := p.a.stream("tcp")
	if hello, err := io.ReadAll(c); string(hello) != "bye" || err != nil {
		t.Fatalf("%q, %v", hello, err)
	}
	payload := noise(3 << 20)
	if _, err := c.Write(payload); err != nil {
		t.Fatal(err)
	}
	c.CloseWrite()
	if all := <-got; !bytes.Equal(all, payload) {
		t.Errorf("the backend got %d bytes", len(all))
	}
	p.a.streamCount("default/echo", "", 1)
	p.b.streamCount("default/echo", "", 1)
}

// TestConnectReset passes resets on, both ways.
func TestConnectReset(t *testing.T) {
	saw := make(chan error, 1)
	p := relaying(t, nil, func(c *net.TCPConn) {
		io.WriteString(c, "x")
		b := make([]byte, 1)
		_, err := c.Read(b)
		if err == nil {
			c.SetLinger(0)
			return
		}
		saw <- err
	}, Deps{}, Deps{})
	c := p.a.stream("tcp")
	c.Read(make([]byte, 1))
	c.SetLinger(0)
	c.Close()
	if err := <-saw; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("backend saw %v", err)
	}
	p.a.streamCount("default/echo", "DC", 1)
	p.b.streamCount("default/echo", "DC", 1)
	c = p.a.stream("tcp")
	c.Read(make([]byte, 1))
	io.WriteString(c, "x")
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("client saw %v", err)
	}
	p.a.streamCount("default/echo", "UC", 1)
	p.b.streamCount("default/echo", "UC", 1)
	p.a.atRest()
	p.b.atRest()
}

// TestConnectGoesWhereItIsServed follows home's endpoints and the gate.
func TestConnectGoesWhereItIsServed(t *testing.T) {
	here, there := "a", "b"
	say := func(name *string) func(*net.TCPConn) {
		return func(c *net.TCPConn) { io.WriteString(c, *name); io.Copy(io.Discard, c) }
	}
	p := relaying(t, say(&here), say(&there), Deps{}, Deps{})
	served := func() string {
		t.Helper()
		c := p.a.stream("tcp")
		c.CloseWrite()
		all, err := io.ReadAll(c)
		if err != nil {
			return err.Error()
		}
		return string(all)
	}
	pick := func(i int, then ...int) {
		p.sharing.mu.Lock()
		p.sharing.pick, p.sharing.then = i, then
		p.sharing.mu.Unlock()
	}
	if got := served(); got != "b" {
		t.Errorf("the gate says b: %q", got)
	}
	eventually(t, func() bool { return p.sharing.heard() != "" }, "the gate hears")
	pick(upstream.Home)
	if got := served(); got != "a" {
		t.Errorf("the gate says home: %q", got)
	}
	if h := p.sharing.heard(); h != "" {
		t.Errorf("of what stays at home the gate heard %q", h)
	}
	pick(upstream.Shed)
	p.a.reset("tcp")
	p.a.streamCount("default/echo", "SH", 1)

	// Home's endpoint is gone: what the gate keeps at home goes to b.
	pick(upstream.Home, 0)
	home := p.endpoints["a"]
	p.endpoints["a"] = refused(t)
	p.a.apply(p.objectsA())
	if got := served(); got != "b" {
		t.Errorf("home cannot be reached: %q", got)
	}
	delete(p.endpoints, "a")
	p.a.apply(p.objectsA())
	if got := served(); got != "b" {
		t.Errorf("home has no endpoint: %q", got)
	}
	// b has none either: never passed on, even though b knows that a has one.
	p.endpoints["a"] = home
	away := p.endpoints["b"]
	p.endpoints["b"] = refused(t)
	p.b.apply(p.objectsB())
	p.a.apply(p.objectsA())
	pick(0, upstream.Home)
	if got := served(); got != "a" {
		t.Errorf("b cannot serve: %q", got)
	}
	pick(0, upstream.None)
	p.a.reset("tcp")
	p.a.streamCount("default/echo", "UH", 1)
	p.endpoints["b"] = away
	p.b.apply(p.objectsB())
	p.a.atRest()
	p.b.atRest()
}

// TestConnectCut has the link between the sites cut in the middle: clients see a reset,
// and the next connection is served at home.
func TestConnectCut(t *testing.T) {
	var broken atomic.Int64
	p := relaying(t, echoTCP, func(c *net.TCPConn) {
		if _, err := io.Copy(c, c); err != nil {
			broken.Add(1)
		}
	}, Deps{}, Deps{})
	var open []*net.TCPConn
	buf := make([]byte, 5)
	for range 20 {
		c := p.a.stream("tcp")
		io.WriteString(c, "hello")
		if _, err := io.ReadFull(c, buf); err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	p.wire.cut()
	for _, c := range open {
		if _, err := c.Read(buf); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a client saw %v", err)
		}
	}
	eventually(t, func() bool { return broken.Load() == 20 }, "b's backend sees 20 connections broken")
	c := p.a.stream("tcp")
	io.WriteString(c, "hello")
	if _, err := io.ReadFull(c, buf); err != nil {
		t.Errorf("after the cut: %v", err)
	}
	c.Close()
	p.a.streamCount("default/echo", "UC", 20)
	p.b.streamCount("default/echo", "DC", 20)
	p.a.atRest()
	p.b.atRest()
}

// TestConnectOutlivesDrain keeps connections that are open while b drains.
func TestConnectOutlivesDrain(t *testing.T) {
	p := relaying(t, nil, echoTCP, Deps{}, Deps{})
	c := p.a.stream("tcp")
	buf := make([]byte, 5)
	echo := func() {
		t.Helper()
		io.WriteString(c, "hello")
		if _, err := io.ReadFull(c, buf); err != nil {
			t.Fatal(err)
		}
	}
	echo()
	o := p.objectsB()
	l := o.Gateways[0].Spec.Listeners
	o.Gateways[0].Spec.Listeners = l[:1] // no east-west listener any more
	p.b.apply(o)
	for range 20 {
		time.Sleep(10 * time.Millisecond)
		echo()
	}
	c.CloseWrite()
	if rest, err := io.ReadAll(c); len(rest) != 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	p.b.atRest()
}

// TestConnectSlowReader bounds what two proxies hold for a client that does not read.
func TestConnectSlowReader(t *testing.T) {
	const size = 64 << 20 // more than three hops' buffers of the kernel hold
	var sent atomic.Int64
	payload := noise(size)
	p := relaying(t, nil, func(c *net.TCPConn) {
		for off := 0; off < size; off += 64 << 10 {
			if _, err := c.Write(payload[off : off+64<<10]); err != nil {
				return
			}
			sent.Add(64 << 10)
		}
	}, Deps{}, Deps{})
	c := p.a.stream("tcp")
	last := int64(-1)
	eventually(t, func() bool { // the backend cannot send more
		now := sent.Load()
		still := now == last
		last = now
		time.Sleep(50 * time.Millisecond)
		return still && now > 0
	}, "the backend waits")
	if last >= size {
		t.Fatalf("the kernel's buffers hold all of %d MiB: give it more", size>>20)
	}
	for _, x := range []*proxy{p.a, p.b} {
		if n := x.memoryInUse(); n > 1<<20 {
			t.Errorf("%d bytes of buffers for one slow reader", n)
		}
	}
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, payload) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestConnectAllocatesNothing carries many small messages through two proxies, in the
// clear: crypto/tls allocates for each record that it reads.
func TestConnectAllocatesNothing(t *testing.T) {
	p := relaying(t, nil, func(c *net.TCPConn) {
		buf := make([]byte, 1024)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			c.Write(buf[:n])
		}
	}, Deps{}, Deps{})
	p.b.apply(siteStreams(p.endpoints, nil))
	p.a.apply(siteStreams(p.endpoints, map[string]string{"b": p.wire.l.Addr().String()}))
	c := p.a.stream("tcp")
	buf := make([]byte, 1024)
	const messages = 3000
	send := func() {
		for range messages {
			if _, err := c.Write(buf); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, buf); err != nil {
				t.Fatal(err)
			}
		}
	}
	send()
	p.wire.quiet.Store(true)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	send()
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; !raceEnabled && n > messages/5 {
		t.Errorf("%d allocations in %d messages", n, messages)
	}
}
