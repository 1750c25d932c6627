package edgeproxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/loop"
)

// TestWebSocketBetweenSites opens WebSockets at one site whose backend is at another, by
// both versions of HTTP at either end, over the link with mutual TLS.
func TestWebSocketBetweenSites(t *testing.T) {
	seen := make(chan http.Header, 1)
	payload := randomBytes(1 << 20)
	for _, protocol := range []string{mesh.PortHTTP, mesh.PortHTTP2} {
		t.Run(protocol, func(t *testing.T) {
			two := protocol == mesh.PortHTTP2
			there := chatHTTP1(t, seen)
			if two {
				there = chatHTTP2(t, seen, nil)
			}
			p := &pair{}
			p.build(t, Deps{}, there, protocol)
			p.introduce()
			talkHTTP1(t, p.a, "/chat?a=b", payload)
			checkSeen(t, <-seen, two)
			p.wire.mu.Lock()
			for _, seen := range p.wire.seen {
				if n, err := records(seen); err != nil || n < 20 {
					t.Errorf("%d records of application data, %v", n, err)
				}
			}
			p.wire.mu.Unlock()
			f := dialFrames(t, p.a)
			talkHTTP2(t, f, "/chat?a=b", payload)
			h := <-seen
			checkSeen(t, h, two)
			for name := range h {
				if strings.HasPrefix(strings.ToLower(name), "meridian-") {
					t.Errorf("the backend saw %s", name)
				}
			}
			p.a.tunnels(0)
			p.b.tunnels(0)
			if n := p.b.Stats().TunnelsTotal; n != 2 {
				t.Errorf("%d tunnels at the other site, want 2", n)
			}
			p.wire.mu.Lock()
			defer p.wire.mu.Unlock()
			for _, seen := range p.wire.seen {
				if bytes.Contains(seen, []byte("chat")) || bytes.Contains(seen, payload[:32]) {
					t.Error("the link shows what it carries")
				}
			}
		})
	}
}

