package view

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/lb"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
)

func meta(name string) mesh.ObjectMeta {
	return mesh.ObjectMeta{Name: name, Namespace: "default"}
}

func span(d time.Duration) *mesh.Duration { return (*mesh.Duration)(&d) }

// objects is site home's snapshot: a service with endpoints in four sites.
func objects() mesh.Objects {
	none, two := 0, 2
	return mesh.Objects{
		Sites: []*mesh.Site{
			{Metadata: meta("home"), Spec: mesh.SiteSpec{Links: []mesh.SiteLink{{To: "linked", Address: "10.0.0.9:1"}, {To: "plain"}}}},
			{Metadata: meta("linked"), Spec: mesh.SiteSpec{Gateways: []mesh.SiteGateway{{Address: "10.0.0.1:1"}}}},
			{Metadata: meta("plain"), Spec: mesh.SiteSpec{Gateways: []mesh.SiteGateway{{Address: "10.0.0.2:1"}, {Address: "10.0.0.3:1"}}}},
			{Metadata: meta("island")},
			{Metadata: meta("broken"), Spec: mesh.SiteSpec{Gateways: []mesh.SiteGateway{{Address: "nowhere"}}}},
		},
		Services: []*mesh.MeshService{{
			Metadata: meta("echo"),
			Spec: mesh.MeshServiceSpec{
				Ports:  []mesh.ServicePort{{Port: 80}, {Port: 81}},
				Export: &mesh.Export{Scope: mesh.ScopeMesh},
				Endpoints: []mesh.Endpoint{
					{Address: "127.0.0.1:1", Weight: &two, Capacity: &mesh.Capacity{Concurrency: 1, ServiceTime: *span(10 * time.Millisecond)}},
					{Address: "127.0.0.1:2", Site: "home", Capacity: &mesh.Capacity{Concurrency: 3, ServiceTime: *span(30 * time.Millisecond)}},
					{Address: "[::1]:3", Site: "home", Weight: &none},
					{Address: "example.com:80", Site: "home"},
					{Address: "127.0.0.1:5", Site: "plain"}, {Address: "127.0.0.1:6", Site: "plain"},
					{Address: "127.0.0.1:7", Site: "linked"}, {Address: "127.0.0.1:8", Site: "island"},
				},
			},
		}, {
			Metadata: meta("own"),
			Spec: mesh.MeshServiceSpec{
				Ports:     []mesh.ServicePort{{Port: 80}},
				Endpoints: []mesh.Endpoint{{Address: "127.0.0.1:5", Site: "plain"}},
			},
		}},
	}
}

