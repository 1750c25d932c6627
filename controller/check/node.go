package check

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/membership"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

// node judges one proxy, or one agent of chains.
func (c *checker) node(s *siteapi.SiteStatus, n *siteapi.NodeStatus) {
	if n.Chains != nil {
		c.chains(s, n)
		return
	}
	who := "proxy " + n.Node
	if n.Status != membership.Alive {
		c.add(siteapi.SeverityError, "proxy-silent", s.Site, "see on that node: systemctl status edgeproxy; curl -s http://127.0.0.1:15000/readyz?verbose",
			"%s is %s: nothing was heard of it for %s; it may serve on by itself", who, n.Status, age(n.AgeMS))
		return
	}
	switch {
	case n.RefusedWhy != "":
		c.add(siteapi.SeverityError, "snapshot-refused", s.Site, remedySnapshotRefused, "%s refuses the newest generation and serves %d: %s", who, n.Applied.Counter, n.RefusedWhy)
	case n.Behind && s.Generation != nil && !(s.SnapshotAt != nil && s.Now.Sub(*s.SnapshotAt) < settling):
		c.add(siteapi.SeverityError, "snapshot-stale", s.Site, "see its log; on that node: curl -s http://127.0.0.1:15000/readyz?verbose; restart it if it does not follow",
			"%s serves generation %d, the newest is %d", who, n.Applied.Counter, s.Generation.Counter)
	}
	c.identity(s, n)
	c.unverified(s, n)
	for _, p := range n.Problems {
		code, remedy := problem(p)
		c.add(siteapi.SeverityError, code, s.Site, remedy, "%s: %s", who, p)
	}
}

// chains judges the agent of a node's chains. What it has put into the kernel goes on
// without it.
func (c *checker) chains(s *siteapi.SiteStatus, n *siteapi.NodeStatus) {
	who := "the chain agent of node " + n.Chains.Node
	const remedy = "see on that node: curl -s http://127.0.0.1:15010/readyz?verbose; meridian chain explain says why a path is missing"
	if n.Status != membership.Alive {
		c.add(siteapi.SeverityError, "chain-agent-silent", s.Site, "see on that node: systemctl status chainagent", "%s is %s: nothing was heard of it for %s; what it put into the kernel goes on, and nobody watches the functions", who, n.Status, age(n.AgeMS))
		return
	}
	switch {
	case n.RefusedWhy != "":
		c.add(siteapi.SeverityError, "snapshot-refused", s.Site, remedy, "%s refuses the newest generation and serves %d: %s", who, n.Applied.Counter, n.RefusedWhy)
	case n.Behind && s.Generation != nil && !(s.SnapshotAt != nil && s.Now.Sub(*s.SnapshotAt) < settling):
		c.add(siteapi.SeverityError, "snapshot-stale", s.Site, remedy, "%s serves generation %d, the newest is %d", who, n.Applied.Counter, s.Generation.Counter)
	}
	for _, p := range n.Problems {
		c.add(siteapi.SeverityError, "chain-not-served", s.Site, remedy, "%s: %s", who, p)
	}
	for _, name := range slices.Sorted(maps.Keys(n.Chains.Down)) {
		c.add(siteapi.SeverityWarning, "function-down", s.Site, "start it again, or mend the way to it; flows pass other instances meanwhile, or what failureMode says", "%s: instance %s does not answer: %s", who, name, n.Chains.Down[name])
	}
}

// problem names a part of a snapshot that a proxy cannot serve, by the words of the
// kernel's errors in it.
func problem(p string) (code, remedy string) {
	switch {
	case strings.Contains(p, "permission denied"), strings.Contains(p, "operation not permitted"):
		return "capability", "let it bind low ports: AmbientCapabilities=CAP_NET_BIND_SERVICE in its unit, or setcap cap_net_bind_service=+ep on the program, or use a port from 1024"
	case strings.Contains(p, "address already in use"):
		return "port-blocked", "another process has the port (ss -ltnp shows which): stop it, or change the listener's port"
	case strings.Contains(p, "cannot assign requested address"):
		return "listen-address", "that node has no such address: correct spec.addresses of the Gateway"
	}
	return "not-served", "correct the object that it names (meridian get -o yaml, meridian apply)"
}

