package route

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Fault is something of a route that cannot be served as written. The rest is
// served.
type Fault struct {
	Object mesh.Key
	Field  string // path inside the object: spec.rules[0].backendRefs[1]
	What   string
}

func (f Fault) Error() string { return f.Object.String() + ": " + f.Field + ": " + f.What }

type builder struct {
	gateway   *mesh.Gateway
	listeners []mesh.Listener
	table     *Table
	faults    []Fault
}

// Build compiles the routes that join the listeners, which are those of one port
// of the gateway. The order of routes does not matter.
func Build(gateway *mesh.Gateway, listeners []mesh.Listener, routes []*mesh.HTTPRoute) (*Table, []Fault) {
	b := &builder{gateway: gateway, listeners: listeners, table: &Table{listeners: newHosts[*listener]()}}
	for i := range listeners {
		name := strings.ToLower(listeners[i].Hostname)
		if b.table.listeners.get(name) == nil {
			b.table.listeners.set(name, &listener{hosts: newHosts[*paths]()})
		}
	}
	sorted := slices.Clone(routes)
	slices.SortStableFunc(sorted, func(a, b *mesh.HTTPRoute) int {
		return cmp.Or(cmp.Compare(a.Metadata.Namespace, b.Metadata.Namespace), cmp.Compare(a.Metadata.Name, b.Metadata.Name))
	})
	for _, r := range sorted {
		b.route(r)
	}
	return b.table, b.faults
}

func (b *builder) fault(r *mesh.HTTPRoute, what string, field string, args ...any) {
	key := mesh.Key{Kind: mesh.KindHTTPRoute, Namespace: r.Metadata.Namespace, Name: r.Metadata.Name}
	b.faults = append(b.faults, Fault{Object: key, Field: fmt.Sprintf(field, args...), What: what})
}

// route adds a route to every listener it joins.
func (b *builder) route(r *mesh.HTTPRoute) {
	var tables []*paths
	joined := false
	for i := range b.listeners {
		if !b.joins(r, &b.listeners[i]) {
			continue
		}
		joined = true
		name := strings.ToLower(b.listeners[i].Hostname)
		tables = append(tables, b.tables(b.table.listeners.get(name), name, r.Spec.Hostnames)...)
	}
	switch {
	case !joined:
		return
	case len(tables) == 0:
		b.fault(r, "no hostname matches that of a listener it joins", "spec.hostnames")
		return
	}
	for i := range r.Spec.Rules {
		b.rule(r, i, tables)
	}
}

func (b *builder) joins(r *mesh.HTTPRoute, l *mesh.Listener) bool {
	for _, p := range r.Spec.ParentRefs {
		if cmp.Or(p.Group, mesh.GatewayGroup) == mesh.GatewayGroup && cmp.Or(p.Kind, mesh.KindGateway) == mesh.KindGateway &&
			cmp.Or(p.Namespace, r.Metadata.Namespace) == b.gateway.Metadata.Namespace && p.Name == b.gateway.Metadata.Name &&
			cmp.Or(p.SectionName, l.Name) == l.Name && cmp.Or(p.Port, l.Port) == l.Port {
			return true
		}
	}
	return false
}

// tables returns the path tables of a listener's host patterns that a route with
// the given hostnames serves.
func (b *builder) tables(l *listener, name string, hostnames []string) []*paths {
	if len(hostnames) == 0 {
		hostnames = []string{""}
	}
	var tables []*paths
	for _, h := range hostnames {
		pattern, ok := intersect(name, strings.ToLower(h))
		if !ok {
			continue
		}
		p := l.hosts.get(pattern)
		if p == nil {
			p = &paths{exact: map[string]*Rule{}, prefix: map[string]*Rule{}}
			l.hosts.set(pattern, p)
		}
		tables = append(tables, p)
	}
	return tables
}

func (b *builder) rule(route *mesh.HTTPRoute, index int, tables []*paths) {
	spec := &route.Spec.Rules[index]
	r := &Rule{
		Key: route.Metadata.Namespace + "/" + route.Metadata.Name + "/" + cmp.Or(spec.Name, strconv.Itoa(index)),
	}
	if t := spec.Timeouts; t != nil {
		if t.Request != nil {
			r.Request = t.Request.D()
		}
		if t.BackendRequest != nil {
			r.BackendRequest = t.BackendRequest.D()
		}
	}
	for i := range spec.BackendRefs {
		backend := b.backend(route, &spec.BackendRefs[i])
		if backend.Invalid != "" {
			b.fault(route, backend.Invalid, "spec.rules[%d].backendRefs[%d]", index, i)
		}
		r.total += uint64(backend.Weight)
		r.Backends = append(r.Backends, backend)
	}
	matches := spec.Matches
	if len(matches) == 0 {
		matches = []mesh.HTTPRouteMatch{{}}
	}
	used := false
	for i := range matches {
		kind, value := mesh.PathPrefix, "/"
		if p := matches[i].Path; p != nil {
			kind, value = cmp.Or(p.Type, mesh.PathPrefix), cmp.Or(p.Value, "/")
		}
		normal, path, ok := Normalize([]byte(value), nil)
		switch {
		case !ok || value == "*" || len(path) != len(normal):
			b.fault(route, fmt.Sprintf("%q is not a path that a request can have", value), "spec.rules[%d].matches[%d].path.value", index, i)
		case kind != mesh.PathExact && kind != mesh.PathPrefix:
			b.fault(route, fmt.Sprintf("%q is not served: use %s or %s", kind, mesh.PathExact, mesh.PathPrefix), "spec.rules[%d].matches[%d].path.type", index, i)
		default:
			for _, t := range tables {
				t.add(kind, string(path), r)
			}
			used = true
		}
	}
	if used {
		r.Index = len(b.table.Rules)
		b.table.Rules = append(b.table.Rules, r)
	}
}

// add registers a rule unless an earlier one, which has precedence, is there.
func (p *paths) add(kind, path string, r *Rule) {
	if kind == mesh.PathExact {
		if p.exact[path] == nil {
			p.exact[path] = r
		}
		return
	}
	path = strings.TrimSuffix(path, "/")
	if p.prefix[path] == nil {
		p.prefix[path] = r
	}
	p.elements = max(p.elements, strings.Count(path, "/"))
	p.length = max(p.length, len(path))
}

func (b *builder) backend(route *mesh.HTTPRoute, ref *mesh.BackendRef) Backend {
	backend := Backend{
		Service: mesh.ServiceKey(cmp.Or(ref.Namespace, route.Metadata.Namespace) + "/" + ref.Name),
		Port:    ref.Port,
		Weight:  1,
	}
	if ref.Weight != nil {
		backend.Weight = max(*ref.Weight, 0)
	}
	if ref.Group != mesh.MeshGroup || ref.Kind != mesh.KindMeshService {
		backend.Invalid = fmt.Sprintf("backend of group %q and kind %q is not served: write group: %s, kind: %s",
			ref.Group, cmp.Or(ref.Kind, "Service"), mesh.MeshGroup, mesh.KindMeshService)
	}
	return backend
}
