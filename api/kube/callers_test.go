package kube

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Pods that serve nothing are named by their workload, at each site where they run, unless
// they share a node's network, do not run, or are endpoints that the mesh knows.
func TestCallers(t *testing.T) {
	pod := func(name, meta, spec, phase, ip string) string {
		return fmt.Sprintf("kind: Pod\nmetadata: {namespace: shop, name: %s, %s}\nspec: {%s}\nstatus: {phase: %s, podIP: %s}\n---\n", name, meta, spec, phase, ip)
	}
	owned := func(kind, name string) string {
		return "labels: {pod-template-hash: 5d9}, ownerReferences: [{kind: " + kind + ", name: " + name + ", controller: true}]"
	}
	text := `
kind: Node
metadata: {name: n1, labels: {mesh.meridian.dev/site: north}}
---
kind: Node
metadata: {name: n2, labels: {mesh.meridian.dev/site: south}}
---
kind: Service
metadata: {namespace: shop, name: cart, annotations: {mesh.meridian.dev/export: mesh}}
spec: {ports: [{port: 80}]}
---
kind: Service
metadata: {namespace: shop, name: quiet}
spec: {ports: [{port: 80}]}
---
kind: EndpointSlice
metadata: {namespace: shop, name: cart-1, labels: {kubernetes.io/service-name: cart}}
ports: [{name: "", port: 80}]
endpoints: [{addresses: [10.0.0.1], conditions: {ready: true}, nodeName: n1, targetRef: {kind: Pod, name: cart-1}}]
---
kind: EndpointSlice
metadata: {namespace: shop, name: quiet-1, labels: {kubernetes.io/service-name: quiet}}
ports: [{name: "", port: 80}]
endpoints: [{addresses: [10.0.0.6], conditions: {ready: true}, nodeName: n1, targetRef: {kind: Pod, name: quiet-1}}]
---
` +
		pod("cart-1", owned("ReplicaSet", "cart-5d9"), "nodeName: n1", "Running", "10.0.0.1") +
		pod("batch-2", owned("Job", "batch"), "nodeName: n1", "Running", "10.0.0.3") +
		pod("batch-1", owned("Job", "batch"), "nodeName: n1", "Running", "10.0.0.2") +
		pod("batch-3", owned("Job", "batch"), "nodeName: n2", "Running", "10.0.1.2") +
		pod("done", owned("Job", "batch"), "nodeName: n1", "Succeeded", "10.0.0.4") +
		pod("agent", owned("DaemonSet", "agent"), "nodeName: n1, hostNetwork: true", "Running", "192.0.2.1") +
		pod("waits", owned("ReplicaSet", "web-5d9"), "", "Pending", `""`) +
		pod("quiet-1", owned("StatefulSet", "quiet"), "nodeName: n1", "Running", "10.0.0.6") +
		pod("odd", "labels: {app: My_App}", "nodeName: n1", "Running", "10.0.0.7") +
		pod("web-5d9-x", owned("ReplicaSet", "web-5d9"), "nodeName: n2", "Running", "10.0.1.3")
	in := read(t, strings.TrimSuffix(text, "---\n"))
	slices.Reverse(in.Pods) // the order is nothing to go by
	out := Translate(in, noon)
	var got []string
	for _, c := range out.Objects.Callers {
		got = append(got, fmt.Sprint(c.Metadata.Name, " ", c.Metadata.Labels[SiteLabel], " ", c.Who(), " ", c.Spec.Addresses))
	}
	want := []string{
		"batch-north north c1/shop/batch [10.0.0.2 10.0.0.3]",
		"batch-south south c1/shop/batch [10.0.1.2]",
		"quiet-north north c1/shop/quiet [10.0.0.6]",
		"web-south south c1/shop/web [10.0.1.3]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("callers are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !slices.ContainsFunc(out.Notices, func(s string) bool { return strings.Contains(s, "workload shop/My_App: its name") }) {
		t.Errorf("nobody is told of a name that cannot be: %q", out.Notices)
	}
	if err := mesh.Validate(&out.Objects); err != nil {
		t.Error(err)
	}
}
