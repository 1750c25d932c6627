package mesh

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// ExplainQuery is a request of a user whose way is asked for, or with Service a
// request that another site would hand in.
type ExplainQuery struct {
	Host string `json:"host,omitempty"`
	// Path may have a query. It defaults to "/", Method to GET.
	Path   string `json:"path,omitempty"`
	Method string `json:"method,omitempty"`
	// Headers are "name: value".
	Headers []string `json:"headers,omitempty"`
	// Listener is namespace/gateway/listener; empty asks those for HTTP one by one.
	Listener string `json:"listener,omitempty"`
	// Service stands in place of host and path: it is served where it is asked.
	Service ServiceKey `json:"service,omitempty"`
	// Protocol is empty for a request of HTTP, ExplainTCP for a connection that is passed
	// on whole (Host is then the server name of TLS), ExplainUDP for datagrams. These come
	// to the listener's Port, 0 for any.
	Protocol string `json:"protocol,omitempty"`
	Port     int    `json:"port,omitempty"`
}

// What [ExplainQuery.Protocol] may be.
const (
	ExplainTCP = "tcp"
	ExplainUDP = "udp"
)

// Values writes the query for a URL; [ParseExplainQuery] reads it.
func (q *ExplainQuery) Values() url.Values {
	v := url.Values{}
	for name, s := range map[string]string{"host": q.Host, "path": q.Path, "method": q.Method, "listener": q.Listener, "service": string(q.Service), "protocol": q.Protocol} {
		if s != "" {
			v.Set(name, s)
		}
	}
	if q.Port != 0 {
		v.Set("port", strconv.Itoa(q.Port))
	}
	for _, h := range q.Headers {
		v.Add("header", h)
	}
	return v
}

// ParseExplainQuery reads what [ExplainQuery.Values] wrote and says what of it
// cannot be a request.
func ParseExplainQuery(v url.Values) (*ExplainQuery, error) {
	q := &ExplainQuery{
		Host: v.Get("host"), Path: v.Get("path"), Method: v.Get("method"),
		Listener: v.Get("listener"), Service: ServiceKey(v.Get("service")), Headers: v["header"], Protocol: v.Get("protocol"),
	}
	if port := v.Get("port"); port != "" {
		n, err := strconv.Atoi(port)
		if err != nil {
			return q, fmt.Errorf("port %q: want a number", port)
		}
		q.Port = n
	}
	return q, q.Check()
}

// Check says what cannot be a request, and fills in the defaults.
func (q *ExplainQuery) Check() error {
	if q.Service != "" {
		if q.Host != "" || q.Path != "" || q.Listener != "" {
			return fmt.Errorf("service %s: it stands in place of host, path and listener", q.Service)
		}
		if ns, name, ok := strings.Cut(string(q.Service), "/"); !ok || ns == "" || name == "" {
			return fmt.Errorf("service %q: want namespace/name", q.Service)
		}
		if q.Protocol != "" || q.Port != 0 {
			return fmt.Errorf("service %s: it stands in place of protocol and port", q.Service)
		}
		return nil
	}
	if q.Protocol != "" || q.Port != 0 {
		return q.checkStream()
	}
	if q.Path == "" {
		q.Path = "/"
	}
	if q.Method == "" {
		q.Method = "GET"
	}
	if !strings.HasPrefix(q.Path, "/") {
		return fmt.Errorf("path %q: it begins with /", q.Path)
	}
	for _, h := range q.Headers {
		if name, _, ok := strings.Cut(h, ":"); !ok || strings.TrimSpace(name) == "" {
			return fmt.Errorf("header %q: want name: value", h)
		}
	}
	return nil
}

func (q *ExplainQuery) checkStream() error {
	switch {
	case q.Protocol == "":
		return fmt.Errorf("port %d: it is of a connection or of datagrams: give protocol %s or %s too", q.Port, ExplainTCP, ExplainUDP)
	case q.Protocol != ExplainTCP && q.Protocol != ExplainUDP:
		return fmt.Errorf("protocol %q: want %s or %s, or none for a request of HTTP", q.Protocol, ExplainTCP, ExplainUDP)
	case q.Port < 0 || q.Port > 65535:
		return fmt.Errorf("port %d: want 1 to 65535", q.Port)
	case q.Path != "" || q.Method != "" || len(q.Headers) > 0:
		return fmt.Errorf("protocol %s: path, method and headers are a request's of HTTP", q.Protocol)
	case q.Protocol == ExplainUDP && q.Host != "":
		return fmt.Errorf("host %s: datagrams name no host", q.Host)
	}
	return nil
}

