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

// In the kernel, what crosses a border is dropped, counted for that, and the log says what
// to do about it; nothing crosses without a code.
func TestRootBorderInKernel(t *testing.T) {
	s := newSite(t, 1)
	s.datapath = "bpf"
	far := nstest.New(t, "far")
	nstest.Veth(s.node, "wan", far, "wan")
	s.node.IP("addr add 198.51.100.1/24 dev wan")
	far.IP("addr add 198.51.100.2/24 dev wan")
	docs := fmt.Sprintf(`apiVersion: mesh.meridian.dev/v1alpha1
kind: ChainNode
metadata: {name: edge}
spec: {site: north, ports: [{interface: c0}], border: {interface: wan, address: 198.51.100.1}}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ChainNode
metadata: {name: far}
spec: {site: south, ports: [{interface: s0}], border: {interface: wan, address: 198.51.100.2}}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: router}
spec: {instances: [{name: r1, node: edge, left: f1l, right: f1r, leftMAC: %q, rightMAC: %q}]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ServiceChain
metadata: {name: web}
spec:
  functions: [router]
  ingress: {node: edge, interface: c0}
  egress: {node: far, interface: s0}
  match: [{sources: [10.1.0.0/24], destinations: [10.2.0.0/24]}]
`, s.mac(0, "ethl"), s.mac(0, "ethr"))
	if err := os.WriteFile(filepath.Join(s.dir, "chains.yaml"), []byte(docs), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	if out, err := s.client.Run(t.Context(), "ping", "-c3", "-i0.05", "-W1", "10.2.0.2"); err == nil {
		t.Errorf("packets crossed the border without a code:\n%s", out)
	}
	var counters string
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		var err error
		if counters, err = s.get("/counters"); err == nil && strings.Contains(counters, `"integrity"`) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no drop is counted for the border: %v\n%s", err, counters)
		}
	}
	log, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil || strings.Count(string(log), "--integrity-keys") != 1 {
		t.Errorf("the log does not say once what is missing: %v\n%s", err, log)
	}
}
