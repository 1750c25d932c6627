package route

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

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
	objects   *mesh.Objects
	table     *Table
	faults    []Fault
	// service says that the gateway stands for a service, which is what routes join.
	service bool
}

// Build compiles the HTTPRoutes and GRPCRoutes of the objects that join the listeners, which are
// those of one port of the gateway, with the local responses that filters name and
// the grants for services of other namespaces. The order of routes does not matter.
func Build(gateway *mesh.Gateway, listeners []mesh.Listener, objects *mesh.Objects) (*Table, []Fault) {
	b := newBuilder(gateway, listeners, objects)
	b.all(slices.Clone(objects.RequestRoutes()))
	return b.table, b.faults
}

func newBuilder(gateway *mesh.Gateway, listeners []mesh.Listener, objects *mesh.Objects) *builder {
	b := &builder{gateway: gateway, listeners: listeners, objects: objects, table: &Table{listeners: newHosts[*listener]()}}
	if len(listeners) > 0 {
		b.table.Port = listeners[0].Port
	}
	for i := range listeners {
		for _, host := range listeners[i].Hosts() {
			if name := strings.ToLower(host); b.table.listeners.get(name) == nil {
				b.table.listeners.set(name, &listener{hosts: newHosts[*paths]()})
			}
		}
	}
	return b
}

// all adds routes, which it sorts.
func (b *builder) all(sorted []*mesh.HTTPRoute) {
	slices.SortStableFunc(sorted, func(a, b *mesh.HTTPRoute) int {
		return cmp.Or(cmp.Compare(a.Metadata.Namespace, b.Metadata.Namespace), cmp.Compare(a.Metadata.Name, b.Metadata.Name))
	})
	for _, r := range sorted {
		b.route(r)
	}
}

func (b *builder) fault(r *mesh.HTTPRoute, what string, field string, args ...any) {
	key := mesh.Key{Kind: r.RouteKind(), Namespace: r.Metadata.Namespace, Name: r.Metadata.Name}
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
		for _, host := range b.listeners[i].Hosts() {
			name := strings.ToLower(host)
			hostnames := r.Spec.Hostnames
			if b.service {
				hostnames = nil
			}
			for _, p := range b.tables(b.table.listeners.get(name), name, hostnames) {
				if !slices.Contains(tables, p) {
					tables = append(tables, p)
				}
			}
		}
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

// joins reports whether a route refers to the listener, which allows it.
func (b *builder) joins(r *mesh.HTTPRoute, l *mesh.Listener) bool {
	if !l.Allows(r.RouteKind(), r.Metadata.Namespace, b.gateway.Metadata.Namespace) {
		return false
	}
	for _, p := range r.Spec.ParentRefs {
		if b.service {
			if b.isParent(r, &p, l.Port) {
				return true
			}
			continue
		}
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
			p = &paths{exact: map[string]*place{}, prefix: map[string]*place{}}
			l.hosts.set(pattern, p)
		}
		tables = append(tables, p)
	}
	return tables
}

func (b *builder) rule(route *mesh.HTTPRoute, index int, tables []*paths) {
	spec := &route.Spec.Rules[index]
	number := strconv.Itoa(index)
	if route.RouteKind() == mesh.KindGRPCRoute {
		number = "grpc-" + number // an HTTPRoute may have the same name
	}
	r := &Rule{Key: route.Metadata.Namespace + "/" + route.Metadata.Name + "/" + cmp.Or(spec.Name, number), Kind: route.RouteKind(), Namespace: route.Metadata.Namespace, Route: route.Metadata.Name}
	if t := spec.Timeouts; t != nil {
		r.Request, r.BackendRequest = bound(t.Request), bound(t.BackendRequest)
	}
	r.Retry = compileRetry(spec.Retry)
	matches := spec.Matches
	if len(matches) == 0 {
		matches = []mesh.HTTPRouteMatch{{}}
	}
	used, prefix := false, ""
	for i := range matches {
		kind, value, ok := b.path(route, matches[i].Path, index, i)
		if !ok {
			continue
		}
		c, field, err := compile(&matches[i])
		if err != nil {
			b.fault(route, err.Error(), "spec.rules[%d].matches[%d].%s", index, i, field)
			continue
		}
		if err := addTo(tables, kind, value, c, r); err != nil {
			b.fault(route, err.Error(), "spec.rules[%d].matches[%d].path.value", index, i)
			continue
		}
		if kind == mesh.PathPrefix {
			prefix = value
		}
		used = true
	}
	field := fmt.Sprintf("spec.rules[%d]", index)
	r.Filters = b.filters(route, spec.Filters, nil, prefix, field)
	for i := range spec.BackendRefs {
		at := fmt.Sprintf("%s.backendRefs[%d]", field, i)
		backend := b.backend(route, &spec.BackendRefs[i])
		if backend.Invalid != "" {
			b.fault(route, backend.Invalid, "%s", at)
		}
		backend.Filters = b.filters(route, spec.BackendRefs[i].Filters, r.Filters, prefix, at)
		r.total += uint64(backend.Weight)
		r.Backends = append(r.Backends, backend)
	}
	if used {
		r.Index = len(b.table.Rules)
		b.table.Rules = append(b.table.Rules, r)
	}
}

