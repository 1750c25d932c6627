package edgeproxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/tlsio"
	"github.com/meridian-mesh/meridian/edgeproxy/worker"
)

func TestTLSListener(t *testing.T) {
	a := newAuthority(t)
	a.issue("site", nil, "shop.example.com")
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Proto", r.Header.Get("X-Forwarded-Proto"))
		body, _ := io.ReadAll(r.Body)
		w.Write(body)
	})
	p := startProxy(t, Config{}, Deps{}, a.overTLS(b))
	for _, two := range []bool{false, true} {
		c := a.client("shop.example.com", two)
		for _, size := range []int{0, 1, 1000, 100_000, 5 << 20} {
			body := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
			res, err := c.Post(p.secureURL("/x"), "text/plain", bytes.NewReader(body))
			if err != nil {
				t.Fatalf("HTTP/2 %v, %d bytes: %v", two, size, err)
			}
			got, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || !bytes.Equal(got, body) || res.ProtoMajor == 2 != two {
				t.Fatalf("%s, %d bytes: %d came back, %v", res.Proto, size, len(got), err)
			}
			if res.TLS.Version != tls.VersionTLS13 || res.Header.Get("X-Proto") != "https" {
				t.Errorf("version %x, x-forwarded-proto %q", res.TLS.Version, res.Header.Get("X-Proto"))
			}
		}
	}
	if s := p.Stats(); s.ConnectionsTotal != 2 {
		t.Errorf("%d connections for ten requests of two clients", s.ConnectionsTotal)
	}
	if n := p.Handshakes()[tlsio.ServerSide]; n.Done != 2 || n.InFlight != 0 || len(n.Failed) != 0 {
		t.Errorf("handshakes %+v", n)
	}
}

func TestTLSResumes(t *testing.T) {
	a := newAuthority(t)
	a.issue("site", nil, "shop.example.com")
	b := backend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	p := startProxy(t, Config{}, Deps{}, a.overTLS(b))
	for _, version := range []uint16{tls.VersionTLS13, tls.VersionTLS12} {
		o := a.overTLS(b)
		o.Gateways[0].Spec.Listeners[0].TLS.Options = map[string]string{mesh.OptionMinVersion: "1.2"}
		p.apply(o)
		c := a.config("shop.example.com")
		c.ClientSessionCache, c.MaxVersion = tls.NewLRUClientSessionCache(10), version
		for i := range 3 {
			s, err := p.session(c)
			if err != nil {
				t.Fatal(err)
			}
			if status, err := askTLS(s, "shop.example.com"); status != 200 || err != nil {
				t.Fatalf("%d, %v", status, err)
			}
			if st := s.ConnectionState(); st.DidResume != (i > 0) || st.Version != version {
				t.Errorf("connection %d: version %x, resumed %v", i, st.Version, st.DidResume)
			}
			s.Close()
			p.apply(o) // a new view, the same keys
		}
	}
	if n := p.Handshakes()[tlsio.ServerSide]; n.Done != 6 || n.Resumed != 4 {
		t.Errorf("handshakes %+v", n)
	}
}

