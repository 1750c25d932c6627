package edgeproxy

import (
	"bufio"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/tlsio"
)

// tlsBackend is a backend that speaks TLS with a certificate of the authority.
func (a *authority) tlsBackend(name string, two bool, change func(*tls.Config), h http.HandlerFunc) string {
	a.t.Helper()
	pair := a.issue(name, nil, name+".example.com")
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = two
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: a.pool}
	if change != nil {
		change(s.TLS)
	}
	s.StartTLS()
	a.t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// toTLS is toOne with a policy that asks for TLS.
func (a *authority) toTLS(host, protocol string, addrs ...string) mesh.Objects {
	o := toOne(addrs...)
	o.Services[0].Spec.Ports[0].Protocol = protocol
	o.Certificates = []*mesh.Certificate{a.certificate("issuer")}
	o.TrafficPolicies = []*mesh.TrafficPolicy{{
		Metadata: mesh.ObjectMeta{Name: "secure", Namespace: "default"},
		Spec: mesh.TrafficPolicySpec{
			TargetRefs: []mesh.PolicyTargetRef{{Kind: mesh.KindMeshService, Name: "echo"}},
			BackendTLS: &mesh.BackendTLS{Hostname: host, CACertificateRefs: []mesh.CertificateRef{certificateRef("issuer")}},
		},
	}}
	return o
}

func TestTLSBackend(t *testing.T) {
	a := newAuthority(t)
	for _, two := range []bool{false, true} {
		protocol := map[bool]string{false: mesh.PortHTTP, true: mesh.PortHTTP2}[two]
		b := a.tlsBackend("back", two, func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }, func(w http.ResponseWriter, r *http.Request) {
			if r.TLS == nil || r.TLS.ServerName != "back.example.com" || r.ProtoMajor == 2 != two {
				t.Errorf("%s, %+v", r.Proto, r.TLS)
			}
			body, _ := io.ReadAll(r.Body)
			w.Write(body)
		})
		p := startProxy(t, Config{}, Deps{}, a.toTLS("back.example.com", protocol, b))
		for _, size := range []int{0, 1, 100_000, 5 << 20} {
			body := strings.Repeat("x", size)
			if status, got, err := do(t, "POST", p.url("/"), body); status != 200 || got != body || err != nil {
				t.Fatalf("HTTP/2 %v, %d bytes: %d, %d bytes, %v", two, size, status, len(got), err)
			}
		}
		s := p.Stats()
		if s.UpstreamConnects != 1 || s.UpstreamReused != 3 {
			t.Errorf("%d connections, %d reused", s.UpstreamConnects, s.UpstreamReused)
		}
		if n := p.Handshakes()[tlsio.ClientSide]; n.Done != 1 || n.InFlight != 0 {
			t.Errorf("handshakes %+v", n)
		}
	}
}