func build(t *testing.T, reg *upstream.Registry, o mesh.Objects) *View {
	t.Helper()
	v, err := Build(&mesh.Snapshot{Objects: o}, Deps{Site: "home", Registry: reg, Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Whatever the other documents say, a view knows no endpoint or way outside of a fence.
func TestFencedServices(t *testing.T) {
	for allowed, want := range map[string]string{
		"home": "3 endpoints here, remotes []", "plain": "0 endpoints here, remotes [plain]", "linked": "0 endpoints here, remotes [linked]", "nowhere": "0 endpoints here, remotes []",
	} {
		o := objects()
		o.GeoFences = []*mesh.GeoFence{{
			Metadata: meta("fence"),
			Spec:     mesh.GeoFenceSpec{TargetRefs: []mesh.FenceTargetRef{{Kind: mesh.KindMeshService, Name: "echo"}}, Allow: mesh.FenceAllow{Sites: []string{allowed}}},
		}}
		v := build(t, upstream.NewRegistry(2), o)
		s := v.Services["default/echo"]
		remotes := []string{}
		for _, r := range s.Remotes {
			remotes = append(remotes, r.Site)
		}
		if got := fmt.Sprintf("%d endpoints here, remotes %v", len(s.Home), remotes); got != want {
			t.Errorf("inside is %s: %s, want %s", allowed, got, want)
		}
		if (s.Fenced == "") != (allowed == "home") {
			t.Errorf("inside is %s: fenced %q", allowed, s.Fenced)
		}
		if said := strings.Contains(strings.Join(v.Problems, "\n"), "its requests get 503"); said != (allowed == "nowhere") {
			t.Errorf("inside is %s: problems %q", allowed, v.Problems)
		}
	}
}

func TestServices(t *testing.T) {
	reg := upstream.NewRegistry(2)
	o := objects()
	o.TrafficPolicies = []*mesh.TrafficPolicy{{
		Metadata: meta("p"),
		Spec: mesh.TrafficPolicySpec{
			TargetRefs:    []mesh.PolicyTargetRef{{Kind: mesh.KindMeshService, Name: "own"}, {Kind: mesh.KindMeshService, Name: "absent"}},
			Timeouts:      &mesh.PolicyTimeouts{Connect: span(time.Minute), Request: span(time.Hour)},
			LoadBalancing: &mesh.LoadBalancing{Algorithm: mesh.LBRoundRobin},
			Retries:       &mesh.Retries{Attempts: new(int)},
		},
	}}
	v := build(t, reg, o)
	s := v.Services["default/echo"]
	var home, remotes []string
	for i, e := range s.Home {
		home = append(home, fmt.Sprint(e.Addr, " ", s.Slots[i]))
	}
	for _, r := range s.Remotes {
		remotes = append(remotes, r.Site+" "+r.Endpoint.Addr.String())
	}
	if got, want := strings.Join(home, ", "), "127.0.0.1:1 1, 127.0.0.1:2 3, [::1]:3 0"; got != want {
		t.Errorf("home %s, want %s", got, want)
	}
	if got, want := strings.Join(remotes, ", "), "linked 10.0.0.9:1, plain 10.0.0.2:1"; got != want {
		t.Errorf("remotes %s, want %s", got, want)
	}
	if s.Concurrency != 4 || s.ServiceTime != 25*time.Millisecond {
		t.Errorf("capacity %d, %v", s.Concurrency, s.ServiceTime)
	}
	if s.Connect != ConnectTimeout || s.Silence != SilenceTimeout || s.Request != 0 || s.Retries != Retries {
		t.Errorf("defaults %v %v %v %d", s.Connect, s.Silence, s.Request, s.Retries)
	}
	if len(s.Pickers) != 2 {
		t.Errorf("%d pickers for 2 loops", len(s.Pickers))
	}
	for range 50 {
		if i, ok := new(Choice).Pick(s, nil, i64(), false, 0); !ok || i == 2 {
			t.Errorf("picked %d: weight 0 takes none", i)
		}
	}
	own := v.Services["default/own"]
	if len(own.Remotes) != 0 {
		t.Error("a service that is not exported has remotes")
	}
	if _, rr := own.Pickers[0].(*lb.RoundRobin); !rr || own.Connect != time.Minute || own.Request != time.Hour || own.Silence != SilenceTimeout || own.Retries != 0 {
		t.Errorf("policy: %T %v %v %v %d", own.Pickers[0], own.Connect, own.Request, own.Silence, own.Retries)
	}
	for name, want := range map[string]bool{"default/echo": true, "default/echo:80": true, "default/echo:81": true, "default/echo:82": false, "echo": false} {
		if got := v.Named([]byte(name)) != nil; got != want {
			t.Errorf("Named(%q): %v, want %v", name, got, want)
		}
	}
	if s.HasPort(0) || !own.HasPort(0) || !s.HasPort(81) || s.HasPort(82) {
		t.Error("ports")
	}
	problems := strings.Join(v.Problems, "\n")
	for _, want := range []string{`"example.com:80" gets no requests: it is not ip:port`, `site "island" has no gateway`, `"nowhere" is not ip:port`, `"default/absent" does not exist`} {
		if !strings.Contains(problems, want) {
			t.Errorf("problems lack %s:\n%s", want, problems)
		}
	}
	if len(v.Problems) != 4 {
		t.Errorf("%d problems:\n%s", len(v.Problems), problems)
	}
}

var seq uint64

func i64() uint64 { seq += 0x9e3779b97f4a7c15; return seq }

// TestHandlesAreStable builds two views: what is the same keeps its handle.
func TestHandlesAreStable(t *testing.T) {
	reg := upstream.NewRegistry(2)
	a := build(t, reg, objects())
	a.Services["default/echo"].Home[1].Cells[0].Requests.Add(5)
	o := objects()
	o.Services[0].Spec.Endpoints = o.Services[0].Spec.Endpoints[1:]
	b := build(t, reg, o)
	reg.Retain(b.Endpoints())
	if a.Services["default/echo"].Service != b.Services["default/echo"].Service {
		t.Error("the service has another handle")
	}
	if b.Services["default/echo"].Home[0].Cells[0].Requests.Load() != 5 {
		t.Error("the endpoint lost its counters")
	}
	c := build(t, reg, objects())
	if c.Services["default/echo"].Home[0] == a.Services["default/echo"].Home[0] {
		t.Error("an endpoint that had gone came back with its old handle")
	}
	if a.Sites["plain"] == 0 || a.Sites["plain"] != c.Sites["plain"] || a.Sites["plain"] == a.Sites["linked"] {
		t.Errorf("sites %v, then %v", a.Sites, c.Sites)
	}
}

func TestExportToSomeSites(t *testing.T) {
	o := objects()
	o.Services[0].Spec.Export.Sites = []string{"plain"}
	s := build(t, upstream.NewRegistry(2), o).Services["default/echo"]
	if len(s.Remotes) != 1 || s.Remotes[0].Site != "plain" {
		t.Errorf("remotes %v", s.Remotes)
	}
}

func TestSockets(t *testing.T) {
	l := func(name string, port int, protocol string) mesh.Listener {
		return mesh.Listener{Name: name, Port: port, Protocol: protocol}
	}
	gateway := func(name string, addresses []string, listeners ...mesh.Listener) *mesh.Gateway {
		g := &mesh.Gateway{Metadata: meta(name), Spec: mesh.GatewaySpec{GatewayClassName: mesh.GatewayClass, Listeners: listeners}}
		for _, a := range addresses {
			g.Spec.Addresses = append(g.Spec.Addresses, mesh.GatewayAddress{Value: a})
		}
		return g
	}
	o := objects()
	o.Gateways = []*mesh.Gateway{
		gateway("one", []string{"127.0.0.1", "::1"}, l("a", 80, mesh.ProtocolHTTP), l("b", 80, mesh.ProtocolHTTP), l("e", 90, mesh.ProtocolEastWest)),
		gateway("two", nil, l("x", 0, mesh.ProtocolHTTP), l("y", 0, mesh.ProtocolHTTP), l("u", 5, "SCTP")),
		gateway("three", []string{"127.0.0.1", "name"}, l("a", 80, mesh.ProtocolHTTP), l("m", 7, mesh.ProtocolHTTP), l("n", 7, mesh.ProtocolEastWest)),
		{Metadata: meta("other"), Spec: mesh.GatewaySpec{GatewayClassName: "nginx", Listeners: []mesh.Listener{l("a", 81, mesh.ProtocolHTTP)}}},
	}
	o.HTTPRoutes = []*mesh.HTTPRoute{{
		Metadata: meta("r"),
		Spec: mesh.HTTPRouteSpec{
			ParentRefs: []mesh.ParentRef{{Name: "one"}},
			Rules: []mesh.HTTPRouteRule{{BackendRefs: []mesh.BackendRef{
				{Group: mesh.MeshGroup, Kind: mesh.KindMeshService, Name: "echo", Port: 80},
				{Group: mesh.MeshGroup, Kind: mesh.KindMeshService, Name: "echo", Port: 99},
				{Group: mesh.MeshGroup, Kind: mesh.KindMeshService, Name: "gone", Port: 80},
			}}},
		},
	}}
	v := build(t, upstream.NewRegistry(2), o)
	var got []string
	for _, s := range v.Sockets {
		got = append(got, fmt.Sprint(s.Gateway, " ", s.Key.Addr, " ", s.Key.Port, " ", s.Key.Name, s.Listeners, s.EastWest(), s.Routes == nil))
	}
	want := []string{
		"default/one 127.0.0.1 80 [a b] false false", "default/one ::1 80 [a b] false false",
		"default/one 127.0.0.1 90 [e] true true", "default/one ::1 90 [e] true true",
		"default/two invalid IP 0 default/two/x[x] false false", "default/two invalid IP 0 default/two/y[y] false false",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("sockets:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	problems := strings.Join(v.Problems, "\n")
	for _, want := range []string{
		`127.0.0.1:80 is served by Gateway/default/one already`, `"name" is not an IP address`, `different protocols`,
		`protocol "SCTP" is not served`, `"default/gone" does not exist`, `has no port 99`,
	} {
		if !strings.Contains(problems, want) {
			t.Errorf("problems lack %s:\n%s", want, problems)
		}
	}
}

func TestRefusesTheFuture(t *testing.T) {
	_, err := Build(&mesh.Snapshot{Compat: mesh.Compat{MinReader: mesh.Version + 1}}, Deps{Registry: upstream.NewRegistry(1), Loops: 1})
	if err == nil || !strings.Contains(err.Error(), "upgrade") {
		t.Errorf("%v", err)
	}
}
