package mesh

import "time"

// TrafficPolicy says how requests to its targets are shared and bounded.
type TrafficPolicy struct {
	TypeMeta
	Metadata ObjectMeta        `json:"metadata"`
	Spec     TrafficPolicySpec `json:"spec"`
}

// TrafficPolicySpec is the desired state of a TrafficPolicy. What it leaves out
// keeps its default.
type TrafficPolicySpec struct {
	TargetRefs       []PolicyTargetRef `json:"targetRefs"`
	LoadBalancing    *LoadBalancing    `json:"loadBalancing,omitempty"`
	OutlierDetection *OutlierDetection `json:"outlierDetection,omitempty"`
	SiteSharing      *SiteSharing      `json:"siteSharing,omitempty"`
	Timeouts         *PolicyTimeouts   `json:"timeouts,omitempty"`
	Retries          *Retries          `json:"retries,omitempty"`
	Connections      *Connections      `json:"connections,omitempty"`
	ClientPosition   *ClientPosition   `json:"clientPosition,omitempty"`
	// AcceptProxyProtocol, Forwarding and SlowClients are for targets of kind
	// Gateway, all else for MeshService.
	AcceptProxyProtocol *AcceptProxyProtocol `json:"acceptProxyProtocol,omitempty"`
	SendProxyProtocol   *SendProxyProtocol   `json:"sendProxyProtocol,omitempty"`
	Forwarding          *Forwarding          `json:"forwarding,omitempty"`
	SlowClients         *SlowClients         `json:"slowClients,omitempty"`
	// BackendTLS encrypts the way to the endpoints.
	BackendTLS *BackendTLS `json:"backendTLS,omitempty"`
}

// Forwarding says what requests tell backends of the way they came.
type Forwarding struct {
	// TrustedNetworks are those of the proxies in front of this one. From anybody
	// else Forwarded and X-Forwarded-Proto, -Host and -Port are replaced.
	TrustedNetworks []string `json:"trustedNetworks,omitempty"`
	// TrustedHops is how many proxies are in front of this one: the client's address
	// is that many from the right in X-Forwarded-For. Without TrustedNetworks every
	// peer is believed to be the last of them. 0 with TrustedNetworks takes the first
	// address from the right that is in none of them.
	TrustedHops int `json:"trustedHops,omitempty"`
	// Forwarded sends Forwarded (RFC 7239) too.
	Forwarded bool `json:"forwarded,omitempty"`
	// Via is the name of this proxy in Via (RFC 9110 7.6.3).
	Via string `json:"via,omitempty"`
}

// SlowClients says how slow a client of HTTP may be: while the proxy waits for it,
// to send a body or to take a response, it must move MinBytesPerSecond in each
// Grace. Its connection is closed else, with the flag SB or SR.
type SlowClients struct {
	// Grace defaults to 10s.
	Grace *Duration `json:"grace,omitempty"`
	// MinBytesPerSecond defaults to 240; with 0 any byte within Grace is enough.
	MinBytesPerSecond *int `json:"minBytesPerSecond,omitempty"`
}

// Defaults of [SlowClients].
const (
	DefaultSlowGrace         = 10 * time.Second
	DefaultMinBytesPerSecond = 240
)

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

// Balancing algorithms inside a site. All of them respect weights, health and
// what a request has tried before.
const (
	LBFadingTable  = "fadingTable"  // all by their own word of their load, leastRequest where they say nothing
	LBLeastRequest = "leastRequest" // P2C by requests in flight over weight
	LBPeakEWMA     = "peakEWMA"     // P2C by latency times requests in flight
	LBRoundRobin   = "roundRobin"   // in turn, smooth
	LBRandom       = "random"
	LBRingHash     = "ringHash" // consistent, by session affinity
	LBMaglev       = "maglev"   // consistent by a table
)

// LoadBalancing picks among the endpoints of one site.
type LoadBalancing struct {
	Algorithm string `json:"algorithm,omitempty"`
	// HashBalanceFactor bounds what ringHash sends to one endpoint: at most so many
	// percent of its share of the requests in flight. 0 bounds nothing.
	HashBalanceFactor int `json:"hashBalanceFactor,omitempty"`
	// SlowStart lets endpoints that appear or recover take their share bit by bit.
	SlowStart *SlowStart `json:"slowStart,omitempty"`
}

