package mesh

import (
	"cmp"
	"reflect"
	"slices"
)

// ofGateways are the sections for targets of kind Gateway.
var ofGateways = []reflect.Type{reflect.TypeFor[*AcceptProxyProtocol](), reflect.TypeFor[*Forwarding](), reflect.TypeFor[*SlowClients]()}

// policyTargets holds the sections of a policy against the kinds it targets.
func policyTargets(v reflect.Value, fault faultFunc) {
	spec := v.Interface().(TrafficPolicySpec)
	gateway := slices.ContainsFunc(spec.TargetRefs, func(t PolicyTargetRef) bool { return t.Kind == KindGateway })
	service := slices.ContainsFunc(spec.TargetRefs, func(t PolicyTargetRef) bool { return t.Kind == KindMeshService })
	named := slices.ContainsFunc(spec.TargetRefs, func(t PolicyTargetRef) bool { return t.SectionName != "" && t.Kind == KindMeshService })
	if named {
		fault("targetRefs", "sectionName is for targets of kind "+KindGateway, "leave it out")
	}
	for _, s := range sections {
		set := !v.FieldByIndex(s.index).IsNil()
		switch of := slices.Contains(ofGateways, s.typ); {
		case set && of && service:
			fault(s.name, "is for targets of kind "+KindGateway, "make it a policy of its own")
		case set && !of && gateway:
			fault(s.name, "is for targets of kind "+KindMeshService, "make it a policy of its own")
		}
	}
}

// gatewayTarget checks that the target of a policy is there.
func (c *checker) gatewayTarget(p *TrafficPolicy, path string, t *PolicyTargetRef) {
	key := p.Metadata.Namespace + "/" + t.Name
	g := c.gateways[key]
	switch {
	case g == nil:
		c.add(KindTrafficPolicy, p.Metadata, path, ReasonTargetNotFound, "there is no Gateway %s%s", key, c.perhaps(t.Name, c.gateways))
	case t.SectionName != "" && !slices.ContainsFunc(g.Spec.Listeners, func(l Listener) bool { return l.Name == t.SectionName }):
		c.add(KindTrafficPolicy, p.Metadata, path+".sectionName", ReasonTargetNotFound, "Gateway %s has no listener %s", key, t.SectionName)
	}
}

// sendsProxy says where a PROXY header would never be sent: connections for
// requests serve many clients.
func (c *checker) sendsProxy(p *TrafficPolicy, s *MeshService) {
	if p.Spec.SendProxyProtocol != nil && !slices.ContainsFunc(s.Spec.Ports, func(port ServicePort) bool { return port.Protocol == PortTCP }) {
		c.add(KindTrafficPolicy, p.Metadata, "spec.sendProxyProtocol", ReasonUnsupportedProtocol, "MeshService %s has no %s port: connections for requests serve many clients", s.Key(), PortTCP)
	}
}

// ProxyProtocolFrom returns the networks whose connections to a listener of a
// gateway begin with a PROXY header. Of several policies for the listener the
// first by namespace and name counts.
func ProxyProtocolFrom(o *Objects, gateway ObjectMeta, listener string) []string {
	p := listenerPolicy(o, gateway, listener, func(s *TrafficPolicySpec) bool { return s.AcceptProxyProtocol != nil })
	if p == nil {
		return nil
	}
	return p.AcceptProxyProtocol.From
}

// ForwardingOf returns what requests to a listener of a gateway tell backends of
// the way they came, as ProxyProtocolFrom; never nil.
func ForwardingOf(o *Objects, gateway ObjectMeta, listener string) *Forwarding {
	f := &Forwarding{}
	if p := listenerPolicy(o, gateway, listener, func(s *TrafficPolicySpec) bool { return s.Forwarding != nil }); p != nil {
		*f = *p.Forwarding
	}
	f.Via = cmp.Or(f.Via, DefaultVia)
	return f
}

// SlowClientsOf returns how slow clients of a listener of a gateway may be, nil for
// the defaults, as ProxyProtocolFrom.
func SlowClientsOf(o *Objects, gateway ObjectMeta, listener string) *SlowClients {
	if p := listenerPolicy(o, gateway, listener, func(s *TrafficPolicySpec) bool { return s.SlowClients != nil }); p != nil {
		return p.SlowClients
	}
	return nil
}

func listenerPolicy(o *Objects, gateway ObjectMeta, listener string, has func(*TrafficPolicySpec) bool) *TrafficPolicySpec {
	for _, p := range slices.SortedStableFunc(slices.Values(o.TrafficPolicies), func(a, b *TrafficPolicy) int { return byName(a.Metadata, b.Metadata) }) {
		if !has(&p.Spec) || p.Metadata.Namespace != gateway.Namespace {
			continue
		}
		for _, t := range p.Spec.TargetRefs {
			if t.Kind == KindGateway && t.Name == gateway.Name && (t.SectionName == "" || t.SectionName == listener) {
				return &p.Spec
			}
		}
	}
	return nil
}