// TestWebSocketRefused holds what must not become a tunnel, or not that one.
func TestWebSocketRefused(t *testing.T) {
	seen := make(chan http.Header, 64)
	dumb := chatHTTP2(t, seen, func(p *framePeer) { p.fr.WriteSettings() })
	mute := chatHTTP2(t, seen, func(p *framePeer) { io.Copy(io.Discard, p.c) })
	o := twoChats(chatHTTP1(t, seen), dumb)
	silent := service("silent", mute)
	silent.Spec.Ports[0].Protocol = mesh.PortHTTP2
	o.Services = append(o.Services, silent)
	connect := mesh.Duration(200 * time.Millisecond)
	o.TrafficPolicies = []*mesh.TrafficPolicy{{
		Metadata: mesh.ObjectMeta{Name: "p", Namespace: "default"},
		Spec: mesh.TrafficPolicySpec{TargetRefs: []mesh.PolicyTargetRef{{Kind: mesh.KindMeshService, Name: "silent"}},
			Timeouts: &mesh.PolicyTimeouts{Connect: &connect}},
	}}
	page := prefixRule("/page", backendRef("echo"))
	page.Filters = []mesh.HTTPRouteFilter{{Type: mesh.FilterExtensionRef, ExtensionRef: &mesh.LocalObjectRef{Group: "mesh.meridian.dev", Kind: mesh.KindLocalResponse, Name: "page"}}}
	o.HTTPRoutes = append(o.HTTPRoutes, routeTo("more", prefixRule("/silent", backendRef("silent")), page))
	o.LocalResponses = []*mesh.LocalResponse{{Metadata: mesh.ObjectMeta{Name: "page", Namespace: "default"}, Spec: mesh.LocalResponseSpec{StatusCode: 200, Body: "hello"}}}
	o.AuthorizationPolicies = parsed(t, policyText("d", "{"+ofIngress+", action: deny, rules: [{to: [{methods: [GET], paths: [{value: /secret}]}]}]}")).AuthorizationPolicies
	log, lines := logged(t, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%")
	p := startProxy(t, Config{Loops: 1}, Deps{AccessLog: log}, o)
	f := dialFrames(t, p)
	n := 0
	for _, tt := range []struct {
		name         string
		head         []string
		status, body string
		logged       string
	}{
		{"denied by the backend", chatHead("/one/deny"), "403", "no\n", "403 - via_upstream"},
		{"answered with a page", chatHead("/one/plain"), "502", "the backend's response is not valid\n", "502 UPE websocket_not_agreed"},
		{"accept of another key", chatHead("/one/forged"), "502", "the backend's response is not valid\n", "502 UPE websocket_accept_invalid"},
		{"no accept", chatHead("/one/mute"), "502", "the backend's response is not valid\n", "502 UPE websocket_accept_invalid"},
		{"two accepts", chatHead("/one/twice"), "502", "the backend's response is not valid\n", "502 UPE websocket_accept_invalid"},
		{"not offered", chatHead("/two/chat"), "502", "the backend's response is not valid\n", "502 UPE websocket_not_offered"},
		{"settings that never come", chatHead("/silent"), "502", "the backend's response is not valid\n", "502 UPE settings_timeout"},
		{"no route", chatHead("/none"), "404", "no route matches this request\n", "404 NR route_not_found"},
		{"a page of the proxy's", chatHead("/page"), "501", "hello", "200 - direct_response"},
		{"denied by policy, as for HTTP/1", chatHead("/secret"), "403", "access denied\n", "403 AD rbac_access_denied_matched_policy[default/d/0]"},
		{"unknown protocol", []string{":method: CONNECT", ":protocol: irc", ":scheme: http", ":path: /one/chat", ":authority: x"}, "501", "the request is not valid\n", "501 DPE protocol_not_supported"},
		{"plain CONNECT", []string{":method: CONNECT", ":authority: x:80"}, "400", "the request is not valid\n", "400 DPE path_invalid"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id := f.open(false, tt.head...)
			s := f.await(id, "an answer", func(s *frameStream) bool { return s.ended || s.reset })
			if s.head[":status"] != tt.status || string(s.got) != tt.body {
				t.Errorf("%v %q", s.head, s.got)
			}
			n++
			if l := lines(n); l[n-1] != tt.logged {
				t.Errorf("the log says %q, want %q", l[n-1], tt.logged)
			}
		})
	}
	for _, tt := range []struct {
		name string
		head []string
	}{
		{"protocol without CONNECT", []string{":method: GET", ":protocol: websocket", ":scheme: http", ":path: /one/chat", ":authority: x"}},
		{"length", chatHead("/one/chat", "content-length: 3")},
		{"upgrade", chatHead("/one/chat", "upgrade: websocket")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id := f.open(false, tt.head...)
			if s := f.await(id, "a reset", func(s *frameStream) bool { return s.ended || s.reset }); s.code != xhttp2.ErrCodeProtocol || s.head != nil {
				t.Errorf("%v, code %v", s.head, s.code)
			}
			n++
		})
	}
	for _, tt := range []struct {
		name, path, key string
		status          int
		body, logged    string
	}{
		{"HTTP/1, not offered", "/two/chat", sampleKey, 502, "the backend's response is not valid\n", "502 UPE websocket_not_offered"},
		{"HTTP/1, no key", "/two/chat", "", 400, "the request is not valid\n", "400 DPE websocket_key_invalid"},
		{"HTTP/1, short key", "/two/chat", "dGhl", 400, "the request is not valid\n", "400 DPE websocket_key_invalid"},
		{"HTTP/1, key of 18 octets", "/two/chat", "dGhlIHNhbXBsZSBub25jZXh4", 400, "the request is not valid\n", "400 DPE websocket_key_invalid"},
		{"HTTP/1, two keys", "/two/chat", sampleKey + "\r\nSec-WebSocket-Key: " + sampleKey, 400, "the request is not valid\n", "400 DPE websocket_key_invalid"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, res := p.askHTTP1(tt.path, tt.key)
			body, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != tt.status || string(body) != tt.body {
				t.Errorf("%d %q %v", res.StatusCode, body, err)
			}
			n++
			if l := lines(n); l[n-1] != tt.logged {
				t.Errorf("the log says %q, want %q", l[n-1], tt.logged)
			}
		})
	}
	// None of it has harmed the connection.
	talkHTTP2(t, f, "/one/chat", []byte("still of use"))
}

