package edgeproxy

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/worker"
)

// dial opens a raw connection to the proxy that no test waits on for long.
func (p *proxy) dial(listener string) net.Conn {
	p.t.Helper()
	c, err := net.Dial("tcp", p.addr(listener).String())
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		p.t.Fatal(err)
	}
	return c
}

func TestPipelining(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s:%s", r.URL.Path, body)
	})
	p := startProxy(t, Config{}, Deps{}, toOne(b))
	c := p.dial("http")
	const n = 200
	var all bytes.Buffer
	for i := range n {
		if i%3 == 0 {
			fmt.Fprintf(&all, "POST /%d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", i)
		} else {
			fmt.Fprintf(&all, "GET /%d HTTP/1.1\r\nHost: x\r\n\r\n", i)
		}
	}
	go c.Write(all.Bytes())
	in := bufio.NewReader(c)
	for i := range n {
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("response %d: %v", i, err)
		}
		body, err := io.ReadAll(res.Body)
		want := fmt.Sprintf("/%d:", i)
		if i%3 == 0 {
			want += "abc"
		}
		if err != nil || string(body) != want {
			t.Fatalf("response %d: %q, %v", i, body, err)
		}
	}
}

// TestBodies sends bodies of many sizes both ways, with and without a length,
// with trailers, by independent peers.
func TestBodies(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		if r.ContentLength >= 0 {
			w.Header().Set("Content-Length", fmt.Sprint(r.ContentLength))
			w.Header().Del("Trailer")
		}
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		sum := sha256.New()
		if _, err := io.Copy(w, io.TeeReader(r.Body, sum)); err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("X-Sum", fmt.Sprintf("%x %s", sum.Sum(nil), r.Trailer.Get("X-Client")))
	})
	p := startProxy(t, Config{}, Deps{}, toOne(b))
	for _, size := range []int{0, 1, 1000, 16 << 10, 64<<10 - 1, 64<<10 + 1, 1 << 20, 5 << 20} {
		payload := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
		for _, chunked := range []bool{false, true} {
			req, err := http.NewRequest("POST", p.url("/"), struct{ io.Reader }{bytes.NewReader(payload)})
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = int64(size)
			if chunked {
				req.ContentLength = -1
				req.Trailer = http.Header{"X-Client": {"yes"}}
			} else if size == 0 {
				req.Body = http.NoBody
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || !bytes.Equal(got, payload) {
				t.Fatalf("size %d chunked %v: %d bytes, %v", size, chunked, len(got), err)
			}
			if want := fmt.Sprintf("%x yes", sha256.Sum256(payload)); chunked && res.Trailer.Get("X-Sum") != want {
				t.Fatalf("size %d: trailer %q, want %q", size, res.Trailer.Get("X-Sum"), want)
			}
			if !chunked && res.ContentLength != int64(size) {
				t.Fatalf("size %d: length %d", size, res.ContentLength)
			}
		}
	}
}

func TestBodiless(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(204)
		case "/304":
			w.Header().Set("ETag", `"a"`)
			w.WriteHeader(304)
		default:
			w.Header().Set("Content-Length", "5")
			io.WriteString(w, "hello")
		}
	})
	p := startProxy(t, Config{}, Deps{}, toOne(b))
	c := p.dial("http")
	in := bufio.NewReader(c)
	for _, tt := range []struct {
		method, path string
		status       int
		length       int64
		body         string
	}{
		{"HEAD", "/", 200, 5, ""}, {"GET", "/204", 204, 0, ""}, {"GET", "/304", 304, 0, ""},
		{"HEAD", "/304", 304, 0, ""}, {"GET", "/", 200, 5, "hello"},
	} {
		fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: x\r\n\r\n", tt.method, tt.path)
		res, err := http.ReadResponse(in, &http.Request{Method: tt.method})
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != tt.status || max(res.ContentLength, 0) != tt.length || string(body) != tt.body {
			t.Errorf("%s %s: %d, length %d, %q, %v", tt.method, tt.path, res.StatusCode, res.ContentLength, body, err)
		}
	}
	if s := p.Stats(); s.UpstreamConnects != 1 {
		t.Errorf("%d connections to the backend for one client", s.UpstreamConnects)
	}
}

