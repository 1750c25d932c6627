package edgeproxy

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/http2"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// accepts is what RFC 6455 wants of a server for a key.
func accepts(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// chatHTTP1 is a backend that speaks WebSocket's handshake over HTTP/1.1 and then echoes
// octets; by path it refuses, errs or waits.
func chatHTTP1(t *testing.T, seen chan<- http.Header) string {
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
				h := req.Header.Clone()
				h.Set("Method", req.Method)
				select {
				case seen <- h:
				default:
				}
				accept := accepts(req.Header.Get("Sec-WebSocket-Key"))
				switch req.URL.Path {
				case "/deny":
					io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno\n")
					return
				case "/plain":
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi\n")
					return
				case "/forged":
					accept = accepts("another")
				case "/slow":
					if in.Buffered() > 0 {
						return // the proxy let something by before there was a tunnel
					}
					time.Sleep(50 * time.Millisecond)
				}
				io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: chat.v2\r\n")
				if req.URL.Path != "/mute" {
					io.WriteString(c, "Sec-WebSocket-Accept: "+accept+"\r\n")
				}
				if req.URL.Path == "/twice" {
					io.WriteString(c, "Sec-WebSocket-Accept: "+accept+"\r\n")
				}
				io.WriteString(c, "\r\n")
				tcp := c.(*net.TCPConn)
				switch req.URL.Path {
				case "/reset":
					in.ReadByte()
					tcp.SetLinger(0)
				case "/told":
					_, err := in.ReadByte()
					h := http.Header{}
					h.Set("Error", fmt.Sprint(err))
					seen <- h
				case "/stuck":
					select {}
				default:
					echoAll(tcp, in, req)
				}
			}()
		}
	}()
	return l.Addr().String()
}

// chatHTTP2 is the same over HTTP/2, by frames of another implementation.
func chatHTTP2(t *testing.T, seen chan<- http.Header, settings func(p *framePeer)) string {
	return serveFrames(t, func(p *framePeer) {
		p.onHead = func(p *framePeer, id uint32, head map[string]string) {
			h := http.Header{}
			for n, v := range head {
				h[n] = []string{v}
			}
			select {
			case seen <- h:
			default:
			}
			switch {
			case head[":protocol"] == "":
				p.head(id, false, ":status: 200")
				p.send(id, "plain", true)
			case head[":path"] == "/deny":
				p.head(id, false, ":status: 403")
				p.send(id, "no\n", true)
			default:
				p.head(id, false, ":status: 200", "sec-websocket-protocol: chat.v2", "sec-websocket-accept: forged")
			}
		}
		p.onData = func(p *framePeer, id uint32, data []byte, end bool) {
			p.mu.Lock()
			path := p.streams[id].head[":path"]
			p.mu.Unlock()
			if path == "/reset" {
				p.mu.Lock()
				p.fr.WriteRSTStream(id, xhttp2.ErrCodeInternal)
				p.mu.Unlock()
				return
			}
			p.send(id, string(data), end)
		}
		if settings != nil {
			settings(p)
			return
		}
		p.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingEnableConnectProtocol, Val: 1})
	})
}

// twoChats routes /one to the first and all else to the second, to which HTTP/2 is spoken.
func twoChats(one, two string) mesh.Objects {
	o := toOne(one)
	svc := service("two", two)
	svc.Spec.Ports[0].Protocol = mesh.PortHTTP2
	o.Services = append(o.Services, svc)
	rewrite := func(r mesh.HTTPRouteRule) mesh.HTTPRouteRule {
		r.Filters = []mesh.HTTPRouteFilter{{Type: mesh.FilterURLRewrite, URLRewrite: &mesh.URLRewrite{
			Path: &mesh.PathModifier{Type: mesh.ReplacePrefixMatch, ReplacePrefixMatch: new("/")}}}}
		return r
	}
	o.HTTPRoutes = []*mesh.HTTPRoute{routeTo("all", rewrite(prefixRule("/one", backendRef("echo"))), rewrite(prefixRule("/two", backendRef("two"))))}
	return o
}