// TestTLSOddClients has clients that never come to a request: each is told why where
// it can be, counted by reason, and leaves nothing behind.
func TestTLSOddClients(t *testing.T) {
	a := newAuthority(t)
	a.issue("site", nil, "shop.example.com")
	times := worker.DefaultTimes
	times.Head = 800 * time.Millisecond // enough for a handshake on a busy machine
	b := backend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	o := a.overTLS(b)
	o.Gateways[0].Spec.Listeners[0].Hostname = "shop.example.com"
	p := startProxy(t, Config{times: times}, Deps{}, o)
	hello := func() []byte { // a whole hello, and no more
		client, server := net.Pipe()
		defer client.Close()
		go tls.Client(client, a.config("shop.example.com")).Handshake()
		buf := make([]byte, 16<<10)
		n, _ := server.Read(buf)
		server.Close()
		return buf[:n]
	}()
	raw := func(data []byte, end bool) func() string {
		return func() string {
			c := p.dial("http").(*net.TCPConn)
			c.SetDeadline(time.Now().Add(time.Minute))
			c.Write(data)
			if end {
				c.CloseWrite()
			}
			got, _ := io.ReadAll(c)
			return string(got)
		}
	}
	shake := func(change func(*tls.Config)) func() string {
		return func() string {
			c := a.config("shop.example.com")
			change(c)
			s, err := p.session(c)
			if err == nil {
				_, err = askTLS(s, "shop.example.com")
			}
			return fmt.Sprint(err)
		}
	}
	for _, tt := range []struct {
		name string
		do   func() string
		why  tlsio.Reason
		want string // in what the client saw
	}{
		{"plain HTTP", raw([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), false), tlsio.NotTLS, ""},
		{"garbage", raw([]byte(strings.Repeat("\x00\xff", 5000)), false), tlsio.NotTLS, ""},
		{"SSLv2", raw([]byte{0x80, 46, 1, 3, 1, 0, 21, 0, 0, 0, 16}, false), tlsio.NotTLS, "\x02\x46"},
		{"alert first", raw([]byte{21, 3, 1, 0, 2, 2, 40}, false), tlsio.Refused, ""},
		{"record too long", raw([]byte{22, 3, 1, 0xff, 0xff, 1}, false), tlsio.NotTLS, "\x02\x16"},
		{"half a hello", raw(hello[:len(hello)/2], false), tlsio.TimedOut, ""},
		{"hello and silence", raw(hello, false), tlsio.TimedOut, "\x16\x03\x03"},
		{"hello and end", raw(hello, true), tlsio.Gone, ""},
		{"no hello of a whole record", raw([]byte{22, 3, 1, 0, 4, 9, 0, 0, 0}, false), tlsio.Protocol, "\x02\x0a"},
		{"TLS 1.1", shake(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }), tlsio.Version, "protocol version not supported"},
		{"TLS 1.2, by default", shake(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), tlsio.Version, "protocol version not supported"},
		{"other name", shake(func(c *tls.Config) { c.ServerName = "other.example.com" }), tlsio.UnknownName, "unrecognized name"},
		{"no name", shake(func(c *tls.Config) { c.ServerName, c.InsecureSkipVerify = "", true }), tlsio.UnknownName, "unrecognized name"},
		{"other application", shake(func(c *tls.Config) { c.NextProtos = []string{"imap"} }), tlsio.Nothing, "no application protocol"},
		{"client that does not trust", shake(func(c *tls.Config) { c.RootCAs = x509.NewCertPool() }), tlsio.Refused, "unknown authority"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := p.Handshakes()[tlsio.ServerSide].Failed[tt.why]
			if got := tt.do(); !strings.Contains(got, tt.want) {
				t.Errorf("the client saw %.200q, want %q", got, tt.want)
			}
			p.t = t
			p.failures(tlsio.ServerSide, tt.why, before+1)
		})
	}
	p.t = t
	t.Run("nothing said", func(t *testing.T) { // a port scan is no failure
		before := fmt.Sprint(p.Handshakes()[tlsio.ServerSide].Failed)
		c := p.dial("http").(*net.TCPConn)
		c.CloseWrite()
		io.ReadAll(c)
		io.ReadAll(p.dial("http")) // waits for the bound
		if now := fmt.Sprint(p.Handshakes()[tlsio.ServerSide].Failed); now != before {
			t.Errorf("%s became %s", before, now)
		}
	})
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		n := p.Handshakes()[tlsio.ServerSide]
		if n.InFlight == 0 && p.Stats().Connections == 0 {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("%d handshakes and %d connections are left", n.InFlight, p.Stats().Connections)
		}
	}
	if status, err := p.session(a.config("shop.example.com")); err != nil {
		t.Fatal(err)
	} else if n, err := askTLS(status, "shop.example.com"); n != 200 {
		t.Errorf("%d, %v", n, err)
	}
}

