package path

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/chaining/flow"
)

// threeNodes are nodes a, b and c in a line, with firewalls at a and b, a NAT at b
// and a tagger at c.
func threeNodes() (*Domain, []Link, []Instance) {
	d := &Domain{VNI: 5}
	for i, name := range []string{"a", "b", "c"} {
		d.Nodes = append(d.Nodes, Node{Name: name, Site: "s", Underlay: "under0", UnderlayMTU: 1500,
			Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}),
			Ingress: []IngressPort{{Interface: "edge0", Zone: uint16(i + 1), MTU: 1500}}})
	}
	at := func(instance, function, node string, kind Kind, state State) {
		a := Attachment{Instance: instance, Function: function, Node: node, Kind: kind, State: state, Left: instance + "-l", Right: instance + "-r", MTU: 1500}
		if kind == KindGPE {
			a.Right, a.Local, a.Address = "", netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")
		}
		if state == StateInterface {
			a.Pairs = []Pair{{Left: a.Left, Right: a.Right}}
			a.Left, a.Right = "", ""
		}
		d.Attachments = append(d.Attachments, a)
	}
	at("fw-a", "firewall", "a", KindPlain, StateFlow)
	at("fw-b", "firewall", "b", KindPlain, StateFlow)
	at("nat-b", "nat", "b", KindPlain, StateInterface)
	at("tag-c", "tagger", "c", KindGPE, 0)
	links := []Link{{A: "a", B: "b", LatencyMS: 1, Mbps: 1000}, {A: "b", B: "c", LatencyMS: 2, Mbps: 1000}}
	var ins []Instance
	for _, a := range d.Attachments {
		ins = append(ins, Instance{Name: a.Instance, Function: a.Function, Node: a.Node, Slots: 1, ServiceMS: 0.1})
	}
	return d, links, ins
}

