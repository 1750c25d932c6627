package mesh

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// API groups and versions of the documents this package reads.
const (
	GatewayAPIVersion = "gateway.networking.k8s.io/v1"
	GatewayGroup      = "gateway.networking.k8s.io"
	MeshAPIVersion    = "mesh.meridian.dev/v1alpha1"
	MeshGroup         = "mesh.meridian.dev"
	// GatewayClass is the gatewayClassName that Meridian serves.
	GatewayClass = "meridian"
	// DefaultNamespace is where an object without a namespace lives.
	DefaultNamespace = "default"
)

// Kinds of documents.
const (
	KindGateway       = "Gateway"
	KindHTTPRoute     = "HTTPRoute"
	KindSite          = "Site"
	KindMeshService   = "MeshService"
	KindTrafficPolicy = "TrafficPolicy"
	KindLocalResponse = "LocalResponse"

	KindNetworkFunction = "NetworkFunction"
	KindServiceChain    = "ServiceChain"
	KindChainNode       = "ChainNode"
)

// TypeMeta says what a document is.
type TypeMeta struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
}

// ObjectMeta names an object. Namespace is DefaultNamespace when a file leaves it out.
type ObjectMeta struct {
	Name        string            `json:"name"`
	Namespace   string            `json:"namespace,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Key identifies an object in a mesh: kind, namespace and name.
type Key struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// String prints Kind/namespace/name.
func (k Key) String() string { return k.Kind + "/" + k.Namespace + "/" + k.Name }

// ServiceKey is "namespace/name" of a MeshService: the form in which services
// are named in reports, weights, metrics and on the bus.
type ServiceKey string

// Duration is a span of time written as in the Gateway API ("500ms", "10s", "1h30m").
type Duration time.Duration

// D returns the span as time.Duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

// MarshalText writes the Gateway API form (GEP-2257: "1s500ms", never "1.5s"). A
// span with a fraction of a millisecond, which that form cannot say, is written
// as Go does.
func (d Duration) MarshalText() ([]byte, error) {
	rest := time.Duration(d)
	if rest <= 0 || rest%time.Millisecond != 0 {
		return []byte(rest.String()), nil
	}
	var b []byte
	for _, u := range []struct {
		span time.Duration
		name string
	}{{time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}, {time.Millisecond, "ms"}} {
		if n := int64(rest / u.span); n > 0 {
			b = append(strconv.AppendInt(b, n, 10), u.name...)
			rest %= u.span
		}
	}
	return b, nil
}

// UnmarshalText reads the Gateway API form; a negative span is refused.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 500ms, 10s or 1h30m", b)
	}
	if v < 0 {
		return fmt.Errorf("duration %q is negative", b)
	}
	*d = Duration(v)
	return nil
}

// Compat lets processes of neighbouring versions talk. A reader whose Version is
// below MinReader, or that lacks one of Requires, must refuse the message and
// say so; anything else it does not know it ignores.
type Compat struct {
	MinReader int      `json:"minReader,omitempty"`
	Requires  []string `json:"requires,omitempty"`
}

// Version is the wire version of this build's Snapshot, Weights and Report.
const Version = 1

// Features are the optional wire features this build understands.
var Features = func() map[string]bool {
	known := map[string]bool{}
	for _, f := range features {
		known[f.name] = true
	}
	return known
}()

// Check returns an error when this build must not act on the message.
func (c Compat) Check() error {
	if c.MinReader > Version {
		return fmt.Errorf("needs a reader of wire version %d, this build is %d: upgrade this process", c.MinReader, Version)
	}
	for _, f := range c.Requires {
		if !Features[f] {
			return fmt.Errorf("needs feature %q, which this build lacks: upgrade this process", f)
		}
	}
	return nil
}

// Objects is a set of documents, in reading order within each kind.
type Objects struct {
	Gateways        []*Gateway       `json:"gateways,omitempty"`
	HTTPRoutes      []*HTTPRoute     `json:"httpRoutes,omitempty"`
	GRPCRoutes      []*GRPCRoute     `json:"grpcRoutes,omitempty"`
	TCPRoutes       []*TCPRoute      `json:"tcpRoutes,omitempty"`
	TLSRoutes       []*TLSRoute      `json:"tlsRoutes,omitempty"`
	UDPRoutes       []*UDPRoute      `json:"udpRoutes,omitempty"`
	Sites           []*Site          `json:"sites,omitempty"`
	Services        []*MeshService   `json:"services,omitempty"`
	TrafficPolicies []*TrafficPolicy `json:"trafficPolicies,omitempty"`
	LocalResponses  []*LocalResponse `json:"localResponses,omitempty"`
	Certificates    []*Certificate   `json:"certificates,omitempty"`
	TrustBundles    []*TrustBundle   `json:"trustBundles,omitempty"`

	ReferenceGrants  []*ReferenceGrant  `json:"referenceGrants,omitempty"`
	GeoFences        []*GeoFence        `json:"geoFences,omitempty"`
	NetworkFunctions []*NetworkFunction `json:"networkFunctions,omitempty"`
	ServiceChains    []*ServiceChain    `json:"serviceChains,omitempty"`
	ChainNodes       []*ChainNode       `json:"chainNodes,omitempty"`

	AfSfcRequirements []*AfSfcRequirement `json:"afSfcRequirements,omitempty"`

	AuthorizationPolicies []*AuthorizationPolicy `json:"authorizationPolicies,omitempty"`
	PeerAuthentications   []*PeerAuthentication  `json:"peerAuthentications,omitempty"`
	Callers               []*Caller              `json:"callers,omitempty"`
	// Positions say where each object was read, for messages; objects from
	// elsewhere have none.
	Positions map[Key]Position `json:"-"`
}

var _ json.Marshaler = Location{}
