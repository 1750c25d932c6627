package edgeproxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// TestTLSTerminate ends sessions of TLS listeners here and passes on what is in them, by
// TLSRoutes and a TCPRoute, beside a listener of the same port that passes sessions on.
func TestTLSTerminate(t *testing.T) {
	a := newAuthority(t)
	a.issue("site", nil, "a.test", "b.test", "*.b.test", "away.test", "denied.test", "gone.test")
	says := func(name string) string {
		return tcpBackend(t, func(c *net.TCPConn) {
			io.WriteString(c, name+"\n")
			io.Copy(c, c) // until the client's end, which comes as one of its direction
			io.WriteString(c, "end")
			c.CloseWrite()
			io.Copy(io.Discard, c)
		})
	}
	secured := tcpBackend(t, func(c *net.TCPConn) {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{selfSigned(t, "raw")}})
		io.Copy(s, s)
		s.Close()
	})
	route := func(name string, hosts ...string) *mesh.TLSRoute {
		return &mesh.TLSRoute{
			Metadata: mesh.ObjectMeta{Name: name, Namespace: "default"},
			Spec: mesh.TLSRouteSpec{ParentRefs: []mesh.ParentRef{{Name: "ingress"}}, Hostnames: hosts,
				Rules: []mesh.StreamRouteRule{{BackendRefs: []mesh.BackendRef{backendRef(name)}}}},
		}
	}
	port := freePorts(t, 1)[0]
	listener := func(name, host string) mesh.Listener {
		l := httpsListener(name, host, "site")
		l.Protocol, l.Port = mesh.ProtocolTLS, port
		return l
	}
	raw := mesh.Listener{Name: "raw", Hostname: "*.raw.test", Port: port, Protocol: mesh.ProtocolTLS, TLS: &mesh.ListenerTLS{Mode: mesh.TLSPassthrough}}
	tcp := tcpRoute("plain", backendRef("plain"))
	tcp.Spec.ParentRefs = []mesh.ParentRef{{Name: "ingress", SectionName: "other"}}
	o := mesh.Objects{
		Gateways:     []*mesh.Gateway{gatewayOn("127.0.0.1", listener("tls", "a.test"), listener("other", ""), raw)},
		TLSRoutes:    []*mesh.TLSRoute{route("exact", "a.test"), route("wild", "*.b.test"), route("raw", "x.raw.test"), route("gone", "gone.test"), route("denied", "denied.test")},
		TCPRoutes:    []*mesh.TCPRoute{tcp},
		Services:     []*mesh.MeshService{tcpService("exact", says("exact")), tcpService("wild", says("wild")), tcpService("plain", says("plain")), tcpService("raw", secured), tcpService("gone", refused(t)), tcpService("denied", says("denied"))},
		Certificates: []*mesh.Certificate{a.certificate("site"), a.certificate("issuer")},
	}
	o.AuthorizationPolicies = parsed(t, policyText("d", "{targetRefs: [{kind: MeshService, name: denied}], action: deny, rules: [{}]}")).AuthorizationPolicies
	log, lines := logged(t, "%PROTOCOL% %RESPONSE_FLAGS% %UPSTREAM_CLUSTER% %ROUTE_NAME%")
	p := startProxy(t, Config{Loops: 1}, Deps{AccessLog: log}, o)
	if problems := p.Problems(); len(problems) > 0 {
		t.Error(problems)
	}
	dial := func(name string, c *tls.Config) *tls.Conn {
		s := tls.Client(p.stream("tls"), c)
		c.ServerName = name
		t.Cleanup(func() { s.Close() })
		return s
	}
	n := 0
	for _, tt := range []struct{ name, want string }{
		{"a.test", "exact"}, {"x.b.test", "wild"}, {"b.test", "plain"}, {"away.test", "plain"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(tt.name, a.config(""))
			first := make([]byte, len(tt.want)+1)
			if _, err := io.ReadFull(c, first); err != nil || string(first) != tt.want+"\n" {
				t.Fatalf("reached %q, %v", first, err)
			}
			payload := randomBytes(2 << 20)
			go func() {
				c.Write(payload)
				c.CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, append(payload, "end"...)) {
				t.Errorf("%d bytes back, %v", len(got), err)
			}
			n++
			if l := lines(n); l[n-1] != "TCP - default/"+tt.want+" default/"+tt.want {
				t.Errorf("the log says %q", l[n-1])
			}
		})
	}
	t.Run("passed through beside them", func(t *testing.T) {
		c := dial("x.raw.test", &tls.Config{InsecureSkipVerify: true})
		if err := c.Handshake(); err != nil || c.ConnectionState().PeerCertificates[0].DNSNames[0] != "raw" {
			t.Fatalf("%v", err)
		}
		c.Close()
		n++
		lines(n)
	})
	for _, tt := range []struct{ name, host, logged string }{
		{"refused by policy", "denied.test", "TCP AD - default/denied"},
		{"no backend", "gone.test", "TCP UF default/gone default/gone"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(tt.host, a.config(""))
			if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client saw %v", err)
			}
			n++
			if l := lines(n); l[n-1] != tt.logged {
				t.Errorf("the log says %q, want %q", l[n-1], tt.logged)
			}
		})
	}
	t.Run("another issuer", func(t *testing.T) {
		if err := dial("a.test", &tls.Config{}).Handshake(); err == nil {
			t.Error("believed")
		}
	})
	t.Run("cut without a word", func(t *testing.T) {
		c := dial("a.test", a.config(""))
		io.ReadFull(c, make([]byte, 6))
		p.streamsOpen("default/exact", 1)
		c.NetConn().(*net.TCPConn).SetLinger(0)
		c.NetConn().Close()
		p.streamsOpen("default/exact", 0)
	})
	p.tunnels(0)
}

// streamsOpen waits for the number of a service's open connections.
func (p *proxy) streamsOpen(service mesh.ServiceKey, want int) {
	p.t.Helper()
	eventually(p.t, func() bool {
		for _, s := range p.Stats().Streams {
			if s.Service == service {
				return s.Open == want
			}
		}
		return want == 0
	}, "open connections of "+string(service))
}
