//go:build root

package agent

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const onwardChains = `apiVersion: mesh.meridian.dev/v1alpha1
kind: ChainNode
metadata: {name: edge}
spec: {ports: [{interface: c0}, {interface: s0}]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: first}
spec: {health: {probe: icmp, interval: 1s}, instances: [{name: r1, node: edge, left: f1l, right: f1r, leftMAC: %q, rightMAC: %q, address: 10.9.1.2}]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: second}
spec: {health: {probe: icmp, interval: 1s}, instances: [{name: r2, node: edge, left: f2l, right: f2r, leftMAC: %q, rightMAC: %q, address: 10.9.2.2}]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ServiceChain
metadata: {name: inspected}
spec:
  functions: [first, second]
  ingress: {node: edge, interface: c0}
  egress: {node: edge, interface: s0}
  match: [{sources: [10.1.0.0/24], dscp: [10]}]
`

const onwardRoutes = `---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: sign}
spec: {native: {headers: {request: {set: [{name: X-Signed, value: "by ${function}"}]}}}}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ServiceChain
metadata: {name: signed}
spec: {functions: [sign]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: ingress}
spec:
  gatewayClassName: meridian
  addresses: [{type: IPAddress, value: 127.0.0.1}]
  listeners: [{name: http, port: 8080, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{name: ingress}]
  rules:
  - matches: [{path: {value: /inspected}}]
    filters:
    - {type: ExtensionRef, extensionRef: {group: mesh.meridian.dev, kind: ServiceChain, name: signed}}
    - {type: ExtensionRef, extensionRef: {group: mesh.meridian.dev, kind: ServiceChain, name: inspected}}
    backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: shop, port: 80}]
  - matches: [{path: {value: /}}]
    backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: shop, port: 80}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: shop}
spec: {ports: [{name: http, port: 80, protocol: http}], endpoints: [{address: "10.2.0.2:9001"}]}
`

// A request passes a function in the proxy and then, on the proxy's connection to the
// backend, those of a chain of packets: only where its route says so, though the endpoint is
// the same. In the kernel and in userspace.
func TestRootOnward(t *testing.T) {
	for _, datapath := range []string{"bpf", "soft"} {
		t.Run(datapath, func(t *testing.T) {
			s := newSite(t, 2)
			s.datapath = datapath
			chains := fmt.Sprintf(onwardChains, s.mac(0, "ethl"), s.mac(0, "ethr"), s.mac(1, "ethl"), s.mac(1, "ethr"))
			if err := os.WriteFile(filepath.Join(s.dir, "chains.yaml"), []byte(chains), 0o600); err != nil {
				t.Fatal(err)
			}
			s.start()
			var l net.Listener
			if err := s.server.Do(func() (err error) {
				l, err = net.Listen("tcp", "10.2.0.2:9001")
				return err
			}); err != nil {
				t.Fatal(err)
			}
			backend := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, r.URL.Path+" "+r.Header.Get("X-Signed")) // the client sees what is missing
			})}
			go func() { _ = backend.Serve(l) }() // ends with Close
			t.Cleanup(func() { _ = backend.Close() })

			file := filepath.Join(s.dir, "proxy.yaml")
			if err := os.WriteFile(file, []byte(chains+onwardRoutes), 0o600); err != nil {
				t.Fatal(err)
			}
			proxy := exec.Command(s.build("edgeproxy"), "--config", file)
			var log strings.Builder
			proxy.Stderr = &log
			if err := s.client.Start(proxy); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_ = proxy.Process.Kill() // it may have ended
				_ = proxy.Wait()
				if t.Failed() {
					t.Logf("log of the proxy:\n%s", log.String())
				}
			})
			ask := func(path string) (string, error) {
				var body []byte
				err := s.client.Do(func() error {
					c, err := net.DialTimeout("tcp", "127.0.0.1:8080", 5*time.Second)
					if err != nil {
						return err
					}
					defer c.Close()
					if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
						return err
					}
					if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n", path); err != nil {
						return err
					}
					body, err = io.ReadAll(c)
					return err
				})
				_, text, _ := strings.Cut(string(body), "\r\n\r\n")
				return text, err
			}
			for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
				text, err := ask("/")
				if err == nil && text == "/ " {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("the proxy does not serve: %q, %v", text, err)
				}
			}
			// passed is how many packets each place on the chain's paths has seen.
			passed := func() (n []uint64) {
				t.Helper()
				text, err := s.get("/counters")
				var counters struct {
					Hops []struct {
						SI      uint8  `json:"si"`
						Packets uint64 `json:"packets"`
					} `json:"hops"`
				}
				if err == nil {
					err = json.Unmarshal([]byte(text), &counters)
				}
				if err != nil {
					t.Fatalf("%v: %s", err, text)
				}
				for _, h := range counters.Hops {
					n = append(n, h.Packets)
				}
				return n
			}
			sum := func(all []uint64) (n uint64) {
				for _, v := range all {
					n += v
				}
				return n
			}
			for range 10 {
				if text, err := ask("/plain"); err != nil || text != "/plain " {
					t.Fatalf("%q, %v", text, err)
				}
			}
			if n := passed(); sum(n) != 0 {
				t.Errorf("requests of the other rule passed the chain: %v", n)
			}
			for range 10 {
				if text, err := ask("/inspected"); err != nil || text != "/inspected by sign" {
					t.Fatalf("%q, %v", text, err)
				}
			}
			n := passed()
			// Two functions and the end, there and back: ten requests and ten answers at least.
			if len(n) != 6 {
				t.Errorf("places that packets passed: %v, want 6", n)
			}
			for _, v := range n {
				if v < 10 {
					t.Errorf("places passed %v packets, want each 10 at least", n)
					break
				}
			}
		})
	}
}
