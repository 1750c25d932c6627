package agent

import (
	"maps"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

func TestNeighbours(t *testing.T) {
	o, err := mesh.ParseSources([]mesh.Source{{Name: "chains.yaml", Data: []byte(`apiVersion: mesh.meridian.dev/v1alpha1
kind: ChainNode
metadata: {name: a}
spec:
  site: north
  ports: [{interface: c0}]
  underlay: {interface: u, address: 10.0.0.1}
  border: {interface: w, address: 198.51.100.1}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ChainNode
metadata: {name: b}
spec: {site: north, ports: [{interface: s0}], underlay: {interface: u, address: 10.0.0.2}, border: {interface: w, address: 198.51.100.2}}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ChainNode
metadata: {name: c}
spec: {site: south, underlay: {interface: u, address: 10.0.0.3}, border: {interface: w, address: 198.51.100.3}}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ChainNode
metadata: {name: d}
spec: {site: south, ports: [{interface: c0}], underlay: {interface: u, address: 10.0.0.4}}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: f}
spec:
  instances:
  - {name: f-a, node: a, left: f, right: g, leftMAC: "02:00:00:00:00:01", rightMAC: "02:00:00:00:00:02"}
  - {name: f-b, node: b, left: f, right: g, leftMAC: "02:00:00:00:00:01", rightMAC: "02:00:00:00:00:02"}
  - {name: f-c, node: c, left: f, right: g, leftMAC: "02:00:00:00:00:01", rightMAC: "02:00:00:00:00:02"}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ServiceChain
metadata: {name: web}
spec:
  functions: [f]
  ingress: {node: a, interface: c0}
  egress: {node: b, interface: s0}
  match: [{sources: [10.1.0.0/24]}]
`)}})
	if err != nil {
		t.Fatal(err)
	}
	for node, want := range map[string]map[string]string{
		"a": {"b": "10.0.0.2", "c": "198.51.100.3"}, // its site's underlay, the other's border
		"b": {"a": "10.0.0.1", "c": "198.51.100.3"}, // where the way back begins
		"c": {},                                     // it classifies nothing
		"d": {},                                     // no chain is its
		"e": {},
	} {
		if got := neighbours(o, node); !maps.Equal(got, want) {
			t.Errorf("%s asks %v, want %v", node, got, want)
		}
	}
	from, to := o.ChainNodes[3], o.ChainNodes[0]
	if a := addressFrom(from, to); a != "10.0.0.1" {
		t.Errorf("without a border of its own d sends to %q", a)
	}
}
