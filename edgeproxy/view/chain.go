package view

import (
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
	}
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