func dialFrames(t *testing.T, p *proxy, settings ...xhttp2.Setting) *framePeer {
	t.Helper()
	c, err := net.Dial("tcp", p.addr("http").String())
	if err != nil {
		t.Fatal(err)
	}
	f := newFramePeer(t, c, false, settings...).start()
	f.await(0, "settings", func(*frameStream) bool { return f.settled })
	return f
}

func chatHead(path string, more ...string) []string {
	return append([]string{":method: CONNECT", ":protocol: websocket", ":scheme: http", ":path: " + path, ":authority: x",
		"sec-websocket-version: 13", "sec-websocket-protocol: chat.v1, chat.v2", "sec-websocket-extensions: permessage-deflate"}, more...)
}

// askHTTP1 asks for a tunnel by HTTP/1.1.
func (p *proxy) askHTTP1(path, key string) (*net.TCPConn, *bufio.Reader, *http.Response) {
	p.t.Helper()
	c := p.dial("http").(*net.TCPConn)
	c.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: %s\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat.v1, chat.v2\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", path, key)
	in := bufio.NewReader(c)
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	return c, in, res
}

const sampleKey = "dGhlIHNhbXBsZSBub25jZQ=="

func randomBytes(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// checkSeen looks at the request that a backend saw.
func checkSeen(t *testing.T, h http.Header, two bool) {
	t.Helper()
	get := func(name string) string {
		if two {
			name = strings.ToLower(name)
		}
		return strings.Join(h[name], "|")
	}
	if two {
		if get(":method") != "CONNECT" || get(":protocol") != "websocket" || get(":path") != "/chat?a=b" || get(":authority") != "x" || get(":scheme") == "" ||
			get("Sec-Websocket-Key") != "" || get("Upgrade") != "" || get("Connection") != "" {
			t.Errorf("the backend saw %v", h)
		}
	} else {
		key, err := base64.StdEncoding.DecodeString(get("Sec-Websocket-Key"))
		if h.Get("Method") != "GET" || get("Upgrade") != "websocket" || get("Connection") != "Upgrade" || err != nil || len(key) != 16 {
			t.Errorf("the backend saw %v", h)
		}
	}
	if get("Sec-Websocket-Version") != "13" || get("Sec-Websocket-Protocol") != "chat.v1, chat.v2" || get("Sec-Websocket-Extensions") != "permessage-deflate" || get("X-Forwarded-For") == "" {
		t.Errorf("the backend saw %v", h)
	}
}

// talkHTTP1 has a client of HTTP/1.1 open a tunnel, echo a payload and end it.
func talkHTTP1(t *testing.T, p *proxy, path string, payload []byte) {
	t.Helper()
	c, in, res := p.askHTTP1(path, sampleKey)
	if res.StatusCode != 101 || res.Header.Get("Upgrade") != "websocket" || res.Header.Get("Connection") != "Upgrade" ||
		strings.Join(res.Header["Sec-Websocket-Accept"], "|") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || res.Header.Get("Sec-WebSocket-Protocol") != "chat.v2" {
		t.Fatalf("no tunnel: %v", res)
	}
	go func() {
		c.Write(payload)
		c.CloseWrite()
	}()
	if got, err := io.ReadAll(in); err != nil || !bytes.Equal(got, payload) {
		t.Errorf("%d of %d bytes back, %v", len(got), len(payload), err)
	}
}

// talkHTTP2 is the same for a client of HTTP/2.
func talkHTTP2(t *testing.T, f *framePeer, path string, payload []byte) {
	t.Helper()
	id := f.open(false, chatHead(path)...)
	if h := f.awaitHead(id); h[":status"] != "200" || h["sec-websocket-protocol"] != "chat.v2" || h["sec-websocket-accept"] != "" || h["upgrade"] != "" {
		t.Fatalf("no tunnel: %v", h)
	}
	f.send(id, string(payload), false)
	if got := f.awaitData(id, len(payload)); !bytes.Equal(got, payload) {
		t.Errorf("%d bytes back, other than those sent", len(got))
	}
	f.send(id, "", true)
	if s := f.await(id, "the end", func(s *frameStream) bool { return s.ended || s.reset }); s.reset || len(s.got) != len(payload) {
		t.Errorf("%d bytes, reset %v", len(s.got), s.reset)
	}
}

// TestWebSocketVersions carries WebSocket from either version of HTTP to either version:
// the handshakes of both, more than any window holds, and both ends in order.
func TestWebSocketVersions(t *testing.T) {
	seen := make(chan http.Header, 1)
	log, lines := logged(t, "%PROTOCOL% %RESPONSE_CODE% %REQ(:METHOD)% %RESPONSE_FLAGS%")
	p := startProxy(t, Config{}, Deps{AccessLog: log}, twoChats(chatHTTP1(t, seen), chatHTTP2(t, seen, nil)))
	payload := randomBytes(3 << 20)
	f := dialFrames(t, p)
	if !f.offers {
		t.Fatal("extended CONNECT is not offered")
	}
	n := uint64(0)
	for _, path := range []string{"/one", "/two"} {
		t.Run(path[1:], func(t *testing.T) {
			talkHTTP1(t, p, path+"/chat?a=b", payload)
			checkSeen(t, <-seen, path == "/two")
			for range 2 { // the connections stay of use
				talkHTTP2(t, f, path+"/chat?a=b", payload)
				checkSeen(t, <-seen, path == "/two")
			}
			p.tunnels(0)
			if n += 3; p.Stats().TunnelsTotal != n {
				t.Errorf("%d tunnels, want %d", p.Stats().TunnelsTotal, n)
			}
		})
	}
	for _, l := range lines(6) {
		if l != "HTTP/1.1 101 GET -" && l != "HTTP/2 200 GET -" {
			t.Errorf("the log says %q", l)
		}
	}
}

// TestWebSocket_hotPath holds that what passes through a tunnel allocates nothing, by
// HTTP/2 on one side and HTTP/1.1 on the other.
func TestWebSocket_hotPath(t *testing.T) {
	p := startProxy(t, Config{Loops: 1}, Deps{}, toOne(chatHTTP1(t, nil)))
	c := dialHTTP2(t, p, http2.Limits{})
	c.send() // greets
	for {
		if takes, _ := c.codec.Extended(); takes {
			break
		}
		c.next()
	}
	id, _ := c.codec.Open()
	c.send(stream.Event{Kind: stream.Head, Stream: id, Head: &stream.Message{Method: []byte("GET"), Upgrade: []byte("websocket"), Authority: []byte("x"), Path: []byte("/chat")}})
	for ev := (stream.Event{}); ev.Kind != stream.Head; {
		ev, _ = c.next()
	}
	message := randomBytes(500)
	out, in, buf := make([]byte, 0, 64<<10), make([]byte, 0, 64<<10), make([]byte, 64<<10)
	var ev stream.Event
	round := func() {
		for left, first := len(message), true; left > 0; first = false {
			if first {
				ev = stream.Event{Kind: stream.Data, Stream: id, Data: message}
				out, _ = c.codec.Encode(out, &ev)
			}
			if out = c.codec.Say(out); len(out) > 0 {
				if _, err := c.c.Write(out); err != nil {
					t.Fatal(err)
				}
				out = out[:0]
			}
			n, err := c.c.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			in = append(in, buf[:n]...)
			used := 0
			for {
				n, err := c.codec.Decode(in[used:], &ev)
				if used += n; err != nil || ev.Kind == stream.Reset {
					t.Fatalf("%+v, %v", ev, err)
				}
				if ev.Kind == stream.None {
					break
				}
				if ev.Kind == stream.Data {
					left -= len(ev.Data)
					ev = stream.Event{Kind: stream.Window, Stream: id, N: len(ev.Data)}
					out, _ = c.codec.Encode(out, &ev)
				}
			}
			in = in[:copy(in, in[used:])]
		}
	}
	for range 500 {
		round()
	}
	const rounds = 10_000
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range rounds {
		round()
	}
	runtime.ReadMemStats(&after)
	if all := after.Mallocs - before.Mallocs; all > 400 {
		t.Errorf("%d allocations in %d messages, want none per message", all, rounds)
	}
}
