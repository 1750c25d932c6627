package mesh

import (
	"fmt"
	"maps"
	"net/netip"
	stdpath "path"
	"slices"
	"strings"
)

// ProtocolOutbound is the protocol of the listener to which chainagent redirects
// connections of a node's processes. A connection goes on by where it was to go
// (SO_ORIGINAL_DST): to the MeshService that has the address, by the routes whose parent
// that is; and where none has it, there.
const ProtocolOutbound = "mesh.meridian.dev/Outbound"

// Redirect has connections of processes of a node go to the node's proxy, which they
// know nothing of: those to addresses of MeshServices, and to further destinations.
type Redirect struct {
	// ControlGroups are those of the processes, paths of cgroup v2, with all below them.
	ControlGroups []string      `json:"controlGroups"`
	Proxy         RedirectProxy `json:"proxy"`
	// Destinations are redirected beside the addresses of MeshServices.
	Destinations []RedirectDestination `json:"destinations,omitempty"`
	Exclude      *RedirectExclusion    `json:"exclude,omitempty"`
	// Failure says what becomes of connections while the proxy does not listen.
	Failure string `json:"failureMode,omitempty"`
}

// RedirectProxy is the node's proxy.
type RedirectProxy struct {
	// ControlGroup is one that the proxy runs in. Without User it is the proxy's own, whose
	// connections are never redirected.
	ControlGroup string `json:"controlGroup"`
	// User is the number of the proxy's user, whose connections are never redirected.
	User *int `json:"user,omitempty"`
	// Addresses are those of its listener of protocol [ProtocolOutbound], one of IPv4, of
	// IPv6, or both.
	Addresses []string `json:"addresses"`
}

// RedirectDestination is a network, at some ports or at all.
type RedirectDestination struct {
	Network string `json:"network"`
	Ports   []int  `json:"ports,omitempty"`
}

// RedirectExclusion is what goes straight all the same. Each of its items is enough.
type RedirectExclusion struct {
	Destinations []RedirectDestination `json:"destinations,omitempty"`
	Ports        []int                 `json:"ports,omitempty"`
	// Users are numbers of users whose processes are left alone.
	Users         []int    `json:"users,omitempty"`
	ControlGroups []string `json:"controlGroups,omitempty"`
}

// ReasonNoListener is of a Redirect that leads to no listener for it.
const ReasonNoListener = "NoListener"

func checkControlGroup(s string) (string, string) {
	if !strings.HasPrefix(s, "/") || stdpath.Clean(s) != s || strings.ContainsAny(s, "\x00\n") || len(s) > 4000 {
		return fmt.Sprintf("%q is not a control group", s), "a path below the root of cgroup v2, such as /kubepods.slice or /system.slice/shop.service, as /proc/PID/cgroup has it"
	}
	return "", ""
}

func redirectProxyRelations(p *RedirectProxy, fault faultFunc) {
	families := map[bool]string{}
	for i, text := range p.Addresses {
		at, err := netip.ParseAddrPort(text)
		field := fmt.Sprintf("addresses[%d]", i)
		switch {
		case err != nil || at.Port() == 0 || at.Addr().IsUnspecified() || at.Addr().Is4In6() || at.Addr().Zone() != "":
			fault(field, fmt.Sprintf("%q is not where a listener is reached", text), "an address of the node and a port, such as 127.0.0.1:15001 or [::1]:15001")
		case families[at.Addr().Is4()] != "":
			fault(field, "is of the same family as "+families[at.Addr().Is4()], "one of IPv4, one of IPv6")
		default:
			families[at.Addr().Is4()] = text
		}
	}
}

func nodeRedirectRelations(r *Redirect, fault faultFunc) {
	for i, g := range r.ControlGroups {
		if g == r.Proxy.ControlGroup && r.Proxy.User == nil {
			fault(fmt.Sprintf("controlGroups[%d]", i), "is the proxy's own, whose connections are never redirected", "name the group of the proxy's clients, which may be above it, or tell the proxy by proxy.user")
		}
	}
}

// serviceAddressRelations refuses what cannot be the address of one service.
func serviceAddressRelations(s *MeshServiceSpec, fault faultFunc) {
	for i, text := range s.Addresses {
		if a, err := netip.ParseAddr(text); err == nil && (a.IsUnspecified() || a.IsMulticast() || a.Is4In6() || a.Zone() != "" || a.IsLoopback()) {
			fault(fmt.Sprintf("addresses[%d]", i), text+" cannot be the address of a service", "an address of its own that clients connect to, such as 10.96.0.10")
		}
	}
}

func parentRelations(p *ParentRef, fault faultFunc) {
	service := p.Kind == KindMeshService
	switch {
	case service && p.Group != MeshGroup:
		fault("kind", "is "+KindMeshService+", which is none of group "+GatewayGroup, "add group: "+MeshGroup)
	case !service && p.Group == MeshGroup:
		fault("group", MeshGroup+" has one kind of parent, "+KindMeshService, "add kind: "+KindMeshService)
	case service && p.SectionName != "":
		fault("sectionName", "is there, and a MeshService has no listeners", "name a port by its number")
	}
}

