package view

import (
	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/function"
	"github.com/meridian-mesh/meridian/edgeproxy/route"
)

// chains makes the chains of requests.
func (b *builder) chains(functions *function.Registry) {
	b.view.Chains = functions.Chains(&b.snap.Objects, b.site)
	for _, c := range function.Sorted(b.view.Chains) {
		if c.Broken != "" {
			b.problem("ServiceChain/%s: %s", c.Key, c.Broken)
		}
		for i := range c.Hops {
			if e := c.Hops[i].External; e != nil && !b.served(e) {
				b.problem("ServiceChain/%s: function %s fails: there is no MeshService %s with that port for HTTP", c.Key, c.Hops[i].Name, e.Service)
			}
		}
	}
}

// served reports whether there is a service for an external function to be asked at.
func (b *builder) served(e *function.External) bool {
	for _, s := range b.snap.Objects.Services {
		if mesh.ServiceKey(s.Metadata.Namespace+"/"+s.Metadata.Name) != e.Service {
			continue
		}
		for _, p := range s.Spec.Ports {
			if (e.Port == p.Port || e.Port == 0 && len(s.Spec.Ports) == 1) && (p.Protocol == "" || p.Protocol == mesh.PortHTTP || p.Protocol == mesh.PortHTTP2) {
				return true
			}
		}
	}
	return false
}

// chained finds the chains that the rules of a table name, of which none is missing.
func (b *builder) chained(t *route.Table) {
	if t == nil {
		return
	}
	find := func(f *route.Filters) {
		if f == nil {
			return
		}
		for i := range f.Chains {
			f.Chains[i].Chain = b.view.Chains[f.Chains[i].Key]
		}
	}
	for _, r := range t.Rules {
		find(r.Filters)
		for i := range r.Backends {
			find(r.Backends[i].Filters)
		}
	}
}
