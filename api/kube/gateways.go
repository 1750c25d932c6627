package kube

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// maxAddresses bounds the addresses of a Gateway's status (Gateway API).
const maxAddresses = 16

// gateway is a Gateway on its way to the mesh.
type gateway struct {
	*Gateway
	// refusal is why it is not accepted, unusable why it is and has no address.
	refusal, unusable *judgement
	addresses         []GatewayAddress // of its status
	bind              []mesh.GatewayAddress
	listeners         []*listener
	frontends         []*frontend // of Services
}

// listener is one of its listeners.
type listener struct {
	*Listener
	kinds    []RouteKind
	accepted judgement
	resolved judgement
	conflict judgement
	attached int
	// taken says that a route has the listener of which only one of its kind can have it.
	taken bool
	mesh  *mesh.Listener // nil where it is not served
}

// protocolKinds are the kinds of routes that a protocol's listeners take.
var protocolKinds = map[string][]string{
	mesh.ProtocolHTTP:     {mesh.KindHTTPRoute, mesh.KindGRPCRoute},
	mesh.ProtocolHTTPS:    {mesh.KindHTTPRoute, mesh.KindGRPCRoute},
	mesh.ProtocolTLS:      {mesh.KindTLSRoute},
	mesh.ProtocolTCP:      {mesh.KindTCPRoute},
	mesh.ProtocolUDP:      {mesh.KindUDPRoute},
	mesh.ProtocolEastWest: {},
	mesh.ProtocolOutbound: {}, // routes join the services
}

// claimListeners judges the Gateways and their listeners, the oldest first.
func (t *translation) claimListeners() {
	classes := map[string]bool{}
	for _, c := range t.in.Classes {
		if c.Controller == ControllerName && !c.Parameters {
			classes[c.Name] = true
		}
	}
	t.byName = map[string]*gateway{}
	for _, g := range slices.SortedFunc(slices.Values(t.in.Gateways), func(a, b *Gateway) int { return oldestFirst(&a.Meta, &b.Meta) }) {
		if classes[g.Class] {
			to := &gateway{Gateway: g}
			t.gateways = append(t.gateways, to)
			t.byName[g.key()] = to
		}
	}
	t.addresses()
	taken := map[transport][]claimed{}
	for _, g := range t.gateways {
		if g.Unserved != "" {
			reason := "Invalid"
			if g.Unserved == "spec.infrastructure.parametersRef" {
				reason = "InvalidParameters"
			}
			g.refusal = &judgement{Accepted, false, reason, g.Unserved + " is not served by this version"}
		}
		for i := range g.Listeners {
			l := t.judge(g, &g.Listeners[i])
			g.listeners = append(g.listeners, l)
			t.conflicts(g, l, taken)
		}
	}
}

// transport is a port of TCP or of UDP, which have nothing to do with each other.
type transport struct {
	port    int
	packets bool
}

// claimed is a port that a listener has.
type claimed struct {
	g *gateway
	l *listener
}

// conflicts gives the port to a listener, or says who has it.
func (t *translation) conflicts(g *gateway, l *listener, taken map[transport][]claimed) {
	l.conflict = judgement{Conflicted, false, "NoConflicts", "no other listener is in its way"}
	refuse := func(reason, format string, args ...any) {
		message := fmt.Sprintf(format, args...)
		l.accepted = judgement{Accepted, false, reason, message}
		if reason != mesh.ReasonPortUnavailable {
			l.conflict = judgement{Conflicted, true, reason, message}
		}
		l.mesh = nil
	}
	at := transport{l.Port, l.Protocol == mesh.ProtocolUDP}
	for _, c := range taken[at] {
		switch {
		case c.g != g && g.serves() && shareAddress(c.g, g):
			refuse(mesh.ReasonPortUnavailable, "port %d is taken by listener %s of Gateway %s, which is older", l.Port, c.l.Name, c.g.key())
			return
		case c.g != g:
		case c.l.Protocol != l.Protocol:
			refuse(mesh.ReasonProtocolConflict, "port %d serves %s, listener %s", l.Port, c.l.Protocol, c.l.Name)
			return
		case c.l.Hostname == l.Hostname:
			refuse(mesh.ReasonHostnameConflict, "listener %s has the same port and hostname", c.l.Name)
			return
		}
	}
	if l.accepted.holds {
		taken[at] = append(taken[at], claimed{g, l})
	}
}

