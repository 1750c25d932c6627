package edgeproxy

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/worker"
)

// tcpBackend hands each connection to serve.
func tcpBackend(t testing.TB, serve func(c *net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c.(*net.TCPConn))
			}()
		}
	}()
	return l.Addr().String()
}

func tcpService(name string, addrs ...string) *mesh.MeshService {
	s := service(name, addrs...)
	s.Spec.Ports = []mesh.ServicePort{{Port: 80, Protocol: mesh.PortTCP}}
	return s
}

func tcpRoute(name string, refs ...mesh.BackendRef) *mesh.TCPRoute {
	return &mesh.TCPRoute{
		Metadata: mesh.ObjectMeta{Name: name, Namespace: "default"},
		Spec:     mesh.TCPRouteSpec{ParentRefs: []mesh.ParentRef{{Name: "ingress"}}, Rules: []mesh.StreamRouteRule{{BackendRefs: refs}}},
	}
}

// tcpTo passes the connections of a listener named tcp on to the addresses.
func tcpTo(addrs ...string) mesh.Objects {
	return mesh.Objects{
		Gateways:  []*mesh.Gateway{gatewayOn("127.0.0.1", mesh.Listener{Name: "tcp", Protocol: mesh.ProtocolTCP})},
		TCPRoutes: []*mesh.TCPRoute{tcpRoute("all", backendRef("echo"))},
		Services:  []*mesh.MeshService{tcpService("echo", addrs...)},
	}
}

func (p *proxy) stream(listener string) *net.TCPConn {
	p.t.Helper()
	return p.dial(listener).(*net.TCPConn)
}

// reset expects the listener to reset a new connection, which the client may see
// while it connects.
func (p *proxy) reset(listener string) {
	p.t.Helper()
	c, err := net.Dial("tcp", p.addr(listener).String())
	if err == nil {
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err = io.WriteString(c, "x"); err == nil {
			_, err = c.Read(make([]byte, 1))
		}
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		p.t.Errorf("client saw %v", err)
	}
}

