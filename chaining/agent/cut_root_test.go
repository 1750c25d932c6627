//go:build root

package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/internal/nstest"
)

// The link to the other site is cut: chains that have an instance at home too go on with
// that one; those that have none stop or go without, as they say. It is told, and all
// come back with the link.
func TestRootSiteCut(t *testing.T) {
	north := newSite(t, 1) // with client and server
	north.name = "north"
	south := newSite(t, 2) // with functions only
	south.name, south.dir = "south", north.dir
	nstest.Veth(north.node, "wan", south.node, "wan")
	for i, n := range []*site{north, south} {
		n.node.IP(fmt.Sprintf("addr add 198.51.100.%d/24 dev wan", i+1))
		n.node.IP("link set wan mtu 1600")
	}
	south.node.IP("link set c0 down")
	south.node.IP("link set s0 down")
	instance := func(s *site, name string, router int) string {
		return fmt.Sprintf("{name: %s, node: %s, left: f%dl, right: f%dr, leftMAC: %q, rightMAC: %q, address: 10.9.%d.2}",
			name, s.name, router+1, router+1, s.mac(router, "ethl"), s.mac(router, "ethr"), router+1)
	}
	chain := func(name, function, failure, server string) string {
		return fmt.Sprintf(`---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ServiceChain
metadata: {name: %s}
spec:
  functions: [%s]
  paths: 2
  demand: {packetsPerSecond: 45000}
  failureMode: %s
  ingress: {node: north, interface: c0}
  egress: {node: north, interface: s0}
  match: [{sources: [10.1.0.0/24], destinations: [%s/32]}]
`, name, function, failure, server)
	}
	const both, closed, open = "10.2.0.2", "10.2.0.3", "10.2.0.4"
	north.server.IP("addr add " + closed + "/24 dev eth0")
	north.server.IP("addr add " + open + "/24 dev eth0")
	docs := `apiVersion: mesh.meridian.dev/v1alpha1
kind: ChainNode
metadata: {name: north}
spec: {site: north, ports: [{interface: c0}, {interface: s0}], underlay: {interface: wan, address: 198.51.100.1}, links: [{to: south, rtt: 20us}]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ChainNode
metadata: {name: south}
spec: {site: south, underlay: {interface: wan, address: 198.51.100.2}}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: either}
spec: {instances: [` + instance(north, "at-home", 0) + ", " + instance(south, "away", 0) + `]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: far}
spec: {capacity: {concurrency: 4, serviceTime: 20us}, instances: [` + instance(south, "far-1", 1) + "]}\n" +
		chain("both", "either", "closed", both) + chain("closed", "far", "closed", closed) + chain("open", "far", "open", open)
	config := filepath.Join(north.dir, "chains.yaml")
	if err := os.WriteFile(config, []byte(docs), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*site{south, north} {
		s.launch("--config", config)
		s.until("ready", func(st *Status) bool { return st.Ready })
	}
	// passes counts how many of ten flows to a server are answered, and by which TTL they came.
	passes := func(server string) (answered int, hops map[int]uint64) {
		t.Helper()
		var streams []*nstest.Stream
		hops = map[int]uint64{}
		for range 10 {
			streams = append(streams, nstest.StartStream(t, north.client, north.server, server+":0", 20*time.Millisecond))
		}
		time.Sleep(300 * time.Millisecond)
		for _, s := range streams {
			if s.Answered() > 0 {
				answered++
			}
			for ttl, n := range s.Halt() {
				hops[ttl] += n
			}
		}
		return answered, hops
	}
	// on reports whether one of the paths there has an instance.
	on := func(st *Status, instance string) bool {
		for _, p := range st.Paths {
			for _, stop := range p.Stops {
				if stop.Instance == instance {
					return true
				}
			}
		}
		return false
	}
	whole := func() {
		t.Helper()
		north.until("paths over both sites", func(st *Status) bool { return on(st, "at-home") && on(st, "away") && on(st, "far-1") })
		for _, server := range []string{both, closed, open} {
			if n, hops := passes(server); n != 10 || hops[63] == 0 || len(hops) != 1 {
				t.Errorf("%s, nothing cut: %d of 10 flows pass, TTL at the server %v", server, n, hops)
			}
		}
	}
	whole()
	south.node.IP("link set wan down")
	north.until("the cut is noticed", func(st *Status) bool {
		return st.Ready && strings.Contains(st.Down["away"], "node south cannot be reached") && st.Down["far-1"] != "" &&
			on(st, "at-home") && !on(st, "away") && !on(st, "far-1")
	})
	for server, want := range map[string]int{both: 10, closed: 0, open: 10} {
		if n, hops := passes(server); n != want {
			t.Errorf("%s, the link cut: %d of 10 flows pass, want %d; TTL at the server %v", server, n, want, hops)
		}
	}
	if text, err := north.get("/readyz?verbose"); err != nil || !strings.Contains(text, "instance far-1 is down: node south cannot be reached") {
		t.Errorf("readyz: %v\n%s", err, text)
	}
	south.node.IP("link set wan up")
	north.until("the link is back", func(st *Status) bool { return len(st.Down) == 0 })
	whole()
}
