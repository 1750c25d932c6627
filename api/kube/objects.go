package kube

import (
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Names that tie objects of a cluster to the mesh.
const (
	// ControllerName is the controllerName of the GatewayClasses that are served.
	ControllerName = mesh.MeshGroup + "/gateway-controller"
	// ClusterLabel marks each object that came from a cluster with the cluster's name.
	ClusterLabel = mesh.MeshGroup + "/cluster"
	// SiteLabel is a Node's site; on a Gateway or route it limits the object to a site.
	SiteLabel = mesh.MeshGroup + "/site"
	// MeshLabel of a Gateway, with the value "true", says that requests between services
	// come in there; of a Service that it takes its own there even without a route.
	MeshLabel = mesh.MeshGroup + "/mesh"
	// ExportAnnotation of a Service says who beyond the site may use it: "mesh", or
	// the names of sites with commas between them.
	ExportAnnotation = mesh.MeshGroup + "/export"
	// WorkloadLabel names a pod's workload where its owner does not.
	WorkloadLabel = mesh.MeshGroup + "/workload"

	zoneLabel    = "topology.kubernetes.io/zone"
	serviceLabel = "kubernetes.io/service-name"
)

// Kinds of a cluster that are read besides the Gateway API's and the mesh's own.
const (
	KindNamespace     = "Namespace"
	KindNode          = "Node"
	KindPod           = "Pod"
	KindSecret        = "Secret"
	KindService       = "Service"
	KindEndpointSlice = "EndpointSlice"
	KindGatewayClass  = "GatewayClass"
)

// Meta is what is kept of an object's metadata.
type Meta struct {
	Namespace, Name string
	Generation      int64
	Created         time.Time
	// Version is the object's resourceVersion, which a write of status names so that
	// nobody else's write is lost.
	Version string
	// Labels are those of the mesh and, for Nodes and Namespaces, those that select.
	Labels map[string]string
}

func (m *Meta) key() string { return m.Namespace + "/" + m.Name }

// Namespace is a core/v1 Namespace.
type Namespace struct{ Meta }

// Node is a core/v1 Node with its internal addresses.
type Node struct {
	Meta
	Addresses []string
}

// Pod is what tells a pod's workload. Node and Address, where it runs and what it calls
// from, are those of a pod that runs and has a network of its own.
type Pod struct {
	Meta
	Workload, Node, Address string
}

// Secret is a Secret of type kubernetes.io/tls. Problem says why it cannot be used.
type Secret struct {
	Meta
	Certificate, Key []byte
	Problem          string
}

// Service is a core/v1 Service.
type Service struct {
	Meta
	// External is a Service of type ExternalName, which has no endpoints.
	External bool
	// Alone is a Service of type ClusterIP, NodePort or LoadBalancer that selects no
	// pods: what its address leads to somebody has to say.
	Alone bool
	// Addresses are the cluster IPs.
	Addresses []string
	Ports     []ServicePort
	Export    string
}

// ServicePort is one port of a Service.
type ServicePort struct {
	Name        string
	Port        int
	Protocol    string // TCP, UDP or SCTP
	AppProtocol string
}

// EndpointSlice is a discovery/v1 EndpointSlice.
type EndpointSlice struct {
	Meta
	Service   string
	Ports     []SlicePort
	Endpoints []Endpoint
	// Ours is one that a bridge keeps; see [Redirect].
	Ours bool
}

// SlicePort is the port that the endpoints of a slice have for a Service's port of
// the same name.
type SlicePort struct {
	Name string
	Port int
}

// Endpoint is one pod, or what stands for it.
type Endpoint struct {
	Address string
	Node    string
	Pod     string
	// Ready endpoints are used. Serving ones end but still answer: they are used
	// where no other is left.
	Ready, Serving bool
}

// GatewayClass is a class of Gateways.
type GatewayClass struct {
	Meta
	Controller string
	Parameters bool
	Status     ClassStatus
}

// Gateway is a Gateway API Gateway. Unserved names what its spec asks for and this
// version does not serve.
type Gateway struct {
	Meta
	Class     string
	Addresses []GatewayAddress
	Listeners []Listener
	Unserved  string
	Status    GatewayStatus
}

// GatewayAddress is an address that a Gateway asks for or has.
type GatewayAddress struct {
	Type  string `json:"type,omitempty"`
	Value string `json:"value,omitempty"`
}

// Listener is a listener of a Gateway.
type Listener struct {
	Name          string         `json:"name"`
	Hostname      string         `json:"hostname,omitempty"`
	Port          int            `json:"port"`
	Protocol      string         `json:"protocol"`
	TLS           *ListenerTLS   `json:"tls,omitempty"`
	AllowedRoutes *AllowedRoutes `json:"allowedRoutes,omitempty"`
}

// ListenerTLS is a listener's TLS.
type ListenerTLS struct {
	Mode            string            `json:"mode,omitempty"`
	CertificateRefs []ObjectRef       `json:"certificateRefs,omitempty"`
	Options         map[string]string `json:"options,omitempty"`
}

// ObjectRef names an object, of the referring object's namespace where it names none.
type ObjectRef struct {
	Group     string `json:"group,omitempty"`
	Kind      string `json:"kind,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// AllowedRoutes says which routes may join a listener.
type AllowedRoutes struct {
	Namespaces *RouteNamespaces `json:"namespaces,omitempty"`
	Kinds      []RouteKind      `json:"kinds,omitempty"`
}

// RouteNamespaces are the namespaces whose routes may join.
type RouteNamespaces struct {
	From     string    `json:"from,omitempty"`
	Selector *Selector `json:"selector,omitempty"`
}

// Selector is a label selector of Kubernetes.
type Selector struct {
	MatchLabels      map[string]string `json:"matchLabels,omitempty"`
	MatchExpressions []Requirement     `json:"matchExpressions,omitempty"`
}

// Requirement is one expression of a [Selector].
type Requirement struct {
	Key      string   `json:"key"`
	Operator string   `json:"operator"`
	Values   []string `json:"values,omitempty"`
}

// RouteKind is a kind of routes, and how a listener's status names those it takes.
type RouteKind struct {
	Group string `json:"group,omitempty"`
	Kind  string `json:"kind"`
}

// Route is a route of any kind. Of HTTP, GRPC and Stream the one of its kind is set,
// none where Unserved says what keeps the spec from being read.
type Route struct {
	Meta
	Kind      string
	Parents   []ParentRef
	Hostnames []string
	HTTP      []mesh.HTTPRouteRule
	GRPC      []mesh.GRPCRouteRule
	Stream    []mesh.StreamRouteRule
	Unserved  string
	Status    RouteStatus
}

// Grant is a ReferenceGrant.
type Grant struct {
	Meta
	Spec mesh.ReferenceGrantSpec
}

// Own is an object of one of the mesh's own kinds. Doc points to its struct of
// api/mesh, which must not be changed; Problem says why it cannot be read.
type Own struct {
	Meta
	Kind    string
	Doc     any
	Problem string
	// Instead is in force where Doc is nil; nil is nothing.
	Instead any
	Status  OwnStatus
}

// OwnKind is one of the mesh's own kinds, as the cluster's API names it.
type OwnKind struct {
	Kind, Plural string
	// Cluster kinds have no namespace.
	Cluster bool
}

// OwnKinds are the kinds of [mesh.MeshGroup] that a cluster may hold.
var OwnKinds = []OwnKind{
	{mesh.KindSite, "sites", true},
	{mesh.KindMeshService, "meshservices", false},
	{mesh.KindTrafficPolicy, "trafficpolicies", false},
	{mesh.KindLocalResponse, "localresponses", false},
	{mesh.KindCertificate, "certificates", false},
	{mesh.KindGeoFence, "geofences", false},
	{mesh.KindAuthorizationPolicy, "authorizationpolicies", false},
	{mesh.KindPeerAuthentication, "peerauthentications", false},
	{mesh.KindNetworkFunction, "networkfunctions", false},
	{mesh.KindServiceChain, "servicechains", false},
	{mesh.KindChainNode, "chainnodes", false},
}
