package kube

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// variant is one port of a Service, spoken to in one protocol: a MeshService, whose
// endpoints have one port each.
type variant struct {
	namespace, service string
	port               int
	protocol           string
}

// natural is the protocol that a port says it speaks, empty for one that no proxy
// of ours speaks.
func (p *ServicePort) natural() string {
	switch p.Protocol {
	case "UDP":
		return mesh.PortUDP
	case "", "TCP":
	default:
		return ""
	}
	switch p.AppProtocol {
	case "kubernetes.io/h2c", "h2c", "http2", "grpc":
		return mesh.PortHTTP2
	case "tcp":
		return mesh.PortTCP
	case "https", "tls", "kubernetes.io/wss":
		return "" // sessions of TLS to endpoints are a TrafficPolicy's
	}
	return mesh.PortHTTP
}

// spoken is the protocol in which the backends of a kind of routes are spoken to,
// and whether the port speaks it.
func (p *ServicePort) spoken(kind string) (string, bool) {
	natural := p.natural()
	switch kind {
	case mesh.KindHTTPRoute:
		if natural == mesh.PortHTTP2 {
			return natural, true
		}
		return mesh.PortHTTP, natural == mesh.PortHTTP
	case mesh.KindGRPCRoute:
		return mesh.PortHTTP2, natural == mesh.PortHTTP || natural == mesh.PortHTTP2
	case mesh.KindUDPRoute:
		return mesh.PortUDP, natural == mesh.PortUDP
	}
	return mesh.PortTCP, p.Protocol == "" || p.Protocol == "TCP"
}

// use notes that a port of a Service is needed, and returns the name of its
// MeshService: that of the Service where it has one port, with the port's number
// behind it where it has several, and with the protocol behind that where it is not
// the port's own.
func (t *translation) use(s *Service, p *ServicePort, protocol string) string {
	v := variant{s.Namespace, s.Name, p.Port, protocol}
	if name, known := t.names[v]; known {
		return name
	}
	suffix := ""
	if len(s.Ports) > 1 {
		suffix = "-" + itoa(p.Port)
	}
	if protocol != p.natural() {
		suffix += "-" + protocol
	}
	name := s.Name + suffix
	if suffix != "" && (len(name) > maxLabel || t.services[s.Namespace+"/"+name] != nil) {
		name = short(s.Name, suffix, v.namespace+"/"+v.service+suffix)
	}
	t.names[v] = name
	return name
}

const maxLabel = 63

// isLabel reports whether a text can be the name of a site (RFC 1123 label).
func isLabel(s string) bool {
	for i, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && (c != '-' || i == 0 || i == len(s)-1) {
			return false
		}
	}
	return s != "" && len(s) <= maxLabel
}

// short is a name of at most a label's length for what has a longer one, or one that
// another object has.
func short(name, suffix, whole string) string {
	h := sha256.Sum256([]byte(whole))
	suffix += "-" + hex.EncodeToString(h[:4])
	name = strings.Trim(strings.ReplaceAll(name, ".", "-"), "-")
	return strings.Trim(name[:min(len(name), maxLabel-len(suffix))], "-") + suffix
}

// meshServices makes the MeshServices that routes lead to or that are exported.
func (t *translation) meshServices() {
	for _, s := range t.in.Services {
		if s.Export == "" || s.External {
			continue
		}
		if export(s.Export) == nil && s.Export != mesh.ScopeSite {
			t.notice("Service %s: annotation %s: %q is neither mesh nor names of sites with commas between: it is not exported", s.key(), ExportAnnotation, s.Export)
			continue
		}
		for i := range s.Ports {
			if p := &s.Ports[i]; p.natural() != "" {
				t.use(s, p, p.natural())
			}
		}
	}
	order := slices.SortedFunc(maps.Keys(t.names), func(a, b variant) int {
		return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(t.names[a], t.names[b]))
	})
	for _, v := range order {
		s := t.services[v.namespace+"/"+v.service]
		m := &mesh.MeshService{
			Metadata: mesh.ObjectMeta{Name: t.names[v], Namespace: v.namespace, Labels: s.Labels},
			Spec: mesh.MeshServiceSpec{
				Ports:     []mesh.ServicePort{{Port: v.port, Protocol: v.protocol}},
				Endpoints: t.endpoints(s, v),
				Export:    export(s.Export),
			},
		}
		if i := slices.IndexFunc(s.Ports, func(p ServicePort) bool { return p.Port == v.port && p.natural() == v.protocol }); i >= 0 {
			m.Spec.Addresses = s.Addresses // of a port in another protocol another one has them
		}
		key := mesh.Key{Kind: mesh.KindMeshService, Namespace: v.namespace, Name: m.Metadata.Name}
		if o := t.own[key]; o != nil && o.Doc != nil {
			continue // written by hand: it stands
		}
		t.out.Objects.Services = append(t.out.Objects.Services, m)
	}
}

