package otlp

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Kinds and states of spans as OTLP numbers them (opentelemetry/proto/trace/v1).
const (
	kindServer  = 2
	statusError = 2
)

// The messages of OTLP that are sent, in its JSON encoding: IDs in hexadecimal, times and
// 64-bit numbers as decimal strings.
type (
	exportRequest struct {
		ResourceSpans []resourceSpans `json:"resourceSpans"`
	}
	resourceSpans struct {
		Resource   resource     `json:"resource"`
		ScopeSpans []scopeSpans `json:"scopeSpans"`
	}
	resource struct {
		Attributes []attribute `json:"attributes"`
	}
	scopeSpans struct {
		Scope scope  `json:"scope"`
		Spans []span `json:"spans"`
	}
	scope struct {
		Name    string `json:"name"`
		Version string `json:"version,omitempty"`
	}
	span struct {
		TraceID      string      `json:"traceId"`
		SpanID       string      `json:"spanId"`
		ParentSpanID string      `json:"parentSpanId,omitempty"`
		Name         string      `json:"name"`
		Kind         int         `json:"kind"`
		Start        string      `json:"startTimeUnixNano"`
		End          string      `json:"endTimeUnixNano"`
		Attributes   []attribute `json:"attributes"`
		Events       []event     `json:"events,omitempty"`
		Status       *status     `json:"status,omitempty"`
	}
	event struct {
		Time string `json:"timeUnixNano"`
		Name string `json:"name"`
	}
	status struct {
		Code    int    `json:"code"`
		Message string `json:"message,omitempty"`
	}
	attribute struct {
		Key   string `json:"key"`
		Value value  `json:"value"`
	}
	value struct {
		String *string `json:"stringValue,omitempty"`
		Int    *string `json:"intValue,omitempty"`
	}
)

// methods are those that semantic conventions know; others are _OTHER, so that names of
// spans stay few.
var methods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"}

// Traced reports whether a request can be a span: it is one of HTTP, and something says
// which trace it belongs to.
func Traced(e *mesh.EndedRequest) bool {
	_, ok := mesh.ParseTraceParent([]byte(e.TraceParent))
	return e.Method != "" && (ok || e.ID != "")
}

// ids are a request's: the trace, this proxy's span and its parent, empty for none.
func ids(e *mesh.EndedRequest) (trace [16]byte, id, parent []byte) {
	p, ok := mesh.ParseTraceParent([]byte(e.TraceParent))
	trace = p.TraceID
	if !ok {
		trace = [16]byte(sum("trace", e.ID))
	}
	// Of the proxy where the request came in: others know it too.
	first := sum("first", string(trace[:]), string(p.SpanID[:]), e.ID)[:8]
	if e.Inbound {
		return trace, sum("inbound", string(first), e.Site, e.Node, strconv.FormatInt(e.Time.UnixNano(), 10))[:8], first
	}
	if ok {
		parent = p.SpanID[:]
	}
	return trace, first, parent
}

// sum hashes parts so that no two lists of them are the same bytes.
func sum(parts ...string) []byte {
	h := sha256.New()
	for _, p := range parts {
		_, _ = h.Write(strconv.AppendInt(nil, int64(len(p)), 10)) // a hash never fails
		_, _ = h.Write([]byte{0})
		_, _ = h.Write([]byte(p))
	}
	return h.Sum(nil)
}

// spanOf is a request as a span.
func spanOf(e *mesh.EndedRequest) span {
	trace, id, parent := ids(e)
	method := e.Method
	if !slices.Contains(methods, method) {
		method = "_OTHER"
	}
	began := e.Time
	s := span{
		TraceID: hex.EncodeToString(trace[:]), SpanID: hex.EncodeToString(id), ParentSpanID: hex.EncodeToString(parent),
		Name: strings.TrimSpace(strings.TrimPrefix(method, "_OTHER") + " " + e.Rule), Kind: kindServer,
		Start: nanos(began), End: nanos(began.Add(durationOf(e.DurationMS))), Attributes: attributesOf(e, method),
	}
	if s.Name == "" {
		s.Name = "HTTP"
	}
	if e.FirstByteMS != nil {
		s.Events = []event{{Time: nanos(began.Add(durationOf(*e.FirstByteMS))), Name: "meridian.response.first_byte"}}
	}
	// A flag on a response under 500 is the mesh's own answer, of which the caller is to
	// blame: a rate limit, no route.
	if e.Status >= 500 || e.Status == 0 && e.Flag != "" {
		s.Status = &status{Code: statusError, Message: e.Details}
	}
	return s
}

