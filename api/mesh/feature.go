package mesh

import "slices"

// feature is something that objects may ask for and that builds before it ignore:
// they would serve such objects as if it were not written. A snapshot that uses it
// says so in [Compat], and they refuse it, keep the last good one and say why.
type feature struct {
	name string
	used func(o *Objects) bool
}

// features are named for good: a name is never used again for something else, and
// what every version that still runs knows may go.
var features = []feature{
	// A build that does not know requirements would serve chains without their traffic.
	{"af-sfc-requirements", func(o *Objects) bool { return len(o.AfSfcRequirements) > 0 }},
	{"cross-namespace", func(o *Objects) bool {
		return len(o.ReferenceGrants) > 0 || slices.ContainsFunc(o.Gateways, func(g *Gateway) bool {
			return slices.ContainsFunc(g.Spec.Listeners, func(l Listener) bool { return l.AllowedRoutes != nil })
		})
	}},
	// A build that does not know them would refuse their chains' requests.
	{"external-functions", func(o *Objects) bool {
		return slices.ContainsFunc(o.NetworkFunctions, func(f *NetworkFunction) bool { return f.Spec.External != nil })
	}},
	// A build that does not know fences would send across them.
	{"geo-fence", func(o *Objects) bool { return len(o.GeoFences) > 0 }},
	// A build that does not know them would let everybody pass.
	{"authorization", func(o *Objects) bool { return len(o.AuthorizationPolicies) > 0 }},
	// A build that does not know them would take in the clear what is to be strict.
	{"peer-authentication", func(o *Objects) bool { return len(o.PeerAuthentications) > 0 }},
	// A build that does not count would spend without end.
	{"link-budget", func(o *Objects) bool {
		return slices.ContainsFunc(o.Sites, func(s *Site) bool {
			return slices.ContainsFunc(s.Spec.Links, func(l SiteLink) bool { return l.Budget != nil })
		})
	}},
	// A build that does not know them would take every host for the listener's.
	{"listener-hostnames", func(o *Objects) bool {
		return slices.ContainsFunc(o.Gateways, func(g *Gateway) bool {
			return slices.ContainsFunc(g.Spec.Listeners, func(l Listener) bool { return len(l.Hostnames) > 0 })
		})
	}},
	// A build that does not end sessions of such listeners would pass them through.
	{"tls-terminate", func(o *Objects) bool {
		return slices.ContainsFunc(o.Gateways, func(g *Gateway) bool {
			return slices.ContainsFunc(g.Spec.Listeners, func(l Listener) bool { return l.Protocol == ProtocolTLS && l.TLS != nil && l.Terminates() })
		})
	}},
	{"priority-classes", func(o *Objects) bool {
		return slices.ContainsFunc(o.TrafficPolicies, func(p *TrafficPolicy) bool {
			return p.Spec.SiteSharing != nil && len(p.Spec.SiteSharing.PriorityClasses) > 0
		})
	}},
	{"request-chains", func(o *Objects) bool {
		return slices.ContainsFunc(o.ServiceChains, func(c *ServiceChain) bool { return c.Spec.ForRequests() }) ||
			slices.ContainsFunc(o.NetworkFunctions, func(f *NetworkFunction) bool { return f.Spec.ForRequests() })
	}},
	{"session-capacity", func(o *Objects) bool {
		return slices.ContainsFunc(o.Services, func(s *MeshService) bool {
			return slices.ContainsFunc(s.Spec.Endpoints, func(e Endpoint) bool { return e.Capacity != nil && e.Capacity.Unit == UnitSessions })
		})
	}},
	// An agent that does not know it would let connections pass the proxy and its policies by.
	{"redirect", func(o *Objects) bool {
		return slices.ContainsFunc(o.ChainNodes, func(n *ChainNode) bool { return n.Spec.Redirect != nil })
	}},
	{"route-retry", func(o *Objects) bool {
		return slices.ContainsFunc(o.HTTPRoutes, func(r *HTTPRoute) bool {
			return slices.ContainsFunc(r.Spec.Rules, func(r HTTPRouteRule) bool { return r.Retry != nil })
		})
	}},
	{"tls", func(o *Objects) bool {
		return slices.ContainsFunc(o.TrafficPolicies, func(p *TrafficPolicy) bool { return p.Spec.BackendTLS != nil }) ||
			slices.ContainsFunc(o.Gateways, func(g *Gateway) bool {
				return slices.ContainsFunc(g.Spec.Listeners, func(l Listener) bool { return l.usesTLS() })
			})
	}},
	{"trusted-hops", func(o *Objects) bool {
		return slices.ContainsFunc(o.TrafficPolicies, func(p *TrafficPolicy) bool {
			return p.Spec.Forwarding != nil && p.Spec.Forwarding.TrustedHops > 0
		})
	}},
}

// Requires lists the features that a reader of the objects needs.
func (o *Objects) Requires() []string {
	var names []string
	for _, f := range features {
		if f.used(o) {
			names = append(names, f.name)
		}
	}
	return names
}
