package edgeproxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/http2"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// http2Client speaks HTTP/2 without TLS, from the first octet.
func http2Client(t testing.TB) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

// http2Backend serves both versions on one address.
func http2Backend(t testing.TB, h http.HandlerFunc) string {
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// bothWays routes /one to a service that gets HTTP/1.1 and /two to one that gets HTTP/2.
func bothWays(addr string) mesh.Objects {
	two := service("two", addr)
	two.Spec.Ports[0].Protocol = mesh.PortHTTP2
	o := toOne(addr)
	o.HTTPRoutes = []*mesh.HTTPRoute{routeTo("all", prefixRule("/one", backendRef("echo")), prefixRule("/two", backendRef("two")))}
	o.Services = append(o.Services, two)
	return o
}

// TestHTTP2 carries requests from either version to either version: bodies larger
// than every window, trailers, many at a time.
func TestHTTP2(t *testing.T) {
	b := http2Backend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Seen", fmt.Sprint(r.Proto, " ", r.Method, " ", r.Host, " ", r.URL, " ", r.Header.Get("Via"), " ", r.Header.Get("Cookie")))
		w.Header().Set("Trailer", "X-Sum")
		body, err := io.ReadAll(r.Body)
		_, _ = w.Write(body)
		w.Header().Set("X-Sum", fmt.Sprint(len(body), err))
	})
	p := startProxy(t, Config{Loops: 1}, Deps{}, bothWays(b))
	for _, from := range []struct {
		name, via string
		c         *http.Client
	}{{"HTTP/1.1", "1.1", &http.Client{Timeout: time.Minute}}, {"HTTP/2.0", "2.0", http2Client(t)}} {
		for path, to := range map[string]string{"/one": "HTTP/1.1", "/two": "HTTP/2.0"} {
			t.Run(from.name+" to "+to, func(t *testing.T) {
				var all sync.WaitGroup
				for i := range 40 {
					all.Go(func() {
						r := rand.New(rand.NewPCG(7, uint64(i)))
						for range 4 {
							body := bytes.Repeat([]byte{byte(i)}, r.IntN(300_000)*r.IntN(2))
							req, _ := http.NewRequest("PUT", p.url(path+"?q"), bytes.NewReader(body))
							if r.IntN(2) == 0 {
								req.ContentLength = -1
							}
							req.Header.Set("TE", "trailers")
							req.Header["Cookie"] = []string{"a=b", "c=d"}
							res, err := from.c.Do(req)
							if err != nil {
								t.Error(err)
								return
							}
							got, err := io.ReadAll(res.Body)
							res.Body.Close()
							seen := strings.Join(strings.Fields(res.Header.Get("X-Seen")), " ")
							cookies := "a=b; c=d"
							if from.name == "HTTP/1.1" {
								cookies = "a=b"
							}
							want := fmt.Sprintf("%s PUT %s %s?q %s meridian %s", to, p.addr("http"), path, from.via, cookies)
							if err != nil || res.StatusCode != 200 || !bytes.Equal(got, body) || !strings.HasPrefix(seen, want) {
								t.Errorf("%d, %d bytes of %d, %q, %v", res.StatusCode, len(got), len(body), seen, err)
							}
							if sum := fmt.Sprint(len(body), error(nil)); len(body) > 4096 && res.Trailer.Get("X-Sum") != sum {
								t.Errorf("trailers %v, want %s", res.Trailer, sum)
							}
						}
					})
				}
				all.Wait()
			})
		}
	}
	if s := p.Stats(); s.UpstreamConnects > 70 {
		t.Errorf("%d connections to the backend", s.UpstreamConnects)
	}
}

// TestHTTP2_sharesConnections has many requests at once share what connections
// there are, the first one while it is dialled.
func TestHTTP2_sharesConnections(t *testing.T) {
	var conns, most, now atomic.Int64
	gate := make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		<-gate
		now.Add(-1)
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			conns.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	p := startProxy(t, Config{Loops: 1}, Deps{}, bothWays(s.Listener.Addr().String()))
	c := http2Client(t)
	var all sync.WaitGroup
	for range 60 {
		all.Go(func() {
			res, err := c.Get(p.url("/two"))
			if err != nil {
				t.Error(err)
				return
			}
			res.Body.Close()
		})
	}
	eventually(t, func() bool { return most.Load() == 60 }, "all requests are at the backend at one time")
	close(gate)
	all.Wait()
	if n := conns.Load(); n > 2 {
		t.Errorf("%d connections for 60 requests", n)
	}
}

