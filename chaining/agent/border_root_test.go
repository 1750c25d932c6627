//go:build root

package agent

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/internal/nstest"
)

// A chain over two sites: headers at the border carry a code. What is not signed by
// a key that both sites have is dropped, and counted for that reason.
func TestRootBorder(t *testing.T) {
	north := newSite(t, 0) // with the client; its s0 stays unused
	north.name = "north"
	south := newSite(t, 1)
	south.name, south.dir = "south", north.dir
	south.client = north.client
	north.server = south.server
	nstest.Veth(north.node, "wan", south.node, "wan")
	for i, n := range []*site{north, south} {
		n.node.IP(fmt.Sprintf("addr add 198.51.100.%d/24 dev wan", i+1))
		n.datapath = "soft"
	}
	// The other ends of both harnesses' links are not used.
	north.node.IP("link set s0 down")
	south.node.IP("link set c0 down")
	docs := fmt.Sprintf(`apiVersion: mesh.meridian.dev/v1alpha1
kind: ChainNode
metadata: {name: north}
spec: {site: north, ports: [{interface: c0}], border: {interface: wan, address: 198.51.100.1}}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ChainNode
metadata: {name: south}
spec: {site: south, ports: [{interface: s0}], border: {interface: wan, address: 198.51.100.2}}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: router}
spec: {instances: [{name: r1, node: south, left: f1l, right: f1r, leftMAC: %q, rightMAC: %q}]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ServiceChain
metadata: {name: web}
spec:
  functions: [router]
  ingress: {node: north, interface: c0}
  egress: {node: south, interface: s0}
  match: [{sources: [10.1.0.0/24], destinations: [10.2.0.0/24]}]
`, south.mac(0, "ethl"), south.mac(0, "ethr"))
	config := filepath.Join(north.dir, "chains.yaml")
	if err := os.WriteFile(config, []byte(docs), 0o600); err != nil {
		t.Fatal(err)
	}
	keys := func(name string, ids ...string) string {
		var b strings.Builder
		for _, id := range ids {
			fmt.Fprintf(&b, "%s %s\n", id, base64.StdEncoding.EncodeToString([]byte(strings.Repeat(id, 40)[:32])))
		}
		file := filepath.Join(north.dir, name)
		if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	launch := func(s *site, keys string) {
		t.Helper()
		s.launch("--config", config, "--integrity-keys", keys)
		s.until("ready", func(st *Status) bool { return st.Ready })
	}
	old, both := keys("old", "k1"), keys("both", "k2", "k1")
	launch(north, old)
	launch(south, both) // its own headers are by k2, which north does not know yet
	stream := func(answered bool) (sent, lost uint64, hops map[int]uint64) {
		s := nstest.StartStream(t, north.client, south.server, "10.2.0.2:0", 10*time.Millisecond)
		time.Sleep(300 * time.Millisecond)
		if answered {
			return s.Stop()
		}
		hops = s.Halt()
		return s.Sent(), s.Sent() - s.Answered(), hops
	}
	dropped := regexp.MustCompile(`meridian_chain_drops_total\{reason="integrity"\} [1-9]`)
	if sent, lost, hops := stream(false); lost != sent || hops[63] == 0 {
		t.Errorf("one way: %d of %d lost, TTL at the server %v; they should arrive and no answer come back", lost, sent, hops)
	}
	if text, err := north.get("/metrics"); err != nil || !dropped.MatchString(text) {
		t.Errorf("north counted nothing: %v\n%s", err, text)
	}
	north.end(syscall.SIGTERM)
	launch(north, both)
	if sent, lost, hops := stream(true); lost != 0 || hops[63] != sent || sent == 0 {
		t.Errorf("%d of %d lost, TTL at the server %v", lost, sent, hops)
	}
	// Large packets are told how large they may be.
	const size = 4 << 20
	if got, err := north.bulk(size); err != nil || got != size {
		metrics, _ := north.get("/metrics")
		t.Errorf("bulk: %d bytes of %d: %v\n%s", got, size, err, metrics)
	}
	// A key that the other site does not have.
	north.end(syscall.SIGTERM)
	launch(north, keys("foreign", "k3", "k2", "k1"))
	if sent, lost, hops := stream(false); lost != sent || len(hops) != 0 {
		t.Errorf("by an unknown key %d of %d lost, TTL at the server %v", lost, sent, hops)
	}
	if text, err := south.get("/metrics"); err != nil || !dropped.MatchString(text) {
		t.Errorf("south counted nothing: %v\n%s", err, text)
	}
}
