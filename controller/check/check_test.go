package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/membership"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// healthySite is a site whose proxy serves the newest snapshot.
func healthySite(name string) siteapi.SiteStatus {
	old := now.Add(-time.Hour)
	g := mesh.Generation{Incarnation: 1, Counter: 7}
	return siteapi.SiteStatus{
		Site: name, Role: "leaf", Now: now, SnapshotAt: &old, Generation: &g, Published: true, Objects: 4,
		Disk:         &siteapi.Disk{Path: "/var/lib/meridian", FreeBytes: 50 << 30, TotalBytes: 100 << 30},
		Certificates: []siteapi.Certificate{{Name: "the hub's CA", Ends: now.AddDate(20, 0, 0)}},
		Nodes: []siteapi.NodeStatus{{Node: "n1", Status: membership.Alive, Applied: g,
			Identity: &mesh.NodeIdentity{ID: "spiffe://mesh.example/site/" + name + "/ns/meridian/sa/n1", NotAfter: now.Add(20 * time.Hour)}}},
		Identities: &siteapi.Identities{
			TrustDomain: "mesh.example", Roots: []siteapi.IssuedCertificate{{NotAfter: now.AddDate(9, 0, 0)}},
			Issuer: &siteapi.IssuedCertificate{NotBefore: now.AddDate(0, 0, -10), NotAfter: now.AddDate(0, 0, 20), RenewAt: now.AddDate(0, 0, 5)},
		},
	}
}

// healthy is a mesh without a fault.
func healthy() Input {
	said, skew := healthySite("south"), 3.0
	plan := func(site, other string) siteapi.WeightsRow {
		return siteapi.WeightsRow{
			Site: site, AgeMS: 80,
			Services: []mesh.ServiceWeights{{Service: "default/shop", HomeWeight: 1, Remotes: []mesh.RemoteWeight{{Site: other}}}},
			Nodes:    map[string][]siteapi.Effective{"n1": {{Service: "default/shop", Source: "controller"}}},
		}
	}
	object, err := json.Marshal(&mesh.Site{Metadata: mesh.ObjectMeta{Name: "south"}})
	if err != nil {
		panic(err)
	}
	return Input{
		Status: &siteapi.Status{
			Now: now, Self: healthySite("north"), Link: siteapi.Link{Role: "leaf", Connected: true},
			Peer: []siteapi.PeerStatus{{Site: "south", Status: membership.Alive, AgeMS: 200, SkewMS: &skew, SkewWithinMS: 2, Said: &said}},
		},
		Weights: &siteapi.Weights{Rows: []siteapi.WeightsRow{plan("north", "south"), plan("south", "north")}},
		Objects: []siteapi.Object{{Key: mesh.Key{Kind: mesh.KindSite, Namespace: "default", Name: "south"}, Owner: "hub", Object: object}},
	}
}

// bindError is what a proxy says of a listener that cannot be bound.
func bindError(no syscall.Errno) string {
	err := &net.OpError{Op: "listen", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(0, 0, 0, 0), Port: 80}, Err: os.NewSyscallError("bind", no)}
	return fmt.Errorf("listeners [http] of Gateway/default/ingress: %w", errors.Join(err)).Error()
}