// serves reports whether the Gateway can have listeners in force.
func (g *gateway) serves() bool { return g.refusal == nil && g.unusable == nil }

func shareAddress(a, b *gateway) bool {
	return a.serves() && (len(a.bind) == 0 || len(b.bind) == 0 ||
		slices.ContainsFunc(a.bind, func(x mesh.GatewayAddress) bool { return slices.Contains(b.bind, x) }))
}

// judge says what is right and wrong with a listener by itself, and how the mesh
// serves it.
func (t *translation) judge(g *gateway, spec *Listener) *listener {
	l := &listener{
		Listener: spec, kinds: []RouteKind{},
		accepted: judgement{Accepted, true, "Accepted", "valid"},
		resolved: judgement{ResolvedRefs, true, "ResolvedRefs", "all references lead somewhere"},
	}
	kinds, served := protocolKinds[spec.Protocol]
	if !served {
		l.accepted = judgement{Accepted, false, mesh.ReasonUnsupportedProtocol, fmt.Sprintf("protocol %q is not served", spec.Protocol)}
		return l
	}
	if spec.Protocol == mesh.ProtocolTLS && spec.TLS != nil && cmp.Or(spec.TLS.Mode, mesh.TLSTerminate) == mesh.TLSTerminate {
		kinds = append(slices.Clone(kinds), mesh.KindTCPRoute) // what comes out of the session is TCP
	}
	l.takes(kinds)
	m := &mesh.Listener{Name: spec.Name, Hostname: spec.Hostname, Port: spec.Port, Protocol: spec.Protocol,
		AllowedRoutes: &mesh.AllowedRoutes{Namespaces: &mesh.RouteNamespaces{From: mesh.NamespacesAll}}}
	if spec.TLS != nil || spec.Protocol == mesh.ProtocolHTTPS || spec.Protocol == mesh.ProtocolTLS {
		t.listenerTLS(g, l, m)
	}
	usable := len(kinds) == 0 || len(l.kinds) > 0
	if m.TLS != nil && m.TLS.Mode != mesh.TLSPassthrough && len(m.TLS.CertificateRefs) == 0 {
		usable = false
	}
	if !l.accepted.holds || !usable {
		return l
	}
	one := &mesh.Objects{Gateways: []*mesh.Gateway{{
		Metadata: mesh.ObjectMeta{Name: g.Name, Namespace: g.Namespace},
		Spec:     mesh.GatewaySpec{GatewayClassName: mesh.GatewayClass, Listeners: []mesh.Listener{*m}},
	}}}
	mesh.Default(one)
	if err := mesh.Validate(one); err != nil {
		l.accepted = judgement{Accepted, false, "UnsupportedValue", oneLine(err)}
		return l
	}
	l.mesh = m
	return l
}

// takes fills in the kinds of routes that the listener takes.
func (l *listener) takes(kinds []string) {
	if l.AllowedRoutes == nil || len(l.AllowedRoutes.Kinds) == 0 {
		for _, k := range kinds {
			l.kinds = append(l.kinds, RouteKind{mesh.GatewayGroup, k})
		}
		return
	}
	for _, k := range l.AllowedRoutes.Kinds {
		k.Group = cmp.Or(k.Group, mesh.GatewayGroup)
		if k.Group != mesh.GatewayGroup || !slices.Contains(kinds, k.Kind) {
			l.resolved = judgement{ResolvedRefs, false, "InvalidRouteKinds", fmt.Sprintf("protocol %s does not take routes of kind %s, group %s", l.Protocol, k.Kind, k.Group)}
			continue
		}
		l.kinds = append(l.kinds, k)
	}
}