// TestWebSocketEarly has a client of HTTP/2 send before there is a tunnel, and even end:
// the backend gets it once it has agreed, and until then no more than the stream's window
// is taken.
func TestWebSocketEarly(t *testing.T) {
	seen := make(chan http.Header, 8)
	gate := make(chan struct{})
	slow := chatHTTP2(t, seen, func(p *framePeer) {
		<-gate // its settings come late
		p.mu.Lock()
		defer p.mu.Unlock()
		p.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingEnableConnectProtocol, Val: 1})
	})
	p := startProxy(t, Config{Loops: 1}, Deps{}, twoChats(chatHTTP1(t, seen), slow))
	f := dialFrames(t, p)
	early := randomBytes(200 << 10)
	id := f.open(false, chatHead("/one/slow")...)
	f.send(id, string(early), true)
	if s := f.await(id, "all of it and the end", func(s *frameStream) bool { return s.ended || s.reset }); s.reset || !bytes.Equal(s.got, early) {
		t.Errorf("%d bytes back, reset %v", len(s.got), s.reset)
	}
	id = f.open(true, chatHead("/one/chat")...) // ends at once
	if s := f.await(id, "its end", func(s *frameStream) bool { return s.ended || s.reset }); s.reset || s.head[":status"] != "200" {
		t.Errorf("%v, reset %v", s.head, s.reset)
	}

	id = f.open(false, chatHead("/two/chat")...)
	f.send(id, string(early), true)
	f.await(id, "the window's end", func(s *frameStream) bool { return s.window == 0 })
	time.Sleep(50 * time.Millisecond)
	if s := f.await(id, "", func(*frameStream) bool { return true }); s.window != 0 || s.head != nil {
		t.Errorf("%d bytes of credit before there is a tunnel, %v", s.window, s.head)
	}
	close(gate)
	if s := f.await(id, "all of it and the end", func(s *frameStream) bool { return s.ended || s.reset }); s.reset || !bytes.Equal(s.got, early) {
		t.Errorf("%d bytes back, reset %v", len(s.got), s.reset)
	}
	p.tunnels(0)
}

// TestWebSocketReset passes a reset on, both ways, and leaves other streams alone.
func TestWebSocketReset(t *testing.T) {
	seen := make(chan http.Header, 8)
	p := startProxy(t, Config{Loops: 1}, Deps{}, twoChats(chatHTTP1(t, seen), chatHTTP2(t, seen, nil)))
	f := dialFrames(t, p)
	other := f.open(false, chatHead("/two/chat")...)
	f.awaitHead(other)
	<-seen
	for _, path := range []string{"/one/reset", "/two/reset"} {
		id := f.open(false, chatHead(path)...)
		f.awaitHead(id)
		f.send(id, "x", false)
		if s := f.await(id, "a reset", func(s *frameStream) bool { return s.ended || s.reset }); !s.reset {
			t.Errorf("%s: ended", path)
		}
		c, in, res := p.askHTTP1(path, sampleKey)
		if res.StatusCode != 101 {
			t.Fatal(res.Status)
		}
		io.WriteString(c, "x")
		if _, err := in.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: the client of HTTP/1 saw %v", path, err)
		}
		<-seen
		<-seen
	}
	id := f.open(false, chatHead("/one/told")...)
	f.awaitHead(id)
	<-seen
	f.mu.Lock()
	f.fr.WriteRSTStream(id, xhttp2.ErrCodeCancel)
	f.mu.Unlock()
	if h := <-seen; !strings.Contains(h.Get("Error"), "reset") {
		t.Errorf("the backend saw %v", h)
	}
	f.send(other, "still", false)
	if got := f.awaitData(other, 5); string(got) != "still" {
		t.Errorf("%q", got)
	}
	p.tunnels(1)
}

// TestWebSocketIdle ends a tunnel that carries nothing, and no other stream with it.
func TestWebSocketIdle(t *testing.T) {
	seen := make(chan http.Header, 8)
	o := twoChats(chatHTTP1(t, seen), chatHTTP2(t, seen, nil))
	idle := mesh.Duration(200 * time.Millisecond)
	o.TrafficPolicies = []*mesh.TrafficPolicy{{
		Metadata: mesh.ObjectMeta{Name: "p", Namespace: "default"},
		Spec: mesh.TrafficPolicySpec{TargetRefs: []mesh.PolicyTargetRef{{Kind: mesh.KindMeshService, Name: "echo"}},
			Timeouts: &mesh.PolicyTimeouts{Idle: &idle}},
	}}
	p := startProxy(t, Config{Loops: 1}, Deps{}, o)
	f := dialFrames(t, p)
	stays := f.open(false, chatHead("/two/chat")...)
	goes := f.open(false, chatHead("/one/chat")...)
	f.awaitHead(stays)
	f.awaitHead(goes)
	start := time.Now()
	for i := range 10 {
		f.send(goes, "x", false)
		f.awaitData(goes, i+1)
		time.Sleep(40 * time.Millisecond)
	}
	if took := time.Since(start); took < 2*time.Duration(idle) {
		t.Fatalf("used for %v only", took)
	}
	if s := f.await(goes, "a reset", func(s *frameStream) bool { return s.ended || s.reset }); !s.reset || len(s.got) != 10 {
		t.Errorf("%d bytes, reset %v", len(s.got), s.reset)
	}
	eventually(t, func() bool { return p.count("default/echo", "SI") == 1 }, "one request with flag SI")
	f.send(stays, "still", false)
	f.awaitData(stays, 5)
}