func durationOf(ms float64) time.Duration { return time.Duration(ms * 1e6) }

func nanos(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) }

// attributesOf are by the semantic conventions for HTTP servers, and the mesh's own.
func attributesOf(e *mesh.EndedRequest, method string) (out []attribute) {
	text := func(key, v string) {
		if v != "" {
			v = strings.ToValidUTF8(v, "\ufffd") // texts from outside may hold any bytes
			out = append(out, attribute{key, value{String: &v}})
		}
	}
	number := func(key string, v int64) {
		n := strconv.FormatInt(v, 10)
		out = append(out, attribute{key, value{Int: &n}})
	}
	hostPort := func(address, port, v string) {
		host, p, err := net.SplitHostPort(v)
		if err != nil {
			text(address, v)
			return
		}
		text(address, host)
		if n, err := strconv.ParseUint(p, 10, 16); err == nil {
			number(port, int64(n))
		}
	}
	text("http.request.method", method)
	if method != e.Method {
		text("http.request.method_original", e.Method)
	}
	path, query, _ := strings.Cut(e.Path, "?")
	text("url.path", path)
	text("url.query", query)
	hostPort("server.address", "server.port", e.Authority)
	hostPort("client.address", "client.port", e.Client)
	hostPort("network.peer.address", "network.peer.port", e.Peer)
	if name, version, ok := strings.Cut(e.Protocol, "/"); ok {
		text("network.protocol.name", strings.ToLower(name))
		text("network.protocol.version", version)
	}
	text("user_agent.original", e.UserAgent)
	if e.Status != 0 {
		number("http.response.status_code", int64(e.Status))
	}
	number("http.request.body.size", e.Received)
	number("http.response.body.size", e.Sent)
	switch {
	case e.Flag != "" && (e.Status >= 500 || e.Status == 0):
		text("error.type", e.Flag)
	case e.Status >= 500:
		text("error.type", strconv.Itoa(e.Status))
	}
	text("meridian.request_id", e.ID)
	text("meridian.gateway", e.Gateway)
	text("meridian.rule", e.Rule)
	text("meridian.service", string(e.Service))
	text("meridian.to_site", e.ToSite)
	text("meridian.endpoint", e.Endpoint)
	number("meridian.attempts", int64(e.Attempts))
	text("meridian.response_flags", e.Flag)
	text("meridian.response_details", e.Details)
	return out
}

// requestOf puts spans of requests together by the proxy that saw them.
func requestOf(list []mesh.EndedRequest, version string) *exportRequest {
	out := &exportRequest{}
	at := map[[2]string]int{}
	for i := range list {
		e := &list[i]
		key := [2]string{e.Site, e.Node}
		n, ok := at[key]
		if !ok {
			n = len(out.ResourceSpans)
			at[key] = n
			r := resourceSpans{ScopeSpans: []scopeSpans{{Scope: scope{Name: "github.com/meridian-mesh/meridian", Version: version}}}}
			for _, a := range [][2]string{
				{"service.name", "edgeproxy"}, {"service.namespace", "meridian"}, {"service.instance.id", e.Site + "/" + e.Node},
				{"meridian.site", e.Site}, {"meridian.node", e.Node},
			} {
				r.Resource.Attributes = append(r.Resource.Attributes, attribute{a[0], value{String: &a[1]}})
			}
			out.ResourceSpans = append(out.ResourceSpans, r)
		}
		s := &out.ResourceSpans[n].ScopeSpans[0]
		s.Spans = append(s.Spans, spanOf(e))
	}
	return out
}