// way judges what a node says of its way to another site.
func (c *checker) way(site string, l *siteapi.LinkTrouble) {
	to := c.siteObject(l.Site)
	if to != nil && to.Excluded() != "" {
		return // by the operator
	}
	const gateway = "correct spec.gateways of Site SITE (or links[].address for this way)"
	say := func(code, remedy, what string) {
		c.add(siteapi.SeverityError, code, site, strings.ReplaceAll(remedy, "SITE", l.Site), "proxy %s to site %s: %s (%s)", l.Node, l.Site, what, cmp.Or(l.Probe, l.Suspect))
	}
	switch l.Fault {
	case mesh.ProbeOtherSite:
		say("advertised-address", gateway, "the advertised address is another site's")
	case mesh.ProbeIdentity:
		say("identity-refused", "compare the two sites' certificates and the deny list (meridian cert show, meridian get trustbundle -o yaml) and their clocks", "one side does not believe the other's certificate")
	case mesh.ProbeStranger:
		say("advertised-address", gateway, "what answers at the advertised address is no gateway of a site")
	case mesh.ProbeName:
		say("advertised-address", gateway+", or the name in the DNS", "the advertised name is not found")
	case mesh.ProbeRefused:
		say("gateway-refused", "start the proxy of site SITE, or have it listen there (an EastWest listener), or "+gateway, "nothing listens at the advertised address")
	case mesh.ProbeTimeout:
		say("port-filtered", "open the port on the way (firewall, security group, NAT) between the two sites, or "+gateway, "the advertised address does not answer: packets are dropped on the way")
	case mesh.ProbeNoRoute:
		say("no-route", "mend the route between the two networks, or "+gateway, "the network has no way to the advertised address")
	default:
		if strings.HasPrefix(l.Suspect, "no route") {
			say("no-gateway", "give Site SITE its east-west address (spec.gateways)", "the site advertises no gateway")
		} else {
			say("link-suspect", "see the load and the log of site SITE", "requests there fail")
		}
	}
}

// siteObject is the Site object in force, nil where there is none.
func (c *checker) siteObject(name string) *mesh.Site {
	for i := range c.in.Objects {
		if o := &c.in.Objects[i]; o.Key.Kind == mesh.KindSite && o.Key.Name == name && !o.Shadowed {
			site := new(mesh.Site)
			if json.Unmarshal(o.Object, site) != nil {
				return nil // of another version: its links are judged as any
			}
			return site
		}
	}
	return nil
}

// plans judges what sites plan and what their proxies make of it.
func (c *checker) plans() {
	for _, r := range c.in.Weights.Rows {
		for i := range r.Services {
			w := &r.Services[i]
			switch {
			case w.Off == "" || w.Drained:
			case strings.HasPrefix(w.Off, "capacity of this site"):
				c.add(siteapi.SeverityWarning, "capacity-unknown", r.Site, "declare capacity: {concurrency, serviceTime} on its endpoints", "service %s is not shared: %s", w.Service, w.Off)
			case strings.HasPrefix(w.Off, "no endpoint"):
				c.add(siteapi.SeverityError, "no-endpoint", r.Site, "start an endpoint of it, or add one of another site", "service %s: %s", w.Service, w.Off)
			}
		}
		if r.AgeMS > 5000 {
			c.add(siteapi.SeverityError, "plan-stale", r.Site, "restart its sitecontroller", "its last plan is %s old", age(r.AgeMS))
		}
		for _, node := range slices.Sorted(maps.Keys(r.Nodes)) {
			for _, e := range r.Nodes[node] {
				if planned(&r, e.Service) && e.Source == "standby" {
					c.add(siteapi.SeverityWarning, "plan-not-followed", r.Site, "see the proxy's log: its clock of plans or its connection to the controller is out of order", "proxy %s shares service %s by its own plan, not the controller's", node, e.Service)
				}
			}
		}
	}
}

func planned(r *siteapi.WeightsRow, key mesh.ServiceKey) bool {
	return slices.ContainsFunc(r.Services, func(w mesh.ServiceWeights) bool { return w.Service == key })
}

// objects judges the configuration as it is known here.
func (c *checker) objects() {
	for _, cond := range c.in.Status.Conditions {
		severity, code, remedy := siteapi.SeverityError, "route", "correct the object (meridian get -o yaml, meridian apply)"
		switch {
		case cond.Reason == mesh.ReasonShadowed:
			severity, code, remedy = siteapi.SeverityWarning, "route-shadowed", "delete the rule, or have it ask for something that the other does not"
		case !mesh.IsRoute(cond.Object.Kind):
			code = "object"
		}
		c.add(severity, code, "", remedy, "%s", cond)
	}
	for _, o := range c.in.Objects {
		if o.Shadowed {
			c.add(siteapi.SeverityWarning, "object-shadowed", "", "delete it at its owner, or the other one", "%s of %s is not in force: another owner has this name", o.Key, o.Owner)
		}
	}
}
