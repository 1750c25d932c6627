package kube

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// routing is a route on its way to the mesh.
type routing struct {
	*Route
	t *translation
	// problems are the references that lead nowhere.
	problems []problem
}

// problem is a reference that leads nowhere, by the Gateway API's reasons.
type problem struct{ path, reason, message string }

// reference is a backendRef of any kind of routes.
type reference struct {
	path string
	ObjectRef
	port int
}

func (t *translation) routes() {
	for _, r := range slices.SortedFunc(slices.Values(t.in.Routes), func(a, b *Route) int {
		if a.Kind == b.Kind && a.whole() {
			return oldestFirst(&a.Meta, &b.Meta)
		}
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.key(), b.key()))
	}) {
		t.route(r)
	}
}

// whole reports whether a listener's traffic cannot be shared among routes of the kind:
// the oldest has all of it, and the others are accepted and wait.
func (r *Route) whole() bool { return r.Kind == mesh.KindTCPRoute || r.Kind == mesh.KindUDPRoute }

func (t *translation) route(r *Route) {
	type parent struct {
		ref    ParentRef
		judged judgement
	}
	var parents []parent
	attached := map[*listener]bool{}
	var joined []mesh.ParentRef
	var frontends []*frontend
	for _, ref := range r.Parents {
		if ref.isService() && t.meshed {
			list, addressed, j := t.attachService(r, &ref)
			parents = append(parents, parent{ref, j})
			for _, a := range addressed {
				if !slices.Contains(joined, a) {
					joined = append(joined, a)
				}
			}
			for _, f := range list {
				if !slices.Contains(frontends, f) {
					frontends = append(frontends, f)
					joined = append(joined, f.refs()...)
				}
			}
		}
		if !ref.isGateway() {
			continue
		}
		g := t.byName[cmp.Or(ref.Namespace, r.Namespace)+"/"+ref.Name]
		if g == nil {
			continue // somebody else's, or not there
		}
		list, j := t.attach(r, &ref, g)
		waits := len(list) > 0 && r.whole() && !slices.ContainsFunc(list, func(l *listener) bool { return !l.taken })
		if waits {
			j.message = "accepted, and without traffic: an older " + r.Kind + " has the listener"
		}
		parents = append(parents, parent{ref, j})
		for _, l := range list {
			if attached[l] {
				continue
			}
			attached[l] = true
			if l.taken && r.whole() {
				continue
			}
			if l.mesh != nil && g.serves() {
				joined = append(joined, mesh.ParentRef{Namespace: g.Namespace, Name: g.Name, SectionName: l.Name})
			}
		}
	}
	to := routing{Route: r, t: t}
	fault := r.Unserved
	if len(parents) > 0 && fault == "" {
		fault = to.emit(joined)
	}
	have := slices.Clone(r.Status.Parents)
	ours := func(p ParentStatus) bool { return p.ControllerName == ControllerName }
	want := RouteStatus{Parents: slices.DeleteFunc(slices.Clone(have), ours)}
	var mine []ParentStatus
	for _, p := range parents {
		if p.judged.holds && fault != "" {
			p.judged = judgement{Accepted, false, "UnsupportedValue", fault}
		}
		var was []Condition
		if i := slices.IndexFunc(have, func(h ParentStatus) bool { return ours(h) && h.ParentRef == p.ref }); i >= 0 {
			was = have[i].Conditions
		}
		mine = append(mine, ParentStatus{p.ref, ControllerName, settle(was, r.Generation, t.now, p.judged, to.resolved())})
	}
	if fault == "" {
		for _, f := range frontends {
			f.routed = true
		}
		for l := range attached {
			l.attached++
			l.taken = l.taken || r.whole()
		}
	}
	have = slices.DeleteFunc(have, func(p ParentStatus) bool { return !ours(p) })
	if len(mine)+len(have) == 0 {
		return
	}
	want.Parents = append(want.Parents, mine...)
	// Others may order the entries as they like: only a change of ours is one.
	changed := len(mine) != len(have) || len(mine) > 0 && !reflect.DeepEqual(mine, have)
	t.out.Statuses = append(t.out.Statuses, Status{r.Kind, r.Meta, &want, changed})
}

