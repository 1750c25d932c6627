package mesh

import (
	"strings"
	"testing"
)

// TestCodePoint: which chains of packets a route can name, and what it says of others.
func TestCodePoint(t *testing.T) {
	const packets = "{functions: [f], ingress: {node: edge}, egress: {node: edge}, match: [MATCH]}"
	for _, tt := range []struct {
		spec string
		want uint8
		why  string
	}{
		{strings.Replace(packets, "MATCH", "{dscp: [10]}", 1), 10, ""},
		{strings.Replace(packets, "MATCH", "{dscp: [63], sources: [10.0.0.0/8]}, {dscp: [63]}", 1), 63, ""},
		{strings.Replace(packets, "MATCH", "{dscp: [10]}, {dscp: [11]}", 1), 0, "the same dscp"},
		{strings.Replace(packets, "MATCH", "{dscp: [10, 11]}", 1), 0, "the same dscp"},
		{strings.Replace(packets, "MATCH", "{dscp: [10]}, {protocols: [tcp]}", 1), 0, "the same dscp"},
		{strings.Replace(packets, "MATCH", "{dscp: [0]}", 1), 0, "the same dscp"},
		{strings.Replace(packets, ", match: [MATCH]", "", 1), 0, "the same dscp"},
		{"{functions: [f], ingress: {gateway: g}, match: [{}]}", 0, "has an ingress of its own"},
		{"{functions: [f]}", 0, "has an ingress of its own"},
	} {
		o := mustParse(t, "apiVersion: mesh.meridian.dev/v1alpha1\nkind: ServiceChain\nmetadata: {name: c}\nspec: "+tt.spec+"\n")
		c := o.ServiceChains[0]
		dscp, ok := c.Spec.CodePoint()
		why := c.NoCodePoint()
		if ok && dscp != tt.want || ok != (tt.want != 0) || (why == "") != ok || !strings.Contains(why, tt.why) {
			t.Errorf("%s: %d, %v, %q, want %d, %q", tt.spec, dscp, ok, why, tt.want, tt.why)
		}
	}
}
