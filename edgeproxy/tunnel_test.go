package edgeproxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
)

// switching is a backend that reads a request's head, answers with reply and
// hands the connection to serve.
func switching(t *testing.T, reply string, serve func(c *net.TCPConn, in *bufio.Reader, req *http.Request)) string {
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
				in := bufio.NewReader(c)
				req, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				io.WriteString(c, reply)
				serve(c.(*net.TCPConn), in, req)
			}()
		}
	}()
	return l.Addr().String()
}

const (
	switched  = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n"
	wsRequest = "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)

// open asks for a tunnel and returns it once it is there.
func (p *proxy) open(early string) (*net.TCPConn, *bufio.Reader) {
	p.t.Helper()
	c := p.dial("http").(*net.TCPConn)
	io.WriteString(c, wsRequest+early)
	in := bufio.NewReader(c)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != 101 || res.Header.Get("Upgrade") != "websocket" || res.Header.Get("Connection") != "Upgrade" || res.Header.Get("Sec-WebSocket-Accept") != "x" {
		p.t.Fatalf("no tunnel: %v, %v", res, err)
	}
	return c, in
}

func (p *proxy) tunnels(want int) {
	p.t.Helper()
	for range 1000 {
		if p.Stats().Tunnels == want {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	p.t.Fatalf("%d tunnels, want %d", p.Stats().Tunnels, want)
}

func echoAll(c *net.TCPConn, in *bufio.Reader, _ *http.Request) {
	io.Copy(c, in)
	c.CloseWrite()
	io.Copy(io.Discard, in)
}

// TestTunnelCarries sends more than any buffer holds both ways at once, with a
// half close of the client that the backend answers after.
func TestTunnelCarries(t *testing.T) {
	seen := make(chan *http.Request, 1)
	b := switching(t, switched, func(c *net.TCPConn, in *bufio.Reader, req *http.Request) {
		seen <- req
		echoAll(c, in, req)
	})
	p := startProxy(t, Config{}, Deps{}, toOne(b))
	c, in := p.open("early ")
	req := <-seen
	if req.Header.Get("Upgrade") != "websocket" || req.Header.Get("Connection") != "Upgrade" || req.Header.Get("Sec-WebSocket-Key") == "" {
		t.Errorf("backend saw %v", req.Header)
	}
	payload := make([]byte, 20<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range payload {
		payload[i] = byte(r.Uint32())
	}
	go func() {
		c.Write(payload)
		c.CloseWrite()
	}()
	got, err := io.ReadAll(in)
	if err != nil || !bytes.Equal(got, append([]byte("early "), payload...)) {
		t.Fatalf("%d bytes back, %v", len(got), err)
	}
	p.tunnels(0)
	if s := p.Stats(); s.TunnelsTotal != 1 || s.Connections != 0 {
		t.Errorf("stats %+v", s)
	}
}

// TestTunnelBackendEndsFirst sees the backend's half close pass while the client
// goes on sending.
func TestTunnelBackendEndsFirst(t *testing.T) {
	sum := make(chan [32]byte, 1)
	b := switching(t, switched, func(c *net.TCPConn, in *bufio.Reader, _ *http.Request) {
		io.WriteString(c, "bye")
		c.CloseWrite()
		all, _ := io.ReadAll(in)
		sum <- sha256.Sum256(all)
	})
	p := startProxy(t, Config{}, Deps{}, toOne(b))
	c, in := p.open("")
	if got, err := io.ReadAll(in); string(got) != "bye" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	payload := bytes.Repeat([]byte("x"), 5<<20)
	if _, err := c.Write(payload); err != nil {
		t.Fatal(err)
	}
	c.CloseWrite()
	if got := <-sum; got != sha256.Sum256(payload) {
		t.Error("the backend got something else")
	}
	p.tunnels(0)
}

// TestTunnelHoldsBack has a receiver that takes nothing: what the proxy takes of
// the sender meanwhile is bounded.
func TestTunnelHoldsBack(t *testing.T) {
	took := make(chan struct{})
	b := switching(t, switched, func(c *net.TCPConn, in *bufio.Reader, _ *http.Request) {
		<-took
		io.Copy(io.Discard, in)
	})
	p := startProxy(t, Config{}, Deps{}, toOne(b))
	c, in := p.open("")
	go c.Write(make([]byte, 64<<20))
	last := uint64(0)
	for range 100 {
		time.Sleep(20 * time.Millisecond)
		now := p.Stats().BytesReceived
		if now == last && now > 0 {
			break
		}
		last = now
	}
	if n := p.memoryInUse(); n > 1<<20 {
		t.Errorf("%d bytes of buffers are used for a receiver that takes nothing", n)
	}
	close(took)
	for range 1000 {
		if p.Stats().BytesReceived > 64<<20 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.CloseWrite()
	if _, err := io.ReadAll(in); err != nil {
		t.Error(err)
	}
	p.tunnels(0)
}

func (p *proxy) memoryInUse() int {
	n := make(chan int, 1)
	total := 0
	for _, w := range p.shared.Workers {
		w.Loop.Post(loop.Func(func() { n <- w.Loop.Slabs.InUse() }))
		total += <-n
	}
	return total
}

// TestTunnelReset passes a reset on, both ways.
func TestTunnelReset(t *testing.T) {
	got := make(chan error, 1)
	b := switching(t, switched, func(c *net.TCPConn, in *bufio.Reader, req *http.Request) {
		if in.Buffered() > 0 { // the client asks for a reset
			c.SetLinger(0)
			return
		}
		_, err := in.ReadByte()
		got <- err
	})
	p := startProxy(t, Config{}, Deps{}, toOne(b))
	c, _ := p.open("")
	c.SetLinger(0)
	c.Close()
	if err := <-got; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("backend saw %v", err)
	}
	b2 := switching(t, switched, func(c *net.TCPConn, in *bufio.Reader, _ *http.Request) {
		in.ReadByte()
		c.SetLinger(0)
	})
	p.apply(toOne(b2))
	c, in := p.open("")
	io.WriteString(c, "x")
	if _, err := in.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("client saw %v", err)
	}
	p.tunnels(0)
}

// TestTunnelOutlivesReload keeps a tunnel while its route, service and listener go.
func TestTunnelOutlivesReload(t *testing.T) {
	b := switching(t, switched, echoAll)
	p := startProxy(t, Config{}, Deps{}, toOne(b))
	c, in := p.open("")
	o := toOne(refused(t))
	o.Gateways[0].Spec.Listeners[0].Name = "other"
	p.apply(o)
	for i := range 3 {
		msg := fmt.Sprintf("message %d\n", i)
		io.WriteString(c, msg)
		if got, err := in.ReadString('\n'); got != msg || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := p.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("drain with a tunnel open: %v", err)
	}
	io.WriteString(c, "still\n")
	if got, err := in.ReadString('\n'); got != "still\n" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	c.CloseWrite()
	if err := p.Drain(t.Context()); err != nil {
		t.Errorf("drain after the tunnel: %v", err)
	}
}

func TestTunnelIdle(t *testing.T) {
	b := switching(t, switched, echoAll)
	o := toOne(b)
	idle := mesh.Duration(100 * time.Millisecond)
	o.TrafficPolicies = []*mesh.TrafficPolicy{{
		Metadata: mesh.ObjectMeta{Name: "p", Namespace: "default"},
		Spec: mesh.TrafficPolicySpec{TargetRefs: []mesh.PolicyTargetRef{{Kind: mesh.KindMeshService, Name: "echo"}},
			Timeouts: &mesh.PolicyTimeouts{Idle: &idle}},
	}}
	p := startProxy(t, Config{}, Deps{}, o)
	c, in := p.open("")
	start := time.Now()
	for range 10 { // used, it stays
		io.WriteString(c, "x")
		if _, err := in.ReadByte(); err != nil {
			t.Fatalf("cut after %v: %v", time.Since(start), err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if _, err := in.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("client saw %v", err)
	}
	for until := time.Now().Add(10 * time.Second); p.count("default/echo", "SI") != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(until) { // the client may see its end before it is counted
			t.Fatalf("%d requests with flag SI", p.count("default/echo", "SI"))
		}
	}
}

func (p *proxy) count(service mesh.ServiceKey, flag string) (n uint64) {
	for _, r := range p.Stats().Requests {
		if r.Service == service && r.Flag == flag {
			n += r.N
		}
	}
	return n
}

// TestTunnelRefused holds what must not become a tunnel.
func TestTunnelRefused(t *testing.T) {
	asked := make(chan http.Header, 10)
	plain := backend(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Header
		io.WriteString(w, "plain")
	})
	p := startProxy(t, Config{}, Deps{}, toOne(plain))
	for _, tt := range []struct{ name, request, upgrade string }{
		{"h2c", "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", ""},
		{"unknown", "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: irc/6.9\r\n\r\n", ""},
		{"unnamed", "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n", ""},
		{"method", "POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n", ""},
		{"body", "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx", ""},
		{"declined", wsRequest, "websocket"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := p.dial("http")
			in := bufio.NewReader(c)
			for range 2 { // the connection stays of use
				io.WriteString(c, tt.request)
				res, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(res.Body)
				if res.StatusCode != 200 || string(body) != "plain" {
					t.Errorf("%d %q", res.StatusCode, body)
				}
				if h := <-asked; h.Get("Upgrade") != tt.upgrade || h.Get("HTTP2-Settings") != "" {
					t.Errorf("backend saw %v", h)
				}
			}
		})
	}
	for name, reply := range map[string]string{
		"no upgrade":     "HTTP/1.1 101 Switching Protocols\r\n\r\n",
		"other protocol": strings.Replace(switched, "websocket", "h2c", 1),
		"not named":      strings.Replace(switched, "Connection: Upgrade\r\n", "", 1),
	} {
		t.Run(name, func(t *testing.T) {
			p.apply(toOne(switching(t, reply, echoAll)))
			c := p.dial("http")
			io.WriteString(c, wsRequest)
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || res.StatusCode != 502 {
				t.Errorf("%v, %v", res, err)
			}
		})
	}
	t.Run("not asked", func(t *testing.T) {
		p.apply(toOne(switching(t, switched, echoAll)))
		if status, _ := get(t, p.url("/")); status != 502 {
			t.Errorf("status %d", status)
		}
	})
}
