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

// allowing is a policy under which a service takes only what an identity asks for.
func allowing(identity string) []*mesh.AuthorizationPolicy {
	p := &mesh.AuthorizationPolicy{Metadata: mesh.ObjectMeta{Name: "only", Namespace: "default"}}
	p.Spec.Action = mesh.ActionAllow
	p.Spec.TargetRefs = []mesh.AuthorizationTargetRef{{Group: mesh.MeshGroup, Kind: mesh.KindMeshService, Name: "echo"}}
	p.Spec.Rules = []mesh.AuthorizationRule{{From: []mesh.AuthorizationSource{{Identities: []string{identity}}}}}
	return []*mesh.AuthorizationPolicy{p}
}

// TestProxyActsAsItsWorkload: another site sees the workload and not the node that its
// proxy runs on, and its policies judge by it.
func TestProxyActsAsItsWorkload(t *testing.T) {
	p := newPair(t, Deps{})
	p.a.ActAsWorkload()
	p.introduce()
	objects := p.objectsB(p.trust())
	objects.AuthorizationPolicies = allowing("spiffe://mesh.example/site/a/ns/shop/sa/web")
	p.b.apply(objects)
	// Before it has the workload's identity it does not go as the node: home serves.
	if _, body := get(t, p.a.url("/")); body != "a 127.0.0.1" || p.served.Load() != 0 {
		t.Fatalf("served by %q before the workload is known", body)
	}
	if err := p.a.SetWorkload(p.leaf("a", "a-1", time.Now())); err == nil {
		t.Error("a node's identity is taken for a workload's")
	}
	if err := p.a.SetWorkload(p.leafOf("a", "shop", "web", time.Now())); err != nil {
		t.Fatal(err)
	}
	if status, body := get(t, p.a.url("/")); status != 200 || body != "b" {
		t.Fatalf("%d %q", status, body)
	}
	xfcc := (*p.seen.Load()).Get("X-Forwarded-Client-Cert")
	if !strings.HasPrefix(xfcc, "By=spiffe://mesh.example/site/b/ns/meridian/sa/b-1;") || !strings.HasSuffix(xfcc, ";URI=spiffe://mesh.example/site/a/ns/shop/sa/web") {
		t.Errorf("X-Forwarded-Client-Cert: %q", xfcc)
	}
	// Renewed as another, from the next connection on the policies judge by that.
	if err := p.a.SetWorkload(p.leafOf("a", "shop", "mail", time.Now())); err != nil {
		t.Fatal(err)
	}
	p.a.apply(p.objectsA(p.trust(mesh.DeniedIdentity{Serial: "1"})))
	objects = p.objectsB(p.trust(mesh.DeniedIdentity{Serial: "1"}))
	objects.AuthorizationPolicies = allowing("spiffe://mesh.example/site/a/ns/shop/sa/web")
	p.b.apply(objects)
	if status, _ := get(t, p.a.url("/")); status != 403 {
		t.Errorf("another workload: %d", status)
	}
}

// TestWorkloadSpeaksForItselfAlone: what a proxy is believed of its clients a workload with
// its own certificate is not, and it does not answer for its site.
func TestWorkloadSpeaksForItselfAlone(t *testing.T) {
	p := newPair(t, Deps{})
	p.introduce()
	ask := func(c tls.Certificate, policy []*mesh.AuthorizationPolicy) (int, http.Header) {
		t.Helper()
		objects := p.objectsB(p.trust())
		objects.AuthorizationPolicies = policy
		p.b.apply(objects)
		conn, err := tls.Dial("tcp", p.b.addr("eastwest").String(), &tls.Config{Certificates: []tls.Certificate{c}, InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		before := p.served.Load()
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\nMeridian-Service: default/echo\r\nMeridian-Source: c\r\nMeridian-Client: 10.9.8.7\r\nX-Forwarded-For: 10.9.8.7\r\n"+
			"X-Forwarded-Client-Cert: URI=spiffe://corp.example/ns/bank/sa/boss\r\nConnection: close\r\n\r\n")
		answer, _ := io.ReadAll(conn)
		var status int
		fmt.Sscanf(string(answer), "HTTP/1.1 %d", &status)
		if p.served.Load() == before {
			return status, nil
		}
		return status, *p.seen.Load()
	}
	node, workload := p.leaf("a", "a-1", time.Now()), p.leafOf("a", "shop", "web", time.Now())
	boss := allowing("spiffe://corp.example/ns/bank/sa/boss")
	near := allowing("spiffe://mesh.example/site/a/*")
	near[0].Spec.Rules[0].From[0].Sources = []string{"10.9.8.0/24"}
	for _, c := range []struct {
		name               string
		policy             []*mesh.AuthorizationPolicy
		ofNode, ofWorkload int
	}{
		{"no policy", nil, 200, 200},
		{"the identity that it says its client has", boss, 200, 403},
		{"the address that it says its client has", near, 200, 403},
		{"its own", allowing("spiffe://mesh.example/site/a/ns/shop/sa/web"), 403, 200},
	} {
		if status, _ := ask(node, c.policy); status != c.ofNode {
			t.Errorf("%s: a node gets %d, want %d", c.name, status, c.ofNode)
		}
		status, seen := ask(workload, c.policy)
		if status != c.ofWorkload {
			t.Errorf("%s: a workload gets %d, want %d", c.name, status, c.ofWorkload)
		}
		if xfcc := strings.Join(seen.Values("X-Forwarded-Client-Cert"), " "); strings.Contains(xfcc, "boss") {
			t.Errorf("%s: the backend sees %q", c.name, xfcc)
		}
	}
	// In the place of a site's gateway.
	before := p.served.Load()
	p.identify(p.b, p.leafOf("b", "shop", "web", time.Now()))
	p.b.apply(p.objectsB(p.trust()))
	if _, body := get(t, p.a.url("/")); body != "a 127.0.0.1" || p.served.Load() != before {
		t.Errorf("a workload answers for its site: %q", body)
	}
}
