package edgeproxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
)

// talking is a handler that answers each line with another before it reads the next, and
// says in the trailers how many there were.
func talking(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Trailer", "Grpc-Status, X-Lines")
	w.Header().Set("X-Proto", r.Proto)
	w.Header().Set("Meridian-Load", "forged by a backend")
	w.WriteHeader(200)
	out := http.NewResponseController(w)
	_ = out.Flush()
	in, n := bufio.NewReader(r.Body), 0
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			break
		}
		n++
		fmt.Fprintf(w, "%d %s", n, line)
		_ = out.Flush()
	}
	w.Header().Set("Grpc-Status", "7")
	w.Header().Set("X-Lines", fmt.Sprint(n))
}

// TestStreamsBetweenSites talks both ways at once through the proxies of two sites, as
// streams of gRPC do, with mTLS and in the clear: the trailers arrive, the load is told,
// and the requests share one connection.
func TestStreamsBetweenSites(t *testing.T) {
	for _, secure := range []bool{true, false} {
		t.Run(fmt.Sprint("mTLS ", secure), func(t *testing.T) {
			endpoints := map[string]string{"b": http2Backend(t, talking)}
			objects := func(endpoints, gateways map[string]string) mesh.Objects {
				o := siteObjects(endpoints, gateways)
				o.Services[0].Spec.Ports[0].Protocol = mesh.PortHTTP2
				return o
			}
			log, lines := logged(t, "%PROTOCOL% %RESPONSE_CODE%")
			p := relayedBy(t, objects, endpoints, Deps{}, Deps{AccessLog: log, Sharing: &decided{}})
			if !secure {
				gateways := map[string]string{"b": p.b.addr("eastwest").String()}
				p.b.apply(objects(endpoints, nil))
				p.a.apply(objects(endpoints, gateways))
			}
			c := http2Client(t)
			const streams, rounds = 20, 10
			var all, begun sync.WaitGroup
			begun.Add(streams)
			for i := range streams {
				all.Go(func() {
					in, out := io.Pipe()
					req, _ := http.NewRequest("POST", p.a.url("/s/Talk"), in)
					req.Header.Set("Content-Type", "application/grpc")
					req.Header.Set("TE", "trailers")
					res, err := c.Do(req) // the head is there before the request's end
					begun.Done()
					if err != nil {
						t.Error(err)
						return
					}
					defer res.Body.Close()
					begun.Wait() // all are open at once
					answers := bufio.NewReader(res.Body)
					for n := range rounds {
						fmt.Fprintf(out, "stream %d\n", i)
						if line, err := answers.ReadString('\n'); line != fmt.Sprintf("%d stream %d\n", n+1, i) {
							t.Errorf("stream %d, line %d: %q %v", i, n, line, err)
							return
						}
					}
					out.Close()
					rest, err := io.ReadAll(answers)
					if len(rest) > 0 || err != nil {
						t.Errorf("stream %d ends with %q, %v", i, rest, err)
					}
					if got := fmt.Sprint(res.Header.Get("X-Proto"), " ", res.Trailer.Get("Grpc-Status"), " ", res.Trailer.Get("X-Lines"), " ", res.Header.Get("Meridian-Load")); got != fmt.Sprint("HTTP/2.0 7 ", rounds, " ") {
						t.Errorf("stream %d: version, trailers and load %q", i, got)
					}
				})
			}
			all.Wait()
			for _, l := range lines(streams) {
				if l != "HTTP/2 200" {
					t.Errorf("b's log says %q", l)
				}
			}
			told := p.sharing.heard()
			if strings.Count(told, "load 0 for a") != streams || strings.Contains(told, "forged") {
				t.Errorf("the gate heard %q", told)
			}
			for _, e := range p.a.Endpoints() {
				if e.Connects != 1 || e.Requests != streams || e.InFlight != 0 {
					t.Errorf("%d requests over %d connections, %d in flight", e.Requests, e.Connects, e.InFlight)
				}
			}
		})
	}
}

// TestPlainClientsBetweenSites asks by HTTP/1.1 for a service of HTTP/1.1: between the
// sites too the requests share a connection, bodies and trailers whole.
func TestPlainClientsBetweenSites(t *testing.T) {
	there := backend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		body, err := io.ReadAll(r.Body)
		_, _ = w.Write(body)
		w.Header().Set("X-Sum", fmt.Sprint(len(body), err))
	})
	log, lines := logged(t, "%PROTOCOL% %RESPONSE_CODE%")
	p := relayedBy(t, siteObjects, map[string]string{"b": there}, Deps{}, Deps{AccessLog: log})
	const clients, each = 10, 5
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			for range each {
				body := strings.Repeat(fmt.Sprint(i), 200_000)
				req, _ := http.NewRequest("PUT", p.a.url("/"), strings.NewReader(body))
				req.Header.Set("TE", "trailers")
				res, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(res.Body)
				res.Body.Close()
				if res.StatusCode != 200 || string(got) != body || err != nil || res.Trailer.Get("X-Sum") != fmt.Sprint(len(body), " <nil>") {
					t.Errorf("%s, %d bytes of %d, %v, trailers %v", res.Status, len(got), len(body), err, res.Trailer)
				}
			}
		})
	}
	all.Wait()
	for _, l := range lines(clients * each) {
		if l != "HTTP/2 200" {
			t.Errorf("b's log says %q", l)
		}
	}
	if e := p.a.Endpoints()[0]; e.Connects != 1 {
		t.Errorf("%d connections between the sites", e.Connects)
	}
}

