package mesh

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// NativeFunction is a function of requests that is built into the proxy and runs in
// its event loop. One of its fields is set.
type NativeFunction struct {
	Headers *HeaderEnrichment `json:"headers,omitempty"`
	Policer *RequestPolicer   `json:"policer,omitempty"`
	Tagger  *HostTagger       `json:"tagger,omitempty"`
}

// WasmFunction is a function of requests that is a WebAssembly module with the handler
// ABI of http-wasm. It sees and changes heads; bodies pass it by.
type WasmFunction struct {
	// File is an absolute path on the machine of each proxy, which follows its changes.
	File string `json:"file"`
	// Config is given to the module as it is.
	Config    string `json:"config,omitempty"`
	MemoryMiB int    `json:"memoryMiB,omitempty"`
	// Budget is what one call may take; a module that takes longer is killed.
	Budget *Duration `json:"budget,omitempty"`
}

// DefaultWasmMemoryMiB and DefaultWasmBudget bound a module where nothing is said.
const (
	DefaultWasmMemoryMiB = 16
	DefaultWasmBudget    = time.Millisecond
)

// HeaderEnrichment edits fields of requests and of their responses. The values of set
// and add are templates, see [ParseTemplate]; one that comes out empty adds no field.
type HeaderEnrichment struct {
	Request  *HeaderModifier `json:"request,omitempty"`
	Response *HeaderModifier `json:"response,omitempty"`
	// ClientPosition says which headers carry what ${source.geo} stands for; without
	// them, and where they hold no position, it is the site's.
	ClientPosition *ClientPosition `json:"clientPosition,omitempty"`
}

// Whose requests share a bucket of a [RequestPolicer].
const (
	PolicePerAll      = "all"
	PolicePerClient   = "client"   // an address
	PolicePerHost     = "host"     // a name of Host
	PolicePerIdentity = "identity" // a client certificate's; without one the address
)

// RequestPolicer answers requests beyond a rate with 429 (RFC 6585 4) and Retry-After.
// It is a token bucket, of each proxy for itself.
type RequestPolicer struct {
	Rate float64 `json:"requestsPerSecond"`
	// Burst is how many may come at once; absent, those of one second.
	Burst int    `json:"burst,omitempty"`
	Per   string `json:"per,omitempty"`
}

// HostTagger names what a request is for by its host, in a header of its own, which
// no client can set.
type HostTagger struct {
	Header string    `json:"header"`
	Tags   []HostTag `json:"tags"`
	// Default is the name for other hosts; empty gives them none.
	Default string `json:"default,omitempty"`
}

// HostTag is a name and the hosts that have it, the most specific of all tags wins.
type HostTag struct {
	Name  string   `json:"name"`
	Hosts []string `json:"hosts"`
}

// Values of requests that a template may name.
const (
	ValueSourceSite     = "source.site"
	ValueSourceAddress  = "source.address"
	ValueSourceIdentity = "source.identity"
	ValueSourceGeo      = "source.geo"
	ValueChain          = "chain"
	ValueChainSPI       = "chain.spi"
	ValueChainSI        = "chain.si"
	ValueFunction       = "function"
	ValueRoute          = "route"
	ValueGateway        = "gateway"
	ValueMethod         = "request.method"
	ValueHost           = "request.host"
	ValuePath           = "request.path"
	ValueStatus         = "response.status"
	// ValueHeader is followed by a field's name.
	ValueHeader = "request.header."
)

var templateValues = []string{ValueSourceSite, ValueSourceAddress, ValueSourceIdentity, ValueSourceGeo, ValueChain, ValueChainSPI,
	ValueChainSI, ValueFunction, ValueRoute, ValueGateway, ValueMethod, ValueHost, ValuePath, ValueStatus}

// TemplatePart is a piece of a template: text as it is, or a value of the request.
type TemplatePart struct {
	Text string
	// Value is one of the constants, empty for text; Field is the name behind
	// [ValueHeader], in lower case.
	Value, Field string
}

