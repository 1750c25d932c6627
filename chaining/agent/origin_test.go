package agent

import (
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/chaining/flow"
	"github.com/meridian-mesh/meridian/chaining/path"
)

const origins = `
apiVersion: mesh.meridian.dev/v1alpha1
kind: ChainNode
metadata: {name: edge}
spec:
  ports:
  - {interface: n6a, dnn: internet, slice: 1-0000D1, sourceSite: north}
  - {interface: n6b, dnn: internet, slice: "2"}
  - {interface: lan}
  - {interface: out}
  pools:
  - {prefixes: [10.60.0.0/16, "fd60::/32"], dnn: internet, slice: 1-0000d1}
  - {prefixes: [10.61.0.0/16], dnn: ims}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: nat}
spec:
  state: interface
  capacity: {concurrency: 4, serviceTime: 1ms}
  instances: [{name: nat-1, node: edge, pairs: [{left: nl, right: nr}, {left: ml, right: mr}]}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: filter}
spec:
  instances: [{name: filter-1, node: edge, left: fl, right: fr}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ServiceChain
metadata: {name: users}
spec:
  functions: [nat]
  symmetric: false
  ingress: {node: edge}
  egress: {node: edge, interface: out}
  match: [{MATCH}]
  branches: [{after: nat, chain: dirty, match: {protocols: [udp], destinationPorts: ["53"]}}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ServiceChain
metadata: {name: dirty}
spec:
  functions: [filter, nat]
  symmetric: false
  ingress: {node: edge}
  egress: {node: edge, interface: out}
  match: [{destinations: [203.0.113.0/24]}]
`

func compileOrigins(t *testing.T, match string) (*path.Plan, *path.Table, error) {
	t.Helper()
	o := parse(t, strings.ReplaceAll(origins, "MATCH", match))
	plan, err := makePlan(o, nil)
	if err != nil {
		return nil, nil, err
	}
	d, err := domainOf(o, nil, "edge", fakeMachine{})
	if err != nil {
		return nil, nil, err
	}
	table, err := path.Compile(&path.View{Plan: plan}, d, "edge")
	return plan, table, err
}

// Traffic is of a chain by where its port, or its address, says that it comes from.
func TestOrigins(t *testing.T) {
	for _, tt := range []struct{ match, want string }{
		{"dnns: [internet]", "n6a any, n6b any, any 10.60.0.0/16, any fd60::/32"},
		{"dnns: [internet], slices: [1-0000d1]", "n6a any, any 10.60.0.0/16, any fd60::/32"},
		{"dnns: [internet], slices: [\"2\"]", "n6b any"},
		{"sourceSites: [north]", "n6a any"},
		{"dnns: [ims, internet], interfaces: [n6b, lan]", "n6b any, n6b 10.60.0.0/16, n6b fd60::/32, n6b 10.61.0.0/16, lan 10.60.0.0/16, lan fd60::/32, lan 10.61.0.0/16"},
		{"dnns: [internet], slices: [1-0000d1], sources: [10.60.7.0/24, 10.0.0.0/8]", "n6a 10.60.7.0/24, n6a 10.0.0.0/8, any 10.60.7.0/24, any 10.60.0.0/16"},
	} {
		_, table, err := compileOrigins(t, tt.match)
		if err != nil {
			t.Errorf("%s: %v", tt.match, err)
			continue
		}
		var got []string
		for _, r := range table.Rules {
			if table.Classes[r.Class].Chain != "default/users" {
				continue
			}
			port, src := "any", "any"
			if r.Port != path.NoPort {
				port = table.Ports[r.Port].Interface
			}
			if r.Src.IsValid() {
				if src = r.Src.String(); r.Src.Addr().Is4In6() {
					src = r.Src.Addr().Unmap().String() + "/" + strings.TrimPrefix(map[int]string{104: "/8", 112: "/16", 120: "/24"}[r.Src.Bits()], "/")
				}
			}
			got = append(got, port+" "+src)
		}
		if s := strings.Join(got, ", "); s != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.match, s, tt.want)
		}
	}
	if _, _, err := compileOrigins(t, "dnns: [voice]"); err == nil || !strings.Contains(err.Error(), "default/users: match[0]: no port or pool of ChainNode edge that the rest of the match leaves is of DNN voice") {
		t.Errorf("%v", err)
	}
}

// What an AfSfcRequirement asks for stands in the table as a match of its chain would; one
// that is not in force leaves the others as they are.
func TestRequirementInTable(t *testing.T) {
	o := parse(t, strings.ReplaceAll(origins, "MATCH", "sources: [10.1.0.0/16]")+`
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: AfSfcRequirement
metadata: {name: voice}
spec: {afSfcReq: {sfcIdUl: users}, dnn: ims, ueIpv4: 10.61.0.7}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: AfSfcRequirement
metadata: {name: lost}
spec: {afSfcReq: {sfcIdUl: users}, dnn: nowhere}
`).OfPackets()
	plan, err := makePlan(o, nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := domainOf(o, nil, "edge", fakeMachine{})
	if err != nil {
		t.Fatal(err)
	}
	table, err := path.Compile(&path.View{Plan: plan}, d, "edge")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range table.Rules {
		if table.Classes[r.Class].Chain == "default/users" {
			got = append(got, r.Src.Addr().Unmap().String())
		}
	}
	if s := strings.Join(got, " "); s != "10.1.0.0 10.61.0.7" {
		t.Errorf("users are classified by %q", s)
	}
}

// A branch is a stop, a function of state interface has a pair for each place, and
// its capacity is the plan's.
func TestBranchesAndPairs(t *testing.T) {
	plan, table, err := compileOrigins(t, "dnns: [internet]")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range plan.Chains {
		if c.Refused != "" {
			t.Error(c.Refused)
		}
	}
	users, dirty := plan.Path(plan.Find("default/users").SPIs[0]), plan.Path(plan.Find("default/dirty").SPIs[0])
	if len(users.Stops) != 2 || users.Stops[1].Branches == nil || users.LatencyMS < 1 {
		t.Errorf("%+v", users)
	}
	if len(table.Branches) != 1 || len(table.Branches[0]) != 1 || table.Branches[0][0].Proto != flow.ProtoUDP {
		t.Errorf("%+v", table.Branches)
	}
	fixed := map[string]path.Hop{}
	for _, p := range table.Ports {
		fixed[p.Interface] = p.Fixed
	}
	want := map[path.Hop]bool{{SPI: users.SPI, SI: 255}: true, {SPI: dirty.SPI, SI: 254}: true}
	if !want[fixed["nr"]] || !want[fixed["mr"]] || fixed["nr"] == fixed["mr"] {
		t.Errorf("pairs come back at %v and %v, want %v", fixed["nr"], fixed["mr"], want)
	}
	if _, _, err := compileOrigins(t, "dnns: [internet]}, {destinations: [198.51.100.0/24]"); err != nil {
		t.Error(err)
	}
}
