//go:build root

package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/internal/nstest"
)

// statesSite is a chain of a bridge and a router that has a pair of interfaces of its
// own, and one that packets to UDP port 7000 go on by behind the bridge.
func statesSite(t *testing.T, datapath string) (*site, *nstest.Namespace) {
	s := newSite(t, 3)
	s.datapath = datapath
	bridge := nstest.New(t, "b")
	for _, side := range []string{"l", "r"} {
		nstest.Veth(s.node, "wire"+side, bridge, "eth"+side)
	}
	bridge.IP("link add br0 type bridge")
	for _, ifc := range []string{"ethl", "ethr"} {
		bridge.IP("link set " + ifc + " master br0")
	}
	bridge.IP("link set br0 up")
	text := fmt.Sprintf(`apiVersion: mesh.meridian.dev/v1alpha1
kind: ChainNode
metadata: {name: edge}
spec:
  ports: [{interface: c0}, {interface: s0}]
  pools: [{prefixes: [10.1.0.0/24], dnn: internet, slice: "1"}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: bridge}
spec:
  state: mac
  health: {probe: frame, interval: 1s}
  instances: [{name: b1, node: edge, left: wirel, right: wirer}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: paired}
spec:
  state: interface
  instances: [{name: r1, node: edge, pairs: [{left: f1l, right: f1r, leftMAC: %q, rightMAC: %q}]}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ServiceChain
metadata: {name: web}
spec:
  functions: [bridge, paired]
  ingress: {node: edge, interface: c0}
  egress: {node: edge, interface: s0}
  match: [{dnns: [internet], slices: ["1"]}]
  branches: [{after: bridge, chain: long, match: {protocols: [udp], destinationPorts: ["7000"]}}]
`, s.mac(0, "ethl"), s.mac(0, "ethr"))
	for r := 1; r <= 2; r++ {
		text += fmt.Sprintf(`---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: router-%d}
spec: {instances: [{name: r%d, node: edge, left: f%dl, right: f%dr, leftMAC: %q, rightMAC: %q}]}
`, r, r+1, r+1, r+1, s.mac(r, "ethl"), s.mac(r, "ethr"))
	}
	text += `---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ServiceChain
metadata: {name: long}
spec:
  functions: [router-1, router-2]
  ingress: {node: edge, interface: c0}
  egress: {node: edge, interface: s0}
  match: [{destinations: [203.0.113.0/24]}]
`
	if err := os.WriteFile(filepath.Join(s.dir, "chains.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.until("the bridge answers probes", func(st *Status) bool { return st.Ready && len(st.Down) == 0 })
	return s, bridge
}

// State by source address and by interface, packets classified again on their way,
// an origin, and the frame probe; in the kernel and in userspace.
func TestRootStates(t *testing.T) {
	for _, datapath := range []string{"bpf", "soft"} {
		t.Run(datapath, func(t *testing.T) {
			s, bridge := statesSite(t, datapath)
			for address, routers := range map[string]int{"10.2.0.2:0": 1, "10.2.0.2:7000": 2} {
				stream := nstest.StartStream(t, s.client, s.server, address, 5*time.Millisecond)
				time.Sleep(300 * time.Millisecond)
				sent, lost, hops := stream.Stop()
				if lost != 0 || sent == 0 || len(hops) != 1 || hops[64-routers] == 0 {
					metrics, _ := s.get("/metrics")
					t.Errorf("%s: %d of %d lost, TTL at the server %v, want %d\n%s", address, lost, sent, hops, 64-routers, metrics)
				}
			}
			const size = 8 << 20
			if got, err := s.bulk(size); err != nil || got != size {
				t.Errorf("bulk: %d bytes of %d: %v", got, size, err)
			}
			bridge.IP("link set ethr nomaster")
			s.until("the bridge that hands nothing on is out", func(st *Status) bool { return st.Down["b1"] != "" })
		})
	}
}