// ParseTemplate reads a header's value with ${...} for values of the request; $$ is a
// dollar sign.
func ParseTemplate(s string) (parts []TemplatePart, err error) {
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			parts = append(parts, TemplatePart{Text: text.String()})
			text.Reset()
		}
	}
	for rest := s; rest != ""; {
		before, after, found := strings.Cut(rest, "$")
		text.WriteString(before)
		if !found {
			break
		}
		switch {
		case strings.HasPrefix(after, "$"):
			text.WriteByte('$')
			rest = after[1:]
		case strings.HasPrefix(after, "{"):
			name, behind, closed := strings.Cut(after[1:], "}")
			if !closed {
				return nil, fmt.Errorf("${%s has no }", name)
			}
			p := TemplatePart{Value: name}
			if field, ok := strings.CutPrefix(name, ValueHeader); ok && reToken.MatchString(field) {
				p = TemplatePart{Value: ValueHeader, Field: strings.ToLower(field)}
			} else if !slices.Contains(templateValues, name) {
				return nil, fmt.Errorf("${%s} is no value of a request", name)
			}
			flush()
			parts, rest = append(parts, p), behind
		default:
			return nil, fmt.Errorf("a $ stands before { or another $")
		}
	}
	flush()
	return parts, nil
}

func nativeRelations(n *NativeFunction, fault faultFunc) {
	set := 0
	for _, f := range fieldsOf(reflect.TypeFor[NativeFunction]()) {
		if !reflect.ValueOf(n).Elem().FieldByIndex(f.index).IsNil() {
			set++
		}
	}
	if set != 1 {
		fault("", fmt.Sprintf("has %d functions", set), "write one of headers, policer and tagger, and a NetworkFunction for each")
	}
}

func enrichmentRelations(h *HeaderEnrichment, fault faultFunc) {
	if h.Request == nil && h.Response == nil {
		fault("", "changes nothing", "add request or response")
	}
	check := func(field string, m *HeaderModifier, ofResponse bool) {
		if m == nil {
			return
		}
		for _, list := range [][]HeaderValue{m.Set, m.Add} {
			for _, v := range list {
				parts, err := ParseTemplate(v.Value)
				if err != nil {
					hint := "one of " + strings.Join(templateValues, ", ") + ", or " + ValueHeader + "NAME"
					fault(field, fmt.Sprintf("%s: %v", v.Name, err), hint)
				}
				if !ofResponse && slices.ContainsFunc(parts, func(p TemplatePart) bool { return p.Value == ValueStatus }) {
					fault(field, v.Name+": a request has no "+ValueStatus, "use it under response")
				}
			}
		}
	}
	check("request", h.Request, false)
	check("response", h.Response, true)
}

func taggerRelations(t *HostTagger, fault faultFunc) {
	seen := map[string]string{}
	for i, tag := range t.Tags {
		for _, h := range tag.Hosts {
			if first, twice := seen[h]; twice {
				fault(fmt.Sprintf("tags[%d]", i), fmt.Sprintf("%s has the name %s already", h, first), "a host has one")
			}
			seen[h] = tag.Name
		}
	}
}

// ForRequests reports whether the function is one of requests, which the proxy runs,
// and not of packets.
func (s *NetworkFunctionSpec) ForRequests() bool {
	return s.Native != nil || s.Wasm != nil || s.External != nil
}

// ForRequests reports whether the chain is one of requests: it begins at a Gateway, or
// where routes name it.
func (s *ServiceChainSpec) ForRequests() bool { return s.Ingress.Node == "" }

// OfRoutes reports whether routes say what takes the chain.
func (s *ServiceChainSpec) OfRoutes() bool { return s.Ingress == (ChainEnd{}) }

