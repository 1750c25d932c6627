package mesh

import (
	"fmt"
	"strings"
	"testing"
)

// TestRequirementMetadata: chains of requirements with metadata, and where there can be none.
func TestRequirementMetadata(t *testing.T) {
	const functions = `
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: f}
spec: %s
`
	const plain = "{instances: [{name: f-1, node: upf, left: l, right: r}]}"
	const pairs = "{state: interface, instances: [{name: f-1, node: upf, pairs: [{left: l, right: r}]}]}"
	for _, tt := range []struct{ spec, function, want string }{
		{"{afSfcReq: {sfcIdUl: both, sfcIdDl: both, metadata: gold}, dnn: internet}", plain, "both@r: gold [internet]; both: ; up: ; down: ; requests: "},
		{"{afSfcReq: {sfcIdUl: up, sfcIdDl: down, metadata: gold}, ueIpv4: 10.60.0.7}", plain, "both: ; up@r: gold []; up: ; down@r: gold []; down: ; requests: "},
		{"{afSfcReq: {sfcIdUl: up, metadata: gold}, dnn: ims}", pairs, "both: ; up: ; down: ; requests: ; metadata UnsupportedFunction"},
		{"{afSfcReq: {sfcIdUl: up}, dnn: ims}", pairs, "both: ; up: ; down: ; requests: "},
	} {
		o := mustParse(t, fmt.Sprintf(sfcChains, tt.spec)+fmt.Sprintf(functions, tt.function))
		var got []string
		for _, c := range o.withRequirements() {
			text := c.Metadata.Name + ": " + c.SfcMetadata()
			if c.SfcMetadata() != "" {
				text += fmt.Sprint(" ", c.Spec.Match[0].DNNs)
				if len(c.Spec.Match) != 1 || c.Spec.Demand != nil {
					t.Errorf("%s: %+v", tt.spec, c.Spec)
				}
				if base := ChainOfRequirement(c.Metadata.Name); base == c.Metadata.Name || !strings.HasPrefix(c.Metadata.Name, base+"@") {
					t.Errorf("%s is made from %s", c.Metadata.Name, base)
				}
			}
			got = append(got, text)
		}
		for _, c := range Check(o) {
			if c.Object.Kind == KindAfSfcRequirement {
				got = append(got, strings.TrimPrefix(c.Path, "spec.afSfcReq.")+" "+c.Reason)
			}
		}
		if s := strings.Join(got, "; "); s != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.spec, s, tt.want)
		}
	}
}
