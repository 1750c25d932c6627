package edgeproxy

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
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
	"github.com/meridian-mesh/meridian/controller/ca"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
)

// pair is two sites, a and b, of one mesh: a sends all of its users to b.
type pair struct {
	*family
	a, b     *proxy
	wire     *wire
	served   atomic.Int64 // requests at b's backend
	seen     atomic.Pointer[http.Header]
	objectsA func(trust *mesh.TrustBundle) mesh.Objects
	objectsB func(trust *mesh.TrustBundle) mesh.Objects
}

func newPair(t *testing.T, deps Deps) *pair {
	t.Helper()
	p := &pair{}
	there := backend(t, func(w http.ResponseWriter, r *http.Request) {
		p.served.Add(1)
		h := r.Header.Clone()
		p.seen.Store(&h)
		io.WriteString(w, "b")
	})
	p.build(t, deps, there, mesh.PortHTTP)
	return p
}

// build starts both sites' proxies; b's backend is there and is spoken to in a protocol.
func (p *pair) build(t *testing.T, deps Deps, there, protocol string) {
	t.Helper()
	p.family = newFamily(t, "mesh.example")
	objects := func(endpoints, gateways map[string]string, trust *mesh.TrustBundle) mesh.Objects {
		o := siteObjects(endpoints, gateways)
		o.Services[0].Spec.Ports[0].Protocol = protocol
		return trusting(o, trust)
	}
	endpoints := map[string]string{"a": named(t, "a"), "b": there}
	p.objectsB = func(trust *mesh.TrustBundle) mesh.Objects { return objects(endpoints, nil, trust) }
	deps.Sharing = &decided{pick: upstream.Home}
	p.b = startProxy(t, Config{Site: "b", Loops: 1}, deps, p.objectsB(p.trust()))
	p.wire = newWire(t, p.b.addr("eastwest").String())
	gateways := map[string]string{"b": p.wire.l.Addr().String(), "c": refused(t)}
	p.objectsA = func(trust *mesh.TrustBundle) mesh.Objects { return objects(endpoints, gateways, trust) }
	p.a = startProxy(t, Config{Site: "a"}, Deps{Now: deps.Now, Sharing: &decided{pick: 0, then: []int{upstream.Home, upstream.None}}}, p.objectsA(p.trust()))
}

func (p *pair) identify(proxy *proxy, c tls.Certificate) {
	p.t.Helper()
	if err := proxy.SetIdentity(c); err != nil {
		p.t.Fatal(err)
	}
}

// introduce gives both proxies identities.
func (p *pair) introduce() {
	p.identify(p.a, p.leaf("a", "a-1", time.Now()))
	p.identify(p.b, p.leaf("b", "b-1", time.Now()))
}

func TestEastWestIsEncrypted(t *testing.T) {
	log, lines := logged(t, "%RESPONSE_CODE% %DOWNSTREAM_PEER_URI_SAN%")
	p := newPair(t, Deps{AccessLog: log})
	// Without identities nothing is sent in the clear: the request stays at home.
	if status, body := get(t, p.a.url("/secret-path")); status != 200 || body != "a 127.0.0.1" {
		t.Fatalf("without an identity: %d %q", status, body)
	}
	p.introduce()
	for range 20 {
		if status, body := get(t, p.a.url("/secret-path")); status != 200 || body != "b" {
			t.Fatalf("%d %q", status, body)
		}
	}
	p.wire.mu.Lock()
	for i, seen := range p.wire.seen {
		if n, err := records(seen); err != nil || n < 20 {
			t.Errorf("direction %d: %d records of application data in %d bytes, %v", i, n, len(seen), err)
		}
		if strings.Contains(string(seen), "secret-path") || strings.Contains(string(seen), "HTTP/1.1") {
			t.Error("the link shows a request")
		}
	}
	p.wire.mu.Unlock()
	h := *p.seen.Load()
	xfcc := h.Values("X-Forwarded-Client-Cert")
	if len(xfcc) != 1 || !strings.HasPrefix(xfcc[0], "By=spiffe://mesh.example/site/b/ns/meridian/sa/b-1;Hash=") ||
		!strings.HasSuffix(xfcc[0], ";URI=spiffe://mesh.example/site/a/ns/meridian/sa/a-1") || strings.Contains(xfcc[0], ",") {
		t.Errorf("X-Forwarded-Client-Cert: %q", xfcc)
	}
	if l := lines(20); l[0] != "200 spiffe://mesh.example/site/a/ns/meridian/sa/a-1" {
		t.Errorf("the log says %q", l[0])
	}
	if l := p.b.Loads(nil)[0]; fmt.Sprint(l.From) != "[{a 20}]" {
		t.Errorf("counted from %v", l.From)
	}
}