// OfPackets is the part of the objects that chains of packets are made of, with what
// AfSfcRequirements add to the chains.
func (o *Objects) OfPackets() *Objects {
	out := *o
	out.ServiceChains = slices.DeleteFunc(slices.Clone(o.withRequirements()), func(c *ServiceChain) bool { return c.Spec.ForRequests() })
	out.AfSfcRequirements = nil
	out.NetworkFunctions = slices.DeleteFunc(slices.Clone(o.NetworkFunctions), func(f *NetworkFunction) bool { return f.Spec.ForRequests() })
	return &out
}

// requestMatch reports whether a match names what only requests have.
func (m *ChainMatch) requestMatch() bool {
	return len(m.Hosts)+len(m.Paths)+len(m.Methods)+len(m.Headers) > 0
}

// packetMatch reports whether a match names what only packets have.
func (m *ChainMatch) packetMatch() bool {
	return len(m.Interfaces)+len(m.Sources)+len(m.Destinations)+len(m.SourcePorts)+len(m.DestinationPorts)+len(m.Protocols)+
		len(m.DSCP)+len(m.SourceSites)+len(m.DNNs)+len(m.Slices) > 0
}

func requestChainRelations(s *ServiceChainSpec, fault faultFunc) {
	const why = "is of packets, and the chain is of requests: "
	for _, f := range []struct {
		field string
		set   bool
	}{
		{"egress", s.Egress != (ChainEnd{})}, {"symmetric", s.Symmetric != nil}, {"paths", s.Paths > 1}, {"latencyBudget", s.Budget != nil},
		{"demand", s.Demand != nil}, {"update", s.Update == UpdateImmediate}, {"branches", len(s.Branches) > 0},
	} {
		if f.set {
			fault(f.field, why+"its ingress names no node", "leave it out, or name ingress.node")
		}
	}
	switch {
	case s.Ingress.Gateway != "" && len(s.Match) == 0:
		fault("match", "is missing", "hosts, paths, methods or headers of the requests; {} takes all")
	case s.OfRoutes() && len(s.Match) > 0:
		fault("match", "is there, but no ingress where it classifies", "name ingress.gateway for requests or ingress.node for packets; without both, routes name the chain in an ExtensionRef filter")
	}
	for i, m := range s.Match {
		if m.packetMatch() {
			fault(fmt.Sprintf("match[%d]", i), "names what packets have, and the chain begins at a Gateway", "hosts, paths, methods and headers classify requests")
		}
	}
}

func packetChainRelations(s *ServiceChainSpec, fault faultFunc) {
	if s.Egress.Node == "" {
		fault("egress", "is missing", "name the ChainNode where the chain ends")
	}
	for i, m := range s.Match {
		if m.requestMatch() {
			fault(fmt.Sprintf("match[%d]", i), "names what requests have, and the chain is of packets", "name ingress.gateway in place of ingress.node")
		}
	}
}

func chainEndRelations(e *ChainEnd, fault faultFunc) {
	switch {
	case e.Node != "" && e.Gateway != "":
		fault("gateway", "is there beside node", "a chain of requests begins at a Gateway, one of packets at a ChainNode")
	case e.Node == "" && e.Gateway == "":
		fault("node", "is missing", "a ChainNode; of requests a gateway instead")
	case e.Gateway != "" && e.Interface != "":
		fault("interface", "is a port of a node, and the chain begins at a Gateway", "listener names one of a Gateway")
	case e.Node != "" && e.Listener != "":
		fault("listener", "is of a Gateway, and the chain begins at a node", "interface names a port of a node")
	}
}

