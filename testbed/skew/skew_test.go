//go:build skew

package skew

import (
	"fmt"
	"strings"
	"testing"
)

// newMesh prepares the folders with a version's command line and starts everything.
func newMesh(t *testing.T, v version) *testMesh {
	m := &testMesh{
		t: t, dir: t.TempDir(), port: map[string]int{},
		controllers: map[string]*process{}, proxies: map[string]*process{}, backends: map[string]string{},
	}
	// Where sites connect, and after it where they ask to join.
	ports := []string{"leaf", "join", "nats-hub", "nats-north", "nats-south", "http-north", "http-south", "sites-north", "sites-south"}
	first := freePorts(t, len(ports))
	for i, name := range ports {
		m.port[name] = first + i
	}
	for _, name := range []string{"north-1", "north-2", "south-1"} {
		m.backend(name)
	}
	must := func(out string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return strings.TrimSpace(out)
	}
	must(m.meridian(v, "hub", "site", "init", "--name", "hub", "--location", "144.9,-37.8",
		"--leaf-listen", fmt.Sprintf("127.0.0.1:%d", m.port["leaf"])))
	m.controller("hub", v)
	for _, site := range []string{"north", "south"} {
		token := must(m.meridian(v, "hub", "token", "create", site))
		must(m.meridian(v, site, "join", token, "--location", "145.0,-37.7", "--prepare",
			"--gateway", fmt.Sprintf("127.0.0.1:%d", m.port["sites-"+site])))
		m.controller(site, v)
	}
	must(m.apply(v, m.documents("north-1")))
	m.proxy("north", v)
	m.proxy("south", v)
	return m
}

// documents are the mesh: shop is served at north by one backend, far at south.
func (m *testMesh) documents(shop string) string {
	var b strings.Builder
	doc := func(group, kind, meta, spec string) {
		fmt.Fprintf(&b, "apiVersion: %s\nkind: %s\nmetadata: {%s}\nspec: %s\n---\n", group, kind, meta, spec)
	}
	const gw, mesh = "gateway.networking.k8s.io/v1", "mesh.meridian.dev/v1alpha1"
	for _, site := range []string{"north", "south"} {
		at := ", labels: {mesh.meridian.dev/site: " + site + "}"
		doc(gw, "Gateway", "name: ingress-"+site+at, fmt.Sprintf("{gatewayClassName: meridian, addresses: [{type: IPAddress, value: 127.0.0.1}], listeners: [{name: http, port: %d, protocol: HTTP}]}", m.port["http-"+site]))
		doc(gw, "Gateway", "name: sites-"+site+at, fmt.Sprintf("{gatewayClassName: meridian, addresses: [{type: IPAddress, value: 127.0.0.1}], listeners: [{name: sites, port: %d, protocol: mesh.meridian.dev/EastWest}]}", m.port["sites-"+site]))
	}
	for name, backend := range map[string][2]string{"shop": {shop, "north"}, "far": {"south-1", "south"}} {
		doc(gw, "HTTPRoute", "name: "+name, fmt.Sprintf("{parentRefs: [{name: ingress-north}, {name: ingress-south}], hostnames: [%s.example], rules: [{backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: %s, port: 80}]}]}", name, name))
		doc(mesh, "TrafficPolicy", "name: "+name, "{targetRefs: [{group: mesh.meridian.dev, kind: MeshService, name: "+name+"}], siteSharing: {policy: cooperative}}")
		doc(mesh, "MeshService", "name: "+name, fmt.Sprintf("{ports: [{port: 80}], export: {scope: mesh}, endpoints: [{address: %q, site: %s, capacity: {concurrency: 8, serviceTime: 5ms}}]}", m.backends[backend[0]], backend[1]))
	}
	return b.String()
}

