package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/chaining/nsh"
	"github.com/meridian-mesh/meridian/chaining/path"
)

const metadataChains = `
apiVersion: mesh.meridian.dev/v1alpha1
kind: ChainNode
metadata: {name: edge}
spec: {ports: [{interface: n6, dnn: internet}, {interface: out}]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: inspect}
spec: {attach: ethernet, instances: [{name: inspect-1, node: edge, left: i1}]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: filter}
spec: {instances: [{name: filter-1, node: edge, left: fl, right: fr}]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ServiceChain
metadata: {name: users}
spec:
  functions: [filter, inspect]
  ingress: {node: edge, interface: n6}
  egress: {node: edge, interface: out}
  match: [{dnns: [internet]}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: AfSfcRequirement
metadata: {name: a-all}
spec: {afSfcReq: {sfcIdUl: users, sfcIdDl: users, metadata: silver}, dnn: internet}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: AfSfcRequirement
metadata: {name: b-one}
spec: {afSfcReq: {sfcIdUl: users, sfcIdDl: users, metadata: METADATA}, dnn: internet, ueIpv4: 10.60.0.7}
`

// TestMetadata: a requirement's text is on the headers of paths of its own, in both
// directions, and the packets of a single user take the path that is theirs.
func TestMetadata(t *testing.T) {
	compiled := func(text string) (*path.Plan, *path.Table) {
		t.Helper()
		o := parse(t, text).OfPackets()
		plan, err := makePlan(o, nil)
		if err != nil {
			t.Fatal(err)
		}
		d, err := domainOf(o, nil, "edge", fakeMachine{})
		if err != nil {
			t.Fatal(err)
		}
		view := path.View{Plan: plan}
		table, err := path.Compile(&view, d, "edge")
		if err != nil {
			t.Fatal(err)
		}
		if faults := path.Verify(&view, map[string]*path.Table{"edge": table}); len(faults) > 0 {
			t.Fatal(faults)
		}
		return plan, table
	}
	plan, table := compiled(strings.ReplaceAll(metadataChains, "METADATA", "gold"))
	var order []string
	for _, r := range table.Rules {
		if name := table.Classes[r.Class].Chain; !slices.Contains(order, name) {
			order = append(order, name)
		}
	}
	if got, want := fmt.Sprint(order), "[default/users@b-one default/users@b-one/reverse default/users@a-all default/users@a-all/reverse default/users default/users/reverse]"; got != want {
		t.Errorf("rules are of %s\nwant %s", got, want)
	}
	told := map[string]string{"default/users": "", "default/users@a-all": "silver", "default/users@b-one": "gold"}
	if len(plan.Paths) != 6 {
		t.Errorf("%d paths", len(plan.Paths))
	}
	for _, p := range plan.Paths {
		for i := range p.Stops {
			h, ok := table.Hops[path.Hop{SPI: p.SPI, SI: path.SI(i)}]
			want := told[p.Chain]
			if h.Kind == path.KindPlain {
				want = "" // nobody reads it there
			}
			if !ok || h.Metadata != want {
				t.Errorf("%s, reversed %v, stop %d: %v says %q, want %q", p.Chain, p.Reversed, i, h.Kind, h.Metadata, want)
			}
		}
	}

	// Another text is another path, so that packets under way are not mistaken; the
	// others stay as they are.
	again, _ := compiled(strings.ReplaceAll(metadataChains, "METADATA", "lead"))
	for _, c := range plan.Chains {
		same := slices.Equal(c.SPIs, again.Find(c.Chain).SPIs)
		if same == (c.Chain == "default/users@b-one") {
			t.Errorf("%s: paths %v, then %v", c.Chain, c.SPIs, again.Find(c.Chain).SPIs)
		}
	}
}

// What documents may say is what a header has room for.
func TestMetadataFits(t *testing.T) {
	for n, fits := range map[int]bool{nsh.MaxMetadata: true, nsh.MaxMetadata + 1: false} {
		_, err := mesh.ParseYAML("chains.yaml", []byte(strings.ReplaceAll(metadataChains, "METADATA", strings.Repeat("x", n))))
		if (err == nil) != fits {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}