// attach finds the listeners of a Gateway that take a route by one of its parentRefs.
func (t *translation) attach(r *Route, ref *ParentRef, g *gateway) ([]*listener, judgement) {
	var selected, allowed, hosts []*listener
	for _, l := range g.listeners {
		if ref.SectionName != "" && ref.SectionName != l.Name || ref.Port != 0 && ref.Port != l.Port {
			continue
		}
		selected = append(selected, l)
		if !slices.ContainsFunc(l.kinds, func(k RouteKind) bool { return k.Kind == r.Kind }) || !t.allows(l, r.Namespace, g.Namespace) {
			continue
		}
		allowed = append(allowed, l)
		if len(r.Hostnames) == 0 || slices.ContainsFunc(r.Hostnames, func(h string) bool { return mesh.HostnamesOverlap(h, l.Hostname) }) {
			hosts = append(hosts, l)
		}
	}
	refuse := func(reason, format string, args ...any) ([]*listener, judgement) {
		return nil, judgement{Accepted, false, reason, fmt.Sprintf(format, args...)}
	}
	switch {
	case len(selected) == 0:
		return refuse(mesh.ReasonNoMatchingParent, "Gateway %s has no listener with that sectionName and port", g.key())
	case len(allowed) == 0:
		return refuse(mesh.ReasonNotAllowedByListeners, "no listener of Gateway %s allows %ss of namespace %s", g.key(), r.Kind, r.Namespace)
	case len(hosts) == 0:
		return refuse(mesh.ReasonNoMatchingListenerHostname, "no listener of Gateway %s has a hostname that overlaps with the route's", g.key())
	}
	return hosts, judgement{Accepted, true, "Accepted", "joined"}
}

func (r *routing) resolved() judgement {
	if len(r.problems) == 0 {
		return judgement{ResolvedRefs, true, "ResolvedRefs", "all references lead somewhere"}
	}
	p := r.problems[0]
	message := p.path + ": " + p.message
	if more := len(r.problems) - 1; more > 0 {
		message += fmt.Sprintf(" (and %d more)", more)
	}
	return judgement{ResolvedRefs, false, p.reason, message}
}

// emit makes the mesh's route, which joins the given listeners, and returns what of it
// is not served. References are resolved even where it joins none.
func (r *routing) emit(parents []mesh.ParentRef) (fault string) {
	var one mesh.Objects
	meta := mesh.ObjectMeta{Name: r.Name, Namespace: r.Namespace, Labels: r.Labels}
	checked := parents
	if len(checked) == 0 {
		checked = []mesh.ParentRef{{Namespace: r.Namespace, Name: "none"}}
	}
	switch r.Kind {
	case mesh.KindHTTPRoute:
		one.HTTPRoutes = []*mesh.HTTPRoute{{Metadata: meta, Spec: mesh.HTTPRouteSpec{ParentRefs: checked, Hostnames: r.Hostnames, Rules: r.httpRules()}}}
	case mesh.KindGRPCRoute:
		one.GRPCRoutes = []*mesh.GRPCRoute{{Metadata: meta, Spec: mesh.GRPCRouteSpec{ParentRefs: checked, Hostnames: r.Hostnames, Rules: r.grpcRules()}}}
	case mesh.KindTCPRoute:
		one.TCPRoutes = []*mesh.TCPRoute{{Metadata: meta, Spec: mesh.TCPRouteSpec{ParentRefs: checked, Rules: r.streamRules()}}}
	case mesh.KindTLSRoute:
		one.TLSRoutes = []*mesh.TLSRoute{{Metadata: meta, Spec: mesh.TLSRouteSpec{ParentRefs: checked, Hostnames: r.Hostnames, Rules: r.streamRules()}}}
	case mesh.KindUDPRoute:
		one.UDPRoutes = []*mesh.UDPRoute{{Metadata: meta, Spec: mesh.UDPRouteSpec{ParentRefs: checked, Rules: r.streamRules()}}}
	}
	mesh.Default(&one)
	if fault := oneLine(mesh.Validate(&one)); fault != "" || len(parents) == 0 {
		return fault
	}
	o := &r.t.out.Objects
	o.HTTPRoutes = append(o.HTTPRoutes, one.HTTPRoutes...)
	o.GRPCRoutes = append(o.GRPCRoutes, one.GRPCRoutes...)
	o.TCPRoutes = append(o.TCPRoutes, one.TCPRoutes...)
	o.TLSRoutes = append(o.TLSRoutes, one.TLSRoutes...)
	o.UDPRoutes = append(o.UDPRoutes, one.UDPRoutes...)
	return ""
}

// each is a copy of a list with something done to each item at its path.
func each[T any](path string, list []T, do func(at string, item *T)) []T {
	list = slices.Clone(list)
	for i := range list {
		do(fmt.Sprintf("%s[%d]", path, i), &list[i])
	}
	return list
}

func (r *routing) httpRules() []mesh.HTTPRouteRule {
	mirror := func(at string, f *mesh.HTTPRouteFilter) { f.RequestMirror = r.mirror(at, f.RequestMirror) }
	return each("spec.rules", r.HTTP, func(at string, rule *mesh.HTTPRouteRule) {
		rule.Filters = each(at+".filters", rule.Filters, mirror)
		rule.BackendRefs = each(at+".backendRefs", rule.BackendRefs, func(at string, b *mesh.BackendRef) {
			r.lead(at, &b.Group, &b.Kind, &b.Namespace, &b.Name, b.Port)
			b.Filters = each(at+".filters", b.Filters, mirror)
		})
	})
}

