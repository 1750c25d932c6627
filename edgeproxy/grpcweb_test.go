package edgeproxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// message is a frame of gRPC.
func message(flag byte, p string) string {
	return string(binary.BigEndian.AppendUint32([]byte{flag}, uint32(len(p)))) + p
}

// grpcBackend is a server of gRPC made of net/http: it answers each message with another,
// at once, and says its status in trailers.
func grpcBackend(t *testing.T) string {
	return http2Backend(t, func(w http.ResponseWriter, r *http.Request) {
		if ct := r.Header.Get("Content-Type"); ct != "application/grpc+proto" || r.Header.Get("TE") != "trailers" || r.ProtoMajor != 2 {
			t.Errorf("the backend saw %s %v", r.Proto, r.Header)
		}
		h := w.Header()
		switch r.URL.Path {
		case "/s/Gone":
			h.Set("Content-Type", "application/grpc")
			h.Set("Grpc-Status", "5")
			h.Set("Grpc-Message", "not there")
			return
		case "/s/Page":
			h.Set("Content-Type", "text/html")
			w.WriteHeader(502)
			io.WriteString(w, "<p>sorry")
			return
		}
		h.Set("Content-Type", "application/grpc+proto")
		h.Set("Trailer", "Grpc-Status, Grpc-Message, X-Sum")
		h.Set("Meridian-Load", "forged")
		n := 0
		for in := bufio.NewReader(r.Body); ; n++ {
			var head [5]byte
			if _, err := io.ReadFull(in, head[:]); err != nil {
				break
			}
			p := make([]byte, binary.BigEndian.Uint32(head[1:]))
			if _, err := io.ReadFull(in, p); err != nil {
				t.Error(err)
				return
			}
			times := 1
			if r.URL.Path == "/s/Many" {
				times, _ = strconv.Atoi(string(p))
				p = []byte(strings.Repeat("many ", 2000))
			}
			for range times {
				if _, err := io.WriteString(w, message(0, string(p))); err != nil {
					return
				}
				w.(http.Flusher).Flush()
			}
		}
		if r.URL.Path == "/s/Break" {
			panic(http.ErrAbortHandler)
		}
		h.Set("Grpc-Status", "0")
		h.Set("X-Sum", fmt.Sprint(n))
	})
}

func grpcObjects(addr string) mesh.Objects {
	svc := service("echo", addr)
	svc.Spec.Ports[0].Protocol = mesh.PortHTTP2
	o := toOne()
	o.Services = []*mesh.MeshService{svc}
	return o
}

// webCall is what a client of gRPC-Web makes of an answer.
type webCall struct {
	head     http.Header
	messages []string
	trailers string
}