// lives checks that the mesh works as it is: requests at home and between the sites
// both ways, a change that reaches both proxies, and either version's command line.
func (m *testMesh) lives(old, now version) {
	m.t.Helper()
	for _, backend := range []string{"north-2", "north-1"} {
		if out, err := m.apply(now, m.documents(backend)); err != nil {
			m.t.Fatalf("apply: %v\n%s", err, out)
		}
		m.reaches("north", "shop.example", backend)
		m.reaches("south", "shop.example", backend)
	}
	m.reaches("north", "far.example", "south-1")
	m.reaches("south", "far.example", "south-1")
	for _, v := range []version{old, now} {
		m.says(v, "hub", `^north +alive .* 1/1 `, "status")
		m.says(v, "north", `^south +alive .* 1/1 `, "status")
	}
}

// newer asks for what the previous version has not got; it takes what is there today.
const newer = `apiVersion: mesh.meridian.dev/v1alpha1
kind: PeerAuthentication
metadata: {name: mesh}
spec: {mtls: strict}
`

// TestSkew takes a mesh from the previous version to this one in the documented order,
// under traffic, and back in the reverse one. Every step is a mesh of mixed versions
// that has to work, and no request may fail on the way.
func TestSkew(t *testing.T) {
	old, now := versions(t)
	m := newMesh(t, old)
	m.lives(old, now)
	stop := m.load(map[string][]string{"north": {"shop.example", "far.example"}, "south": {"shop.example", "far.example"}})
	step := func(name string, f func()) {
		t.Helper()
		t.Log(name)
		f()
		m.lives(old, now)
	}
	step("the hub first", func() { m.controller("hub", now) })
	// A site of before does not know the new kind. It says so and serves on as it did.
	m.uses(now)
	m.within("the old controller says what it does not know", func() (bool, string) {
		log := m.controllers["north"].said()
		return strings.Contains(log, "kind PeerAuthentication is not known to this build: upgrade it"), log
	})
	m.lives(old, now)
	m.forgoes(now)

	step("then the controller of a site", func() { m.controller("north", now) })
	// Its proxy is of before: it refuses the snapshot by what that requires, the last
	// good one serves, and the mesh says why.
	m.uses(now)
	m.says(now, "north", `^node north/n1: refuses generation .*needs feature "peer-authentication", which this build lacks: upgrade this process`, "status")
	m.says(old, "north", `^node north/n1: refuses generation .*needs feature "peer-authentication"`, "status")
	m.reaches("north", "shop.example", "north-1")
	m.reaches("south", "shop.example", "north-1")
	t.Log("then its proxy, which takes what the one before refused")
	m.upgrade("north", now)
	m.says(now, "north", `^north +alive .* 1/1 `, "status")
	m.forgoes(now)
	m.lives(old, now)
	step("the other site", func() {
		m.controller("south", now)
		m.upgrade("south", now)
	})
	m.uses(now)
	m.lives(old, now)
	m.forgoes(now)

	// Back, on folders that the newer version has written.
	step("back: a proxy under a controller of before", func() { m.controller("north", old) })
	step("back: that proxy", func() { m.upgrade("north", old) })
	step("back: the hub, with a site that is newer than it", func() { m.controller("hub", old) })
	if out, err := m.apply(now, newer); err == nil || !strings.Contains(out, "PeerAuthentication") {
		t.Errorf("a hub of before takes a kind that it does not know: %v\n%s", err, out)
	}
	m.lives(old, now)

	sent, failed := stop()
	t.Logf("%d requests, %d failed", sent, len(failed))
	if len(failed) > 0 || sent < 500 {
		t.Errorf("%d of %d requests failed:\n%s", len(failed), sent, strings.Join(failed[:min(len(failed), 20)], "\n"))
	}
}

// uses has the mesh use what is new, and forgoes ends it.
func (m *testMesh) uses(v version) {
	m.t.Helper()
	if out, err := m.apply(v, newer); err != nil {
		m.t.Fatalf("%v\n%s", err, out)
	}
}

func (m *testMesh) forgoes(v version) {
	m.t.Helper()
	if out, err := m.meridian(v, "hub", "delete", "PeerAuthentication", "mesh"); err != nil {
		m.t.Fatalf("%v\n%s", err, out)
	}
}