// TestTLSBrokenRecord: a record that does not decrypt ends the session by an alert.
func TestTLSBrokenRecord(t *testing.T) {
	a := newAuthority(t)
	a.issue("site", nil, "shop.example.com")
	b := backend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	p := startProxy(t, Config{}, Deps{}, a.overTLS(b))
	raw := p.dial("http")
	c := tls.Client(raw, a.config("shop.example.com"))
	c.SetDeadline(time.Now().Add(time.Minute))
	if status, err := askTLS(c, "shop.example.com"); status != 200 || err != nil {
		t.Fatal(status, err)
	}
	raw.Write(append([]byte{23, 3, 3, 0, 32}, make([]byte, 32)...))
	if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "bad record MAC") {
		t.Errorf("the client saw %v", err)
	}
}

// TestTLSEnds sees the end of a session said where it is one, and missed where a
// response was cut short.
func TestTLSEnds(t *testing.T) {
	a := newAuthority(t)
	a.issue("site", nil, "shop.example.com")
	b := rawBackend(t, func(_ int, c net.Conn, in *bufio.Reader) {
		if _, err := http.ReadRequest(in); err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nshort")
	})
	whole := backend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	p := startProxy(t, Config{}, Deps{}, a.overTLS(whole))
	c, err := p.session(a.config("shop.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: shop.example.com\r\nConnection: close\r\n\r\n")
	if got, err := io.ReadAll(c); err != nil || !bytes.HasSuffix(got, []byte("ok")) {
		t.Errorf("%q, %v", got, err)
	}
	// The client's end is heard: it gets its answer and the proxy's end.
	if c, err = p.session(a.config("shop.example.com")); err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: shop.example.com\r\n\r\n")
	c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || !bytes.HasSuffix(got, []byte("ok")) {
		t.Errorf("after the client's end: %q, %v", got, err)
	}
	p.apply(a.overTLS(b))
	if c, err = p.session(a.config("shop.example.com")); err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: shop.example.com\r\n\r\n")
	if got, err := io.ReadAll(c); err == nil {
		t.Errorf("a response that was cut short ended like a whole one: %q", got)
	}
}

// TestTLSClientCertificates holds whom a listener lets in.
func TestTLSClientCertificates(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	a.issue("site", nil, "a.example.com", "b.example.com", "c.example.com")
	good := a.issue("client", nil)
	old := a.issue("old", func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	})
	serving := a.issue("serving", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	foreign := other.issue("client", nil)
	var served sync.Map
	b := backend(t, func(w http.ResponseWriter, r *http.Request) { served.Store(r.Host, true) })
	o := a.overTLS(b)
	open, optional, closed := httpsListener("http", "a.example.com", "site"), httpsListener("optional", "b.example.com", "site"), httpsListener("closed", "c.example.com", "site")
	optional.TLS.FrontendValidation = &mesh.FrontendValidation{Mode: mesh.AllowMissing, CACertificateRefs: []mesh.CertificateRef{certificateRef("issuer")}}
	closed.TLS.FrontendValidation = &mesh.FrontendValidation{Mode: mesh.AllowValidOnly, CACertificateRefs: []mesh.CertificateRef{certificateRef("issuer")}}
	port := freePorts(t, 1)[0]
	for _, l := range []*mesh.Listener{&open, &optional, &closed} {
		l.Port = port
	}
	o.Gateways[0].Spec.Listeners = []mesh.Listener{open, optional, closed}
	p := startProxy(t, Config{}, Deps{}, o)
	try := func(host string, pair *tls.Certificate, asked string) string {
		c := a.config(host)
		if pair != nil {
			// Whatever issuers the proxy names.
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
		}
		s, err := p.session(c)
		if err != nil {
			return err.Error()
		}
		status, err := askTLS(s, asked)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprint(status)
	}
	for _, tt := range []struct {
		name, host string
		pair       *tls.Certificate
		want       string
		why        tlsio.Reason
	}{
		{"none asked", "a.example.com", nil, "200", 0},
		{"may have none", "b.example.com", nil, "200", 0},
		{"may have one", "b.example.com", &good, "200", 0},
		{"must be valid all the same", "b.example.com", &foreign, "unknown certificate authority", tlsio.UnknownAuthority},
		{"must have one", "c.example.com", nil, "certificate required", tlsio.NoCertificate},
		{"has one", "c.example.com", &good, "200", 0},
		{"expired", "c.example.com", &old, "certificate", tlsio.Expired},
		{"of another issuer", "c.example.com", &foreign, "unknown certificate authority", tlsio.UnknownAuthority},
		{"for servers only", "c.example.com", &serving, "certificate", tlsio.WrongCertificate},
	} {
		before := p.Handshakes()[tlsio.ServerSide].Failed[tt.why]
		served.Clear()
		if got := try(tt.host, tt.pair, tt.host); !strings.Contains(got, tt.want) {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
		if tt.want != "200" {
			p.failures(tlsio.ServerSide, tt.why, before+1)
			if _, any := served.Load(tt.host); any {
				t.Errorf("%s: the backend got the request", tt.name)
			}
		}
	}
	// The name in the session decides what was asked, so a request for another is
	// not served on it.
	served.Clear()
	for _, host := range []string{"c.example.com", "C.EXAMPLE.COM", fmt.Sprintf("c.example.com:%d", port), "b.example.com", "none.example.com"} {
		if got := try("a.example.com", nil, host); got != "421" {
			t.Errorf("request for %s in the session of a.example.com: %s", host, got)
		}
	}
	served.Range(func(k, _ any) bool { t.Errorf("the backend got a request for %v", k); return true })
	// A session of the listener that asks nothing is not resumed at the one that does.
	c := a.config("a.example.com")
	c.ClientSessionCache = stuckCache{tls.NewLRUClientSessionCache(1)}
	if s, err := p.session(c); err != nil {
		t.Fatal(err)
	} else if _, err := askTLS(s, "a.example.com"); err != nil {
		t.Fatal(err)
	}
	c.ServerName = "c.example.com"
	if s, err := p.session(c); err == nil {
		if status, err := askTLS(s, "c.example.com"); err == nil {
			t.Errorf("resumed into a listener that asks for a certificate: %d", status)
		}
	}
}

// stuckCache gives any server the session of any other.
type stuckCache struct{ tls.ClientSessionCache }

func (c stuckCache) Get(string) (*tls.ClientSessionState, bool) { return c.ClientSessionCache.Get("") }
func (c stuckCache) Put(_ string, s *tls.ClientSessionState)    { c.ClientSessionCache.Put("", s) }

// TestTLSFilesChange replaces files under an open connection.
func TestTLSFilesChange(t *testing.T) {
	a := newAuthority(t)
	a.issue("site", nil, "shop.example.com")
	b := backend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	p := startProxy(t, Config{}, Deps{}, a.overTLS(b))
	shown := func() string {
		s, err := p.session(a.config("shop.example.com"))
		if err != nil {
			return err.Error()
		}
		defer s.Close()
		return s.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s; shown %s, problems %v", what, shown(), p.Problems())
			}
		}
	}
	kept, err := p.session(a.config("shop.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	alive := func() {
		t.Helper()
		if status, err := askTLS(kept, "shop.example.com"); status != 200 || err != nil {
			t.Errorf("the open connection: %d, %v", status, err)
		}
	}
	alive()
	if got := shown(); got != "site" {
		t.Fatal(got)
	}
	a.issue("site", func(c *x509.Certificate) { c.Subject.CommonName = "second" }, "shop.example.com")
	p.LookAtCertificates()
	until("the new certificate is not shown", func() bool { return shown() == "second" })
	alive()
	// A key of another pair: what was good stays, and it is said.
	pair := a.issue("other", nil, "shop.example.com")
	key, _ := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	a.write("site.key", "PRIVATE KEY", key)
	p.LookAtCertificates()
	if got := shown(); got != "second" {
		t.Errorf("with a key that does not fit: %s", got)
	}
	held := p.Certificates()
	if i := len(held) - 1; i < 0 || held[i].Name != "Certificate/default/site" || !strings.Contains(held[i].Problem, "site.key is not that of the certificate in") {
		t.Errorf("certificates %+v", held)
	}
	alive()
	a.issue("site", func(c *x509.Certificate) {
		c.Subject.CommonName, c.NotBefore, c.NotAfter = "third", time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}, "shop.example.com")
	until("an expired certificate is not told of", func() bool {
		return strings.Contains(strings.Join(p.Problems(), "\n"), "it expired at")
	})
	alive()
}

// TestTLSFaultyFiles has listeners whose files are at fault: they refuse, say why, and
// serve when the files are there; the one beside them serves all along.
func TestTLSFaultyFiles(t *testing.T) {
	a := newAuthority(t)
	a.issue("site", nil, "shop.example.com")
	b := backend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	o := a.overTLS(b)
	o.Certificates = append(o.Certificates, a.certificate("late"))
	late := httpsListener("late", "", "late", "nowhere")
	o.Gateways[0].Spec.Listeners = append(o.Gateways[0].Spec.Listeners, late)
	p := startProxy(t, Config{}, Deps{}, o)
	problems := strings.Join(p.Problems(), "\n")
	for _, want := range []string{"late.crt does not exist: write it", `tls.certificateRefs[1]: Certificate "default/nowhere" does not exist`} {
		if !strings.Contains(problems, want) {
			t.Errorf("problems %q, want %q", problems, want)
		}
	}
	dial := func(listener string) error {
		c, err := tls.Dial("tcp", p.addr(listener).String(), a.config("shop.example.com"))
		if err == nil {
			c.Close()
		}
		return err
	}
	if err := dial("http"); err != nil {
		t.Error(err)
	}
	if err := dial("late"); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("a listener without a certificate: %v", err)
	}
	a.issue("late", nil, "shop.example.com")
	for until := time.Now().Add(20 * time.Second); dial("late") != nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%v, %v", dial("late"), p.Problems())
		}
	}
}

