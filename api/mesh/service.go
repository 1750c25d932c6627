package mesh

// MeshService is a set of endpoints that give the same answer.
type MeshService struct {
	TypeMeta
	Metadata ObjectMeta      `json:"metadata"`
	Spec     MeshServiceSpec `json:"spec"`
}

// Key is the service's "namespace/name".
func (s *MeshService) Key() ServiceKey {
	return ServiceKey(s.Metadata.Namespace + "/" + s.Metadata.Name)
}

// MeshServiceSpec is the desired state of a MeshService.
type MeshServiceSpec struct {
	Ports     []ServicePort `json:"ports"`
	Endpoints []Endpoint    `json:"endpoints,omitempty"`
	// Addresses are the service's own, of no endpoint: clients connect to them, and
	// [Redirect] brings the connections to a proxy. Those that a site's document says are
	// the service's at that site only, those of the hub's everywhere.
	Addresses []string `json:"addresses,omitempty"`
	// SessionAffinity keeps the requests of one session at one endpoint.
	SessionAffinity *SessionAffinity `json:"sessionAffinity,omitempty"`
	// Export says who beyond this site may use the service. Default: this site only.
	Export *Export `json:"export,omitempty"`
	// Objective is what the service's users are promised. Changes that would break it
	// can be refused (meridian apply --prove).
	Objective *ServiceObjective `json:"objective,omitempty"`
}

// ServiceObjective is a service level objective: what holds of the delays from a
// site's proxy and of the requests that get no answer in time, over an hour. What is
// left out is not promised.
type ServiceObjective struct {
	MeanLatency *Duration `json:"meanLatency,omitempty"`
	P99Latency  *Duration `json:"p99Latency,omitempty"`
	// ErrorPercent is the greatest part of requests without an answer.
	ErrorPercent *float64 `json:"errorPercent,omitempty"`
}

// Kinds of session affinity.
const (
	AffinityCookie        = "Cookie"        // a cookie of the proxy's own
	AffinityHeader        = "Header"        // the hash of a request header
	AffinitySourceAddress = "SourceAddress" // the hash of the client's address
)

// SessionAffinity says what makes requests belong together. It has the shape of
// the Gateway API's SessionPersistence (GEP-1619).
type SessionAffinity struct {
	Type string `json:"type,omitempty"`
	// SessionName is the name of the cookie or of the header. A cookie is called
	// meridian-<service> by default.
	SessionName string `json:"sessionName,omitempty"`
	// AbsoluteTimeout is how long a permanent cookie lives.
	AbsoluteTimeout *Duration     `json:"absoluteTimeout,omitempty"`
	CookieConfig    *CookieConfig `json:"cookieConfig,omitempty"`
}

// Lifetimes of a cookie.
const (
	CookieSession   = "Session"   // until the browser closes
	CookiePermanent = "Permanent" // for the absolute timeout
)

// CookieConfig is how a session cookie is set. It is always HttpOnly, and Secure
// where SameSite is None.
type CookieConfig struct {
	LifetimeType string `json:"lifetimeType,omitempty"`
	Path         string `json:"path,omitempty"`
	SameSite     string `json:"sameSite,omitempty"`
}

// ServicePort is one port of a service. Protocol is http (the default), http2 or tcp.
type ServicePort struct {
	Name     string `json:"name,omitempty"`
	Port     int    `json:"port"`
	Protocol string `json:"protocol,omitempty"`
}

// Endpoint is one process that serves, or several behind a DNS name. Address is
// ip:port, name:port (A or AAAA records, all of them) or _service._proto.name (SRV
// records of the best priority, with their ports and weights).
type Endpoint struct {
	Address string `json:"address"`
	// Site and Node say where it runs; empty means everywhere the file is read.
	Site string `json:"site,omitempty"`
	Node string `json:"node,omitempty"`
	// Weight is its share among its siblings, 1 when absent, 0 takes none.
	Weight   *int      `json:"weight,omitempty"`
	Workload *Workload `json:"workload,omitempty"`
	Capacity *Capacity `json:"capacity,omitempty"`
}

// Workload is the owner of an endpoint in the place that runs it.
type Workload struct {
	Cluster   string `json:"cluster,omitempty"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// Capacity is what an endpoint can do at the same time.
type Capacity struct {
	// Concurrency is how many requests it works on at once; more wait.
	Concurrency int `json:"concurrency"`
	// ServiceTime is the mean time of one request without waiting. It is where
	// measuring starts from.
	ServiceTime Duration `json:"serviceTime"`
	// Unit says what Concurrency counts: requests, or sessions that stay open
	// (WebSocket, streams), whose messages take ServiceTime. Requests unless every port
	// of the service is tcp or udp.
	Unit string `json:"unit,omitempty"`
	// Pool names a machine shared with other services of the site.
	Pool string `json:"pool,omitempty"`
}

// Units of a [Capacity].
const (
	UnitRequests = "requests"
	UnitSessions = "sessions"
)

// CountsSessions tells whether the service's load is sessions, by the first unit that
// an endpoint says, else by the ports.
func (s *MeshService) CountsSessions() bool {
	for i := range s.Spec.Endpoints {
		if c := s.Spec.Endpoints[i].Capacity; c != nil && c.Unit != "" {
			return c.Unit == UnitSessions
		}
	}
	for _, p := range s.Spec.Ports {
		if p.Protocol != PortTCP && p.Protocol != PortUDP {
			return false
		}
	}
	return len(s.Spec.Ports) > 0
}

func capacityRelations(c *Capacity, fault faultFunc) {
	if c.Pool != "" && c.Unit == UnitSessions {
		fault("pool", "is of a service that counts sessions", "pools share the slots of requests")
	}
}

// Export scopes.
const (
	ScopeSite = "site"
	ScopeMesh = "mesh"
)

// Export is a service's visibility. Services of the same name in different
// sites are one service only when both are exported to the mesh.
type Export struct {
	Scope string   `json:"scope,omitempty"`
	Sites []string `json:"sites,omitempty"`
}
