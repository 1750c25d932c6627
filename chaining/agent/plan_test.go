package agent

import (
	"net"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/chaining/path"
)

const twoNodes = `
apiVersion: mesh.meridian.dev/v1alpha1
kind: ChainNode
metadata: {name: a}
spec: {ports: [{interface: c0}], underlay: {interface: u0, address: 192.0.2.1}}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ChainNode
metadata: {name: b}
spec: {ports: [{interface: s0}], underlay: {interface: u0, address: 192.0.2.2}}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: firewall}
spec:
  instances:
  - {name: fw-1, node: a, left: f1l, right: f1r}
  - {name: fw-2, node: b, left: f2l, right: f2r}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: bridge}
spec:
  state: mac
  failureMode: open
  instances: [{name: br-1, node: b, left: b1l, right: b1r}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ServiceChain
metadata: {name: web}
spec:
  functions: [firewall, bridge]
  ingress: {node: a}
  egress: {node: b, interface: s0}
  match: [{sources: [10.1.0.0/24], protocols: [tcp], destinationPorts: ["80", "8000-8999"]}]
`

// fakeMachine has every interface, numbered by name.
type fakeMachine struct{}

func (fakeMachine) device(name string) (*net.Interface, error) {
	mac := net.HardwareAddr{2, 0, 0, 0, name[0], name[len(name)-1]}
	return &net.Interface{Index: 1, MTU: 1500, Name: name, HardwareAddr: mac}, nil
}

func (fakeMachine) neighbour(string) (net.HardwareAddr, error) {
	return net.HardwareAddr{2, 0, 0, 0, 9, 9}, nil
}

func (fakeMachine) wholePackets(string) error { return nil }

func parse(t *testing.T, text string) *mesh.Objects {
	t.Helper()
	o, err := mesh.ParseYAML("chains.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func planOf(t *testing.T, o *mesh.Objects, down ...string) *path.Plan {
	t.Helper()
	set := map[string]bool{}
	for _, d := range down {
		set[d] = true
	}
	p, err := makePlan(o, set)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Documents lead every node to the same paths, and these lead where they should.
func TestDocumentsToTables(t *testing.T) {
	o := parse(t, twoNodes)
	plan := planOf(t, o)
	view := path.View{Name: "flip", Plan: plan}
	tables := map[string]*path.Table{}
	for _, node := range []string{"a", "b"} {
		d, err := domainOf(o, nil, node, fakeMachine{})
		if err != nil {
			t.Fatal(err)
		}
		if tables[node], err = path.Compile(&view, d, node); err != nil {
			t.Fatal(err)
		}
	}
	if faults := path.Verify(&view, tables); len(faults) > 0 {
		t.Fatal(faults)
	}
	if len(plan.Paths) != 2 || plan.Paths[0].Back != plan.Paths[0].SPI|path.ReversedBit {
		t.Fatalf("paths %+v", plan.Paths)
	}
	if rules := tables["a"].Rules; len(rules) != 2 || rules[1].DstPort != (path.Span{From: 8000, To: 8999}) {
		t.Errorf("rules %+v", rules)
	}
	// A bridge gets frames for the node's port behind it.
	for at, h := range tables["b"].Hops {
		if h.State == path.StateMAC && h.DstMAC != (path.MAC{2, 0, 0, 0, 'b', 'r'}) && h.DstMAC != (path.MAC{2, 0, 0, 0, 'b', 'l'}) {
			t.Errorf("hop %v to %v", at, h.DstMAC)
		}
	}
}

// A path has the same SPI in every plan that has it, whatever else was planned.
func TestPathsAreNamedByContent(t *testing.T) {
	o := parse(t, twoNodes)
	first := planOf(t, o)
	without := planOf(t, o, first.Paths[0].Stops[0].Instance)
	if without.Paths[0].SPI == first.Paths[0].SPI {
		t.Errorf("another instance, the same SPI %d", first.Paths[0].SPI)
	}
	if again := planOf(t, o); !samePlan(first, again) || samePlan(first, without) {
		t.Errorf("plans %+v and %+v", first.Paths, again.Paths)
	}
	more := parse(t, twoNodes+strings.ReplaceAll(twoNodes[strings.LastIndex(twoNodes, "---"):], "name: web", "name: another"))
	if p := planOf(t, more).Find("default/web"); len(p.SPIs) != 1 || p.SPIs[0] != first.Paths[0].SPI {
		t.Errorf("beside another chain: %+v", p)
	}
}

// Functions that may be left out are; a chain that may not pass has no path.
func TestFailureModes(t *testing.T) {
	o := parse(t, twoNodes)
	if c := planOf(t, o, "br-1").Find("default/web"); len(c.Bypassed) != 1 || c.Refused != "" {
		t.Errorf("without the bridge: %+v", c)
	}
	if c := planOf(t, o, "fw-1", "fw-2").Find("default/web"); c.Refused == "" || len(c.SPIs) != 0 {
		t.Errorf("without firewalls: %+v", c)
	}
}

// Flows are not left on paths through what is down, but on those of a mere change.
func TestViewsLeaveTheDead(t *testing.T) {
	o := parse(t, twoNodes)
	from := planOf(t, o)
	dead := from.Paths[0].Stops[0].Instance
	to := planOf(t, o, dead)
	lingering := func(down map[string]bool) (n int) {
		for _, v := range viewsTo(from, to, down) {
			if v.Name == "flip" {
				n = len(v.AlsoLive)
			}
		}
		return n
	}
	if n := lingering(map[string]bool{dead: true}); n != 0 {
		t.Errorf("%d dead paths may keep flows", n)
	}
	if lingering(nil) == 0 {
		t.Error("a change takes flows off paths that work")
	}
}

func TestStreak(t *testing.T) {
	s := streak{failures: 2, successes: 3}
	var got strings.Builder
	for _, c := range "+-+--+-++-+++-" {
		if s.add(c == '+') {
			got.WriteByte('!')
		}
		if s.down {
			got.WriteByte('d')
		} else {
			got.WriteByte('u')
		}
	}
	if got.String() != "uuuu!dddddddd!uu" {
		t.Errorf("states %s", got.String())
	}
}

func TestCheck(t *testing.T) {
	o := parse(t, twoNodes)
	if err := Check(o, "a"); err != nil {
		t.Error(err)
	}
	if err := Check(o, "c"); err == nil || !strings.Contains(err.Error(), "ChainNode c") {
		t.Errorf("an unknown node: %v", err)
	}
	o.ServiceChains[0].Spec.Functions = []string{"nowhere"}
	if err := Check(o, "a"); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("an unknown function: %v", err)
	}
}