// Each seeded fault is named, with its remedy, and nothing else is.
func TestFindings(t *testing.T) {
	if found := Findings(healthy()); len(found) != 0 {
		t.Fatalf("a healthy mesh: %+v", found)
	}
	link := func(fault, probe, suspect string) func(*Input) {
		return func(in *Input) {
			in.Status.Self.Links = []siteapi.LinkTrouble{{Node: "n1", LinkReport: mesh.LinkReport{Site: "south", Fault: fault, Probe: probe, Suspect: suspect}}}
		}
	}
	self := func(f func(*siteapi.SiteStatus)) func(*Input) { return func(in *Input) { f(&in.Status.Self) } }
	peer := func(f func(*siteapi.PeerStatus)) func(*Input) { return func(in *Input) { f(&in.Status.Peer[0]) } }
	chains := func(f func(*siteapi.NodeStatus)) func(*Input) {
		return func(in *Input) {
			s := &in.Status.Self
			s.Nodes = append(s.Nodes, siteapi.NodeStatus{Node: "chainagent upf", Status: membership.Alive, Applied: *s.Generation, Chains: &mesh.NodeChains{Node: "upf", Chains: 1, Paths: 2, Instances: 3}})
			f(&s.Nodes[len(s.Nodes)-1])
		}
	}
	budget := func(used uint64, priceMS float64) func(*Input) {
		return func(in *Input) {
			in.Status.Self.Budgets = []siteapi.LinkBudget{{Site: "south", Bytes: 10e9, Used: used, PriceMS: priceMS, Turns: now.Add(time.Hour)}}
		}
	}
	proxy := func(f func(*siteapi.NodeStatus)) func(*Input) {
		return func(in *Input) { f(&in.Status.Self.Nodes[0]) }
	}
	for _, tc := range []struct {
		code, what, remedy string
		seed               func(*Input)
	}{
		{"clock-skew", "its clock is 42s ahead of that of site north", "chronyc", peer(func(p *siteapi.PeerStatus) { v := 42_000.0; p.SkewMS = &v })},
		{"clock-skew", "its clock is 1.5s behind that of site north", "timedatectl", peer(func(p *siteapi.PeerStatus) { v := -1500.0; p.SkewMS = &v })},
		{"", "", "", peer(func(p *siteapi.PeerStatus) { v := 1500.0; p.SkewMS, p.SkewWithinMS = &v, 700 })}, // the answer took long: not known
		{"site-unreachable", "it is dead: nothing was heard of it for 9s", "firewall", peer(func(p *siteapi.PeerStatus) {
			p.Status, p.AgeMS, p.Said = membership.Dead, 9000, nil
		})},
		{"controller-silent", "does not answer: no responders", "systemctl status sitecontroller", peer(func(p *siteapi.PeerStatus) { p.Said, p.Silence = nil, "no responders" })},
		{"link-down", "no link to the other sites since", "hub address", func(in *Input) { in.Status.Link.Connected = false }},
		{"config-stale", "mirror misses 3 changes", "hub's log", func(in *Input) { in.Status.Link.MirrorLag = "mirror misses 3 changes" }},
		{"snapshot", "no space left", "controller's log", self(func(s *siteapi.SiteStatus) { s.Published, s.Problem = false, "no space left on device" })},
		{"disk-full", "the disk of /var/lib/meridian is full: 1 MiB of 102400 are free", "free space", self(func(s *siteapi.SiteStatus) { s.Disk.FreeBytes = 1 << 20 })},
		{"disk-low", "nearly full: 200 MiB", "free space", self(func(s *siteapi.SiteStatus) { s.Disk.FreeBytes = 200 << 20 })},
		{"", "", "", self(func(s *siteapi.SiteStatus) { s.Disk.FreeBytes = 4 << 30 })},
		{"disk", "not known", "log", self(func(s *siteapi.SiteStatus) { s.Disk = nil })},
		{"certificate", "the hub's CA has ended on 2026-02-28", "restart the hub", self(func(s *siteapi.SiteStatus) { s.Certificates[0].Ends = now.AddDate(0, 0, -1) })},
		{"certificate", "ends on 2026-03-11", "restart the hub", self(func(s *siteapi.SiteStatus) { s.Certificates[0].Ends = now.AddDate(0, 0, 10) })},
		{"identity", "it cannot issue identities: no hub answers", "whether the hub answers", self(func(s *siteapi.SiteStatus) { s.Identities.Issuer, s.Identities.Problem = nil, "no hub answers" })},
		{"identity", "its issuer has ended on 2026-02-28", "whether the hub answers", self(func(s *siteapi.SiteStatus) { s.Identities.Issuer.NotAfter = now.AddDate(0, 0, -1) })},
		{"identity", "was to be renewed on 2026-02-25", "whether the hub answers", self(func(s *siteapi.SiteStatus) { s.Identities.Issuer.RenewAt = now.AddDate(0, 0, -4) })},
		{"", "", "", self(func(s *siteapi.SiteStatus) { s.Identities.Issuer.RenewAt = now.AddDate(0, 0, -2) })},
		{"identity", "newest root ends on 2026-06-09", "cert rotate root", self(func(s *siteapi.SiteStatus) { s.Identities.Roots[0].NotAfter = now.AddDate(0, 0, 100) })},
		{"identity", "proxy n1 has no certificate", "its log", proxy(func(n *siteapi.NodeStatus) { n.Identity = nil })},
		{"identity", "the certificate of proxy n1 has ended", "its log", proxy(func(n *siteapi.NodeStatus) { n.Identity.NotAfter = now.Add(-time.Minute) })},
		{"identity", "renewed hours ago", "its log", proxy(func(n *siteapi.NodeStatus) { n.Identity.NotAfter = now.Add(5 * time.Hour) })},
		{"", "", "", self(func(s *siteapi.SiteStatus) { s.Identities, s.Nodes[0].Identity = nil, nil })},
		{"identity", "workload shop/web at proxy n1 has no certificate", "service account's token", proxy(func(n *siteapi.NodeStatus) { n.Workload = &mesh.NodeWorkload{Name: "shop/web"} })},
		{"identity", "the certificate of workload shop/web at proxy n1 has ended", "its log", proxy(func(n *siteapi.NodeStatus) {
			n.Workload = &mesh.NodeWorkload{Name: "shop/web", Identity: &mesh.NodeIdentity{NotAfter: now.Add(-time.Minute)}}
		})},
		{"identity", "renewed hours ago", "its log", proxy(func(n *siteapi.NodeStatus) {
			n.Workload = &mesh.NodeWorkload{Name: "shop/web", Identity: &mesh.NodeIdentity{NotAfter: now.Add(time.Hour)}}
		})},
		{"", "", "", proxy(func(n *siteapi.NodeStatus) {
			n.Workload = &mesh.NodeWorkload{Name: "shop/web", Identity: &mesh.NodeIdentity{NotAfter: now.Add(20 * time.Hour)}}
		})},
		{"unverified", "proxy n1 verifies no signature", "--trust-key", proxy(func(n *siteapi.NodeStatus) { n.Unverified = true })},
		{"plaintext", "need no TLS for port 80 of namespace shop: mtls is permissive by PeerAuthentication/shop/all port 80", "stands still", self(func(s *siteapi.SiteStatus) {
			s.Peers = []mesh.PeerScope{{PeerMode: mesh.PeerMode{MTLS: mesh.MTLSStrict, From: mesh.PeerModeDefault}}, {Namespace: "shop", Port: 80, PeerMode: mesh.PeerMode{MTLS: mesh.MTLSPermissive, From: "PeerAuthentication/shop/all port 80"}}}
		})},
		{"", "", "", self(func(s *siteapi.SiteStatus) {
			s.Peers = []mesh.PeerScope{{PeerMode: mesh.PeerMode{MTLS: mesh.MTLSStrict}}}
		})},
		{"duplicate-id", "several processes report as site north", "stop one", self(func(s *siteapi.SiteStatus) { s.Doubles = []string{"site north"} })},
		{"no-proxy", "no proxy reports", "start an edgeproxy", self(func(s *siteapi.SiteStatus) { s.Nodes = nil })},
		{"proxy-silent", "proxy n1 is dead", "systemctl status edgeproxy", proxy(func(n *siteapi.NodeStatus) { n.Status, n.AgeMS = membership.Dead, 4000 })},
		{"snapshot-stale", "proxy n1 serves generation 6, the newest is 7", "readyz", proxy(func(n *siteapi.NodeStatus) { n.Behind, n.Applied.Counter = true, 6 })},
		{"", "", "", func(in *Input) { // it was made a moment ago
			in.Status.Self.Nodes[0].Behind = true
			at := now.Add(-time.Second)
			in.Status.Self.SnapshotAt = &at
		}},
		{"snapshot-refused", "needs feature x", "correct", proxy(func(n *siteapi.NodeStatus) { n.Behind, n.RefusedWhy = true, "needs feature x" })},
		{"function-down", "instance fw-1 does not answer: no echo", "failureMode", chains(func(n *siteapi.NodeStatus) { n.Chains.Down = map[string]string{"fw-1": "no echo"} })},
		{"chain-not-served", "the chain agent of node upf: chain default/web: no room", "chain explain", chains(func(n *siteapi.NodeStatus) { n.Problems = []string{"chain default/web: no room"} })},
		{"chain-agent-silent", "upf is dead", "systemctl status chainagent", chains(func(n *siteapi.NodeStatus) { n.Status = membership.Dead })},
		{"snapshot-refused", "the chain agent of node upf refuses", "readyz", chains(func(n *siteapi.NodeStatus) { n.Behind, n.RefusedWhy = true, "no port" })},
		{"", "", "", chains(func(*siteapi.NodeStatus) {})}, // an agent needs no certificate
		{"no-proxy", "no proxy reports", "start an edgeproxy", func(in *Input) {
			chains(func(*siteapi.NodeStatus) {})(in)
			in.Status.Self.Nodes = in.Status.Self.Nodes[1:]
		}},
		{"capability", "permission denied", "CAP_NET_BIND_SERVICE", proxy(func(n *siteapi.NodeStatus) { n.Problems = []string{bindError(syscall.EACCES)} })},
		{"port-blocked", "address already in use", "ss -ltnp", proxy(func(n *siteapi.NodeStatus) { n.Problems = []string{bindError(syscall.EADDRINUSE)} })},
		{"listen-address", "cannot assign", "spec.addresses", proxy(func(n *siteapi.NodeStatus) { n.Problems = []string{bindError(syscall.EADDRNOTAVAIL)} })},
		{"not-served", "no gateway address", "correct the object", proxy(func(n *siteapi.NodeStatus) { n.Problems = []string{"site x has no gateway address"} })},
		{"advertised-address", "another site's (the gateway", "spec.gateways of Site south", link(mesh.ProbeOtherSite, `the gateway of site south answers for site "west"`, "")},
		{"identity-refused", "does not believe the other's certificate (probe 10.0.0.1:80: expired", "cert show", link(mesh.ProbeIdentity, "probe 10.0.0.1:80: expired", "")},
		{"advertised-address", "no gateway of a site (probe 10.0.0.1:80: answered 404", "spec.gateways of Site south", link(mesh.ProbeStranger, "probe 10.0.0.1:80: answered 404", "")},
		{"advertised-address", "name is not found", "DNS", link(mesh.ProbeName, "lookup x: no such host", "")},
		{"gateway-refused", "nothing listens", "start the proxy of site south", link(mesh.ProbeRefused, "connection refused", "")},
		{"port-filtered", "packets are dropped", "open the port", link(mesh.ProbeTimeout, "i/o timeout", "")},
		{"no-route", "no way to the advertised address", "mend the route", link(mesh.ProbeNoRoute, "no route to host", "")},
		{"no-gateway", "advertises no gateway", "give Site south", link("", "", "no route: the site advertises no gateway")},
		{"link-suspect", "requests there fail (suspect: silent", "log of site south", link("", "", "suspect: silent with 4 requests outstanding")},
		{"budget-low", "85 % of the budget of the link to site south (10 GB a day) is used, and the day lasts until", "raise links[].budget", budget(85e8, 12)},
		{"", "", "", budget(85e8, 0)}, // late in the day
		{"", "", "", budget(7e9, 12)},
		{"budget-spent", "is used up: nothing new goes there until", "raise links[].budget", budget(10e9+5, 10_000)},
		{"capacity-unknown", "default/shop is not shared", "declare capacity", func(in *Input) {
			in.Weights.Rows[0].Services[0].Off = "capacity of this site is not known: declare capacity.concurrency"
		}},
		{"plan-stale", "its last plan is 9s old", "restart", func(in *Input) { in.Weights.Rows[1].AgeMS = 9000 }},
		{"plan-not-followed", "by its own plan", "log", func(in *Input) {
			in.Weights.Rows[0].Nodes["n1"] = []siteapi.Effective{{Service: "default/shop", Source: "standby"}}
		}},
		{"route-shadowed", "Shadowed", "delete the rule", func(in *Input) {
			in.Status.Conditions = []mesh.Condition{{Object: mesh.Key{Kind: mesh.KindHTTPRoute, Namespace: "default", Name: "r"}, Reason: mesh.ReasonShadowed, Message: "no request comes here"}}
		}},
		{"object-shadowed", "another owner has this name", "delete it", func(in *Input) { in.Objects[0].Shadowed = true }},
		{"", "", "", func(in *Input) { // out of service by the operator
			link(mesh.ProbeRefused, "connection refused", "")(in)
			in.Objects[0].Object = json.RawMessage(`{"metadata":{"name":"south"},"spec":{"location":{"type":"Point","coordinates":[0,0]},"traffic":"drained"}}`)
		}},
	} {
		in := healthy()
		tc.seed(&in)
		found := Findings(in)
		if tc.code == "" {
			if len(found) != 0 {
				t.Errorf("no fault, but %+v", found)
			}
			continue
		}
		if len(found) != 1 || found[0].Code != tc.code || !strings.Contains(found[0].What, tc.what) || !strings.Contains(found[0].Remedy, tc.remedy) {
			t.Errorf("want %s, %q, %q; found %+v", tc.code, tc.what, tc.remedy, found)
		}
	}
}

// While a snapshot is young its nodes are waited for, and no longer.
func TestSettling(t *testing.T) {
	in := healthy()
	if Settling(in.Status) {
		t.Error("a healthy mesh is at rest")
	}
	in.Status.Peer[0].Said.Nodes[0].Behind = true
	if Settling(in.Status) {
		t.Error("a node that is behind for an hour is no longer waited for")
	}
	at := now.Add(-time.Second)
	in.Status.Peer[0].Said.SnapshotAt = &at
	if !Settling(in.Status) {
		t.Error("a snapshot of a second ago is not waited for")
	}
	in.Status.Peer[0].Said.Nodes[0].RefusedWhy = "no"
	if Settling(in.Status) {
		t.Error("a node that refused is waited for")
	}
}