// TestWebSocketDrain keeps a tunnel while its connection is told to end.
func TestWebSocketDrain(t *testing.T) {
	seen := make(chan http.Header, 8)
	p := startProxy(t, Config{Loops: 1}, Deps{}, twoChats(chatHTTP1(t, seen), chatHTTP2(t, seen, nil)))
	f := dialFrames(t, p)
	id := f.open(false, chatHead("/two/chat")...)
	f.awaitHead(id)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("drain with a tunnel open: %v", err)
	}
	f.await(id, "GOAWAY", func(*frameStream) bool { return f.goAway })
	f.send(id, "still", false)
	f.awaitData(id, 5)
	f.send(id, "", true)
	f.await(id, "the end", func(s *frameStream) bool { return s.ended })
	if err := p.Drain(t.Context()); err != nil {
		t.Errorf("drain after the tunnel: %v", err)
	}
}

// TestWebSocketHoldsBack has receivers that take nothing: what the proxy takes for them is
// bounded, and another tunnel of the same connections goes on.
func TestWebSocketHoldsBack(t *testing.T) {
	seen := make(chan http.Header, 8)
	greedy := chatHTTP2(t, seen, func(p *framePeer) {
		p.greedy = true
		p.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingEnableConnectProtocol, Val: 1})
		p.fr.WriteWindowUpdate(0, 1<<30)
	})
	p := startProxy(t, Config{Loops: 1}, Deps{}, twoChats(chatHTTP1(t, seen), greedy))
	f := dialFrames(t, p)
	f.greedy = true
	f.mu.Lock()
	f.fr.WriteWindowUpdate(0, 1<<30)
	f.mu.Unlock()
	most := 64 << 20
	for _, path := range []string{"/one/stuck", "/two/chat", "/one/chat"} {
		id := f.open(false, chatHead(path)...)
		f.awaitHead(id)
		f.send(id, string(make([]byte, most)), false)
	}
	last := uint64(0)
	for range 100 {
		time.Sleep(20 * time.Millisecond)
		now := p.Stats().BytesReceived
		if now == last && now > 0 {
			break
		}
		last = now
	}
	used := make(chan int, 1)
	p.shared.Workers[0].Loop.Post(loop.Func(func() { used <- p.shared.Workers[0].Loop.Slabs.InUse() }))
	if n := <-used; n > 3<<20 {
		t.Errorf("%d bytes of buffers are used for receivers that take nothing", n)
	}
	for id, s := range f.copies() {
		if len(s.out) == 0 || s.reset {
			t.Errorf("stream %d: all was taken, reset %v", id, s.reset)
		}
	}
	for i := range 3 {
		msg := fmt.Sprintf("message %d", i)
		talkHTTP2(t, dialFrames(t, p), "/one/chat", []byte(msg))
	}
}

func (p *framePeer) copies() map[uint32]frameStream {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[uint32]frameStream{}
	for id, s := range p.streams {
		if s.head != nil {
			out[id] = *s
		}
	}
	return out
}

// TestTunnelEndsOverTLS has a client that says by TLS that it sends no more while its
// socket is full: it gets all that the backend sends.
func TestTunnelEndsOverTLS(t *testing.T) {
	const size = 16 << 20
	a := newAuthority(t)
	a.issue("site", nil, "x.example.com")
	b := switching(t, switched, func(c *net.TCPConn, _ *bufio.Reader, _ *http.Request) {
		c.Write(make([]byte, size))
	})
	p := startProxy(t, Config{Loops: 1}, Deps{}, a.overTLS(b))
	c, err := tls.Dial("tcp", p.addr("http").String(), a.config("x.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(c, strings.Replace(wsRequest, "Host: x", "Host: x.example.com", 1))
	in := bufio.NewReader(c)
	if res, err := http.ReadResponse(in, nil); err != nil || res.StatusCode != 101 {
		t.Fatalf("%v, %v", res, err)
	}
	for last := uint64(1); last != p.Stats().BytesSent; time.Sleep(100 * time.Millisecond) {
		last = p.Stats().BytesSent
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	if n, err := io.Copy(io.Discard, in); n != size || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}
