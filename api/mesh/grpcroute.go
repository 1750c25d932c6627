package mesh

import (
	"fmt"
	"reflect"
	"regexp"
)

// KindGRPCRoute is the kind of routes for gRPC.
const KindGRPCRoute = "GRPCRoute"

// GRPCRoute sends gRPC calls of a Gateway's HTTP listeners to services by service,
// method and metadata (Gateway API, GRPCRoute). A call is an HTTP/2 request for the
// path /service/method, so that it is served, and compared with HTTPRoutes of the
// same host, as what [GRPCRoute.HTTP] says.
type GRPCRoute struct {
	TypeMeta
	Metadata ObjectMeta    `json:"metadata"`
	Spec     GRPCRouteSpec `json:"spec"`
}

// GRPCRouteSpec is the desired state of a GRPCRoute.
type GRPCRouteSpec struct {
	ParentRefs []ParentRef     `json:"parentRefs"`
	Hostnames  []string        `json:"hostnames,omitempty"`
	Rules      []GRPCRouteRule `json:"rules"`
}

// GRPCRouteRule matches calls and names the backends that share them. No match means
// every call; without a backend a call fails.
type GRPCRouteRule struct {
	Name        string            `json:"name,omitempty"`
	Matches     []GRPCRouteMatch  `json:"matches,omitempty"`
	Filters     []GRPCRouteFilter `json:"filters,omitempty"`
	BackendRefs []GRPCBackendRef  `json:"backendRefs,omitempty"`
}

// GRPCRouteMatch is one alternative of a rule. Both of its parts must hold.
type GRPCRouteMatch struct {
	Method  *GRPCMethodMatch `json:"method,omitempty"`
	Headers []HeaderMatch    `json:"headers,omitempty"`
}

// GRPCMethodMatch compares a call's service and method; what is left out is any.
// Expressions are RE2's and must match the whole name.
type GRPCMethodMatch struct {
	Type    string `json:"type,omitempty"`
	Service string `json:"service,omitempty"`
	Method  string `json:"method,omitempty"`
}

// GRPCRouteFilter is done to calls on their way, and to their responses.
type GRPCRouteFilter struct {
	Type                   string          `json:"type"`
	RequestHeaderModifier  *HeaderModifier `json:"requestHeaderModifier,omitempty"`
	ResponseHeaderModifier *HeaderModifier `json:"responseHeaderModifier,omitempty"`
	RequestMirror          *RequestMirror  `json:"requestMirror,omitempty"`
}

