package mesh

// TrafficPolicy says how requests to its targets are shared and bounded.
type TrafficPolicy struct {
	TypeMeta
	Metadata ObjectMeta        `json:"metadata"`
	Spec     TrafficPolicySpec `json:"spec"`
}

// TrafficPolicySpec is the desired state of a TrafficPolicy. What it leaves out
// keeps its default.
type TrafficPolicySpec struct {
	TargetRefs     []PolicyTargetRef `json:"targetRefs"`
	LoadBalancing  *LoadBalancing    `json:"loadBalancing,omitempty"`
	SiteSharing    *SiteSharing      `json:"siteSharing,omitempty"`
	Timeouts       *PolicyTimeouts   `json:"timeouts,omitempty"`
	Retries        *Retries          `json:"retries,omitempty"`
	ClientPosition *ClientPosition   `json:"clientPosition,omitempty"`
	// AcceptProxyProtocol and Forwarding are for targets of kind Gateway, all else
	// for MeshService.
	AcceptProxyProtocol *AcceptProxyProtocol `json:"acceptProxyProtocol,omitempty"`
	SendProxyProtocol   *SendProxyProtocol   `json:"sendProxyProtocol,omitempty"`
	Forwarding          *Forwarding          `json:"forwarding,omitempty"`
}

// Forwarding says what requests tell backends of the way they came.
type Forwarding struct {
	// TrustedNetworks are those of the proxies in front of this one. From anybody
	// else Forwarded and X-Forwarded-Proto, -Host and -Port are replaced.
	TrustedNetworks []string `json:"trustedNetworks,omitempty"`
	// Forwarded sends Forwarded (RFC 7239) too.
	Forwarded bool `json:"forwarded,omitempty"`
	// Via is the name of this proxy in Via (RFC 9110 7.6.3).
	Via string `json:"via,omitempty"`
}

// DefaultVia is the name of a proxy in Via that no policy names.
const DefaultVia = "meridian"

// PolicyTargetRef names a MeshService of the policy's namespace, or a Gateway or
// one of its listeners.
type PolicyTargetRef struct {
	Group string `json:"group,omitempty"`
	Kind  string `json:"kind"`
	Name  string `json:"name"`
	// SectionName names a listener of a Gateway; empty means all.
	SectionName string `json:"sectionName,omitempty"`
}

// AcceptProxyProtocol says whose connections begin with a PROXY header, version 1
// or 2. From anybody else none is expected, and one that comes is not believed.
type AcceptProxyProtocol struct {
	From []string `json:"from"`
}

// Versions of the PROXY protocol.
const (
	ProxyV1 = "v1"
	ProxyV2 = "v2"
)

// SendProxyProtocol has TCP connections to the service begin with a PROXY header
// that names the client.
type SendProxyProtocol struct {
	Version string `json:"version,omitempty"`
}

// Balancing algorithms inside a site.
const (
	LBLeastRequest = "leastRequest" // P2C by requests in flight over weight
	LBRoundRobin   = "roundRobin"
)

// LoadBalancing picks among the endpoints of one site.
type LoadBalancing struct {
	Algorithm string `json:"algorithm,omitempty"`
}

// Ways of sharing load between sites.
const (
	SharingCooperative        = "cooperative"        // plan by price, gate per request
	SharingNone               = "none"               // every site alone
	SharingRoundRobin         = "roundRobin"         // every reachable site in turn
	SharingWeightedRoundRobin = "weightedRoundRobin" // in turn, by declared capacity
)

// SiteSharing is how a service's requests are shared between sites.
type SiteSharing struct {
	// Policy defaults to cooperative.
	Policy string `json:"policy,omitempty"`
	// StayHome is how many times dearer than the cheapest other site home may
	// become before requests leave (the rule's h). Default 2.
	StayHome float64 `json:"stayHome,omitempty"`
}

// PolicyTimeouts bound the phases of a request to the targets. Zero keeps the default.
type PolicyTimeouts struct {
	Connect *Duration `json:"connect,omitempty"`
	Idle    *Duration `json:"idle,omitempty"`
	Request *Duration `json:"request,omitempty"`
}

// Retries bound new attempts after a failure that the backend cannot have acted
// on, or of an idempotent request.
type Retries struct {
	Attempts *int `json:"attempts,omitempty"`
}

// ClientPosition says which request headers carry the client's position.
type ClientPosition struct {
	// GeoHeader holds an RFC 5870 geo URI.
	GeoHeader string `json:"geoHeader,omitempty"`
	// LatitudeHeader and LongitudeHeader hold decimal degrees.
	LatitudeHeader  string `json:"latitudeHeader,omitempty"`
	LongitudeHeader string `json:"longitudeHeader,omitempty"`
}