// export reads [ExportAnnotation]. A name that no site can have exports to nobody.
func export(text string) *mesh.Export {
	switch text {
	case "", mesh.ScopeSite:
		return nil
	case mesh.ScopeMesh:
		return &mesh.Export{Scope: mesh.ScopeMesh}
	}
	e := &mesh.Export{Scope: mesh.ScopeMesh}
	for name := range strings.SplitSeq(text, ",") {
		name = strings.TrimSpace(name)
		if !isLabel(name) {
			return nil
		}
		e.Sites = append(e.Sites, name)
	}
	return e
}

// endpoints are the ready endpoints of a port; where there are none, those that end
// and still answer. Of a Service of two address families it takes IPv4's.
func (t *translation) endpoints(s *Service, v variant) []mesh.Endpoint {
	i := slices.IndexFunc(s.Ports, func(p ServicePort) bool {
		return p.Port == v.port && (p.Protocol == "UDP") == (v.protocol == mesh.PortUDP)
	})
	var ready, serving [2][]mesh.Endpoint
	for _, slice := range t.slices[s.key()] {
		j := slices.IndexFunc(slice.Ports, func(p SlicePort) bool { return p.Name == s.Ports[i].Name && p.Port > 0 })
		if j < 0 {
			continue
		}
		for _, e := range slice.Endpoints {
			to := mesh.Endpoint{Address: hostPort(e.Address, slice.Ports[j].Port), Node: e.Node, Site: t.siteOf(e.Node)}
			if w := t.workloads[slice.Namespace+"/"+e.Pod]; w != "" {
				to.Workload = &mesh.Workload{Cluster: t.in.Cluster, Namespace: slice.Namespace, Name: w}
			}
			family := 0
			if strings.Contains(e.Address, ":") {
				family = 1
			}
			switch {
			case e.Ready:
				ready[family] = append(ready[family], to)
			case e.Serving:
				serving[family] = append(serving[family], to)
			}
		}
	}
	for _, list := range [][]mesh.Endpoint{ready[0], ready[1], serving[0], serving[1]} {
		if len(list) > 0 {
			slices.SortFunc(list, func(a, b mesh.Endpoint) int { return cmp.Compare(a.Address, b.Address) })
			return slices.CompactFunc(list, func(a, b mesh.Endpoint) bool { return a.Address == b.Address })
		}
	}
	return nil
}

// siteOf is the site of a node: its label, else its zone where that is a site's name,
// else the site of the bridge.
func (t *translation) siteOf(node string) string {
	if n := t.nodes[node]; n != nil {
		if s := n.Labels[SiteLabel]; isLabel(s) {
			return s
		}
		if zone := n.Labels[zoneLabel]; t.sites[zone] {
			return zone
		}
	}
	return t.in.Site
}

// grants passes on which routes may name which services. A grant for a Service is one
// for each MeshService that comes of it.
func (t *translation) grants() {
	for _, g := range slices.SortedFunc(slices.Values(t.in.Grants), func(a, b *Grant) int { return cmp.Compare(a.key(), b.key()) }) {
		m := &mesh.ReferenceGrant{Metadata: mesh.ObjectMeta{Name: g.Name, Namespace: g.Namespace, Labels: g.Labels}}
		for _, f := range g.Spec.From {
			if f.Group == mesh.GatewayGroup && mesh.IsRoute(f.Kind) {
				m.Spec.From = append(m.Spec.From, f)
			}
		}
		for _, to := range g.Spec.To {
			service := to.Group == "" && to.Kind == KindService
			if !service && (to.Group != mesh.MeshGroup || to.Kind != mesh.KindMeshService) {
				continue
			}
			names := []string{to.Name}
			if service && to.Name != "" {
				names = nil
				for v, name := range t.names {
					if v.namespace == g.Namespace && v.service == to.Name {
						names = append(names, name)
					}
				}
				slices.Sort(names)
			}
			for _, name := range names {
				m.Spec.To = append(m.Spec.To, mesh.ReferenceGrantTo{Group: mesh.MeshGroup, Kind: mesh.KindMeshService, Name: name})
			}
		}
		if len(m.Spec.From) > 0 && len(m.Spec.To) > 0 {
			t.out.Objects.ReferenceGrants = append(t.out.Objects.ReferenceGrants, m)
		}
	}
}

// permits reports whether an object of the kind and namespace from may refer to one
// of another namespace.
func (t *translation) permits(kind, from string, to ObjectRef) bool {
	if to.Namespace == from {
		return true
	}
	return slices.ContainsFunc(t.in.Grants, func(g *Grant) bool {
		return g.Namespace == to.Namespace &&
			slices.ContainsFunc(g.Spec.From, func(f mesh.ReferenceGrantFrom) bool {
				return f.Group == mesh.GatewayGroup && f.Kind == kind && f.Namespace == from
			}) &&
			slices.ContainsFunc(g.Spec.To, func(x mesh.ReferenceGrantTo) bool {
				return x.Group == to.Group && x.Kind == to.Kind && (x.Name == "" || x.Name == to.Name)
			})
	})
}