// listenerTLS resolves what a listener says of TLS.
func (t *translation) listenerTLS(g *gateway, l *listener, m *mesh.Listener) {
	unserved := func(message string) {
		l.accepted = judgement{Accepted, false, "UnsupportedValue", message}
	}
	if l.TLS == nil {
		unserved("tls is missing")
		return
	}
	m.TLS = &mesh.ListenerTLS{Mode: cmp.Or(l.TLS.Mode, mesh.TLSTerminate), Options: l.TLS.Options}
	if m.TLS.Mode == mesh.TLSPassthrough {
		return
	}
	for i, ref := range l.TLS.CertificateRefs {
		name, reason, message := t.certificate(g, ref)
		if reason != "" {
			l.resolved = judgement{ResolvedRefs, false, reason, fmt.Sprintf("tls.certificateRefs[%d]: %s", i, message)}
			continue
		}
		m.TLS.CertificateRefs = append(m.TLS.CertificateRefs, mesh.CertificateRef{Group: mesh.MeshGroup, Kind: mesh.KindCertificate, Name: name})
	}
	if len(l.TLS.CertificateRefs) == 0 {
		l.resolved = judgement{ResolvedRefs, false, mesh.ReasonInvalidCertificateRef, "tls.certificateRefs is empty"}
	}
}

// certificate is the name of the mesh's Certificate, in the Gateway's namespace, for a
// reference to one or to a Secret.
func (t *translation) certificate(g *gateway, ref ObjectRef) (name, reason, message string) {
	ref.Kind, ref.Namespace = cmp.Or(ref.Kind, KindSecret), cmp.Or(ref.Namespace, g.Namespace)
	invalid := func(format string, args ...any) (string, string, string) {
		return "", mesh.ReasonInvalidCertificateRef, fmt.Sprintf(format, args...)
	}
	if ref.Group == mesh.MeshGroup && ref.Kind == mesh.KindCertificate {
		o := t.own[mesh.Key{Kind: mesh.KindCertificate, Namespace: ref.Namespace, Name: ref.Name}]
		if ref.Namespace != g.Namespace || o == nil || o.Doc == nil {
			return invalid("there is no Certificate %s in namespace %s", ref.Name, g.Namespace)
		}
		return ref.Name, "", ""
	}
	if ref.Group != "" || ref.Kind != KindSecret {
		return invalid("a %s of group %q holds no certificate: a Secret or a Certificate does", ref.Kind, ref.Group)
	}
	if !t.permits(mesh.KindGateway, g.Namespace, ref) {
		return "", mesh.ReasonRefNotPermitted, fmt.Sprintf("Secret %s/%s is in another namespace, and no ReferenceGrant there lets Gateways of %s name it", ref.Namespace, ref.Name, g.Namespace)
	}
	s := t.secrets[ref.Namespace+"/"+ref.Name]
	switch {
	case t.in.Certificates == "":
		return invalid("Secrets are not read: start the controller with --kube-certificates, or name a Certificate")
	case s == nil:
		return invalid("there is no Secret %s/%s of type kubernetes.io/tls", ref.Namespace, ref.Name)
	case s.Problem != "":
		return invalid("Secret %s/%s: %s", ref.Namespace, ref.Name, s.Problem)
	}
	return t.keep(g, s), "", ""
}

// keep makes the Certificate of a Secret, in files whose names change with their
// content, so that proxies which have one file have the other.
func (t *translation) keep(g *gateway, s *Secret) string {
	h := sha256.New()
	h.Write(s.Certificate)
	h.Write(s.Key)
	file := t.in.Certificates + "/" + s.Namespace + "." + s.Name + "." + hex.EncodeToString(h.Sum(nil)[:8])
	name := s.Name
	if s.Namespace != g.Namespace {
		name = short(s.Namespace+"-"+s.Name, "", s.key())
	}
	if !slices.ContainsFunc(t.out.Objects.Certificates, func(c *mesh.Certificate) bool {
		return c.Metadata.Namespace == g.Namespace && c.Metadata.Name == name
	}) {
		t.out.Files[file+".crt"], t.out.Files[file+".key"] = s.Certificate, s.Key
		t.out.Objects.Certificates = append(t.out.Objects.Certificates, &mesh.Certificate{
			Metadata: mesh.ObjectMeta{Name: name, Namespace: g.Namespace},
			Spec:     mesh.CertificateSpec{CertificateFile: file + ".crt", KeyFile: file + ".key"},
		})
	}
	return name
}