// A client's own word on certificates goes nowhere.
func TestForwardedClientCertIsSanitised(t *testing.T) {
	p := newPair(t, Deps{})
	p.introduce()
	ask := func(url string) string {
		t.Helper()
		req, err := http.NewRequest("GET", url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Add("X-Forwarded-Client-Cert", "URI=spiffe://mesh.example/site/forged")
		req.Header.Add("X-FORWARDED-CLIENT-CERT", "URI=spiffe://mesh.example/site/forged-too")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return strings.Join((*p.seen.Load()).Values("X-Forwarded-Client-Cert"), " ")
	}
	if got := ask(p.a.url("/")); strings.Contains(got, "forged") || !strings.Contains(got, "sa/a-1") {
		t.Errorf("through two proxies: %q", got)
	}
	if got := ask(p.b.url("/")); got != "" {
		t.Errorf("from a client without a certificate: %q", got)
	}
}

// A leaf that is renewed is used from the next connection on; nothing restarts and no
// request fails.
func TestIdentityIsRenewed(t *testing.T) {
	p := newPair(t, Deps{})
	p.introduce()
	for i := range 5 {
		p.identify(p.a, p.leaf("a", fmt.Sprintf("a-%d", i), time.Now()))
		p.identify(p.b, p.leaf("b", "b-1", time.Now()))
		p.a.apply(p.objectsA(p.trust(mesh.DeniedIdentity{Serial: fmt.Sprint(1 + i)}))) // connections are made anew
		if status, body := get(t, p.a.url("/")); status != 200 || body != "b" {
			t.Fatalf("%d %q", status, body)
		}
		if got := (*p.seen.Load()).Get("X-Forwarded-Client-Cert"); !strings.Contains(got, fmt.Sprintf("sa/a-%d", i)) {
			t.Errorf("renewal %d: the peer is %q", i, got)
		}
	}
}

// A root is replaced while requests run: none fails.
func TestRootRotatesUnderLoad(t *testing.T) {
	p := newPair(t, Deps{})
	p.introduce()
	var asked, failed atomic.Int64
	began := time.Now()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				res, err := http.Get(p.a.url("/"))
				if err != nil {
					failed.Add(1)
					continue
				}
				body, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if asked.Add(1); res.StatusCode != 200 || string(body) != "b" {
					failed.Add(1)
				}
			}
		})
	}
	for range 3 {
		if err := p.ca.Rotate(time.Now()); err != nil {
			t.Fatal(err)
		}
		p.b.apply(p.objectsB(p.trust())) // one hears of it first
		clear(p.issuers)
		p.introduce() // with issuers of the new root, of which a has not heard
		goOn := asked.Load() + 500
		await(t, "requests after the rotation", func() bool { return asked.Load() > goOn })
		p.a.apply(p.objectsA(p.trust()))
	}
	close(stop)
	wg.Wait()
	t.Logf("3 rotations within %d requests at %.0f/s", asked.Load(), float64(asked.Load())/time.Since(began).Seconds())
	if n := failed.Load(); n != 0 {
		t.Errorf("%d of %d requests failed or went elsewhere", n, asked.Load())
	}
}