// TestHTTP2_failures: what goes wrong with one stream leaves the others alone.
func TestHTTP2_failures(t *testing.T) {
	gone := make(chan struct{}, 10)
	b := http2Backend(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/one/hang", "/two/hang":
			_, _ = io.Copy(io.Discard, r.Body)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			gone <- struct{}{}
		case "/one/cut", "/two/cut":
			fmt.Fprint(w, "half")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
	})
	o := bothWays(b)
	o.Services = append(o.Services, service("dead", refused(t)))
	o.HTTPRoutes[0].Spec.Rules = append(o.HTTPRoutes[0].Spec.Rules, prefixRule("/dead", backendRef("dead")))
	p := startProxy(t, Config{Loops: 1}, Deps{}, o)
	c := http2Client(t)
	get := func(path string) (int, string, error) {
		res, err := c.Get(p.url(path))
		if err != nil {
			return 0, "", err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		return res.StatusCode, string(body), err
	}
	if status, _, err := get("/one"); status != 200 || err != nil {
		t.Fatal(status, err)
	}
	for path, want := range map[string]int{"/none": 404, "/dead": 503, "/%00": 400} {
		if status, body, err := get(path); status != want || err != nil || !strings.HasSuffix(body, "\n") {
			t.Errorf("%s: %d %q %v, want %d", path, status, body, err, want)
		}
	}
	for _, path := range []string{"/one/cut", "/two/cut"} {
		var late net.Error
		if status, body, err := get(path); err == nil || errors.As(err, &late) && late.Timeout() {
			t.Errorf("%s: %d %q %v, an answer that is cut short must say so", path, status, body, err)
		}
	}
	for _, path := range []string{"/one/hang", "/two/hang"} {
		res, err := c.Get(p.url(path))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close() // resets the stream
		select {
		case <-gone:
		case <-time.After(20 * time.Second):
			t.Errorf("%s: the backend was not told that the client went", path)
		}
	}
	if status, _, err := get("/two"); status != 200 || err != nil {
		t.Error(status, err)
	}
	if s := p.Stats(); s.ConnectionsTotal != 1 {
		t.Errorf("%d connections of the client, want one that lived through it all", s.ConnectionsTotal)
	}
}

// rawHTTP2 is a client that decides about every frame's time.
type rawHTTP2 struct {
	t     *testing.T
	c     net.Conn
	codec *http2.Codec
	in    []byte
}

func dialHTTP2(t *testing.T, p *proxy, l http2.Limits) *rawHTTP2 {
	t.Helper()
	c, err := net.Dial("tcp", p.addr("http").String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return &rawHTTP2{t: t, c: c, codec: http2.NewClient(l)}
}

func (r *rawHTTP2) send(evs ...stream.Event) {
	r.t.Helper()
	var out []byte
	for i := range evs {
		var err error
		if out, err = r.codec.Encode(out, &evs[i]); err != nil {
			r.t.Fatal(err)
		}
	}
	if _, err := r.c.Write(r.codec.Say(out)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rawHTTP2) open(path string) stream.ID {
	r.t.Helper()
	id, ok := r.codec.Open()
	if !ok {
		r.t.Fatal("no stream")
	}
	r.send(stream.Event{Kind: stream.Head, Stream: id, Head: &stream.Message{Method: []byte("GET"), Authority: []byte("x"), Path: []byte(path)}},
		stream.Event{Kind: stream.End, Stream: id})
	return id
}

// next reads up to the next event, false at the connection's end.
func (r *rawHTTP2) next() (ev stream.Event, ok bool) {
	r.t.Helper()
	buf := make([]byte, 16<<10)
	for {
		n, err := r.codec.Decode(r.in, &ev)
		if err != nil {
			r.t.Fatal(err)
		}
		if r.in = r.in[n:]; ev.Kind != stream.None {
			return ev, true
		}
		if out := r.codec.Say(nil); len(out) > 0 {
			if _, err := r.c.Write(out); err != nil {
				return ev, false
			}
		}
		n, err = r.c.Read(buf)
		if r.in = append(r.in[:len(r.in):len(r.in)], buf[:n]...); err != nil {
			if err != io.EOF {
				r.t.Error(err)
			}
			return ev, false
		}
	}
}

// TestHTTP2_smallWindows: a client that gives little room gets what it has room
// for, own answers of the proxy too, and holds nobody up.
func TestHTTP2_smallWindows(t *testing.T) {
	b := http2Backend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		_, _ = w.Write(bytes.Repeat([]byte("x"), 5000))
		w.Header().Set("X-Sum", "5000")
	})
	p := startProxy(t, Config{Loops: 1}, Deps{}, bothWays(b))
	for _, path := range []string{"/one", "/two", "/none"} {
		c := dialHTTP2(t, p, http2.Limits{Window: 7})
		id := c.open(path)
		quick := http2Client(t)
		got, ended := 0, false
		for !ended {
			ev, ok := c.next()
			if !ok {
				t.Fatalf("%s: the connection ended after %d bytes", path, got)
			}
			switch ev.Kind {
			case stream.Data:
				if len(ev.Data) > 7 {
					t.Fatalf("%d bytes in a window of 7", len(ev.Data))
				}
				got += len(ev.Data)
				if got == 7 {
					res, err := quick.Get(p.url("/one"))
					if err != nil {
						t.Fatal(err)
					}
					if n, err := io.Copy(io.Discard, res.Body); n != 5000 || err != nil {
						t.Errorf("another client got %d bytes, %v", n, err)
					}
					res.Body.Close()
				}
				c.send(stream.Event{Kind: stream.Window, Stream: id, N: len(ev.Data)})
			case stream.End:
				ended = true
			case stream.Reset:
				t.Fatalf("%s: reset after %d bytes", path, got)
			}
		}
		if want := map[string]int{"/one": 5000, "/two": 5000, "/none": len("no route matches\n")}[path]; got != want && path != "/none" || got == 0 {
			t.Errorf("%s: %d bytes", path, got)
		}
		c.c.Close()
	}
	eventually(t, func() bool { return p.Stats().Connections <= 3 }, "nothing is left of the clients")
}

