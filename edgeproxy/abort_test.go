package edgeproxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/worker"
)

// TestHalfClose has clients that say at once that nothing more will come (nc -N):
// they get the answer to everything they asked.
func TestHalfClose(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(20 * time.Millisecond)
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s %d;", r.URL.Path, n)
	})
	p := startProxy(t, Config{}, Deps{}, toOne(b))
	for name, tt := range map[string]struct{ send, want string }{
		"one":       {"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", "/a 0;"},
		"old":       {"GET /a HTTP/1.0\r\n\r\n", "/a 0;"},
		"body":      {"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", "/a 3;"},
		"pipelined": {strings.Repeat("GET /a HTTP/1.1\r\nHost: x\r\n\r\n", 3), "/a 0;/a 0;/a 0;"},
	} {
		c := p.dial("http")
		io.WriteString(c, tt.send)
		c.(*net.TCPConn).CloseWrite()
		in, got := bufio.NewReader(c), ""
		for len(got) < len(tt.want) {
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Errorf("%s: after %q: %v", name, got, err)
				break
			}
			body, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != 200 {
				t.Errorf("%s: %d %q %v", name, res.StatusCode, body, err)
			}
			got += string(body)
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
		if _, err := in.ReadByte(); err != io.EOF {
			t.Errorf("%s: %v, want the connection ended", name, err)
		}
	}
}

// TestHalfCloseInBody ends a request that cannot become whole any more.
func TestHalfCloseInBody(t *testing.T) {
	began, gone := make(chan bool, 1), make(chan error, 1)
	b := backend(t, func(_ http.ResponseWriter, r *http.Request) {
		began <- true
		_, err := io.Copy(io.Discard, r.Body)
		gone <- err
	})
	p := startProxy(t, Config{}, Deps{}, toOne(b))
	c := p.dial("http")
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
	<-began
	c.(*net.TCPConn).CloseWrite()
	select {
	case err := <-gone:
		if err == nil {
			t.Error("a cut body passed for a whole one")
		}
	case <-time.After(10 * time.Second):
		t.Error("the backend still waits for the rest")
	}
	p.counted("default/echo", 0, "DC")
}

// TestCutResponse has a client whose response runs until the close, so that only
// a reset can tell it that the response is not whole.
func TestCutResponse(t *testing.T) {
	for name, tt := range map[string]struct {
		end func(backend net.Conn, p *proxy, stop func())
	}{
		"backend ends":   {func(b net.Conn, _ *proxy, _ func()) { b.Close() }},
		"backend resets": {func(b net.Conn, _ *proxy, _ func()) { b.(*net.TCPConn).SetLinger(0); b.Close() }},
		"malformed":      {func(b net.Conn, _ *proxy, _ func()) { io.WriteString(b, "zzz\r\n") }},
		"proxy stops":    {func(_ net.Conn, _ *proxy, stop func()) { stop() }},
	} {
		conns := make(chan net.Conn, 1)
		held := make(chan bool)
		b := rawBackend(t, func(_ int, c net.Conn, in *bufio.Reader) {
			http.ReadRequest(in)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n")
			conns <- c
			<-held
		})
		s, err := New(Config{}, Deps{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		p := &proxy{Server: s, t: t}
		p.snap.Origin = "file"
		p.apply(toOne(b))
		c := p.dial("http")
		io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
		in := bufio.NewReader(c)
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.ReadFull(res.Body, make([]byte, 4))
		tt.end(<-conns, p, stop)
		if rest, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("%s: a cut response ended cleanly, after %q", name, rest)
		}
		close(held)
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestStalledAfterRefusal has a client that reads nothing, not even the refusal
// of what it sent last: its connection must not stay for ever.
func TestStalledAfterRefusal(t *testing.T) {
	times := worker.DefaultTimes
	times.Stall, times.Head = 50*time.Millisecond, 50*time.Millisecond
	body := strings.Repeat("x", 30_000)
	b := rawBackend(t, func(_ int, c net.Conn, in *bufio.Reader) {
		for answer(c, in, body) {
		}
	})
	p := startProxy(t, Config{times: times}, Deps{}, toOne(b))
	c := p.dial("http").(*net.TCPConn)
	c.SetReadBuffer(4096)
	go func() { // until the proxy takes no more, then in the middle of a head
		for range 1000 {
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT"); err != nil {
				return
			}
			io.WriteString(c, "TP/1.1\r\nHost: x\r\n\r\n")
		}
	}()
	for range 2000 {
		if p.Stats().ConnectionsTotal == 1 && p.Stats().Connections == 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("a client that reads nothing is kept")
}

// TestCancelledAbroad resets the connection of a request that was given up: the
// other proxy, which lets clients end their sending side, must see the difference.
func TestCancelledAbroad(t *testing.T) {
	began, ended := make(chan bool, 1), make(chan error, 1)
	b := rawBackend(t, func(_ int, c net.Conn, in *bufio.Reader) {
		if _, err := http.ReadRequest(in); err != nil {
			return
		}
		began <- true
		_, err := in.ReadByte()
		ended <- err
	})
	p := startProxy(t, Config{}, Deps{}, toOne(b))
	c := p.dial("http").(*net.TCPConn)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-began
	c.SetLinger(0)
	c.Close()
	select {
	case err := <-ended:
		if err == nil || err == io.EOF {
			t.Errorf("the backend saw %v, want a reset", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the backend's request was not cancelled")
	}
}

// TestInBandStaysBetweenProxies has a backend and a client send the fields of the
// proxies' own conversation where heads are not the place: in trailers and
// informational heads.
func TestInBandStaysBetweenProxies(t *testing.T) {
	asked := make(chan string, 1)
	b := rawBackend(t, func(_ int, c net.Conn, in *bufio.Reader) {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		io.Copy(io.Discard, req.Body)
		asked <- fmt.Sprint(req.Header, req.Trailer)
		io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nMERIDIAN-Load: a\r\nlink: x\r\n\r\n"+
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nMeridian_Load: b\r\n\r\n2\r\nok\r\n0\r\nmeridian-LOAD: c\r\nx-sum: 1\r\n\r\n")
	})
	p := startProxy(t, Config{}, Deps{}, toOne(b))
	c := p.dial("http")
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nConnection: close, TE\r\nTE: trailers\r\nMeridian_Source: a\r\nMERIDIAN-SERVICE: b\r\n"+
		"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nMeridian-Source: c\r\nx-sum: 2\r\n\r\n")
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	for where, s := range map[string]string{"client": string(got), "backend": <-asked} {
		if strings.Contains(strings.ReplaceAll(strings.ToLower(s), "_", "-"), "meridian-") {
			t.Errorf("the %s sees %s", where, s)
		}
		if !strings.Contains(strings.ToLower(s), "x-sum") {
			t.Errorf("the %s lost a trailer: %s", where, s)
		}
	}
}