// serviceParent checks the parent of a route that is a MeshService.
func (c *checker) serviceParent(r *HTTPRoute, p *ParentRef, path string) {
	add := func(reason, message string, args ...any) {
		c.add(r.RouteKind(), r.Metadata, path, reason, message, args...)
	}
	s := c.services[ServiceKey(p.Namespace+"/"+p.Name)]
	switch {
	case p.Namespace != r.Metadata.Namespace:
		add(ReasonNotAllowedByListeners, "MeshService %s/%s is of another namespace, and routes for the clients of one namespace are not served", p.Namespace, p.Name)
	case s == nil:
		add(ReasonNoMatchingParent, "there is no MeshService %s/%s%s", p.Namespace, p.Name, c.perhaps(p.Name, c.services))
	case len(s.Spec.Addresses) == 0:
		add(ReasonNoMatchingParent, "MeshService %s has no addresses by which requests could come", s.Key())
	case len(r.Spec.Hostnames) > 0:
		add(ReasonNoMatchingListenerHostname, "hostnames are not looked at where the parent is a MeshService: what comes to its address is for it")
	case !slices.ContainsFunc(s.Spec.Ports, func(q ServicePort) bool {
		return (p.Port == 0 || p.Port == q.Port) && (q.Protocol == PortHTTP || q.Protocol == PortHTTP2)
	}):
		add(ReasonNoMatchingParent, "MeshService %s has no port for requests%s", s.Key(), p.wanted())
	}
}

// redirects checks what redirections and the addresses of services lead to.
func (c *checker) redirects() {
	takers := map[string]*MeshService{}
	for _, s := range c.o.Services {
		for i, a := range s.Spec.Addresses {
			for _, p := range s.Spec.Ports {
				at := fmt.Sprintf("%s %d %v", a, p.Port, p.Protocol == PortUDP)
				if other := takers[at]; other != nil {
					c.add(KindMeshService, s.Metadata, fmt.Sprintf("spec.addresses[%d]", i), ReasonConflicted, "MeshService %s has %s, port %d already", other.Key(), a, p.Port)
					continue
				}
				takers[at] = s
			}
		}
	}
	var outbound []int
	for _, g := range c.o.Gateways {
		for _, l := range g.Spec.Listeners {
			if l.Protocol == ProtocolOutbound {
				outbound = append(outbound, l.Port)
			}
		}
	}
	for _, n := range c.o.ChainNodes {
		if n.Spec.Redirect == nil || len(c.o.Gateways) == 0 {
			continue // of files for an agent alone
		}
		for i, text := range n.Spec.Redirect.Proxy.Addresses {
			if at, err := netip.ParseAddrPort(text); err == nil && !slices.Contains(outbound, int(at.Port())) {
				c.add(KindChainNode, n.Metadata, fmt.Sprintf("spec.redirect.proxy.addresses[%d]", i), ReasonNoListener,
					"no Gateway has a listener of protocol %s at port %d", ProtocolOutbound, at.Port())
			}
		}
	}
}

var redirectRules = map[string]rule{
	"MeshServiceSpec.addresses":       {format: &formatIP, maxItems: 16, unique: ".", doc: "Addresses by which clients call the service without naming a proxy, such as a Service's cluster IPs. Where ChainNode.redirect is set, connections to them go through the node's proxy. In a document of a site they hold at that site, in one of the hub everywhere."},
	"ChainNodeSpec.redirect":          {doc: "Has connections of the node's processes to services go through its proxy."},
	"Redirect.controlGroups":          {format: &formatCgroup, minItems: 1, maxItems: 64, unique: ".", doc: "Control groups (cgroup v2) of the processes, with all below them: /kubepods.slice, /system.slice/shop.service, or / for all."},
	"Redirect.proxy":                  {doc: "The node's proxy."},
	"Redirect.destinations":           {maxItems: 1024, doc: "What is redirected beside the addresses of MeshServices. Loopback and link-local addresses never are."},
	"Redirect.exclude":                {doc: "What goes straight all the same."},
	"Redirect.failureMode":            {enum: []string{FailOpen, FailClosed}, def: FailOpen, doc: "While the proxy does not listen: open, connections go straight; closed, they are refused."},
	"RedirectProxy.controlGroup":      {format: &formatCgroup, doc: "A control group that the proxy runs in, and that stays when the proxy is restarted. Without user, connections of all in it are never redirected: a slice of the proxy's own, such as /meridian.slice."},
	"RedirectProxy.user":              {span: &span{lo: 0, hi: 4294967294}, doc: "Number (uid) of the user that the proxy, and no client, runs as: its connections are never redirected, and controlGroup may be one that it shares with others."},
	"RedirectProxy.addresses":         {format: &formatHostPort, minItems: 1, maxItems: 2, doc: "Where the proxy's listener of protocol mesh.meridian.dev/Outbound is reached, one of IPv4, of IPv6, or both. Processes in network namespaces of their own, such as pods, need an address of the node, others may have 127.0.0.1 and [::1]."},
	"RedirectDestination.network":     {format: &formatCIDR},
	"RedirectDestination.ports":       {span: realPort, maxItems: 64, doc: "Ports of the network; absent is all."},
	"RedirectExclusion.destinations":  {maxItems: 1024, doc: "Networks, at some ports or all."},
	"RedirectExclusion.ports":         {span: realPort, maxItems: 64, doc: "Ports, whatever the address."},
	"RedirectExclusion.users":         {span: &span{lo: 0, hi: 4294967294}, maxItems: 1024, doc: "Numbers of users (uid) whose processes are left alone."},
	"RedirectExclusion.controlGroups": {format: &formatCgroup, maxItems: 64, unique: ".", doc: "Control groups that are left alone, with all below them."},
}

func init() { maps.Copy(rules, redirectRules) }
