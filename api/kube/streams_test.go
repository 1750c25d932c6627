package kube

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Of the TCPRoutes of a listener, and of its UDPRoutes, the oldest has the traffic. The
// others are accepted, are counted, and wait.
func TestOldestStreamRouteServes(t *testing.T) {
	const text = base + `
---
kind: Gateway
metadata: {name: s, namespace: shop, creationTimestamp: "2026-01-01T00:00:02Z"}
spec:
  gatewayClassName: meridian
  listeners: [{name: t, port: 90, protocol: TCP}, {name: t2, port: 91, protocol: TCP}, {name: u, port: 90, protocol: UDP}]
---
kind: Service
metadata: {name: udp, namespace: shop}
spec: {ports: [{port: 53, protocol: UDP}]}
---
kind: TCPRoute
metadata: {name: a-young, namespace: shop, creationTimestamp: "2026-01-01T00:00:02Z"}
spec: {parentRefs: [{name: s}], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
kind: TCPRoute
metadata: {name: b-old, namespace: shop, creationTimestamp: "2026-01-01T00:00:01Z"}
spec: {parentRefs: [{name: s, sectionName: t}], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
kind: TCPRoute
metadata: {name: c-young, namespace: shop, creationTimestamp: "2026-01-01T00:00:03Z"}
spec: {parentRefs: [{name: s, sectionName: t}], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
kind: UDPRoute
metadata: {name: young, namespace: shop, creationTimestamp: "2026-01-01T00:00:02Z"}
spec: {parentRefs: [{name: s}], rules: [{backendRefs: [{name: udp, port: 53}]}]}
---
kind: UDPRoute
metadata: {name: old, namespace: shop, creationTimestamp: "2026-01-01T00:00:01Z"}
spec: {parentRefs: [{name: s}], rules: [{backendRefs: [{name: udp, port: 53}]}]}`
	out := Translate(read(t, text), noon)
	var got []string
	joined := func(m mesh.ObjectMeta, parents []mesh.ParentRef) {
		for _, p := range parents {
			got = append(got, m.Name+" "+p.SectionName)
		}
	}
	for _, r := range out.Objects.TCPRoutes {
		joined(r.Metadata, r.Spec.ParentRefs)
	}
	for _, r := range out.Objects.UDPRoutes {
		joined(r.Metadata, r.Spec.ParentRefs)
	}
	if want := []string{"b-old t", "a-young t2", "old u"}; !slices.Equal(got, want) {
		t.Errorf("joined %q, want %q", got, want)
	}
	lines := said(out)
	const good = " Accepted=True/Accepted Programmed=True/Programmed ResolvedRefs=True/ResolvedRefs Conflicted=False/NoConflicts"
	for _, want := range []string{
		"Gateway shop/s:t [TCPRoute] 3" + good, "Gateway shop/s:t2 [TCPRoute] 1" + good, "Gateway shop/s:u [UDPRoute] 2" + good,
		"TCPRoute shop/b-old:st Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs", "TCPRoute shop/c-young:st Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs",
		"UDPRoute shop/young:s Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("want %q in\n%s", want, strings.Join(lines, "\n"))
		}
	}
	for _, s := range out.Statuses {
		if w, ok := s.Want.(*RouteStatus); ok {
			waits := strings.Contains(w.Parents[0].Conditions[0].Message, "older")
			if want := s.Meta.Name == "c-young" || s.Meta.Name == "young"; waits != want {
				t.Errorf("%s: %q", s.Meta.Name, w.Parents[0].Conditions[0].Message)
			}
		}
	}
}

// A route that is not served takes a listener from nobody.
func TestUnservedStreamRouteTakesNothing(t *testing.T) {
	out := Translate(read(t, base+`
---
kind: Gateway
metadata: {name: s, namespace: shop}
spec: {gatewayClassName: meridian, listeners: [{name: t, port: 90, protocol: TCP}]}
---
kind: TCPRoute
metadata: {name: old, namespace: shop, creationTimestamp: "2026-01-01T00:00:01Z"}
spec: {parentRefs: [{name: s}], rules: [{backendRefs: [{name: web, port: 80}], sometimes: true}]}
---
kind: TCPRoute
metadata: {name: young, namespace: shop, creationTimestamp: "2026-01-01T00:00:02Z"}
spec: {parentRefs: [{name: s}], rules: [{backendRefs: [{name: web, port: 80}]}]}`), noon)
	if len(out.Objects.TCPRoutes) != 1 || out.Objects.TCPRoutes[0].Metadata.Name != "young" {
		t.Errorf("served %+v", out.Objects.TCPRoutes)
	}
}