// TestPeerWithoutHTTP2 meets a gateway that agrees on HTTP/1.1 in the handshake: it gets
// that, on the connection that was made for HTTP/2 too, and for a while is offered nothing
// else. A whole connection is not sent there.
func TestPeerWithoutHTTP2(t *testing.T) {
	f := newFamily(t, "mesh.example")
	var offers sync.Map
	var handshakes, conns atomic.Int64
	gate := make(chan struct{}, 5) // a token lets a request be answered
	s := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-gate
			fmt.Fprint(w, r.Proto, " ", r.Header.Get("Meridian-Service"))
		}),
		ConnState: func(_ net.Conn, st http.ConnState) {
			if st == http.StateNew {
				conns.Add(1)
			}
		},
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{f.leaf("b", "b-1", time.Now())}, NextProtos: []string{"http/1.1"}, ClientAuth: tls.RequireAnyClientCert,
			GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
				offers.Store(handshakes.Add(1), strings.Join(h.SupportedProtos, " "))
				return nil, nil
			},
		},
		Protocols: new(http.Protocols),
	}
	s.Protocols.SetHTTP1(true)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.ServeTLS(l, "", "") }()
	t.Cleanup(func() { s.Close(); <-ended })

	endpoints := map[string]string{"a": tcpBackend(t, func(c *net.TCPConn) { io.WriteString(c, "home") }), "b": "127.0.0.1:1"}
	o := siteStreams(endpoints, map[string]string{"b": l.Addr().String()})
	web := siteObjects(map[string]string{"b": "127.0.0.1:1"}, nil)
	web.Services[0].Metadata.Name = "web"
	o.Services = append(o.Services, web.Services[0])
	o.HTTPRoutes = []*mesh.HTTPRoute{routeTo("web", prefixRule("/", backendRef("web")))}
	o.Gateways[0].Spec.Listeners = append(o.Gateways[0].Spec.Listeners, mesh.Listener{Name: "http", Protocol: mesh.ProtocolHTTP})
	a := startProxy(t, Config{Site: "a", Loops: 1}, Deps{Sharing: &decided{pick: 0, then: []int{upstream.Home, upstream.None}}}, trusting(o, f.trust()))
	if err := a.SetIdentity(f.leaf("a", "a-1", time.Now())); err != nil {
		t.Fatal(err)
	}
	c := http2Client(t)
	ask := func(n int) {
		t.Helper()
		var all sync.WaitGroup
		for range n {
			all.Go(func() {
				res, err := c.Get(a.url("/"))
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(res.Body)
				res.Body.Close()
				if res.StatusCode != 200 || string(body) != "HTTP/1.1 default/web" || err != nil {
					t.Errorf("%d %q %v", res.StatusCode, body, err)
				}
			})
		}
		await(t, fmt.Sprint(n, " connections"), func() bool { return conns.Load() >= int64(n) })
		for range n {
			gate <- struct{}{}
		}
		all.Wait()
	}
	ask(5)
	ask(5)
	if n := handshakes.Load(); n != 5 {
		t.Errorf("%d handshakes for ten requests, five at a time", n)
	}
	for i := int64(1); i <= 5; i++ {
		want := "http/1.1"
		if i == 1 {
			want = "h2 http/1.1"
		}
		if v, _ := offers.Load(i); v != want {
			t.Errorf("handshake %d offers %v, want %s", i, v, want)
		}
	}
	conn := a.dial("tcp")
	if got, err := io.ReadAll(conn); string(got) != "home" {
		t.Errorf("a connection is served %q, %v, want home", got, err)
	}
}

// TestLateCalls have a backend that breaks a call off. One whose time is over gets to know
// that, here and from another site; any other that nobody is there.
func TestLateCalls(t *testing.T) {
	endpoints := map[string]string{"b": http2Backend(t, func(http.ResponseWriter, *http.Request) {
		time.Sleep(20 * time.Millisecond)
		panic(http.ErrAbortHandler) // RST_STREAM
	})}
	p := relayedBy(t, func(endpoints, gateways map[string]string) mesh.Objects {
		o := siteObjects(endpoints, gateways)
		o.Services[0].Spec.Ports[0].Protocol = mesh.PortHTTP2
		return o
	}, endpoints, Deps{}, Deps{Sharing: &decided{pick: upstream.Home}})
	c := http2Client(t)
	for _, tt := range []struct{ kind, timeout, want string }{
		{"application/grpc", "1m", "200 application/grpc 4"},
		{"application/grpc+proto", "20000u", "200 application/grpc 4"},
		{"application/grpc", "1H", "502 text/plain; charset=utf-8 "},
		{"application/grpc", "", "502 text/plain; charset=utf-8 "},
		{"application/grpc", "1ms", "502 text/plain; charset=utf-8 "},
		{"application/json", "1m", "502 text/plain; charset=utf-8 "},
	} {
		for name, url := range map[string]string{"there": p.a.url("/s/Late"), "here": p.b.url("/s/Late")} {
			req, _ := http.NewRequest("POST", url, strings.NewReader("x"))
			req.Header.Set("Content-Type", tt.kind)
			if tt.timeout != "" {
				req.Header.Set("Grpc-Timeout", tt.timeout)
			}
			res, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if got := fmt.Sprint(res.StatusCode, " ", res.Header.Get("Content-Type"), " ", res.Header.Get("Grpc-Status")); got != tt.want {
				t.Errorf("%s %q %s: %q, want %q", tt.kind, tt.timeout, name, got, tt.want)
			}
		}
	}
}