// chains checks what chains of requests name.
func (c *checker) chains() {
	functions := map[string]*NetworkFunction{}
	for _, f := range c.o.NetworkFunctions {
		functions[f.Metadata.Namespace+"/"+f.Metadata.Name] = f
		c.external(f)
	}
	for _, s := range c.o.ServiceChains {
		if !s.Spec.ForRequests() {
			continue
		}
		for i, name := range s.Spec.Functions {
			at, key := fmt.Sprintf("spec.functions[%d]", i), s.Metadata.Namespace+"/"+name
			switch f := functions[key]; {
			case f == nil:
				c.add(KindServiceChain, s.Metadata, at, ReasonFunctionNotFound, "there is no NetworkFunction %s", key)
			case !f.Spec.ForRequests():
				c.add(KindServiceChain, s.Metadata, at, ReasonUnsupportedFunction, "NetworkFunction %s is of packets, and the chain is of requests", key)
			}
		}
		if name := s.Spec.Ingress.Gateway; name != "" {
			key := s.Metadata.Namespace + "/" + name
			switch g := c.gateways[key]; {
			case g == nil:
				c.add(KindServiceChain, s.Metadata, "spec.ingress.gateway", ReasonTargetNotFound, "there is no Gateway %s%s", key, c.perhaps(name, c.gateways))
			case s.Spec.Ingress.Listener != "" && !slices.ContainsFunc(g.Spec.Listeners, func(l Listener) bool { return l.Name == s.Spec.Ingress.Listener }):
				c.add(KindServiceChain, s.Metadata, "spec.ingress.listener", ReasonTargetNotFound, "Gateway %s has no listener %s", key, s.Spec.Ingress.Listener)
			}
		}
	}
}

// missingFilter says why an ExtensionRef of a route leads nowhere, empty where it does not.
func (c *checker) missingFilter(namespace string, e *LocalObjectRef) string {
	key := namespace + "/" + e.Name
	if e.Kind != KindServiceChain {
		if c.responses[key] != nil {
			return ""
		}
		return fmt.Sprintf("there is no LocalResponse %s%s", key, c.perhaps(e.Name, c.responses))
	}
	at := slices.IndexFunc(c.o.ServiceChains, func(s *ServiceChain) bool { return s.Metadata.Namespace == namespace && s.Metadata.Name == e.Name })
	switch {
	case at < 0:
		return "there is no ServiceChain " + key
	case !c.o.ServiceChains[at].Spec.OfRoutes():
		return c.o.ServiceChains[at].NoCodePoint()
	}
	return ""
}

// functionRules are those of functions of requests.
var functionRules = map[string]rule{
	"NativeFunction.headers":           {doc: "Sets, adds and removes headers, with values of the request."},
	"NativeFunction.policer":           {doc: "A token bucket; what is beyond it gets 429."},
	"NativeFunction.tagger":            {doc: "Names what a request is for by its host."},
	"HeaderEnrichment.clientPosition":  {doc: "Headers that carry the client's position, for ${source.geo}; else it is the site's."},
	"RequestPolicer.requestsPerSecond": {span: positive},
	"RequestPolicer.burst":             {span: &span{lo: 1, hi: 1e6}, doc: "Requests that may come at once; absent, those of one second."},
	"RequestPolicer.per":               {enum: []string{PolicePerAll, PolicePerClient, PolicePerHost, PolicePerIdentity}, def: PolicePerAll, doc: "Whose requests share a bucket: all, a client's address, a host, or the identity of a client's certificate."},
	"HostTagger.header":                {format: &formatField, doc: "The header that carries the name; what a client sends in it is removed."},
	"HostTagger.tags":                  {minItems: 1, maxItems: 64, unique: "name"},
	"HostTagger.default":               {format: &formatFieldValue},
	"HostTag.name":                     {format: &formatFieldValue},
	"HostTag.hosts":                    {format: &formatHostname, minItems: 1, maxItems: 64, unique: "."},
	"WasmFunction.file":                {format: &formatAbsolute, doc: "The module, an absolute path on the machine of each proxy; a change of the file is followed."},
	"WasmFunction.config":              {format: &formatBody, doc: "Given to the module as it is."},
	"WasmFunction.memoryMiB":           {span: &span{lo: 1, hi: 1024}, def: DefaultWasmMemoryMiB, doc: "Bound of the memory of one instance; each event loop has one."},
	"WasmFunction.budget":              {span: &span{lo: 0.00001, hi: 0.005}, doc: "What one call may take, 1ms by default; a module that takes longer is killed, and after three times not started again."},
}

func init() { maps.Copy(rules, functionRules) }