// webDo makes a call of gRPC-Web; text says that it is in text mode.
func webDo(t *testing.T, c *http.Client, url, body string, text bool) webCall {
	t.Helper()
	kind := "application/grpc-web+proto"
	if text {
		kind = "application/grpc-web-text+proto"
		half := len(body) / 2
		body = base64.StdEncoding.EncodeToString([]byte(body[:half])) + base64.StdEncoding.EncodeToString([]byte(body[half:]))
	}
	req, err := http.NewRequest("POST", url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	req.Header.Set("X-Grpc-Web", "1")
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got := res.Header.Get("Content-Type"); res.StatusCode != 200 || !strings.HasPrefix(got, strings.TrimSuffix(kind, "+proto")) || strings.Contains(got, "text") != text {
		t.Fatalf("%s, %v", res.Status, res.Header)
	}
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if text {
		var plain []byte
		for len(raw) > 0 { // padded wherever the server flushed
			n := min(4, len(raw))
			p, err := base64.StdEncoding.DecodeString(string(raw[:n]))
			if err != nil {
				t.Fatalf("%q: %v", raw[:n], err)
			}
			plain, raw = append(plain, p...), raw[n:]
		}
		raw = plain
	}
	call := webCall{head: res.Header}
	for len(raw) > 0 {
		if len(raw) < 5 || len(raw) < 5+int(binary.BigEndian.Uint32(raw[1:])) {
			t.Fatalf("a frame breaks off: %q", raw)
		}
		n := 5 + int(binary.BigEndian.Uint32(raw[1:]))
		switch {
		case call.trailers != "":
			t.Fatalf("a frame behind the trailers: %q", raw)
		case raw[0] == 0x80:
			call.trailers = string(raw[5:n])
		default:
			call.messages = append(call.messages, string(raw[5:n]))
		}
		raw = raw[n:]
	}
	if len(res.Trailer) > 0 {
		t.Errorf("trailers beside the frame: %v", res.Trailer)
	}
	return call
}

// TestGRPCWeb has clients of gRPC-Web by both versions of HTTP, in both modes, call a
// server of gRPC.
func TestGRPCWeb(t *testing.T) {
	p := startProxy(t, Config{Loops: 1}, Deps{}, grpcObjects(grpcBackend(t)))
	one := &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}
	t.Cleanup(one.CloseIdleConnections)
	for name, c := range map[string]*http.Client{"HTTP/1.1": one, "HTTP/2": http2Client(t)} {
		for _, text := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s text %v", name, text), func(t *testing.T) {
				large := string(randomBytes(1 << 20))
				got := webDo(t, c, p.url("/s/Echo"), message(0, "hello")+message(0, large), text)
				if len(got.messages) != 2 || got.messages[0] != "hello" || got.messages[1] != large || got.trailers != "grpc-status: 0\r\nx-sum: 2\r\n" {
					t.Errorf("%d messages, %q", len(got.messages), got.trailers)
				}
				got = webDo(t, c, p.url("/s/Many"), message(0, "200"), text)
				if len(got.messages) != 200 || got.trailers != "grpc-status: 0\r\nx-sum: 1\r\n" {
					t.Errorf("%d messages, %q", len(got.messages), got.trailers)
				}
				got = webDo(t, c, p.url("/s/Gone"), message(0, ""), text)
				if len(got.messages) != 0 || got.trailers != "" || got.head.Get("Grpc-Status") != "5" || got.head.Get("Grpc-Message") != "not there" {
					t.Errorf("a call that fails at once: %+v", got)
				}
			})
		}
	}
}

// TestGRPCWebStreams has messages of a server stream come when they are sent.
func TestGRPCWebStreams(t *testing.T) {
	gate := make(chan struct{})
	b := http2Backend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		for range 3 {
			io.WriteString(w, message(0, "tick"))
			w.(http.Flusher).Flush()
			<-gate
		}
		w.Header().Set("Grpc-Status", "0")
	})
	p := startProxy(t, Config{Loops: 1}, Deps{}, grpcObjects(b))
	req, _ := http.NewRequest("POST", p.url("/s/Ticks"), strings.NewReader(base64.StdEncoding.EncodeToString([]byte(message(0, "")))))
	req.Header.Set("Content-Type", "application/grpc-web-text")
	req.Header.Set("Accept", "application/grpc-web-text")
	res, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for range 3 {
		got := make([]byte, 12)
		if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != base64.StdEncoding.EncodeToString([]byte(message(0, "tick"))) {
			t.Fatalf("%q, %v", got, err)
		}
		gate <- struct{}{}
	}
	rest, err := io.ReadAll(res.Body)
	if err != nil || string(rest) != base64.StdEncoding.EncodeToString([]byte(message(0x80, "grpc-status: 0\r\n"))) {
		t.Errorf("%q, %v", rest, err)
	}
}

