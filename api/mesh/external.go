package mesh

import (
	"maps"
	"time"
)

// ExternalFunction is a function of requests that is an HTTP service: the proxy asks it
// about each request, and goes on by its answer. 2xx has the request go on, any other
// status below 500 is the answer to the client, and 5xx is a failure; the header
// [VerdictField] with [VerdictAnswer] makes an answer of every status.
type ExternalFunction struct {
	Service FunctionService `json:"service"`
	// Timeout bounds the whole of asking; absent, [DefaultExternalTimeout].
	Timeout *Duration `json:"timeout,omitempty"`
	// PathPrefix stands before the request's path in what the service is asked.
	PathPrefix string `json:"pathPrefix,omitempty"`
	// Headers are the service's to set: what its answer says of them takes the place of
	// what the client sent.
	Headers []string `json:"headers,omitempty"`
	// MaxBody is how long a body may be that the service is sent too; absent, it is sent
	// none.
	MaxBody int `json:"maxBody,omitempty"`
}

// FunctionService is a MeshService of the function's namespace.
type FunctionService struct {
	Name string `json:"name"`
	// Port may be left out where the service has one.
	Port int `json:"port,omitempty"`
}

// DefaultExternalTimeout bounds asking an external function where nothing is said.
const DefaultExternalTimeout = 250 * time.Millisecond

// What proxies and external functions say to each other in headers that neither
// clients nor backends see.
const (
	// HopField names to the function the chain, its path and the service index.
	HopField = "meridian-hop"
	// VerdictField of a function's response says what it means, where its status does not.
	VerdictField  = "meridian-verdict"
	VerdictAnswer = "answer"
)

// external checks what an external function names.
func (c *checker) external(f *NetworkFunction) {
	if e := f.Spec.External; e != nil {
		c.backend(KindNetworkFunction, f.Metadata, "spec.external.service", f.Metadata.Namespace, e.Service.Name, e.Service.Port, PortHTTP)
	}
}

var externalRules = map[string]rule{
	"NetworkFunctionSpec.external": {doc: "A function of requests, an HTTP service that the proxy asks about each."},
	"ExternalFunction.service":     {doc: "A MeshService of this namespace; it is asked at this site only."},
	"ExternalFunction.timeout":     {span: &span{lo: 0.001, hi: 10}, doc: "Bound of asking, 250ms by default; what takes longer has failed."},
	"ExternalFunction.pathPrefix":  {format: &formatPath, doc: "Stands before the path of the request."},
	"ExternalFunction.headers":     {format: &formatField, maxItems: 16, unique: ".", doc: "Headers of the request that the service sets by those of its answer; what the client sent in them is removed."},
	"ExternalFunction.maxBody":     {span: &span{lo: 1, hi: 32 << 10}, doc: "Bytes of a body that is sent too; one that is longer is a failure. Absent, the service sees heads only."},
	"FunctionService.name":         {format: &formatSubdomain},
	"FunctionService.port":         {span: realPort, doc: "Port of the service; may be left out where it has only one."},
}

func init() { maps.Copy(rules, externalRules) }
