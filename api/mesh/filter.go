package mesh

// Types of an [HTTPRouteFilter].
const (
	FilterRequestHeaderModifier  = "RequestHeaderModifier"
	FilterResponseHeaderModifier = "ResponseHeaderModifier"
	FilterRequestMirror          = "RequestMirror"
	FilterRequestRedirect        = "RequestRedirect"
	FilterURLRewrite             = "URLRewrite"
	FilterCORS                   = "CORS"
	FilterExtensionRef           = "ExtensionRef"
)

// HTTPRouteFilter changes, copies or answers requests (Gateway API,
// HTTPRouteFilter). Type says which of the other fields is set.
type HTTPRouteFilter struct {
	Type                   string           `json:"type"`
	RequestHeaderModifier  *HeaderModifier  `json:"requestHeaderModifier,omitempty"`
	ResponseHeaderModifier *HeaderModifier  `json:"responseHeaderModifier,omitempty"`
	RequestMirror          *RequestMirror   `json:"requestMirror,omitempty"`
	RequestRedirect        *RequestRedirect `json:"requestRedirect,omitempty"`
	URLRewrite             *URLRewrite      `json:"urlRewrite,omitempty"`
	CORS                   *CORS            `json:"cors,omitempty"`
	// ExtensionRef names a LocalResponse of the route's namespace, or a ServiceChain
	// that the requests pass.
	ExtensionRef *LocalObjectRef `json:"extensionRef,omitempty"`
}

// HeaderModifier edits the fields of a request or response. Each name may occur
// once in all three lists, whatever its case.
type HeaderModifier struct {
	// Set replaces every field line of the name by one.
	Set []HeaderValue `json:"set,omitempty"`
	// Add adds a field line, which means the same as appending after a comma.
	Add []HeaderValue `json:"add,omitempty"`
	// Remove drops every field line of the name.
	Remove []string `json:"remove,omitempty"`
}

// HeaderValue is a header's name and value.
type HeaderValue struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// RequestMirror sends a copy of requests to a service too, whose answers are
// dropped. Without Percent and Fraction it copies all.
type RequestMirror struct {
	BackendRef BackendObjectRef `json:"backendRef"`
	Percent    *int             `json:"percent,omitempty"`
	Fraction   *Fraction        `json:"fraction,omitempty"`
}

// Fraction is Numerator of every Denominator requests.
type Fraction struct {
	Numerator   int `json:"numerator"`
	Denominator int `json:"denominator,omitempty"`
}

// RequestRedirect answers with a redirection. What it leaves out is the
// request's; without Port the scheme's own port where a scheme is written, else
// the listener's.
type RequestRedirect struct {
	Scheme     string        `json:"scheme,omitempty"`
	Hostname   string        `json:"hostname,omitempty"`
	Path       *PathModifier `json:"path,omitempty"`
	Port       int           `json:"port,omitempty"`
	StatusCode int           `json:"statusCode,omitempty"`
}

// URLRewrite changes what the backend is asked for.
type URLRewrite struct {
	Hostname string        `json:"hostname,omitempty"`
	Path     *PathModifier `json:"path,omitempty"`
}

// Types of a [PathModifier].
const (
	ReplaceFullPath    = "ReplaceFullPath"
	ReplacePrefixMatch = "ReplacePrefixMatch"
)

// PathModifier replaces a whole path, or the prefix by which the rule matched.
// The query stays.
type PathModifier struct {
	Type               string  `json:"type"`
	ReplaceFullPath    *string `json:"replaceFullPath,omitempty"`
	ReplacePrefixMatch *string `json:"replacePrefixMatch,omitempty"`
}

// CORS answers preflight requests and tells browsers which other origins may
// read the responses (Fetch standard, CORS protocol).
type CORS struct {
	// AllowOrigins are scheme://host[:port]; a * at the start of the host stands
	// for any number of labels, and alone for every origin.
	AllowOrigins     []string `json:"allowOrigins,omitempty"`
	AllowCredentials bool     `json:"allowCredentials,omitempty"`
	AllowMethods     []string `json:"allowMethods,omitempty"`
	AllowHeaders     []string `json:"allowHeaders,omitempty"`
	ExposeHeaders    []string `json:"exposeHeaders,omitempty"`
	// MaxAge is how many seconds a browser may keep a preflight's answer.
	MaxAge int `json:"maxAge,omitempty"`
}

// LocalObjectRef names an object of the same namespace.
type LocalObjectRef struct {
	Group string `json:"group"`
	Kind  string `json:"kind"`
	Name  string `json:"name"`
}

// BackendObjectRef names a service without a weight. As in [BackendRef], group
// and kind must be written.
type BackendObjectRef struct {
	Group     string `json:"group"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Port      int    `json:"port,omitempty"`
}

// ServiceKey is the "namespace/name" of the service that the reference names.
func (b *BackendObjectRef) ServiceKey() ServiceKey { return ServiceKey(b.Namespace + "/" + b.Name) }

// LocalResponse is a response that the proxy gives itself, to rules with an
// ExtensionRef filter that names it: to every request, or, with Replaces, in
// place of the proxy's own error responses.
type LocalResponse struct {
	TypeMeta
	Metadata ObjectMeta        `json:"metadata"`
	Spec     LocalResponseSpec `json:"spec"`
}

// LocalResponseSpec is the content of a LocalResponse.
type LocalResponseSpec struct {
	// StatusCode defaults to 200, and of an error page to the error's own.
	StatusCode  int    `json:"statusCode,omitempty"`
	ContentType string `json:"contentType,omitempty"`
	Body        string `json:"body,omitempty"`
	// Replaces are the status codes of the proxy's own error responses for which
	// this is the page. Responses of backends are never replaced.
	Replaces []int `json:"replaces,omitempty"`
}