// Explanation says where a request goes at one node, at one moment, and why. Its
// chances are those of the first attempt.
type Explanation struct {
	Site       string     `json:"site,omitempty"`
	Node       string     `json:"node,omitempty"`
	Generation Generation `json:"generation"`
	// Protocol is the query's: a proxy that does not know of it says none.
	Protocol string `json:"protocol,omitempty"`
	// Listener took the request, namespace/gateway/listener.
	Listener string `json:"listener,omitempty"`
	// Path is the path as it was matched.
	Path string `json:"path,omitempty"`
	// Rule is namespace/route/rule, and RuleOwner who owns the route.
	Rule      string `json:"rule,omitempty"`
	RuleOwner string `json:"ruleOwner,omitempty"`
	// Chains are those that the request passes before its rule is sought.
	Chains []string `json:"chains,omitempty"`
	// Answer is what the proxy answers itself, and why; empty where a backend is asked.
	Answer   string             `json:"answer,omitempty"`
	Backends []ExplainedBackend `json:"backends,omitempty"`
}

// ExplainedBackend is one backend of a rule.
type ExplainedBackend struct {
	Service ServiceKey `json:"service"`
	Port    int        `json:"port,omitempty"`
	// Chance is its part of the rule's requests, 0 to 1.
	Chance float64 `json:"chance"`
	// Chains are those that its part passes, of the rule's filters and its own.
	Chains []string `json:"chains,omitempty"`
	// Invalid says why its part is answered with an error.
	Invalid string `json:"invalid,omitempty"`
	// Policies say by which TrafficPolicy each section is set; what is not in it
	// has its default.
	Policies []PolicyOrigin `json:"policies,omitempty"`
	// Sharing is the policy between sites, Source whose plan is in force
	// (controller, standby, fading), Off why none is.
	Sharing string `json:"sharing,omitempty"`
	Source  string `json:"source,omitempty"`
	Off     string `json:"off,omitempty"`
	// Unit is what load is counted in where it is not requests: sessions.
	Unit string `json:"unit,omitempty"`
	// Peers are what requests need that other sites hand in here, by port; empty
	// where the mesh has no identities.
	Peers []ExplainedPeer `json:"peers,omitempty"`
	// Priority is the request's priority class, empty for none.
	Priority string          `json:"priority,omitempty"`
	Sites    []ExplainedSite `json:"sites"`
	// Balancing is the rule among the endpoints here.
	Balancing string              `json:"balancing,omitempty"`
	Endpoints []ExplainedEndpoint `json:"endpoints,omitempty"`
	// There is what other sites that have a chance say of their endpoints, the
	// likeliest first, and Silent why one says nothing, by site.
	There  []*Explanation    `json:"there,omitempty"`
	Silent map[string]string `json:"silent,omitempty"`
}

// ExplainedPeer is what requests of other sites for a port need.
type ExplainedPeer struct {
	Port int `json:"port"`
	PeerMode
}

// PolicyOrigin names the object that sets a section of a policy.
type PolicyOrigin struct {
	Section string `json:"section"`
	Policy  Key    `json:"policy"`
	Owner   string `json:"owner,omitempty"`
}

// ExplainedSite is a site as a candidate. Times are in ms.
type ExplainedSite struct {
	Site string `json:"site"`
	Home bool   `json:"home,omitempty"`
	// Chance is the part of the backend's requests that goes there now, 0 to 1.
	Chance float64 `json:"chance"`
	// CostMS is what one more request there costs in delay, the way included; 0
	// where it is not known.
	CostMS float64 `json:"costMs,omitempty"`
	RTTMS  float64 `json:"rttMs,omitempty"`
	// AgeMS is the age of the report that the plan used.
	AgeMS float64 `json:"ageMs,omitempty"`
	// InFlight is at home the number of requests there, else of this node's that
	// are outstanding.
	InFlight int `json:"inFlight"`
	// Why is what speaks for it or against it.
	Why string `json:"why"`
}

// ExplainedEndpoint is an endpoint of the site as a candidate.
type ExplainedEndpoint struct {
	Address  string `json:"address"`
	Host     string `json:"host,omitempty"`
	Weight   int    `json:"weight"`
	InFlight int    `json:"inFlight"`
	Health   string `json:"health"`
	// May reports whether a request that comes to this site may go there now.
	May bool   `json:"may"`
	Why string `json:"why"`
}

// PolicyOrigins lists which policy sets which section for a service, by section.
func PolicyOrigins(o *Objects, key ServiceKey) []PolicyOrigin {
	var out []PolicyOrigin
	for _, s := range sections {
		for _, p := range o.policiesOf(key) {
			if setsSection(p, s) {
				out = append(out, PolicyOrigin{Section: s.name, Policy: Key{KindTrafficPolicy, p.Metadata.Namespace, p.Metadata.Name}})
				break
			}
		}
	}
	return out
}
