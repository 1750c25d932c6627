package route

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// MaxChains bounds the chains that a request passes: that of its class and those of
// its rule and backend.
const MaxChains = 4

// chain adds a ServiceChain of a route's filters.
func (b *builder) chain(route *mesh.HTTPRoute, f *Filters, name, field string) {
	key := route.Metadata.Namespace + "/" + name
	at := slices.IndexFunc(b.objects.ServiceChains, func(c *mesh.ServiceChain) bool {
		return c.Metadata.Namespace == route.Metadata.Namespace && c.Metadata.Name == name
	})
	what := ""
	switch {
	case at < 0:
		what = "there is no ServiceChain " + key
	case !b.objects.ServiceChains[at].Spec.OfRoutes():
		if what = b.objects.ServiceChains[at].NoCodePoint(); what != "" {
			break
		}
		if f.Onward.Key == "" || f.Onward.Key == key {
			f.Onward.Key = key
			f.Onward.CodePoint, _ = b.objects.ServiceChains[at].Spec.CodePoint()
			return
		}
		what = fmt.Sprintf("ServiceChain %s is of packets, and so is %s: connections pass one", key, f.Onward.Key)
	case len(f.Chains) == MaxChains-1:
		what = fmt.Sprintf("ServiceChain %s is one more than the %d that a rule may have", key, MaxChains-1)
	}
	if what != "" {
		f.Invalid = what
		b.fault(route, what, "%s", field)
		return
	}
	f.Chains = append(f.Chains, Chain{Key: key})
}

// BuildClasses compiles what the chains that begin at the listeners, which are those
// of one port of the gateway, take of its requests: of a rule in the table the Filters
// have the one chain. It is nil where there is none. A request's class is the one with
// the most specific match, by the precedence of routes.
func BuildClasses(gateway *mesh.Gateway, listeners []mesh.Listener, objects *mesh.Objects) (*Table, []Fault) {
	type origin struct {
		chain *mesh.ServiceChain
		match int
	}
	var routes []*mesh.HTTPRoute
	origins := map[string]origin{}
	for _, c := range objects.ServiceChains {
		in := c.Spec.Ingress
		if in.Gateway != gateway.Metadata.Name || c.Metadata.Namespace != gateway.Metadata.Namespace {
			continue
		}
		for i := range c.Spec.Match {
			r := classRoute(c, i)
			routes = append(routes, r)
			origins[r.Metadata.Name] = origin{c, i}
		}
	}
	if len(routes) == 0 {
		return nil, nil
	}
	open := slices.Clone(listeners)
	for i := range open {
		open[i].AllowedRoutes = &mesh.AllowedRoutes{} // a chain is no route
	}
	table, found := Build(gateway, open, &mesh.Objects{HTTPRoutes: routes})
	for _, r := range table.Rules {
		r.Filters = &Filters{Chains: []Chain{{Key: origins[r.Route].chain.Metadata.Namespace + "/" + origins[r.Route].chain.Metadata.Name}}}
	}
	var faults []Fault
	for _, f := range found {
		of := origins[f.Object.Name]
		m := of.chain.Metadata
		faults = append(faults, Fault{
			Object: mesh.Key{Kind: mesh.KindServiceChain, Namespace: m.Namespace, Name: m.Name},
			Field:  fmt.Sprintf("spec.match[%d]", of.match), What: f.What,
		})
	}
	return table, faults
}

// classRoute is a route that takes what match i of a chain does.
func classRoute(c *mesh.ServiceChain, i int) *mesh.HTTPRoute {
	m := &c.Spec.Match[i]
	rule := mesh.HTTPRouteRule{}
	paths, methods := m.Paths, m.Methods
	if len(paths) == 0 {
		paths = []mesh.PathMatch{{}}
	}
	if len(methods) == 0 {
		methods = []string{""}
	}
	for k := range paths {
		path := mesh.PathMatch{Type: cmp.Or(paths[k].Type, mesh.PathPrefix), Value: cmp.Or(paths[k].Value, "/")}
		for _, method := range methods {
			rule.Matches = append(rule.Matches, mesh.HTTPRouteMatch{Path: &path, Method: method, Headers: m.Headers})
		}
	}
	return &mesh.HTTPRoute{
		Metadata: mesh.ObjectMeta{Namespace: c.Metadata.Namespace, Name: c.Metadata.Name + "/" + strconv.Itoa(i)},
		Spec: mesh.HTTPRouteSpec{
			ParentRefs: []mesh.ParentRef{{Name: c.Spec.Ingress.Gateway, SectionName: c.Spec.Ingress.Listener}},
			Hostnames:  m.Hosts, Rules: []mesh.HTTPRouteRule{rule},
		},
	}
}