// TestGRPCWebErrors: what is no call, what is malformed, what breaks off, and what a policy
// refuses.
func TestGRPCWebErrors(t *testing.T) {
	o := grpcObjects(grpcBackend(t))
	o.AuthorizationPolicies = parsed(t, policyText("d", "{"+ofEcho+", action: deny, rules: [{to: [{paths: [{value: /s/Secret}], headers: [{name: content-type, value: application/grpc+proto}]}]}]}")).AuthorizationPolicies
	log, lines := logged(t, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%")
	p := startProxy(t, Config{Loops: 1}, Deps{AccessLog: log}, o)
	c := &http.Client{Timeout: time.Minute}
	n := 0
	for _, tt := range []struct {
		name, path, kind, body string
		status                 int
		answer, logged         string
	}{
		{"a page", "/s/Page", "application/grpc-web+proto", message(0, ""), 502, "<p>sorry", "502 - via_upstream"},
		{"no base64", "/s/Echo", "application/grpc-web-text+proto", "AAAA****", 400, "the request is not valid\n", "400 DPE grpc_web_text_invalid"},
		{"base64 that breaks off", "/s/Echo", "application/grpc-web-text+proto", "AAAAAA", 400, "the request is not valid\n", "400 DPE grpc_web_text_invalid"},
		{"denied", "/s/Secret", "application/grpc-web+proto", message(0, ""), 200, "", "200 AD rbac_access_denied_matched_policy[default/d/0]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req, _ := http.NewRequest("POST", p.url(tt.path), strings.NewReader(tt.body))
			req.Header.Set("Content-Type", tt.kind)
			res, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, _ := io.ReadAll(res.Body)
			if res.StatusCode != tt.status || string(body) != tt.answer {
				t.Errorf("%d %q", res.StatusCode, body)
			}
			if tt.name == "denied" && (res.Header.Get("Grpc-Status") != "7" || res.Header.Get("Content-Type") != "application/grpc-web") {
				t.Errorf("%v", res.Header)
			}
			n++
			if l := lines(n); l[n-1] != tt.logged && tt.name != "denied" || !strings.HasSuffix(l[n-1], strings.SplitN(tt.logged, " ", 3)[2]) {
				t.Errorf("the log says %q, want %q", l[n-1], tt.logged)
			}
		})
	}
	t.Run("breaks off", func(t *testing.T) {
		req, _ := http.NewRequest("POST", p.url("/s/Break"), bytes.NewReader([]byte(message(0, "x"))))
		req.Header.Set("Content-Type", "application/grpc-web+proto")
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if body, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("passed for whole: %q", body)
		}
	})
	// Other content, and services that are spoken to in HTTP/1.1, are let be.
	plain := backend(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header.Get("Content-Type")) })
	p.apply(toOne(plain))
	res, err := c.Post(p.url("/s/Echo"), "application/grpc-web", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); string(body) != "application/grpc-web" {
		t.Errorf("%q", body)
	}
}

// TestGRPCWebHoldsBack has a client that takes a long stream in text mode slowly, and stops: what
// the proxy takes for it is bounded, by either version of HTTP, and between sites.
func TestGRPCWebHoldsBack(t *testing.T) {
	there := grpcBackend(t)
	pair := &pair{}
	pair.build(t, Deps{}, there, mesh.PortHTTP2)
	pair.introduce()
	p := startProxy(t, Config{Loops: 1}, Deps{}, grpcObjects(there))
	for name, way := range map[string][]*proxy{"here": {p}, "there": {pair.a, pair.b}} {
		t.Run(name, func(t *testing.T) {
			p := way[0]
			req, _ := http.NewRequest("POST", p.url("/s/Many"), strings.NewReader(message(0, "1600")))
			req.Header.Set("Content-Type", "application/grpc-web+proto")
			req.Header.Set("Accept", "application/grpc-web-text")
			var d net.Dialer
			c := &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := d.DialContext(ctx, network, addr)
				if err == nil { // else the kernel takes it all, and the client stops nobody
					err = conn.(*net.TCPConn).SetReadBuffer(64 << 10)
				}
				return conn, err
			}}}
			res, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			// Each time the backend has sent what it may by then: what it may send more than
			// the client took adds up. (Were credit given for base64 as if it were what the
			// backend sent, it would not: a stream gets back no more than it has sent.)
			const taken, step = 16 << 20, 256 << 10
			for range taken / step {
				for last := uint64(1); last != p.Stats().BytesSent; time.Sleep(3 * time.Millisecond) {
					last = p.Stats().BytesSent
				}
				if _, err := io.CopyN(io.Discard, res.Body, step); err != nil {
					t.Fatal(err)
				}
			}
			for last := uint64(1); last != p.Stats().BytesSent; time.Sleep(100 * time.Millisecond) {
				last = p.Stats().BytesSent
			}
			most := 1 << 20
			if len(way) > 1 { // between sites the window of a stream that was fast has grown by a MiB
				most += 3 << 19
			}
			for _, p := range way {
				if n := p.memoryInUse(); n > most {
					t.Errorf("%d bytes of buffers are used for a client that takes nothing", n)
				}
			}
			if n, err := io.Copy(io.Discard, res.Body); err != nil || taken+n < 20<<20 {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
	}
}
