package mesh

// Gateway says where a proxy listens (Gateway API, Gateway).
type Gateway struct {
	TypeMeta
	Metadata ObjectMeta  `json:"metadata"`
	Spec     GatewaySpec `json:"spec"`
}

// GatewaySpec is the desired state of a Gateway. In file mode Addresses are the
// addresses to bind; none means all addresses of both families.
type GatewaySpec struct {
	GatewayClassName string           `json:"gatewayClassName"`
	Addresses        []GatewayAddress `json:"addresses,omitempty"`
	Listeners        []Listener       `json:"listeners"`
}

// GatewayAddress is one address of a Gateway. Only type IPAddress is served.
type GatewayAddress struct {
	Type  string `json:"type,omitempty"`
	Value string `json:"value"`
}

// ProtocolHTTP and ProtocolEastWest are the listener protocols for requests.
// EastWest is HTTP/1.1 from other sites' proxies: what arrives there is served at
// this site and never passed on, which is a property of the listener and never
// of a header. The prefixed name is the Gateway API's extension point.
const (
	ProtocolHTTP     = "HTTP"
	ProtocolEastWest = "mesh.meridian.dev/EastWest"
)

// Listener is one port of a Gateway. Port 0 asks the kernel for a free port.
type Listener struct {
	Name     string `json:"name"`
	Hostname string `json:"hostname,omitempty"`
	// Hostnames are the mesh's own addition, for the names of one service: the
	// listener takes the requests for any of them.
	Hostnames []string `json:"hostnames,omitempty"`
	Port      int      `json:"port"`
	Protocol  string   `json:"protocol"`
	// TLS is for protocols HTTPS and TLS.
	TLS           *ListenerTLS   `json:"tls,omitempty"`
	AllowedRoutes *AllowedRoutes `json:"allowedRoutes,omitempty"`
}

// Hosts are the hosts that requests to the listener name; "" is every host.
func (l *Listener) Hosts() []string {
	if len(l.Hostnames) > 0 {
		return l.Hostnames
	}
	return []string{l.Hostname}
}

// HTTPRoute sends requests of a Gateway's listeners to services (Gateway API, HTTPRoute).
type HTTPRoute struct {
	TypeMeta
	Metadata ObjectMeta    `json:"metadata"`
	Spec     HTTPRouteSpec `json:"spec"`
}

// HTTPRouteSpec is the desired state of an HTTPRoute.
type HTTPRouteSpec struct {
	ParentRefs []ParentRef     `json:"parentRefs"`
	Hostnames  []string        `json:"hostnames,omitempty"`
	Rules      []HTTPRouteRule `json:"rules"`
}

// ParentRef names the Gateway, and optionally its listener, that a route joins.
type ParentRef struct {
	Group       string `json:"group,omitempty"`
	Kind        string `json:"kind,omitempty"`
	Namespace   string `json:"namespace,omitempty"`
	Name        string `json:"name"`
	SectionName string `json:"sectionName,omitempty"`
	Port        int    `json:"port,omitempty"`
}

// HTTPRouteRule matches requests and names the backends that share them.
// No match means every request; no backend means 500 (Gateway API).
type HTTPRouteRule struct {
	Name        string            `json:"name,omitempty"`
	Matches     []HTTPRouteMatch  `json:"matches,omitempty"`
	Filters     []HTTPRouteFilter `json:"filters,omitempty"`
	BackendRefs []BackendRef      `json:"backendRefs,omitempty"`
	Timeouts    *RouteTimeouts    `json:"timeouts,omitempty"`
	Retry       *RouteRetry       `json:"retry,omitempty"`
}

// HTTPRouteMatch is one alternative of a rule. All of its parts must hold.
type HTTPRouteMatch struct {
	Path        *PathMatch        `json:"path,omitempty"`
	Headers     []HeaderMatch     `json:"headers,omitempty"`
	QueryParams []QueryParamMatch `json:"queryParams,omitempty"`
	Method      string            `json:"method,omitempty"`
}

// Match types. Expressions are RE2's and must match the whole value.
const (
	PathExact              = "Exact"
	PathPrefix             = "PathPrefix"
	MatchExact             = "Exact"
	MatchRegularExpression = "RegularExpression"
)

// PathMatch compares the normalised request path. PathPrefix compares whole
// path elements: /abc matches /abc and /abc/d, not /abcd.
type PathMatch struct {
	Type  string `json:"type,omitempty"`
	Value string `json:"value,omitempty"`
}

// HeaderMatch compares a request header, its name without regard to case. The
// values of repeated field lines are compared as one, joined by commas.
type HeaderMatch struct {
	Type  string `json:"type,omitempty"`
	Name  string `json:"name"`
	Value string `json:"value"`
}

// QueryParamMatch compares the first parameter of the name, percent-decoded.
type QueryParamMatch struct {
	Type  string `json:"type,omitempty"`
	Name  string `json:"name"`
	Value string `json:"value"`
}

// BackendRef is a weighted share of a rule's requests. Weight defaults to 1.
// Filters are applied to that share, after those of the rule.
//
// Group and Kind must be written: where they are absent the Gateway API means a
// core Service, and the same document has to mean the same in a cluster.
type BackendRef struct {
	Group     string `json:"group"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Port      int    `json:"port,omitempty"`
	Weight    *int   `json:"weight,omitempty"`

	Filters []HTTPRouteFilter `json:"filters,omitempty"`
}

// RouteRetry says when a request is sent again (Gateway API, HTTPRouteRetry): after
// a failure without a response and after a response of one of Codes, at most
// Attempts times, at least Backoff later. Only what may be sent twice is.
type RouteRetry struct {
	Codes    []int     `json:"codes,omitempty"`
	Attempts *int      `json:"attempts,omitempty"`
	Backoff  *Duration `json:"backoff,omitempty"`
}

// RouteTimeouts bound a request: Request the whole exchange with the client,
// BackendRequest one attempt.
type RouteTimeouts struct {
	Request        *Duration `json:"request,omitempty"`
	BackendRequest *Duration `json:"backendRequest,omitempty"`
}