// allows reports whether routes of a namespace may join.
func (t *translation) allows(l *listener, namespace string, gateway string) bool {
	from, selector := mesh.NamespacesSame, (*Selector)(nil)
	if a := l.AllowedRoutes; a != nil && a.Namespaces != nil {
		from, selector = cmp.Or(a.Namespaces.From, mesh.NamespacesSame), a.Namespaces.Selector
	}
	switch from {
	case mesh.NamespacesAll:
		return true
	case mesh.NamespacesSame:
		return namespace == gateway
	case mesh.NamespacesSelector:
		n := t.namespaces[namespace]
		return n != nil && selector != nil && selector.selects(n.Labels)
	}
	return false
}

func (s *Selector) selects(labels map[string]string) bool {
	for k, v := range s.MatchLabels {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	for _, r := range s.MatchExpressions {
		have, ok := labels[r.Key]
		switch r.Operator {
		case "In":
			ok = ok && slices.Contains(r.Values, have)
		case "NotIn":
			ok = !ok || !slices.Contains(r.Values, have)
		case "Exists":
		case "DoesNotExist":
			ok = !ok
		default:
			ok = false
		}
		if !ok {
			return false
		}
	}
	return true
}

// addresses gives each Gateway the addresses that it asks for, or one of the pool: that
// which its status says, else that which it was given last time, which its status may not
// say yet.
func (t *translation) addresses() {
	used := map[netip.Addr]bool{}
	var open []*gateway
	for _, g := range t.gateways {
		fixed := slices.DeleteFunc(slices.Clone(g.Addresses), func(a GatewayAddress) bool { return a.Value == "" })
		for _, a := range g.Addresses {
			if typ := cmp.Or(a.Type, "IPAddress"); typ != "IPAddress" {
				g.refusal = &judgement{Accepted, false, "UnsupportedAddress", "addresses of type " + typ + " are not served"}
			}
		}
		if g.refusal != nil {
			continue
		}
		for _, a := range fixed {
			ip, err := netip.ParseAddr(a.Value)
			switch {
			case err != nil:
				g.refusal = &judgement{Accepted, false, "UnsupportedAddress", fmt.Sprintf("%q is not an address", a.Value)}
			case len(t.in.Pool) > 0 && !t.pooled(ip) && !t.nodeHas(a.Value):
				g.unusable = &judgement{Programmed, false, "AddressNotUsable", "address " + a.Value + " is neither of the pool nor a node's"}
			default:
				used[ip] = true
				g.give(a.Value)
			}
		}
		if len(fixed) > 0 {
			continue
		}
		if len(t.in.Pool) == 0 {
			for _, a := range t.nodeAddresses() {
				g.addresses = append(g.addresses, GatewayAddress{"IPAddress", a})
			}
			if len(g.addresses) == 0 {
				g.unusable = &judgement{Programmed, false, "AddressNotAssigned", "no node has an internal address"}
			}
			continue
		}
		open = append(open, g)
	}
	t.out.Given = map[string]netip.Addr{}
	for _, had := range []func(*gateway) (netip.Addr, bool){
		func(g *gateway) (netip.Addr, bool) {
			if len(g.Status.Addresses) != 1 {
				return netip.Addr{}, false
			}
			ip, err := netip.ParseAddr(g.Status.Addresses[0].Value)
			return ip, err == nil && t.pooled(ip) && !used[ip]
		},
		func(g *gateway) (netip.Addr, bool) {
			ip, ok := t.in.Given[g.key()]
			return ip, ok && t.pooled(ip) && !used[ip]
		},
		func(*gateway) (netip.Addr, bool) { return t.free(used) },
	} {
		open = slices.DeleteFunc(open, func(g *gateway) bool {
			ip, ok := had(g)
			if ok {
				used[ip] = true
				t.out.Given[g.key()] = ip
				g.give(ip.String())
			}
			return ok
		})
	}
	for _, g := range open {
		g.unusable = &judgement{Programmed, false, "AddressNotAssigned", "the pool of addresses is used up"}
	}
}

func (g *gateway) give(address string) {
	g.addresses = append(g.addresses, GatewayAddress{"IPAddress", address})
	g.bind = append(g.bind, mesh.GatewayAddress{Type: "IPAddress", Value: address})
}

func (t *translation) pooled(ip netip.Addr) bool {
	return slices.ContainsFunc(t.in.Pool, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// free is the first address of the pool that nobody has; the first of a network of
// several, which names the network, is nobody's.
func (t *translation) free(used map[netip.Addr]bool) (netip.Addr, bool) {
	for _, p := range t.in.Pool {
		p = p.Masked()
		ip := p.Addr()
		if !p.IsSingleIP() {
			ip = ip.Next()
		}
		for ; ip.IsValid() && p.Contains(ip); ip = ip.Next() {
			if !used[ip] {
				return ip, true
			}
		}
	}
	return netip.Addr{}, false
}

func (t *translation) nodeHas(address string) bool {
	return slices.ContainsFunc(t.in.Nodes, func(n *Node) bool { return slices.Contains(n.Addresses, address) })
}

// nodeAddresses are the addresses of the site's nodes, as many as a status may have.
func (t *translation) nodeAddresses() []string {
	var list []string
	for _, n := range t.in.Nodes {
		if t.siteOf(n.Name) == t.in.Site {
			list = append(list, n.Addresses...)
		}
	}
	slices.Sort(list)
	list = slices.Compact(list)
	return list[:min(len(list), maxAddresses)]
}

// finishGateways passes on the Gateways that have something to serve, and says how all
// of them stand.
func (t *translation) finishGateways() {
	for _, g := range t.gateways {
		m := &mesh.Gateway{
			Metadata: mesh.ObjectMeta{Name: g.Name, Namespace: g.Namespace, Labels: g.Labels},
			Spec:     mesh.GatewaySpec{GatewayClassName: mesh.GatewayClass, Addresses: g.bind},
		}
		want := GatewayStatus{Addresses: g.addresses, Listeners: []ListenerStatus{}}
		valid := 0
		for _, l := range g.listeners {
			programmed := judgement{Programmed, false, "Invalid", "not served"}
			switch {
			case l.mesh != nil && g.serves():
				programmed = judgement{Programmed, true, "Programmed", "sent to the proxies"}
				m.Spec.Listeners = append(m.Spec.Listeners, *l.mesh)
			case l.mesh != nil:
				programmed.message = "the Gateway is not served"
			}
			if l.accepted.holds && l.resolved.holds {
				valid++
			}
			var was []Condition
			if i := slices.IndexFunc(g.Status.Listeners, func(s ListenerStatus) bool { return s.Name == l.Name }); i >= 0 {
				was = g.Status.Listeners[i].Conditions
			}
			want.Listeners = append(want.Listeners, ListenerStatus{l.Name, l.kinds, l.attached,
				settle(was, g.Generation, t.now, l.accepted, programmed, l.resolved, l.conflict)})
		}
		accepted := judgement{Accepted, true, "Accepted", "valid"}
		programmed := judgement{Programmed, true, "Programmed", "sent to the proxies"}
		if valid < len(g.listeners) {
			accepted = judgement{Accepted, len(m.Spec.Listeners) > 0 || valid > 0, "ListenersNotValid", fmt.Sprintf("%d of %d listeners are not valid", len(g.listeners)-valid, len(g.listeners))}
		}
		if len(m.Spec.Listeners) == 0 {
			programmed = judgement{Programmed, false, "Invalid", "no listener is served"}
		}
		if g.unusable != nil {
			programmed = *g.unusable
		}
		if g.refusal != nil {
			accepted, programmed = *g.refusal, judgement{Programmed, false, "Invalid", g.refusal.message}
		}
		want.Conditions = settle(g.Status.Conditions, g.Generation, t.now, accepted, programmed)
		t.status(mesh.KindGateway, g.Meta, &want, &g.Status)
		if len(m.Spec.Listeners) > 0 && g.serves() {
			slices.SortFunc(g.frontends, func(a, b *frontend) int { return cmp.Compare(a.name, b.name) })
			for _, f := range g.frontends {
				if f.routed {
					m.Spec.Listeners = append(m.Spec.Listeners, f.listeners()...)
				}
			}
			t.out.Objects.Gateways = append(t.out.Objects.Gateways, m)
		}
	}
}