// Of TLS a listener ends sessions, with the certificate of its Secret, and takes what is in
// them, or passes them on; by hostname both on one port.
func TestTLSListeners(t *testing.T) {
	in := read(t, base+`
---
kind: Gateway
metadata: {name: s, namespace: shop, creationTimestamp: "2026-01-01T00:00:02Z"}
spec:
  gatewayClassName: meridian
  listeners:
  - {name: end, port: 443, protocol: TLS, hostname: end.example.com, tls: {mode: Terminate, certificateRefs: [{name: cert}]}, allowedRoutes: {kinds: [{kind: TLSRoute}]}}
  - {name: pass, port: 443, protocol: TLS, hostname: abc.example.com, tls: {mode: Passthrough}, allowedRoutes: {kinds: [{kind: TCPRoute}, {kind: TLSRoute}]}}
  - {name: whole, port: 444, protocol: TLS, tls: {certificateRefs: [{name: cert}]}}
  - {name: bare, port: 445, protocol: TLS, hostname: no.example.com, tls: {mode: Terminate, certificateRefs: [{name: gone}]}}
---
kind: Secret
metadata: {name: cert, namespace: shop}
data: {tls.crt: Y2VydA==, tls.key: a2V5}
---
kind: TLSRoute
metadata: {name: r, namespace: shop, creationTimestamp: "2026-01-01T00:00:04Z"}
spec: {parentRefs: [{name: s}], hostnames: ["*.example.com"], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
kind: TCPRoute
metadata: {name: t, namespace: shop, creationTimestamp: "2026-01-01T00:00:03Z"}
spec: {parentRefs: [{name: s, port: 444}], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
kind: TCPRoute
metadata: {name: none, namespace: shop}
spec: {parentRefs: [{name: s, sectionName: pass}], rules: [{backendRefs: [{name: web, port: 80}]}]}`)
	in.Certificates = "/var/lib/meridian/certificates"
	out := Translate(in, noon)
	lines := said(out)
	const good = " Accepted=True/Accepted Programmed=True/Programmed ResolvedRefs=True/ResolvedRefs Conflicted=False/NoConflicts"
	for _, want := range []string{
		"Gateway shop/s:end [TLSRoute] 1" + good,
		"Gateway shop/s:pass [TLSRoute] 1 Accepted=True/Accepted Programmed=True/Programmed ResolvedRefs=False/InvalidRouteKinds Conflicted=False/NoConflicts",
		"Gateway shop/s:whole [TLSRoute TCPRoute] 2" + good,
		"Gateway shop/s:bare [TLSRoute TCPRoute] 1 Accepted=True/Accepted Programmed=False/Invalid ResolvedRefs=False/InvalidCertificateRef Conflicted=False/NoConflicts",
		"TLSRoute shop/r:s Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs",
		"TCPRoute shop/t:s Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs",
		"TCPRoute shop/none:spass Accepted=False/NotAllowedByListeners ResolvedRefs=True/ResolvedRefs",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("want %q in\n%s", want, strings.Join(lines, "\n"))
		}
	}
	var served []string
	for _, g := range out.Objects.Gateways {
		for _, l := range g.Spec.Listeners {
			if l.TLS != nil {
				served = append(served, fmt.Sprint(l.Name, " ", l.TLS.Mode, " ", len(l.TLS.CertificateRefs)))
			}
		}
	}
	if want := []string{"end Terminate 1", "pass Passthrough 0", "whole Terminate 1"}; !slices.Equal(served, want) {
		t.Errorf("served are %q, want %q", served, want)
	}
	joined := map[string]int{}
	for _, r := range out.Objects.TLSRoutes {
		joined["TLSRoute "+r.Metadata.Name] = len(r.Spec.ParentRefs)
	}
	for _, r := range out.Objects.TCPRoutes {
		joined["TCPRoute "+r.Metadata.Name] = len(r.Spec.ParentRefs)
	}
	if joined["TLSRoute r"] != 3 || joined["TCPRoute t"] != 1 || len(joined) != 2 {
		t.Errorf("joined listeners by route: %v", joined)
	}
	if err := mesh.Validate(&out.Objects); err != nil {
		t.Error(err)
	}
}