// TestTLSBackendRefused has backends that the proxy cannot trust, or that do not trust
// it: none gets a request, and the log says why.
func TestTLSBackendRefused(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	a.issue("client", nil)
	var requests atomic.Int32
	serve := func(http.ResponseWriter, *http.Request) { requests.Add(1) }
	good := a.tlsBackend("back", false, nil, serve)
	foreign := other.tlsBackend("back", false, nil, serve)
	asking := a.tlsBackend("asking", false, func(c *tls.Config) { c.ClientAuth = tls.RequireAndVerifyClientCert }, serve)
	old := a.tlsBackend("old", false, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, serve)
	plain := backend(t, serve)
	silent := rawBackend(t, func(_ int, c net.Conn, _ *bufio.Reader) { io.Copy(io.Discard, c) })
	ending := rawBackend(t, func(int, net.Conn, *bufio.Reader) {})
	pair := a.issue("mute", nil, "back.example.com")
	mute := rawBackend(t, func(_ int, c net.Conn, _ *bufio.Reader) {
		io.Copy(io.Discard, tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pair}}))
	})
	p := startProxy(t, Config{}, Deps{}, toOne(plain))
	short, enough := mesh.Duration(200*time.Millisecond), mesh.Duration(10*time.Second)
	for _, tt := range []struct {
		name, addr, host, protocol string
		why                        tlsio.Reason
	}{
		{"another's name", good, "other.example.com", mesh.PortHTTP, tlsio.WrongName},
		{"another's issuer", foreign, "back.example.com", mesh.PortHTTP, tlsio.UnknownAuthority},
		{"old version", old, "old.example.com", mesh.PortHTTP, tlsio.Refused},
		{"plain", plain, "back.example.com", mesh.PortHTTP, tlsio.NotTLS},
		{"silent", silent, "back.example.com", mesh.PortHTTP, tlsio.TimedOut},
		{"ends", ending, "back.example.com", mesh.PortHTTP, tlsio.Gone},
		{"no HTTP/2", good, "back.example.com", mesh.PortHTTP2, tlsio.Refused},
		{"no word of HTTP/2", mute, "back.example.com", mesh.PortHTTP2, tlsio.Nothing},
	} {
		before := p.Handshakes()[tlsio.ClientSide].Failed[tt.why]
		o := a.toTLS(tt.host, tt.protocol, tt.addr)
		o.TrafficPolicies[0].Spec.Timeouts = &mesh.PolicyTimeouts{Connect: &enough}
		if tt.why == tlsio.TimedOut {
			o.TrafficPolicies[0].Spec.Timeouts.Connect = &short
		}
		p.apply(o)
		if status, _ := get(t, p.url("/")); status != 503 {
			t.Errorf("%s: status %d", tt.name, status)
		}
		p.failures(tlsio.ClientSide, tt.why, before+1)
	}
	// With TLS 1.3 a client certificate is missed after the handshake, as a reset.
	p.apply(a.toTLS("asking.example.com", mesh.PortHTTP, asking))
	if status, _ := get(t, p.url("/")); status < 500 {
		t.Errorf("without a certificate: status %d", status)
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("%d requests were served", n)
	}
	o := a.toTLS("asking.example.com", mesh.PortHTTP, asking)
	o.Certificates = append(o.Certificates, a.certificate("client"))
	ref := certificateRef("client")
	o.TrafficPolicies[0].Spec.BackendTLS.ClientCertificateRef = &ref
	p.apply(o)
	if status, _ := get(t, p.url("/")); status != 200 || requests.Load() != 1 {
		t.Errorf("with a certificate: status %d, %d requests", status, requests.Load())
	}
	// Without its issuer's certificate nothing is sent, to no system's either.
	o.Certificates = o.Certificates[1:]
	p.apply(o)
	if status, _ := get(t, p.url("/")); status != 503 || requests.Load() != 1 {
		t.Errorf("without the issuer: status %d, %d requests", status, requests.Load())
	}
}

// TestTLSBackendCutsBody holds that a body that runs to the close is whole only where
// the backend says so.
func TestTLSBackendCutsBody(t *testing.T) {
	a := newAuthority(t)
	pair := a.issue("back", nil, "back.example.com")
	var whole atomic.Bool
	b := rawBackend(t, func(_ int, c net.Conn, _ *bufio.Reader) {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pair}})
		if _, err := http.ReadRequest(bufio.NewReader(s)); err != nil {
			return
		}
		io.WriteString(s, "HTTP/1.1 200 OK\r\n\r\nbody")
		if whole.Load() {
			s.CloseWrite()
		}
	})
	p := startProxy(t, Config{}, Deps{}, a.toTLS("back.example.com", mesh.PortHTTP, b))
	if _, body, err := do(t, "GET", p.url("/"), ""); err == nil {
		t.Errorf("a body that anybody may have cut passed for whole: %q", body)
	}
	whole.Store(true)
	if status, body, err := do(t, "GET", p.url("/"), ""); status != 200 || body != "body" || err != nil {
		t.Errorf("%d %q, %v", status, body, err)
	}
}