// SlowStart is the ramp of an endpoint's share from MinWeightPercent to all of it.
type SlowStart struct {
	Window Duration `json:"window"`
	// Aggression bends it: the share after the part t of the window is
	// t^(1/aggression). Default 1, a straight line.
	Aggression float64 `json:"aggression,omitempty"`
	// MinWeightPercent is where it starts. Default 10.
	MinWeightPercent *int `json:"minWeightPercent,omitempty"`
}

// OutlierDetection takes endpoints that fail while their siblings do not out of
// rotation for a while. It is on by default. A failure is a response with status
// 500 or above, or none.
type OutlierDetection struct {
	// ConsecutiveFailures without a success between them eject; 0 switches this
	// sign off. Default 5.
	ConsecutiveFailures *int `json:"consecutiveFailures,omitempty"`
	// SuccessRateMargin is how many percent below its siblings' together an
	// endpoint's success rate may be over an Interval; 0 switches this sign off.
	// Default 30. Endpoints with fewer than MinRequests are left out.
	SuccessRateMargin *int      `json:"successRateMargin,omitempty"`
	Interval          *Duration `json:"interval,omitempty"`
	MinRequests       int       `json:"minRequests,omitempty"`
	// BaseEjectionTime is the first ejection's; each further one doubles it up to
	// MaxEjectionTime. Defaults 10s and 5m.
	BaseEjectionTime *Duration `json:"baseEjectionTime,omitempty"`
	MaxEjectionTime  *Duration `json:"maxEjectionTime,omitempty"`
	// MaxEjectionPercent of the endpoints may be out at the same time, one always
	// where there are several. 0 switches ejection off. Default 50.
	MaxEjectionPercent *int `json:"maxEjectionPercent,omitempty"`
	// PanicThreshold is the percentage of healthy endpoints below which health is
	// not looked at, since the others could not carry the load. Whatever it is, all
	// are used when none is healthy. Default 0.
	PanicThreshold int `json:"panicThreshold,omitempty"`
}

// Connections bounds the life of a connection to an endpoint, so that load moves
// to what is new. Each one's bounds vary by a tenth, so that they do not end together.
type Connections struct {
	// MaxAge ends it after the request at hand. Default 1h, 0s is no bound.
	MaxAge *Duration `json:"maxAge,omitempty"`
	// MaxRequests is how many requests it carries; 0 is no bound.
	MaxRequests int `json:"maxRequests,omitempty"`
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
	// ShedAfter is the longest wait in line at home that a request is let into when
	// no other site is left for it; where it would be longer the request is refused
	// at once (503). Absent never refuses. For cooperative only.
	ShedAfter *Duration `json:"shedAfter,omitempty"`
	// PriorityClasses are requests with a ShedAfter of their own: what may wait less is
	// refused before what may wait longer. A request is of the first class that fits it.
	PriorityClasses []PriorityClass `json:"priorityClasses,omitempty"`
	// Pins fix what sites send where, in place of what is planned.
	Pins []SitePin `json:"pins,omitempty"`
}

// PriorityClass are the requests of a service that have one of the values in a header
// field. For what the field is worth see the guide: who sets it decides.
type PriorityClass struct {
	Name      string   `json:"name"`
	Header    string   `json:"header"`
	Values    []string `json:"values"`
	ShedAfter Duration `json:"shedAfter"`
}

// MaxPriorityClasses is how many a service may have.
const MaxPriorityClasses = 7

// SitePin fixes where the requests of one site's own users go. Sites that may not be
// used leave their part to the others, and where none is left home serves.
type SitePin struct {
	From string     `json:"from"`
	To   []PinShare `json:"to"`
}

// PinShare is one site's part of a pin, by its weight among all of them.
type PinShare struct {
	Site   string `json:"site"`
	Weight int    `json:"weight"`
}

// PinOf is the weight that each site has by the pin of a site, nil without one.
func (s *SiteSharing) PinOf(site string) map[string]float64 {
	for _, p := range s.Pins {
		if p.From != site {
			continue
		}
		out := map[string]float64{}
		for _, to := range p.To {
			out[to.Site] = float64(to.Weight)
		}
		return out
	}
	return nil
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
