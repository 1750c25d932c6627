package edgeproxy

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// peerAuthentication says something of a namespace, and of one of its ports.
func peerAuthentication(namespace, mode string, port int, ofPort string) *mesh.PeerAuthentication {
	p := &mesh.PeerAuthentication{Metadata: mesh.ObjectMeta{Name: "peers", Namespace: namespace}}
	p.Spec.MTLS = mode
	if port != 0 {
		p.Spec.Ports = []mesh.PortAuthentication{{Port: port, MTLS: ofPort}}
	}
	return p
}

// TestMTLSScopes: what a request of another site needs is said by its service's port,
// before its namespace, before the site; where plaintext is refused nothing reaches the
// backend, and log and metrics name it.
func TestMTLSScopes(t *testing.T) {
	log, lines := logged(t, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%")
	p := newPair(t, Deps{AccessLog: log})
	p.introduce()
	with := func(site string, said ...*mesh.PeerAuthentication) mesh.Objects {
		o := p.objectsB(p.trust())
		o.Sites[1].Spec.MTLS = site
		for i, name := range []string{"shop/cart", "shop/mail", "bank/vault"} {
			s := *o.Services[0]
			s.Metadata.Namespace, s.Metadata.Name, _ = strings.Cut(name, "/")
			s.Spec.Ports = []mesh.ServicePort{{Port: 80 + i, Protocol: mesh.PortHTTP}}
			o.Services = append(o.Services, &s)
		}
		o.PeerAuthentications = said
		return o
	}
	n := 0
	plain := func(service, path string) string {
		t.Helper()
		conn := p.b.dial("eastwest")
		defer conn.Close()
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nMeridian-Service: %s\r\nMeridian-Source: a\r\nConnection: close\r\n\r\n", path, service)
		io.Copy(io.Discard, conn)
		n++
		return lines(n)[n-1]
	}
	secure := func(service string) int {
		t.Helper()
		conn, err := tls.Dial("tcp", p.b.addr("eastwest").String(), &tls.Config{Certificates: []tls.Certificate{p.leaf("a", "a-1", time.Now())}, InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nMeridian-Service: %s\r\nMeridian-Source: a\r\nConnection: close\r\n\r\n", service)
		answer, _ := io.ReadAll(conn)
		n++
		lines(n)
		var status int
		fmt.Sscanf(string(answer), "HTTP/1.1 %d", &status)
		return status
	}
	const yes, no, never = "200 - via_upstream", "403 AD mtls_required", "0 DPE tls_not_tls"
	for _, c := range []struct {
		site                    string
		said                    []*mesh.PeerAuthentication
		echo, cart, mail, vault string
	}{
		{"strict", nil, never, never, never, never},
		{"permissive", nil, yes, yes, yes, yes},
		// A namespace before its site.
		{"strict", []*mesh.PeerAuthentication{peerAuthentication("shop", "permissive", 0, "")}, no, yes, yes, no},
		{"permissive", []*mesh.PeerAuthentication{peerAuthentication("shop", "strict", 0, "")}, yes, no, no, yes},
		// A port before its namespace, and before the site without one.
		{"strict", []*mesh.PeerAuthentication{peerAuthentication("shop", "permissive", 81, "strict")}, no, yes, no, no},
		{"permissive", []*mesh.PeerAuthentication{peerAuthentication("shop", "strict", 80, "permissive")}, yes, yes, no, yes},
		{"strict", []*mesh.PeerAuthentication{peerAuthentication("bank", "", 82, "permissive")}, no, no, no, yes},
		// Another namespace's port is not meant.
		{"strict", []*mesh.PeerAuthentication{peerAuthentication("bank", "", 80, "permissive")}, never, never, never, never},
		// Also where the site has no TLS of its own.
		{"disabled", []*mesh.PeerAuthentication{peerAuthentication("bank", "strict", 0, "")}, yes, yes, yes, no},
	} {
		p.b.apply(with(c.site, c.said...))
		for i, want := range []string{c.echo, c.cart, c.mail, c.vault} {
			service := []string{"default/echo", "shop/cart", "shop/mail", "bank/vault"}[i]
			before := p.served.Load()
			if got := plain(service, "/"); got != want {
				t.Errorf("site %s, %+v: %s without TLS: %q, want %q", c.site, c.said, service, got, want)
			}
			if served := p.served.Load() > before; served != (want == yes) {
				t.Errorf("site %s: %s reached its backend: %v", c.site, service, served)
			}
			if status := secure(service); status != 200 {
				t.Errorf("site %s: %s with TLS: %d", c.site, service, status)
			}
		}
	}
	// What names no service is judged by the site, its questions after load too.
	p.b.apply(with("strict", peerAuthentication("shop", "permissive", 0, "")))
	for _, c := range [][2]string{{"no/such", "/"}, {"shop/cart", "/.well-known/meridian/load"}} {
		if got := plain(c[0], c[1]); got != no {
			t.Errorf("%s%s without TLS: %q", c[0], c[1], got)
		}
	}
	got := map[mesh.ServiceKey]string{}
	for _, c := range p.b.Stats().Plaintext {
		got[c.Service] = fmt.Sprintf("%d accepted, %d refused", c.Accepted, c.Refused)
	}
	for service, want := range map[mesh.ServiceKey]string{
		"default/echo": "4 accepted, 3 refused", "shop/cart": "5 accepted, 2 refused", "shop/mail": "3 accepted, 4 refused",
		"bank/vault": "4 accepted, 3 refused", "": "0 accepted, 2 refused",
	} {
		if got[service] != want {
			t.Errorf("%q: counted %s, want %s", service, got[service], want)
		}
	}
	x, err := p.b.Explain(&mesh.ExplainQuery{Service: "shop/cart"})
	if err != nil || fmt.Sprint(x.Backends[0].Peers) != "[{80 {permissive PeerAuthentication/shop/peers}}]" {
		t.Errorf("explained by %+v, %v", x, err)
	}
}

// TestMTLSPortUnknown: another site does not say which port of a service it means; where
// one of several is strict, plaintext is refused.
func TestMTLSPortUnknown(t *testing.T) {
	p := newPair(t, Deps{})
	p.introduce()
	o := p.objectsB(p.trust())
	o.Sites[1].Spec.MTLS = mesh.MTLSPermissive
	o.Services[0].Spec.Ports = append(o.Services[0].Spec.Ports, mesh.ServicePort{Name: "admin", Port: 8081})
	o.PeerAuthentications = []*mesh.PeerAuthentication{peerAuthentication("default", "", 8081, "strict")}
	p.b.apply(o)
	ask := func(service string) int {
		t.Helper()
		req, err := http.NewRequest("GET", "http://"+p.b.addr("eastwest").String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Meridian-Service", service)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	for _, service := range []string{"default/echo", "default/echo:8081", fmt.Sprintf("default/echo:%d", o.Services[0].Spec.Ports[0].Port)} {
		if status := ask(service); status != 403 {
			t.Errorf("%s: %d", service, status)
		}
	}
	if p.served.Load() != 0 {
		t.Error("the backend was asked")
	}
}