// TestTLSManyAtOnce has handshakes come in while requests run: all are served, and no
// more than the bound are under way.
func TestTLSManyAtOnce(t *testing.T) {
	a := newAuthority(t)
	a.issue("site", nil, "shop.example.com")
	b := backend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	p := startProxy(t, Config{}, Deps{}, a.overTLS(b))
	kept, err := p.session(a.config("shop.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	const clients = 200
	errs := make(chan error, clients)
	for range clients {
		go func() {
			c, err := tls.Dial("tcp", p.addr("http").String(), a.config("shop.example.com"))
			if err == nil {
				_, err = askTLS(c, "shop.example.com")
				err = errors.Join(err, c.Close())
			}
			errs <- err
		}()
	}
	for left := clients; left > 0; {
		select {
		case err := <-errs:
			if left--; err != nil {
				t.Fatal(err)
			}
		default:
			if status, err := askTLS(kept, "shop.example.com"); status != 200 || err != nil {
				t.Fatal(status, err)
			}
		}
	}
	if n := p.Handshakes()[tlsio.ServerSide]; n.Done != clients+1 || n.InFlight != 0 {
		t.Errorf("handshakes %+v", n)
	}
}

// TestTLSTooMany refuses a handshake over the bound, and takes the next when there is
// room again.
func TestTLSTooMany(t *testing.T) {
	a := newAuthority(t)
	a.issue("site", nil, "shop.example.com")
	b := backend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	p := startProxy(t, Config{Loops: 1}, Deps{}, a.overTLS(b))
	p.each(func(*worker.Worker) { p.shared.Handshakes = tlsio.NewHandshakes(p.tokens, 1) })
	held := p.dial("http")
	go tls.Client(writeOnly{held}, a.config("shop.example.com")).Handshake()
	for until := time.Now().Add(20 * time.Second); p.Handshakes()[tlsio.ServerSide].InFlight != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("no handshake is under way")
		}
	}
	if _, err := p.session(a.config("shop.example.com")); err == nil {
		t.Error("one too many was served")
	}
	p.failures(tlsio.ServerSide, tlsio.Busy, 1)
	held.Close()
	p.failures(tlsio.ServerSide, tlsio.Gone, 1)
	c, err := p.session(a.config("shop.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	if status, err := askTLS(c, "shop.example.com"); status != 200 || err != nil {
		t.Errorf("%d, %v", status, err)
	}
}

// writeOnly is a connection whose owner hears nothing.
type writeOnly struct{ net.Conn }

func (c writeOnly) Read([]byte) (int, error) { select {} }