func bound(d *mesh.Duration) time.Duration {
	switch {
	case d == nil:
		return 0
	case *d == 0:
		return Unbounded
	}
	return d.D()
}

// path returns a match's path in the form in which requests have it.
func (b *builder) path(route *mesh.HTTPRoute, p *mesh.PathMatch, rule, match int) (kind, value string, ok bool) {
	kind, value = mesh.PathPrefix, "/"
	if p != nil {
		kind, value = cmp.Or(p.Type, mesh.PathPrefix), cmp.Or(p.Value, "/")
	}
	switch kind {
	case mesh.MatchRegularExpression:
		return kind, value, true
	case mesh.PathExact, mesh.PathPrefix:
	default:
		b.fault(route, fmt.Sprintf("%q is not served: use %s, %s or %s", kind, mesh.PathExact, mesh.PathPrefix, mesh.MatchRegularExpression),
			"spec.rules[%d].matches[%d].path.type", rule, match)
		return "", "", false
	}
	normal, path, ok := Normalize([]byte(value), nil)
	if !ok || value == "*" || len(path) != len(normal) {
		b.fault(route, fmt.Sprintf("%q is not a path that a request can have", value), "spec.rules[%d].matches[%d].path.value", rule, match)
		return "", "", false
	}
	return kind, string(path), true
}

// addTo registers a rule under a path. What came before it has precedence.
func addTo(tables []*paths, kind, path string, c conditions, r *Rule) error {
	var compiled *regexp.Regexp
	if kind == mesh.MatchRegularExpression {
		var err error
		if compiled, err = mesh.CompileRegexp(path); err != nil {
			return err
		}
	}
	for _, p := range tables {
		p.place(kind, path, compiled).add(c, r)
	}
	return nil
}

func (p *paths) place(kind, path string, compiled *regexp.Regexp) *place {
	set := p.exact
	switch kind {
	case mesh.MatchRegularExpression:
		at, there := slices.BinarySearchFunc(p.expressions, path, func(e expression, text string) int {
			return cmp.Or(cmp.Compare(len(text), len(e.text)), cmp.Compare(e.text, text))
		})
		if !there {
			p.expressions = slices.Insert(p.expressions, at, expression{Regexp: compiled, text: path})
		}
		return &p.expressions[at].place
	case mesh.PathPrefix:
		set = p.prefix
		path = strings.TrimSuffix(path, "/")
		p.elements = max(p.elements, strings.Count(path, "/"))
		p.length = max(p.length, len(path))
	}
	if set[path] == nil {
		set[path] = &place{}
	}
	return set[path]
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
	backend.Invalid = b.unserved(route, ref.Group, ref.Kind, ref.Namespace, ref.Name)
	return backend
}

// unserved says why a reference is not served, empty when it is.
func (b *builder) unserved(route *mesh.HTTPRoute, group, kind, namespace, name string) string {
	from := route.Metadata.Namespace
	switch {
	case !b.objects.PermitsBackend(route.RouteKind(), from, namespace, name):
		return mesh.NotPermitted(route.RouteKind(), from, mesh.ServiceKey(namespace+"/"+name))
	case group == mesh.MeshGroup && kind == mesh.KindMeshService:
		return ""
	}
	return fmt.Sprintf("backend of group %q and kind %q is not served: write group: %s, kind: %s",
		group, cmp.Or(kind, "Service"), mesh.MeshGroup, mesh.KindMeshService)
}