// TestHTTP2_drain: a connection that is drained is told so, its requests under way
// end, and then it ends.
func TestHTTP2_drain(t *testing.T) {
	gate, there := make(chan struct{}), make(chan struct{}, 1)
	b := http2Backend(t, func(w http.ResponseWriter, r *http.Request) {
		there <- struct{}{}
		<-gate
		fmt.Fprint(w, "done")
	})
	o := bothWays(b)
	p := startProxy(t, Config{Loops: 1}, Deps{}, o)
	c := dialHTTP2(t, p, http2.Limits{})
	id := c.open("/two")
	<-there
	o.Gateways = []*mesh.Gateway{gatewayOn("127.0.0.1", httpListener("other", 0))}
	p.apply(o)
	time.AfterFunc(50*time.Millisecond, func() { close(gate) })
	body := ""
	for {
		ev, ok := c.next()
		if !ok {
			break
		}
		if ev.Kind == stream.Data && ev.Stream == id {
			body += string(ev.Data)
		}
	}
	if body != "done" {
		t.Errorf("the request under way got %q", body)
	}
	if c.codec.Reusable() {
		t.Error("the client was not told that the connection ends")
	}
}

// TestHTTP2_hotPath holds that a request by HTTP/2 allocates nothing.
func TestHTTP2_hotPath(t *testing.T) {
	o := hotObjects(fixedBackend(t))
	p := startProxy(t, Config{Loops: 1}, Deps{}, o)
	c := dialHTTP2(t, p, http2.Limits{})
	fields := make([]stream.Field, 19)
	for i := range fields {
		fields[i] = stream.Field{Name: fmt.Appendf(nil, "x-field-%02d", i), Value: fmt.Appendf(nil, "value of field number %d", i)}
	}
	head := stream.Message{Method: []byte("GET"), Authority: []byte("h7.example.com"), Path: []byte("/api/v3/items/42?full=true"), Fields: fields}
	out, in, buf := make([]byte, 0, 64<<10), make([]byte, 0, 256<<10), make([]byte, 64<<10)
	var ev stream.Event
	encode := func(e stream.Event) {
		ev = e
		var err error
		if out, err = c.codec.Encode(out, &ev); err != nil {
			t.Fatal(err)
		}
	}
	// round sends 32 requests at one time and reads the answers.
	round := func() {
		for range 32 {
			id, ok := c.codec.Open()
			if !ok {
				t.Fatal("no stream")
			}
			encode(stream.Event{Kind: stream.Head, Stream: id, Head: &head})
			encode(stream.Event{Kind: stream.End, Stream: id})
		}
		for left := 32; left > 0 || len(out) > 0; {
			out = c.codec.Say(out)
			if len(out) > 0 {
				if _, err := c.c.Write(out); err != nil {
					t.Fatal(err)
				}
				out = out[:0]
			}
			if left == 0 {
				return
			}
			n, err := c.c.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			in = append(in, buf[:n]...)
			used := 0
			for {
				n, err := c.codec.Decode(in[used:], &ev)
				if err != nil {
					t.Fatal(err)
				}
				used += n
				if ev.Kind == stream.None {
					break
				}
				switch ev.Kind {
				case stream.Head:
					if ev.Head.Status != 200 {
						t.Fatal(ev.Head.Status)
					}
				case stream.Data:
					encode(stream.Event{Kind: stream.Window, Stream: ev.Stream, N: len(ev.Data)})
				case stream.End:
					left--
				case stream.Reset:
					t.Fatal("reset")
				}
			}
			in = in[:copy(in, in[used:])]
		}
	}
	for range 50 {
		round()
	}
	const rounds = 1000
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range rounds {
		round()
	}
	runtime.ReadMemStats(&after)
	all := after.Mallocs - before.Mallocs
	t.Logf("%d allocations in %d requests", all, rounds*32)
	if all > 400 {
		t.Errorf("%d allocations in %d requests, want none per request", all, rounds*32)
	}
}

// eventually waits for a condition, for long: the machine may be busy.
func eventually(t testing.TB, is func() bool, what string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}