// GRPCBackendRef is [BackendRef] with the filters of gRPC.
type GRPCBackendRef struct {
	Group     string `json:"group"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Port      int    `json:"port,omitempty"`
	Weight    *int   `json:"weight,omitempty"`

	Filters []GRPCRouteFilter `json:"filters,omitempty"`
}

// HTTP is the route as one for requests, of kind GRPCRoute: same rules, same order.
func (r *GRPCRoute) HTTP() *HTTPRoute {
	h := &HTTPRoute{
		TypeMeta: TypeMeta{APIVersion: r.APIVersion, Kind: KindGRPCRoute},
		Metadata: r.Metadata,
		Spec:     HTTPRouteSpec{ParentRefs: r.Spec.ParentRefs, Hostnames: r.Spec.Hostnames},
	}
	for _, rule := range r.Spec.Rules {
		to := HTTPRouteRule{Name: rule.Name, Filters: httpFilters(rule.Filters)}
		for _, m := range rule.Matches {
			to.Matches = append(to.Matches, HTTPRouteMatch{Path: m.Method.path(), Headers: m.Headers})
		}
		for _, b := range rule.BackendRefs {
			to.BackendRefs = append(to.BackendRefs, BackendRef{
				Group: b.Group, Kind: b.Kind, Namespace: b.Namespace, Name: b.Name, Port: b.Port, Weight: b.Weight, Filters: httpFilters(b.Filters),
			})
		}
		h.Spec.Rules = append(h.Spec.Rules, to)
	}
	return h
}

// path is the path of calls of a method, nil for all.
func (m *GRPCMethodMatch) path() *PathMatch {
	switch {
	case m == nil || m.Service == "" && m.Method == "":
		return nil
	case m.Type == MatchRegularExpression:
		name := func(expression string) string {
			if expression == "" {
				return "[^/]+"
			}
			return "(?:" + expression + ")"
		}
		return &PathMatch{Type: MatchRegularExpression, Value: "/" + name(m.Service) + "/" + name(m.Method)}
	case m.Method == "":
		return &PathMatch{Type: PathPrefix, Value: "/" + m.Service}
	case m.Service == "":
		return &PathMatch{Type: MatchRegularExpression, Value: "/[^/]+/" + regexp.QuoteMeta(m.Method)}
	}
	return &PathMatch{Type: PathExact, Value: "/" + m.Service + "/" + m.Method}
}

func httpFilters(filters []GRPCRouteFilter) (list []HTTPRouteFilter) {
	for _, f := range filters {
		list = append(list, HTTPRouteFilter{
			Type: f.Type, RequestHeaderModifier: f.RequestHeaderModifier, ResponseHeaderModifier: f.ResponseHeaderModifier, RequestMirror: f.RequestMirror,
		})
	}
	return list
}

// RequestRoutes are all routes for requests: the HTTPRoutes, and the GRPCRoutes as such.
func (o *Objects) RequestRoutes() []*HTTPRoute {
	if len(o.GRPCRoutes) == 0 {
		return o.HTTPRoutes
	}
	all := make([]*HTTPRoute, 0, len(o.HTTPRoutes)+len(o.GRPCRoutes))
	all = append(all, o.HTTPRoutes...)
	for _, r := range o.GRPCRoutes {
		all = append(all, r.HTTP())
	}
	return all
}

// RouteKind is the kind of the document that the route was: HTTPRoute or GRPCRoute.
func (r *HTTPRoute) RouteKind() string {
	if r.Kind == KindGRPCRoute {
		return KindGRPCRoute
	}
	return KindHTTPRoute
}

// IsRoute reports whether a kind is one of routes.
func IsRoute(kind string) bool {
	switch kind {
	case KindHTTPRoute, KindGRPCRoute, KindTCPRoute, KindTLSRoute, KindUDPRoute:
		return true
	}
	return false
}

// speaks is what backends of the route have to speak.
func (r *HTTPRoute) speaks() string {
	if r.Kind == KindGRPCRoute {
		return PortHTTP2
	}
	return PortHTTP
}

func defaultGRPCRoute(r *GRPCRoute) {
	namespace := r.Metadata.Namespace
	for i := range r.Spec.ParentRefs {
		if p := &r.Spec.ParentRefs[i]; p.Namespace == "" {
			p.Namespace = namespace
		}
	}
	for i := range r.Spec.Rules {
		rule := &r.Spec.Rules[i]
		mirrors(httpFilters(rule.Filters), namespace)
		for j := range rule.BackendRefs {
			b := &rule.BackendRefs[j]
			if b.Namespace == "" {
				b.Namespace = namespace
			}
			mirrors(httpFilters(b.Filters), namespace)
		}
	}
}

var grpcFilterFields = filterFields[:3]

func grpcFilterRelations(f *GRPCRouteFilter, fault faultFunc) {
	oneField(reflect.ValueOf(f).Elem(), f.Type, grpcFilterFields, fault)
}

// methodMatchRelations checks the names that are compared as they are: what a call
// cannot name would never match.
func methodMatchRelations(m *GRPCMethodMatch, fault faultFunc) {
	if m.Service == "" && m.Method == "" {
		fault("", "names neither service nor method", "leave method out to match every call")
		return
	}
	for _, x := range []struct {
		field, name, example string
		dotted               bool
	}{{"service", m.Service, "helloworld.Greeter", true}, {"method", m.Method, "SayHello", false}} {
		switch {
		case x.name == "":
		case m.Type == MatchRegularExpression:
			checkExpression(x.name, 1024, func(_, what, hint string) { fault(x.field, what, hint) })
		case !grpcName(x.name, x.dotted):
			fault(x.field, fmt.Sprintf("%q is not the name of a gRPC %s", x.name, x.field), "such as "+x.example)
		}
	}
}

// grpcName checks an identifier of protocol buffers, dotted for services.
func grpcName(s string, dotted bool) bool {
	start := true
	for _, c := range []byte(s) {
		switch {
		case c == '.' && dotted && !start:
			start = true
		case c == '_' || 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' && !start:
			start = false
		default:
			return false
		}
	}
	return !start
}
