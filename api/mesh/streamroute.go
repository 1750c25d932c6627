package mesh

// Kinds of routes for connections and datagrams.
const (
	KindTCPRoute = "TCPRoute"
	KindTLSRoute = "TLSRoute"
	KindUDPRoute = "UDPRoute"
)

// Listener protocols whose connections are passed on whole. Of a TLS listener
// the server name that the client asks for is read and nothing is decrypted.
const (
	ProtocolTCP = "TCP"
	ProtocolTLS = "TLS"
)

// ProtocolUDP is the listener protocol whose datagrams are passed on.
const ProtocolUDP = "UDP"

// TLSPassthrough is the TLS mode that leaves the session to the backend.
const TLSPassthrough = "Passthrough"

// Protocols of a service's port.
const (
	PortHTTP  = "http"
	PortHTTP2 = "http2"
	PortTCP   = "tcp"
	PortUDP   = "udp"
)

// TCPRoute sends the connections of a TCP listener to services (Gateway API, TCPRoute).
type TCPRoute struct {
	TypeMeta
	Metadata ObjectMeta   `json:"metadata"`
	Spec     TCPRouteSpec `json:"spec"`
}

// TCPRouteSpec is the desired state of a TCPRoute. Of several routes that join a
// listener the first by namespace and name serves it.
type TCPRouteSpec struct {
	ParentRefs []ParentRef       `json:"parentRefs"`
	Rules      []StreamRouteRule `json:"rules"`
}

// TLSRoute sends the connections of a TLS listener to services by the server
// name that the client asks for (Gateway API, TLSRoute).
type TLSRoute struct {
	TypeMeta
	Metadata ObjectMeta   `json:"metadata"`
	Spec     TLSRouteSpec `json:"spec"`
}

// TLSRouteSpec is the desired state of a TLSRoute.
type TLSRouteSpec struct {
	ParentRefs []ParentRef       `json:"parentRefs"`
	Hostnames  []string          `json:"hostnames,omitempty"`
	Rules      []StreamRouteRule `json:"rules"`
}

// UDPRoute sends the datagrams of a UDP listener to services (Gateway API, UDPRoute).
type UDPRoute struct {
	TypeMeta
	Metadata ObjectMeta   `json:"metadata"`
	Spec     UDPRouteSpec `json:"spec"`
}

// UDPRouteSpec is the desired state of a UDPRoute. Of several routes that join a
// listener the first by namespace and name serves it.
type UDPRouteSpec struct {
	ParentRefs []ParentRef       `json:"parentRefs"`
	Rules      []StreamRouteRule `json:"rules"`
}

// StreamRouteRule names the backends that share a route's connections, or the
// sessions of its datagrams, by weight.
type StreamRouteRule struct {
	Name        string       `json:"name,omitempty"`
	BackendRefs []BackendRef `json:"backendRefs"`
}