func (r *routing) grpcRules() []mesh.GRPCRouteRule {
	mirror := func(at string, f *mesh.GRPCRouteFilter) { f.RequestMirror = r.mirror(at, f.RequestMirror) }
	return each("spec.rules", r.GRPC, func(at string, rule *mesh.GRPCRouteRule) {
		rule.Filters = each(at+".filters", rule.Filters, mirror)
		rule.BackendRefs = each(at+".backendRefs", rule.BackendRefs, func(at string, b *mesh.GRPCBackendRef) {
			r.lead(at, &b.Group, &b.Kind, &b.Namespace, &b.Name, b.Port)
			b.Filters = each(at+".filters", b.Filters, mirror)
		})
	})
}

func (r *routing) streamRules() []mesh.StreamRouteRule {
	return each("spec.rules", r.Stream, func(at string, rule *mesh.StreamRouteRule) {
		rule.BackendRefs = each(at+".backendRefs", rule.BackendRefs, func(at string, b *mesh.BackendRef) {
			r.lead(at, &b.Group, &b.Kind, &b.Namespace, &b.Name, b.Port)
		})
	})
}

func (r *routing) mirror(path string, m *mesh.RequestMirror) *mesh.RequestMirror {
	if m == nil {
		return nil
	}
	c := *m
	b := &c.BackendRef
	r.lead(path+".requestMirror.backendRef", &b.Group, &b.Kind, &b.Namespace, &b.Name, b.Port)
	return &c
}

// lead makes a reference of any type lead to a MeshService.
func (r *routing) lead(path string, group, kind, namespace, name *string, port int) {
	to := r.resolve(reference{path, ObjectRef{*group, *kind, *namespace, *name}, port})
	*group, *kind, *namespace, *name = to.Group, to.Kind, to.Namespace, to.Name
}

// resolve turns a reference to a Service or MeshService into one to a MeshService.
// What cannot be followed becomes one to a MeshService that there is none of.
func (r *routing) resolve(ref reference) ObjectRef {
	ref.Namespace = cmp.Or(ref.Namespace, r.Namespace)
	service := ref.Group == "" && cmp.Or(ref.Kind, KindService) == KindService
	if service {
		ref.Kind = KindService
	}
	nowhere := func(reason, format string, args ...any) ObjectRef {
		r.problems = append(r.problems, problem{ref.path, reason, fmt.Sprintf(format, args...)})
		name := short("unresolved-"+ref.Name, "", fmt.Sprintf("%s/%s/%s/%s", ref.Group, ref.Kind, ref.Namespace, ref.Name))
		return ObjectRef{mesh.MeshGroup, mesh.KindMeshService, r.Namespace, name}
	}
	if !service && (ref.Group != mesh.MeshGroup || ref.Kind != mesh.KindMeshService) {
		return nowhere("InvalidKind", "a %s of group %q cannot be a backend: a Service or MeshService can", ref.Kind, ref.Group)
	}
	if !r.t.permits(r.Kind, r.Namespace, ref.ObjectRef) {
		return nowhere(mesh.ReasonRefNotPermitted, "%s %s/%s is in another namespace, and no ReferenceGrant there lets %ss of %s name it",
			ref.Kind, ref.Namespace, ref.Name, r.Kind, r.Namespace)
	}
	if !service {
		if o := r.t.own[mesh.Key{Kind: mesh.KindMeshService, Namespace: ref.Namespace, Name: ref.Name}]; o == nil || o.Doc == nil {
			return nowhere(mesh.ReasonBackendNotFound, "there is no MeshService %s/%s", ref.Namespace, ref.Name)
		}
		return ref.ObjectRef
	}
	s := r.t.services[ref.Namespace+"/"+ref.Name]
	switch {
	case s == nil:
		return nowhere(mesh.ReasonBackendNotFound, "there is no Service %s/%s", ref.Namespace, ref.Name)
	case s.External:
		return nowhere(mesh.ReasonBackendNotFound, "Service %s/%s is of type ExternalName, which is not followed: name a MeshService with the address", ref.Namespace, ref.Name)
	}
	l4 := "TCP"
	if r.Kind == mesh.KindUDPRoute {
		l4 = "UDP"
	}
	i := slices.IndexFunc(s.Ports, func(p ServicePort) bool { return p.Port == ref.port && cmp.Or(p.Protocol, "TCP") == l4 })
	if i < 0 {
		return nowhere(mesh.ReasonBackendNotFound, "Service %s/%s has no %s port %d", ref.Namespace, ref.Name, l4, ref.port)
	}
	protocol, speaks := s.Ports[i].spoken(r.Kind)
	if !speaks {
		return nowhere(mesh.ReasonUnsupportedProtocol, "port %d of Service %s/%s has appProtocol %q, which a %s cannot lead to",
			ref.port, ref.Namespace, ref.Name, s.Ports[i].AppProtocol, r.Kind)
	}
	return ObjectRef{mesh.MeshGroup, mesh.KindMeshService, ref.Namespace, r.t.use(s, &s.Ports[i], protocol)}
}