// streamCount waits until connections with the flag have ended.
func (p *proxy) streamCount(service mesh.ServiceKey, flag string, want uint64) {
	p.t.Helper()
	var got uint64
	for range 1000 {
		got = 0
		for _, c := range p.Stats().Streams {
			if c.Service == service {
				got += c.Ended[flag]
			}
		}
		if got == want {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	p.t.Fatalf("%d connections of %s with flag %q, want %d", got, service, flag, want)
}

func echoTCP(c *net.TCPConn) {
	io.Copy(c, c)
	c.CloseWrite()
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(3, uint64(n)))
	for i := 0; i+8 <= n; i += 8 {
		v := r.Uint64()
		for k := range 8 {
			b[i+k] = byte(v >> (8 * k))
		}
	}
	return b
}

// TestStreamCarries sends from one byte to more than any pipe or buffer holds,
// both ways at once on many connections, ended by a half close.
func TestStreamCarries(t *testing.T) {
	b := tcpBackend(t, echoTCP)
	p := startProxy(t, Config{Loops: 2}, Deps{}, tcpTo(b))
	sizes := []int{0, 1, 1000, 64 << 10, 65<<10 + 7, 1 << 20, 24 << 20}
	var clients sync.WaitGroup
	total := 0
	for i := range 3 * len(sizes) {
		payload := noise(sizes[i%len(sizes)])
		total += len(payload)
		clients.Go(func() {
			c, err := net.Dial("tcp", p.addr("tcp").String())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(30 * time.Second))
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
	p.streamCount("default/echo", "", uint64(3*len(sizes)))
	s := p.Stats()
	if got := s.Streams[0]; got.FromClients != uint64(total) || got.FromBackend != uint64(total) || got.Open != 0 || s.Connections != 0 {
		t.Errorf("%d bytes each way, stats %+v", total, got)
	}
	if n := p.memoryInUse(); n != 0 {
		t.Errorf("%d bytes of buffers are not given back", n)
	}
}

// TestStreamBackendEndsFirst goes on sending after the backend's half close.
func TestStreamBackendEndsFirst(t *testing.T) {
	got := make(chan []byte, 1)
	b := tcpBackend(t, func(c *net.TCPConn) {
		io.WriteString(c, "bye")
		c.CloseWrite()
		all, _ := io.ReadAll(c)
		got <- all
	})
	p := startProxy(t, Config{}, Deps{}, tcpTo(b))
	c := p.stream("tcp")
	if hello, err := io.ReadAll(c); string(hello) != "bye" || err != nil {
		t.Fatalf("%q, %v", hello, err)
	}
	payload := noise(5 << 20)
	if _, err := c.Write(payload); err != nil {
		t.Fatal(err)
	}
	c.CloseWrite()
	if all := <-got; !bytes.Equal(all, payload) {
		t.Errorf("the backend got %d bytes", len(all))
	}
}

func TestStreamReset(t *testing.T) {
	saw := make(chan error, 1)
	b := tcpBackend(t, func(c *net.TCPConn) {
		io.WriteString(c, "x")
		_, err := c.Read(make([]byte, 1))
		saw <- err
	})
	p := startProxy(t, Config{}, Deps{}, tcpTo(b))
	c := p.stream("tcp")
	c.Read(make([]byte, 1))
	c.SetLinger(0)
	c.Close()
	if err := <-saw; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("backend saw %v", err)
	}
	p.streamCount("default/echo", "DC", 1)
	p.apply(tcpTo(tcpBackend(t, func(c *net.TCPConn) {
		c.Read(make([]byte, 1))
		c.SetLinger(0)
	})))
	c = p.stream("tcp")
	io.WriteString(c, "x")
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("client saw %v", err)
	}
	p.streamCount("default/echo", "UC", 1)
}

// TestStreamRetries finds the endpoint that answers.
func TestStreamRetries(t *testing.T) {
	b := tcpBackend(t, echoTCP)
	p := startProxy(t, Config{}, Deps{}, tcpTo(refused(t), b, refused(t)))
	for range 20 {
		c := p.stream("tcp")
		io.WriteString(c, "hello")
		c.CloseWrite()
		if got, err := io.ReadAll(c); string(got) != "hello" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if s := p.Stats(); s.Retries == 0 || s.Retries != s.UpstreamConnectFailures {
		t.Errorf("%d retries, %d failures", s.Retries, s.UpstreamConnectFailures)
	}
	p.apply(tcpTo(refused(t), refused(t)))
	p.reset("tcp")
	p.streamCount("default/echo", "UF", 1)
	for _, e := range p.Endpoints() {
		if e.InFlight != 0 {
			t.Errorf("%d in flight at %s", e.InFlight, e.Address)
		}
	}
}

// TestStreamNowhere refuses by a reset what no route or service takes.
func TestStreamNowhere(t *testing.T) {
	o := tcpTo("127.0.0.1:1")
	o.TCPRoutes = nil
	p := startProxy(t, Config{}, Deps{}, o)
	check := func(service mesh.ServiceKey, flag string, n uint64) {
		t.Helper()
		p.reset("tcp")
		p.streamCount(service, flag, n)
	}
	check("", "NR", 1)
	o = tcpTo("127.0.0.1:1")
	o.Services[0].Spec.Ports[0].Protocol = mesh.PortHTTP
	p.apply(o)
	check("", "NC", 1)
	if len(p.Problems()) != 1 {
		t.Errorf("problems %q", p.Problems())
	}
	p.apply(tcpTo())
	check("default/echo", "UH", 1)
}

func TestStreamWeights(t *testing.T) {
	say := func(s string) string { return tcpBackend(t, func(c *net.TCPConn) { io.WriteString(c, s) }) }
	o := tcpTo(say("a"))
	o.Services = append(o.Services, tcpService("b", say("b")), tcpService("none", say("c")))
	refs := []mesh.BackendRef{backendRef("echo"), backendRef("b"), backendRef("none")}
	three, none := 3, 0
	refs[0].Weight, refs[2].Weight = &three, &none
	o.TCPRoutes = []*mesh.TCPRoute{tcpRoute("shares", refs...)}
	p := startProxy(t, Config{}, Deps{}, o)
	got := map[string]int{}
	for range 200 {
		all, err := io.ReadAll(p.stream("tcp"))
		if err != nil {
			t.Fatal(err)
		}
		got[string(all)]++
	}
	if got["a"] < 110 || got["b"] < 20 || got["a"]+got["b"] != 200 {
		t.Errorf("shares %v", got)
	}
}

func TestStreamIdle(t *testing.T) {
	o := tcpTo(tcpBackend(t, echoTCP))
	idle := mesh.Duration(100 * time.Millisecond)
	o.TrafficPolicies = []*mesh.TrafficPolicy{{
		Metadata: mesh.ObjectMeta{Name: "p", Namespace: "default"},
		Spec: mesh.TrafficPolicySpec{TargetRefs: []mesh.PolicyTargetRef{{Kind: mesh.KindMeshService, Name: "echo"}},
			Timeouts: &mesh.PolicyTimeouts{Idle: &idle}},
	}}
	p := startProxy(t, Config{}, Deps{}, o)
	c := p.stream("tcp")
	for range 10 {
		io.WriteString(c, "x")
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("client saw %v", err)
	}
	p.streamCount("default/echo", "SI", 1)
}

// TestStreamHoldsBack has a receiver that takes nothing, and sees that the proxy
// holds little for it and cuts no byte.
func TestStreamHoldsBack(t *testing.T) {
	took := make(chan struct{})
	n := make(chan int64, 1)
	p := startProxy(t, Config{}, Deps{}, tcpTo(tcpBackend(t, func(c *net.TCPConn) {
		<-took
		k, _ := io.Copy(io.Discard, c)
		n <- k
	})))
	c := p.stream("tcp")
	go func() {
		c.Write(make([]byte, 32<<20))
		c.CloseWrite()
	}()
	for last := uint64(0); ; {
		time.Sleep(20 * time.Millisecond)
		now := p.Stats().BytesReceived
		if now == last && now > 0 {
			break
		}
		last = now
	}
	if k := p.memoryInUse(); k > 128<<10 {
		t.Errorf("%d bytes of buffers for a receiver that takes nothing", k)
	}
	close(took)
	if k := <-n; k != 32<<20 {
		t.Errorf("%d bytes arrived", k)
	}
}

// TestStreamOutlivesReload keeps a connection while all it came by goes, and cuts
// it when the proxy stops.
func TestStreamOutlivesReload(t *testing.T) {
	p := startProxy(t, Config{}, Deps{}, tcpTo(tcpBackend(t, echoTCP)))
	c := p.stream("tcp")
	buf := make([]byte, 1)
	ask := func() error {
		io.WriteString(c, "x")
		_, err := c.Read(buf)
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	p.apply(toOne(refused(t)))
	if err := ask(); err != nil {
		t.Errorf("after the reload: %v", err)
	}
	if err := p.refuse(); err != nil {
		t.Fatal(err)
	}
	if err := ask(); err != nil {
		t.Errorf("while draining: %v", err)
	}
}

func TestConnectionCaps(t *testing.T) {
	o := tcpTo(tcpBackend(t, echoTCP))
	o.Gateways[0].Spec.Listeners = append(o.Gateways[0].Spec.Listeners, mesh.Listener{Name: "other", Protocol: mesh.ProtocolTCP})
	p := startProxy(t, Config{MaxListenerConnections: 2, MaxConnections: 3}, Deps{}, o)
	works := func(c *net.TCPConn) error {
		io.WriteString(c, "x")
		_, err := c.Read(make([]byte, 1))
		return err
	}
	var open []*net.TCPConn
	for _, listener := range []string{"tcp", "tcp", "other"} {
		c := p.stream(listener)
		if err := works(c); err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	for i, listener := range []string{"tcp", "other"} {
		p.reset(listener)
		if got := p.Stats().ConnectionsRefused; got != uint64(i+1) {
			t.Errorf("%d refused", got)
		}
		if l := p.Stats().Listeners[i]; l.RefusedListener+l.RefusedProxy != 1 || (l.RefusedProxy == 1) != (listener == "other") {
			t.Errorf("%s: %+v", listener, l)
		}
	}
	open[0].Close()
	p.streamCount("default/echo", "", 1)
	if err := works(p.stream("tcp")); err != nil {
		t.Errorf("after one has gone: %v", err)
	}
}

func selfSigned(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(crand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestPassthrough routes real TLS sessions by the names they ask for.
func TestPassthrough(t *testing.T) {
	serve := func(name string) string {
		cfg := &tls.Config{Certificates: []tls.Certificate{selfSigned(t, name)}}
		return tcpBackend(t, func(c *net.TCPConn) {
			s := tls.Server(c, cfg)
			io.Copy(s, s)
			s.Close()
		})
	}
	route := func(name string, hosts ...string) *mesh.TLSRoute {
		return &mesh.TLSRoute{
			Metadata: mesh.ObjectMeta{Name: name, Namespace: "default"},
			Spec: mesh.TLSRouteSpec{ParentRefs: []mesh.ParentRef{{Name: "ingress"}}, Hostnames: hosts,
				Rules: []mesh.StreamRouteRule{{BackendRefs: []mesh.BackendRef{backendRef(name)}}}},
		}
	}
	o := mesh.Objects{
		Gateways: []*mesh.Gateway{gatewayOn("127.0.0.1",
			mesh.Listener{Name: "tls", Protocol: mesh.ProtocolTLS, TLS: &mesh.ListenerTLS{Mode: mesh.TLSPassthrough}},
			mesh.Listener{Name: "narrow", Protocol: mesh.ProtocolTLS, Hostname: "*.b.test", TLS: &mesh.ListenerTLS{Mode: mesh.TLSPassthrough}})},
		TLSRoutes: []*mesh.TLSRoute{route("exact", "a.test"), route("wild", "*.b.test"), route("deep", "*.c.b.test")},
		Services: []*mesh.MeshService{tcpService("exact", serve("exact")), tcpService("wild", serve("wild")),
			tcpService("deep", serve("deep"))},
	}
	p := startProxy(t, Config{}, Deps{}, o)
	for _, tt := range []struct{ listener, name, want string }{
		{"tls", "a.test", "exact"}, {"tls", "A.TEST", "exact"}, {"tls", "x.b.test", "wild"}, {"tls", "x.y.b.test", "wild"},
		{"tls", "x.c.b.test", "deep"}, {"tls", "b.test", ""}, {"tls", "other.test", ""}, {"tls", "", ""},
		{"narrow", "x.b.test", "wild"}, {"narrow", "a.test", ""},
	} {
		t.Run(tt.listener+" "+tt.name, func(t *testing.T) {
			explainsTLS(t, p, tt.listener, tt.name, tt.want)
			c := tls.Client(p.stream(tt.listener), &tls.Config{ServerName: tt.name, InsecureSkipVerify: true})
			err := c.Handshake()
			if tt.want == "" {
				if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
					t.Fatalf("handshake: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := c.ConnectionState().PeerCertificates[0].DNSNames[0]; got != tt.want {
				t.Errorf("reached %s", got)
			}
			payload := noise(300 << 10)
			go c.Write(payload)
			got := make([]byte, len(payload))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, payload) {
				t.Errorf("echo: %v", err)
			}
		})
	}
	t.Run("not TLS", func(t *testing.T) {
		c := p.stream("tls")
		fmt.Fprintf(c, "GET / HTTP/1.1\r\n\r\n")
		got, _ := io.ReadAll(c)
		if !bytes.Equal(got, []byte{21, 3, 1, 0, 2, 2, 50}) {
			t.Errorf("answer % x", got)
		}
		p.streamCount("", "DPE", 1)
	})
}

// TestPassthroughSlowHello gives up on a client that does not say its name.
func TestPassthroughSlowHello(t *testing.T) {
	times := worker.DefaultTimes
	times.Head = 100 * time.Millisecond
	o := mesh.Objects{Gateways: []*mesh.Gateway{gatewayOn("127.0.0.1",
		mesh.Listener{Name: "tls", Protocol: mesh.ProtocolTLS, TLS: &mesh.ListenerTLS{Mode: mesh.TLSPassthrough}})}}
	p := startProxy(t, Config{times: times}, Deps{}, o)
	c := p.stream("tls")
	c.Write([]byte{22, 3, 1})
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("client saw %v", err)
	}
	p.streamCount("", "DT", 1)
}

func accepting(listener string, from ...string) *mesh.TrafficPolicy {
	return &mesh.TrafficPolicy{
		Metadata: mesh.ObjectMeta{Name: "accept-" + listener, Namespace: "default"},
		Spec: mesh.TrafficPolicySpec{
			TargetRefs:          []mesh.PolicyTargetRef{{Group: mesh.GatewayGroup, Kind: mesh.KindGateway, Name: "ingress", SectionName: listener}},
			AcceptProxyProtocol: &mesh.AcceptProxyProtocol{From: from},
		},
	}
}

// TestProxyProtocol passes on what a trusted balancer says of its client, to a TCP
// backend in a header and to an HTTP one in a field.
func TestProxyProtocol(t *testing.T) {
	got := make(chan string, 1)
	b := tcpBackend(t, func(c *net.TCPConn) {
		all, _ := io.ReadAll(c)
		got <- string(all)
	})
	web := backend(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("X-Forwarded-For")) })
	o := tcpTo(b)
	o.Gateways[0].Spec.Listeners = append(o.Gateways[0].Spec.Listeners, httpListener("http", 0),
		mesh.Listener{Name: "strange", Protocol: mesh.ProtocolTCP})
	o.HTTPRoutes = []*mesh.HTTPRoute{routeTo("web", prefixRule("/", backendRef("web")))}
	o.Services = append(o.Services, service("web", web))
	o.TrafficPolicies = []*mesh.TrafficPolicy{accepting("tcp", "10.0.0.0/8", "127.0.0.0/8"), accepting("http", "127.0.0.1/32"),
		accepting("strange", "10.0.0.0/8"), {
			Metadata: mesh.ObjectMeta{Name: "send", Namespace: "default"},
			Spec: mesh.TrafficPolicySpec{TargetRefs: []mesh.PolicyTargetRef{{Kind: mesh.KindMeshService, Name: "echo"}},
				SendProxyProtocol: &mesh.SendProxyProtocol{Version: mesh.ProxyV1}},
		}}
	p := startProxy(t, Config{}, Deps{}, o)
	const line = "PROXY TCP4 192.0.2.1 198.51.100.2 5 6\r\n"
	send := func(listener, text string) *net.TCPConn {
		c := p.stream(listener)
		for _, part := range []string{text[:3], text[3:]} {
			io.WriteString(c, part)
			time.Sleep(5 * time.Millisecond)
		}
		return c
	}
	for _, header := range []string{line, "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\x00\x05\x00\x06"} {
		send("tcp", header+"hello").CloseWrite()
		if all := <-got; all != line+"hello" {
			t.Errorf("backend got %q", all)
		}
		c := send("http", header+"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(res.Body); string(body) != "192.0.2.1" {
			t.Errorf("backend saw %q", body)
		}
	}
	c := send("strange", line)
	c.CloseWrite()
	if all, want := <-got, fmt.Sprintf("PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n%s", port(c.LocalAddr()), port(c.RemoteAddr()), line); all != want {
		t.Errorf("a header of a stranger is data: backend got %q, want %q", all, want)
	}
	send("tcp", "no header")
	p.streamCount("", "DPE", 1)
	if _, err := send("http", "GET / HTTP/1.1\r\nHost: x\r\n\r\n").Read(make([]byte, 1)); err == nil {
		t.Error("a balancer's request without a header is served")
	}
}

func port(a net.Addr) int { return a.(*net.TCPAddr).Port }