// askEastWest sends b one request as a proxy of its mesh would, with a client
// configuration; it reports the status, or what went wrong.
func (p *pair) askEastWest(c *tls.Config) (int, error) {
	c.InsecureSkipVerify = true
	conn, err := net.Dial("tcp", p.b.addr("eastwest").String())
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	t := tls.Client(conn, c)
	fmt.Fprint(t, "GET / HTTP/1.1\r\nHost: x\r\nMeridian-Service: default/echo\r\nMeridian-Source: a\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(t), nil)
	if err != nil {
		return 0, err
	}
	res.Body.Close()
	return res.StatusCode, nil
}

func TestStrangersAreRefused(t *testing.T) {
	log, lines := logged(t, "%RESPONSE_CODE_DETAILS%")
	p := newPair(t, Deps{AccessLog: log})
	p.introduce()
	good := p.leaf("a", "a-1", time.Now())
	with := func(c tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{c}} }
	if status, err := p.askEastWest(with(good)); status != 200 || err != nil {
		t.Fatalf("a proxy of the mesh: %d %v", status, err)
	}
	n := 1 // lines of the log so far
	lines(n)
	other := newFamily(t, "mesh.example")
	foreign := newFamily(t, "other.example")
	// What a stolen key of site a makes in the name of site b: b's chain is not a's.
	stolen := func() tls.Certificate {
		rec, err := p.issuer("a").Record()
		if err != nil {
			t.Fatal(err)
		}
		rec.Site = "b"
		i, err := ca.OpenIssuer(rec)
		if err != nil {
			t.Fatal(err)
		}
		key, req, err := ca.Key()
		if err != nil {
			t.Fatal(err)
		}
		chain, err := i.Issue("meridian", "b-1", req, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		c := tls.Certificate{PrivateKey: key}
		for _, x := range chain {
			c.Certificate = append(c.Certificate, x.Raw)
		}
		return c
	}()
	self := newAuthority(t).issue("self", nil, "proxy.example")
	expired := p.leaf("a", "a-1", time.Now().Add(-ca.LeafLife-time.Minute))
	denied := p.leaf("a", "a-2", time.Now())
	p.b.apply(p.objectsB(p.trust(mesh.DeniedIdentity{ID: "spiffe://mesh.example/site/a/ns/meridian/sa/a-2"})))
	before := p.served.Load()
	for _, c := range []struct {
		name, want string
		config     *tls.Config
	}{
		{"no certificate", "tls_certificate_missing", &tls.Config{}},
		{"expired", "tls_certificate_expired", with(expired)},
		{"another mesh of the same name", "tls_certificate_unknown_authority", with(other.leaf("a", "a-1", time.Now()))},
		{"another trust domain", "tls_certificate_wrong_trust_domain", with(foreign.leaf("a", "a-1", time.Now()))},
		{"another site's by a stolen issuer", "tls_certificate_wrong_site", with(stolen)},
		{"self-signed, no SPIFFE ID", "tls_certificate_wrong_name", with(self)},
		{"denied", "tls_certificate_denied", with(denied)},
		{"TLS 1.2", "tls_unsupported_version", &tls.Config{Certificates: []tls.Certificate{good}, MaxVersion: tls.VersionTLS12}},
		{"another protocol", "tls_nothing_in_common", &tls.Config{Certificates: []tls.Certificate{good}, NextProtos: []string{"h3"}}},
	} {
		if status, err := p.askEastWest(c.config); err == nil {
			t.Errorf("%s: answered by %d", c.name, status)
		}
		if n++; lines(n)[n-1] != c.want {
			got := lines(n)[n-1]
			t.Errorf("%s: the log says %q, want %q", c.name, got, c.want)
		}
	}
	// In the clear.
	conn := p.b.dial("eastwest")
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\nMeridian-Service: default/echo\r\nMeridian-Source: a\r\n\r\n")
	if answer, _ := io.ReadAll(conn); strings.HasPrefix(string(answer), "HTTP/") {
		t.Errorf("a request without TLS is answered: %q", answer)
	}
	if got := lines(n + 1)[n]; got != "tls_not_tls" {
		t.Errorf("without TLS: the log says %q", got)
	}
	if n := p.served.Load() - before; n > 0 {
		t.Errorf("%d requests came to the backend", n)
	}
}

// A site is not taken for another, though it is of the mesh.
func TestWrongSiteIsNotSentTo(t *testing.T) {
	p := newPair(t, Deps{})
	p.introduce()
	p.identify(p.b, p.leaf("c", "c-1", time.Now())) // somebody of c answers at b's address
	if _, body := get(t, p.a.url("/")); body != "a 127.0.0.1" {
		t.Errorf("served by %q, want home", body)
	}
	if p.served.Load() != 0 {
		t.Error("the request went there")
	}
}

// Who comes on the deny list loses the connections that are open.
func TestDenialEndsConnections(t *testing.T) {
	p := newPair(t, Deps{})
	p.introduce()
	c := &tls.Config{Certificates: []tls.Certificate{p.leaf("a", "a-1", time.Now())}, InsecureSkipVerify: true}
	conn, err := tls.Dial("tcp", p.b.addr("eastwest").String(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	in := bufio.NewReader(conn)
	ask := func() error {
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\nMeridian-Service: default/echo\r\nMeridian-Source: a\r\n\r\n")
		res, err := http.ReadResponse(in, nil)
		if err == nil {
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	p.b.apply(p.objectsB(p.trust(mesh.DeniedIdentity{ID: "spiffe://mesh.example/site/a"})))
	before := p.served.Load()
	if _, err := in.ReadByte(); err == nil {
		t.Error("the connection goes on")
	}
	if status, err := p.askEastWest(c); err == nil {
		t.Errorf("a new connection: %d", status)
	}
	if p.served.Load() != before {
		t.Error("a denied peer's request came to the backend")
	}
}

func TestMTLSModes(t *testing.T) {
	p := newPair(t, Deps{})
	p.introduce()
	mode := func(o mesh.Objects, m string) mesh.Objects {
		o.Sites[1].Spec.MTLS = m
		return o
	}
	plain := func() bool {
		t.Helper()
		conn := p.b.dial("eastwest")
		defer conn.Close()
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\nMeridian-Service: default/echo\r\nMeridian-Source: a\r\nX-Forwarded-Client-Cert: URI=forged\r\nConnection: close\r\n\r\n")
		answer, _ := io.ReadAll(conn)
		return strings.HasPrefix(string(answer), "HTTP/1.1 200")
	}
	secure := func() bool {
		status, err := p.askEastWest(&tls.Config{Certificates: []tls.Certificate{p.leaf("a", "a-1", time.Now())}})
		return err == nil && status == 200
	}
	for _, c := range []struct {
		mode          string
		plain, secure bool
	}{{"", false, true}, {mesh.MTLSPermissive, true, true}, {mesh.MTLSDisabled, true, false}, {mesh.MTLSStrict, false, true}} {
		p.b.apply(mode(p.objectsB(p.trust()), c.mode))
		p.a.apply(mode(p.objectsA(p.trust()), c.mode))
		if got := plain(); got != c.plain {
			t.Errorf("%q: without TLS %v", c.mode, got)
		}
		if c.plain && (*p.seen.Load()).Get("X-Forwarded-Client-Cert") != "" {
			t.Errorf("%q: who is nobody vouches for somebody", c.mode)
		}
		if got := secure(); got != c.secure {
			t.Errorf("%q: with TLS %v", c.mode, got)
		}
		p.wire.mu.Lock()
		from := len(p.wire.seen[0])
		p.wire.mu.Unlock()
		if _, body := get(t, p.a.url("/")); body != "b" {
			t.Errorf("%q: a's request is served by %q", c.mode, body)
		}
		p.wire.mu.Lock()
		_, err := records(p.wire.seen[0][from:])
		p.wire.mu.Unlock()
		if clear := err != nil; clear != (c.mode == mesh.MTLSDisabled) {
			t.Errorf("%q: in the clear %v", c.mode, clear)
		}
	}
	// From permissive to strict: connections in the clear end.
	p.b.apply(mode(p.objectsB(p.trust()), mesh.MTLSPermissive))
	conn := p.b.dial("eastwest")
	in := bufio.NewReader(conn)
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\nMeridian-Service: default/echo\r\nMeridian-Source: a\r\n\r\n")
	if res, err := http.ReadResponse(in, nil); err != nil || res.StatusCode != 200 {
		t.Fatal(err)
	} else {
		io.Copy(io.Discard, res.Body)
	}
	p.b.apply(mode(p.objectsB(p.trust()), mesh.MTLSStrict))
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := in.ReadByte(); err == nil {
		t.Error("a connection in the clear goes on")
	}
}

// A bundle that cannot be read lets nobody in and nothing out.
func TestBrokenTrustFailsClosed(t *testing.T) {
	p := newPair(t, Deps{})
	p.introduce()
	broken := p.trust()
	broken.Spec.Roots = []string{"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"}
	p.a.apply(p.objectsA(broken))
	p.b.apply(p.objectsB(broken))
	if _, body := get(t, p.a.url("/")); body != "a 127.0.0.1" {
		t.Errorf("served by %q, want home", body)
	}
	if status, err := p.askEastWest(&tls.Config{Certificates: []tls.Certificate{p.leaf("a", "a-1", time.Now())}}); err == nil {
		t.Errorf("answered by %d", status)
	}
	if problems := strings.Join(p.a.Problems(), "\n"); !strings.Contains(problems, "TrustBundle") {
		t.Errorf("problems: %s", problems)
	}
}

// The prober goes over TLS as requests do.
func TestProbesAreEncrypted(t *testing.T) {
	p := newPair(t, Deps{})
	p.introduce()
	conn, err := net.Dial("tcp", p.wire.l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.a.Secure(t.Context(), "b", conn)
	if err != nil {
		t.Fatal(err)
	}
	c := &probeConn{source: "a", address: "x", conn: s}
	defer c.close()
	peer := s.(*tls.Conn).ConnectionState().PeerCertificates[0]
	if peer.URIs[0].String() != "spiffe://mesh.example/site/b/ns/meridian/sa/b-1" || s.(*tls.Conn).ConnectionState().Version != tls.VersionTLS13 {
		t.Errorf("the peer is %s", peer.URIs[0])
	}
	if _, err := peer.Verify(x509.VerifyOptions{}); err == nil {
		t.Error("an issuer that only the mesh knows is the system's")
	}
	conn, err = net.Dial("tcp", p.wire.l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.a.Secure(t.Context(), "c", conn); err == nil {
		t.Error("b is taken for c")
	}
}