func network(t *testing.T, links []Link, ins []Instance) *Network {
	t.Helper()
	n, err := NewNetwork(nil, links, ins)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func webChain() Spec {
	return Spec{Chain: "default/web", Functions: []string{"firewall", "nat", "tagger"}, Ingress: "a", Egress: "c", PerS: 100, Mbps: 10, Symmetric: true, ChangesTuple: true,
		Matches: []Match{{Interfaces: []string{"edge0"}, Protos: []uint8{flow.ProtoTCP}, DstPorts: []Span{{80, 80}, {443, 443}}, Src: []Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}}
}

func compileAll(t *testing.T, v *View, d *Domain) map[string]*Table {
	t.Helper()
	tables := map[string]*Table{}
	for _, n := range d.Nodes {
		table, err := Compile(v, d, n.Name)
		if err != nil {
			t.Fatal(err)
		}
		tables[n.Name] = table
	}
	return tables
}

func TestCompile(t *testing.T) {
	d, links, ins := threeNodes()
	plan := Make(nil, []Spec{webChain()}, network(t, links, ins))
	if len(plan.Paths) != 2 || plan.Chains[0].Refused != "" {
		t.Fatalf("plan: %+v", plan)
	}
	there, back := plan.Paths[0], plan.Paths[1]
	if there.Stops[1].Instance != "nat-b" || back.Stops[0].Instance != "tag-c" || there.Back != back.SPI || back.Back != there.SPI || back.SPI != there.SPI|ReversedBit {
		t.Errorf("there %+v, back %+v", there, back)
	}
	v := &View{Plan: plan}
	tables := compileAll(t, v, d)
	if faults := Verify(v, tables); faults != nil {
		t.Fatal(faults)
	}
	a, b, c := tables["a"], tables["b"], tables["c"]
	if len(a.Rules) != 2 || len(c.Rules) != 0 {
		t.Errorf("a has rules %v, c, behind a NAT, %v", a.Rules, c.Rules)
	}
	if r := a.Rules[0]; r.Src.Bits() != 104 || r.DstPort != (Span{80, 80}) || r.Proto != flow.ProtoTCP {
		t.Errorf("rule %+v", r)
	}
	if got := a.Paths[there.SPI].MTU; got != 1440 {
		t.Errorf("MTU %d, want 1440: 1500 less VXLAN-GPE and NSH", got)
	}
	end := c.Hops[Hop{there.SPI, 252}]
	if end.Kind != KindEnd || end.Reverse != back.SPI || c.Paths[back.SPI].MTU != 1440 {
		t.Errorf("end %+v, paths at c %v", end, c.Paths)
	}
	if end := a.Hops[Hop{back.SPI, 252}]; end.Kind != KindEnd || end.Reverse != 0 {
		t.Errorf("the way back teaches: %+v", end)
	}
	// The NAT's interfaces say where on which path a packet is.
	in, out := b.Ports[must(b.PortByName("nat-b-l"))], b.Ports[must(b.PortByName("nat-b-r"))]
	if out.Fixed != (Hop{there.SPI, 254}) || in.Fixed != (Hop{back.SPI, 254}) {
		t.Errorf("pair is left %v, right %v", in.Fixed, out.Fixed)
	}
	// And the way back goes in on the other side.
	if p := b.Hops[Hop{back.SPI, 254}].Port; b.Ports[p].Interface != "nat-b-r" {
		t.Errorf("the way back goes in by %s", b.Ports[p].Interface)
	}
}

func must[T any](v T, ok bool) T {
	if !ok {
		panic("is not there")
	}
	return v
}

// TestReversedRules: without a NAT the node at the end knows the answers by itself.
func TestReversedRules(t *testing.T) {
	d, links, ins := threeNodes()
	s := webChain()
	s.Functions, s.ChangesTuple, s.Paths = []string{"firewall", "tagger"}, false, 2
	// Both firewalls are needed for the load, so there are two paths.
	s.PerS, ins[3].Slots = 9000, 4
	plan := Make(nil, []Spec{s}, network(t, links, ins))
	if len(plan.Chains[0].SPIs) != 2 {
		t.Fatalf("paths %v: %s", plan.Chains[0].SPIs, plan.Chains[0].Refused)
	}
	v := &View{Plan: plan}
	tables := compileAll(t, v, d)
	if faults := Verify(v, tables); faults != nil {
		t.Fatal(faults)
	}
	rules := tables["c"].Rules
	if len(rules) != 2 || rules[0].SrcPort != (Span{80, 80}) || rules[0].Dst.Bits() != 104 {
		t.Fatalf("rules at c: %+v", rules)
	}
	// A flow and its answers choose the same instances.
	for port := range uint16(500) {
		k := flow.Key{Src: [16]byte{15: 1}, Dst: [16]byte{15: 2}, SrcPort: 1024 + port, DstPort: 80, Proto: flow.ProtoTCP}
		r := k.Reverse(3)
		there, _ := tables["a"].Classes[tables["a"].Rules[0].Class].Choose(k.Hash())
		back, _ := tables["c"].Classes[rules[0].Class].Choose(r.Hash())
		if plan.Path(there).Back != back {
			t.Fatalf("%v takes path %d, its answers %d", k, there, back)
		}
	}
}

// TestChanges: each view is whole, and what it keeps is what it must.
func TestChanges(t *testing.T) {
	for _, immediate := range []bool{false, true} {
		d, links, ins := threeNodes()
		s := webChain()
		s.Immediate = immediate
		old := Make(nil, []Spec{s}, network(t, links, ins))
		same := Make(old, []Spec{s}, network(t, links, ins))
		if same.Paths[0].SPI != old.Paths[0].SPI || len(Changes(old, same)) != 1 {
			t.Error("the same chain was moved")
		}
		first := old.Paths[0].Stops[0].Instance
		ins[slices.IndexFunc(ins, func(i Instance) bool { return i.Name == first })].Down = true
		next := Make(same, []Spec{s}, network(t, links, ins))
		if next.Paths[0].Stops[0].Instance == first || next.Paths[0].SPI <= old.Paths[0].SPI {
			t.Fatalf("paths %+v", next.Paths)
		}
		var names []string
		// Interface pairs are per place: while both paths live the NAT needs two.
		d.Attachments[2].Pairs = append(d.Attachments[2].Pairs, Pair{Left: "l2", Right: "r2"})
		for _, v := range Changes(old, next) {
			names = append(names, v.Name)
			tables := compileAll(t, &v, d)
			if faults := Verify(&v, tables); faults != nil {
				t.Fatalf("%s: %v", v.Name, faults)
			}
			a := tables["a"]
			_, oldLive := a.Paths[old.Paths[0].SPI]
			_, oldHop := a.Hops[Hop{old.Paths[0].SPI, 255}]
			spi := a.Classes[0].Spread[0]
			switch v.Name {
			case "add":
				if !oldLive || spi != old.Paths[0].SPI {
					t.Errorf("add: new flows take %d", spi)
				}
			case "flip":
				if oldLive == immediate || !oldHop || spi != next.Paths[0].SPI {
					t.Errorf("flip (immediate %v): old path followed %v, forwarded %v; new flows take %d", immediate, oldLive, oldHop, spi)
				}
			case "drain":
				if oldLive || !oldHop {
					t.Errorf("drain: old path followed %v, forwarded %v", oldLive, oldHop)
				}
			case "remove":
				if oldLive || oldHop {
					t.Error("remove: old path is there")
				}
			}
		}
		want := "add flip drain remove"
		if immediate {
			want = "add flip remove"
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("steps %s, want %s", got, want)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Spec, []Instance, *[]Link)
		want   string
	}{
		{"no such function", func(s *Spec, _ []Instance, _ *[]Link) { s.Functions[1] = "cache" }, "function cache has no instance"},
		{"all down", func(_ *Spec, ins []Instance, _ *[]Link) { ins[2].Down = true }, "none of the 1 instances of nat is up"},
		{"no room", func(s *Spec, _ []Instance, _ *[]Link) { s.PerS = 1e5 }, "has room for"},
		{"no way", func(_ *Spec, _ []Instance, l *[]Link) { *l = (*l)[:1] }, "lead to an instance of tagger"},
		{"links too small", func(s *Spec, _ []Instance, _ *[]Link) { s.Mbps = 2000 }, "no links with room for 2000 Mbit/s"},
		{"too slow", func(s *Spec, _ []Instance, _ *[]Link) { s.BudgetMS = 2 }, "latency budget of 2.0 ms cannot be kept: the fastest way with room takes 3."},
		{"no such node", func(s *Spec, _ []Instance, _ *[]Link) { s.Egress = "z" }, `egress node "z" is not in the topology`},
		{"too long", func(s *Spec, _ []Instance, _ *[]Link) { s.Functions = slices.Repeat([]string{"firewall"}, 255) }, "the service index allows 254"},
		{"round", func(s *Spec, _ []Instance, _ *[]Link) { s.Branches = []Branch{{After: "nat", Chain: "default/web"}} }, "branches lead round: default/web -> default/web"},
		{"nowhere", func(s *Spec, _ []Instance, _ *[]Link) { s.Branches = []Branch{{After: "nat", Chain: "default/x"}} }, "branches to default/x, which is not there"},
	} {
		_, links, ins := threeNodes()
		s := webChain()
		c.change(&s, ins, &links)
		n, err := NewNetwork([]string{"c"}, links, ins)
		if err != nil {
			t.Fatal(err)
		}
		plan := Make(nil, []Spec{s}, n)
		if got := plan.Chains[0].Refused; !strings.Contains(got, c.want) {
			t.Errorf("%s: refused with %q, want %q", c.name, got, c.want)
		}
		if len(plan.Paths) != 0 {
			t.Errorf("%s: paths %v", c.name, plan.Paths)
		}
	}
}

// TestBranch: a branch goes on as another chain, else on its own.
func TestBranch(t *testing.T) {
	d, links, ins := threeNodes()
	s := webChain()
	s.Functions, s.Symmetric = []string{"firewall", "tagger"}, false
	s.Branches = []Branch{{After: "firewall", Match: Match{DstPorts: []Span{{443, 443}}}, Chain: "default/tls"}}
	tls := Spec{Chain: "default/tls", Functions: []string{"nat"}, Ingress: "b", Egress: "c", PerS: 1}
	plan := Make(nil, []Spec{s, tls}, network(t, links, ins))
	v := &View{Plan: plan}
	tables := compileAll(t, v, d)
	if faults := Verify(v, tables); faults != nil {
		t.Fatal(faults)
	}
	web := plan.Paths[0]
	at := tables[web.Stops[0].Node]
	h := at.Hops[Hop{web.SPI, 254}]
	if h.Kind != KindBranch || len(at.Branches[h.Branch]) != 1 {
		t.Fatalf("hop %+v", h)
	}
	spi, _ := at.Classes[at.Branches[h.Branch][0].Class].Choose(1)
	if _, ok := at.Hops[Hop{spi, 255}]; !ok || plan.Path(spi).Chain != "default/tls" {
		t.Errorf("branch leads to path %d", spi)
	}
}

// TestOpen: a function that may be left out is, and only while it is down.
func TestOpen(t *testing.T) {
	_, links, ins := threeNodes()
	s := webChain()
	s.OpenFunctions = []string{"nat"}
	if p := Make(nil, []Spec{s}, network(t, links, ins)); len(p.Paths[0].Stops) != 3 || p.Chains[0].Bypassed != nil {
		t.Errorf("plan %+v", p)
	}
	ins[2].Down = true
	if p := Make(nil, []Spec{s}, network(t, links, ins)); len(p.Paths[0].Stops) != 2 || !slices.Equal(p.Chains[0].Bypassed, []string{"nat"}) {
		t.Errorf("plan %+v", p)
	}
}

// TestVerify: each fault is seen.
func TestVerify(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(map[string]*Table, uint32)
		want  string
	}{
		{"dangling", func(ts map[string]*Table, spi uint32) { delete(ts["b"].Hops, Hop{spi, 254}) }, "dangling: node b has no hop for SI 254"},
		{"loop", func(ts map[string]*Table, spi uint32) {
			h := ts["a"].Hops[Hop{spi, 254}]
			h.Remote = ts["a"].Ports[1].Address
			ts["a"].Hops[Hop{spi, 254}] = h
		}, "loop at node a"},
		{"stranger", func(ts map[string]*Table, spi uint32) {
			h := ts["a"].Hops[Hop{spi, 254}]
			h.Remote = netip.MustParseAddr("203.0.113.1")
			ts["a"].Hops[Hop{spi, 254}] = h
		}, "where no node of the domain listens"},
		{"short", func(ts map[string]*Table, spi uint32) { ts["b"].Hops[Hop{spi, 254}] = NextHop{Kind: KindEnd} }, "ends at node b instead of c"},
		{"underflow", func(ts map[string]*Table, spi uint32) {
			for si := range 256 {
				if h := ts["b"].Hops[Hop{spi, uint8(si)}]; h.Kind != KindPlain {
					ts["b"].Hops[Hop{spi, uint8(si)}] = NextHop{Kind: KindBranch}
				}
			}
		}, "SI runs out"},
		{"class", func(ts map[string]*Table, _ uint32) { ts["a"].Classes[0].Spread = []uint32{77} }, "class default/web leads to path 77"},
	} {
		d, links, ins := threeNodes()
		plan := Make(nil, []Spec{webChain()}, network(t, links, ins))
		v := &View{Plan: plan}
		tables := compileAll(t, v, d)
		for i := range plan.Paths {
			if plan.Paths[i].Stops[0].Instance != "fw-a" && !plan.Paths[i].Reversed {
				t.Fatalf("path %+v", plan.Paths[i])
			}
		}
		c.spoil(tables, plan.Paths[0].SPI)
		if got := fmt.Sprint(Verify(v, tables)); !strings.Contains(got, c.want) {
			t.Errorf("%s: %s, want %q", c.name, got, c.want)
		}
	}
}

// TestTwice: what a chain passes twice must have room for both times.
func TestTwice(t *testing.T) {
	ins := []Instance{{Name: "near", Function: "f", Node: "a", Slots: 1, ServiceMS: 10}, {Name: "far", Function: "f", Node: "b", Slots: 4, ServiceMS: 10}}
	n := network(t, []Link{{A: "a", B: "b", LatencyMS: 50, Mbps: 10}}, ins)
	d := Demand{Name: "c", Functions: []string{"f", "f"}, Ingress: "a", Egress: "a", PerS: 30, Mbps: 1}
	if p, err := n.Place(d); err != nil || !slices.Equal(p.Instances, []string{"near", "near"}) {
		t.Fatalf("%+v, %v", p, err)
	}
	// Of 100/s 60 are taken: 30 more fit, 60 do not.
	if p, err := n.Place(d); err != nil || slices.Equal(p.Instances, []string{"near", "near"}) {
		t.Fatalf("%+v, %v", p, err)
	}
	// The link: there and back are two directions, so 6 of 10 Mbit/s fit once each,
	// and nothing that crosses it twice in one.
	d = Demand{Name: "c", Functions: []string{"g", "f", "g"}, Ingress: "a", Egress: "a", PerS: 1, Mbps: 6}
	n = network(t, []Link{{A: "a", B: "b", LatencyMS: 1, Mbps: 10}}, []Instance{{Name: "g", Function: "g", Node: "b", Slots: 1, ServiceMS: 1}, {Name: "f", Function: "f", Node: "a", Slots: 1, ServiceMS: 1}})
	if p, err := n.Place(d); err == nil {
		t.Fatalf("a link of 10 Mbit/s carries 6 twice: %+v", p)
	}
}

func TestBoundWeights(t *testing.T) {
	got := BoundWeights([]int{1, 1, 0}, []float64{90, 10, 0}, 1.25)
	// The first has 90 % where 62.5 % are allowed.
	if !slices.Equal(got, []int{69, 100, 0}) {
		t.Errorf("weights %v", got)
	}
	if got := BoundWeights([]int{1, 3}, []float64{1, 3}, 1.25); !slices.Equal(got, []int{100, 300}) {
		t.Errorf("even load gives %v", got)
	}
}