func TestInformational(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hints" {
			w.Header().Set("Link", "</a.css>")
			w.WriteHeader(103)
		}
		body, _ := io.ReadAll(r.Body) // sends 100 (Continue) where it is expected
		fmt.Fprintf(w, "got %d", len(body))
	})
	p := startProxy(t, Config{}, Deps{}, toOne(b))
	t.Run("early hints", func(t *testing.T) {
		var seen []int
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			seen = append(seen, code)
			if h.Get("Link") == "" {
				t.Error("early hints without their field")
			}
			return nil
		}}
		req, _ := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "GET", p.url("/hints"), nil)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if len(seen) != 1 || seen[0] != 103 {
			t.Errorf("saw %v", seen)
		}
	})
	t.Run("expect", func(t *testing.T) {
		c := p.dial("http")
		in := bufio.NewReader(c)
		for range 2 {
			io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
			res, err := http.ReadResponse(in, nil)
			if err != nil || res.StatusCode != 100 {
				t.Fatalf("%v %v, want 100 before the body is sent", res, err)
			}
			io.WriteString(c, "hello")
			res, err = http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, _ := io.ReadAll(res.Body); string(body) != "got 5" {
				t.Fatalf("%q", body)
			}
		}
	})
}

// TestRefusals is what the proxy answers by itself.
func TestRefusals(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	o := toOne(b)
	zero := 0
	half := backendRef("echo")
	half.Weight = &zero
	o.Services = append(o.Services, service("empty"), service("down", refused(t)))
	o.HTTPRoutes = []*mesh.HTTPRoute{routeTo("all",
		prefixRule("/ok", backendRef("echo")), prefixRule("/nothing"), prefixRule("/missing", half, backendRef("absent")),
		prefixRule("/empty", backendRef("empty")), prefixRule("/down", backendRef("down")))}
	p := startProxy(t, Config{}, Deps{}, o)
	for _, tt := range []struct {
		request, status string
		keeps           bool
	}{
		{"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", true},
		{"GET /other HTTP/1.1\r\nHost: x\r\n\r\n", "404 Not Found", true},
		{"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", "500 Internal Server Error", true},
		{"GET /missing HTTP/1.1\r\nHost: x\r\n\r\n", "500 Internal Server Error", true},
		{"GET /empty HTTP/1.1\r\nHost: x\r\n\r\n", "503 Service Unavailable", true},
		{"GET /down HTTP/1.1\r\nHost: x\r\n\r\n", "503 Service Unavailable", true},
		{"GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n", "400 Bad Request", true},
		{"HEAD /other HTTP/1.1\r\nHost: x\r\n\r\n", "404 Not Found", true},
		{"POST /other HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", "404 Not Found", false},
		{"GET /ok HTTP/1.1\r\n\r\n", "400 Bad Request", false},
		{"GET /ok HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "400 Bad Request", false},
		{"POST /ok HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "400 Bad Request", false},
		{"GET /ok HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("A: b\r\n", 101) + "\r\n", "431 Request Header Fields Too Large", false},
		{"GET /ok HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 70<<10) + "\r\n\r\n", "431 Request Header Fields Too Large", false},
	} {
		c := p.dial("http")
		go io.WriteString(c, tt.request+map[bool]string{true: "GET /ok HTTP/1.1\r\nHost: x\r\n\r\n"}[tt.keeps])
		in := bufio.NewReader(c)
		method, _, _ := strings.Cut(tt.request, " ")
		res, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			t.Errorf("%.60q: %v", tt.request, err)
			continue
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || res.Status != tt.status || method != "HEAD" && len(body) == 0 {
			t.Errorf("%.60q: %s %q %v, want %s", tt.request, res.Status, body, err, tt.status)
		}
		res, err = http.ReadResponse(in, nil)
		if tt.keeps && (err != nil || res.StatusCode != 200) || !tt.keeps && err == nil {
			t.Errorf("%.60q: then %v %v, connection should be kept: %v", tt.request, res, err, tt.keeps)
		}
	}
	for _, tt := range []struct{ before, line, answer string }{
		{"", "INVALID CONNECTION PREFACE\r\n\r\n", ""},
		{"", "DESCRIBE rtsp://x/ok RTSP/1.0\r\n\r\n", ""},
		{"", "GET /ok b HTTP/1.1\r\nHost: x\r\n\r\n", "400 Bad Request"},
		{"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n", "DESCRIBE rtsp://x/ok RTSP/1.0\r\n\r\n", "400 Bad Request"},
	} {
		c := p.dial("http")
		in := bufio.NewReader(c)
		for _, sent := range []string{tt.before, tt.line} {
			if sent == "" {
				continue
			}
			if _, err := io.WriteString(c, sent); err != nil {
				t.Fatal(err)
			}
			if sent != tt.line || tt.answer != "" {
				res, err := http.ReadResponse(in, nil)
				if err != nil || sent == tt.line && res.Status != tt.answer {
					t.Fatalf("%q: %v %v, want %s", sent, res, err, tt.answer)
				}
				if _, err := io.Copy(io.Discard, res.Body); err != nil {
					t.Fatal(err)
				}
			}
		}
		if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
			t.Errorf("%q: then %q %v, want the connection closed", tt.line, rest, err)
		}
	}
	want := map[string]uint64{"2 ": 7, "0 DPE": 2, "4 NR": 3, "5 NC": 2, "5 UH": 1, "5 UF": 1, "4 DPE": 8}
	got := map[string]uint64{}
	for _, c := range p.Stats().Requests {
		got[fmt.Sprintf("%d %s", c.Class, c.Flag)] += c.N
	}
	delete(got, "2 ") // those sent after, to see whether the connection was kept
	delete(want, "2 ")
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("counted %v, want %v", got, want)
	}
	if problems := strings.Join(p.Problems(), "\n"); !strings.Contains(problems, "absent") {
		t.Errorf("problems: %s", problems)
	}
}

func TestClientTimeouts(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	times := worker.DefaultTimes
	times.Head, times.Body, times.KeepAlive = 50*time.Millisecond, 50*time.Millisecond, 100*time.Millisecond
	p := startProxy(t, Config{times: times}, Deps{}, toOne(b))
	for name, tt := range map[string]struct {
		send string
		want int
	}{
		"rest": {"", 0},
		"head": {"GET / HTTP/1.1\r\nHos", 408},
		"body": {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc", 408},
	} {
		c := p.dial("http")
		io.WriteString(c, tt.send)
		in := bufio.NewReader(c)
		if tt.want != 0 {
			res, err := http.ReadResponse(in, nil)
			if err != nil || res.StatusCode != tt.want {
				t.Errorf("%s: %v %v", name, res, err)
				continue
			}
			io.Copy(io.Discard, res.Body)
		}
		if _, err := in.ReadByte(); err != io.EOF {
			t.Errorf("%s: %v, want the connection closed", name, err)
		}
	}
}

func TestIPv6(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("IPv6 is missing: %v", err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Header.Get("X-Forwarded-For"))
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	o := toOne(l.Addr().String())
	o.Gateways[0] = gatewayOn("::1", httpListener("http", 0))
	p := startProxy(t, Config{}, Deps{}, o)
	if status, body := get(t, p.url("/")); status != 200 || body != "::1" {
		t.Errorf("%d %q", status, body)
	}
	o.Gateways[0] = gatewayOn("::1", httpListener("http", 0))
	o.Gateways[0].Spec.Addresses = nil
	p.apply(o)
	port := p.addr("http").Port()
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		want := strings.Trim(host, "[]")
		if status, body := get(t, fmt.Sprintf("http://%s:%d/", host, port)); status != 200 || body != want {
			t.Errorf("%s: %d %q", host, status, body)
		}
	}
}
