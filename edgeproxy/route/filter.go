package route

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/function"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// Filters is what is done to the requests of a rule, or of one of its backends:
// that of the rule and then that of the backend. Of a request that is answered
// here, by the redirect, the direct response or CORS, nothing is sent on.
// Everything is made when the table is built, so that nothing is allocated when
// it is applied.
type Filters struct {
	Request, Response []Edits
	Host              []byte    // for the backend, nil for the client's
	Path              *PathEdit // for the backend
	Redirect          *Redirect
	Direct            *Page
	CORS              *CORS
	Mirrors           []Mirror
	// Chains are passed before anything else is done.
	Chains []Chain
	// Onward is the chain of packets that connections to backends pass.
	Onward Onward
	pages  []errorPage
	// Invalid says why requests cannot be served as the filters ask (answer 500),
	// empty otherwise.
	Invalid string
}

// Chain is a chain of functions that requests pass.
type Chain struct {
	Key string // namespace/name of the ServiceChain
	// Chain is the caller's, to keep what it has found for Key.
	*function.Chain
}

// Onward is a chain of packets, which is known by a code point (DSCP, RFC 2474): packets
// of connections that are opened for it carry that. The zero Onward is none.
type Onward struct {
	Key       string // namespace/name of the ServiceChain
	CodePoint uint8
}

// Page is a response of the proxy's own.
type Page struct {
	Status      int // 0 keeps the error's
	ContentType []byte
	Body        []byte
}

type errorPage struct {
	status int
	page   *Page
}

// Page returns what replaces an error response of the proxy's own, nil for none.
func (f *Filters) Page(status int) *Page {
	if f == nil {
		return nil
	}
	for i := range f.pages {
		if f.pages[i].status == status {
			return f.pages[i].page
		}
	}
	return nil
}

// Edits are changes of a message's fields.
type Edits struct {
	drop []string // in lower case
	add  []stream.Field
}

// Apply appends fields, changed, to dst, which may be fields[:0].
func (e *Edits) Apply(dst, fields []stream.Field) []stream.Field {
next:
	for i := range fields {
		f := fields[i]
		for _, name := range e.drop {
			if f.Is(name) {
				continue next
			}
		}
		dst = append(dst, f)
	}
	return append(dst, e.add...)
}

func compileEdits(m *mesh.HeaderModifier) Edits {
	var e Edits
	for _, h := range m.Set {
		e.drop = append(e.drop, strings.ToLower(h.Name))
		e.add = append(e.add, stream.Field{Name: []byte(h.Name), Value: []byte(h.Value)})
	}
	for _, h := range m.Add {
		e.add = append(e.add, stream.Field{Name: []byte(h.Name), Value: []byte(h.Value)})
	}
	for _, name := range m.Remove {
		e.drop = append(e.drop, strings.ToLower(name))
	}
	return e
}

// PathEdit replaces a path or the prefix of it by which the rule matched.
type PathEdit struct {
	with []byte
	// cut is how much of the path is replaced; all of it when negative.
	cut int
}

// Append appends the path, changed, to dst. Whether the prefix or what replaces
// it end in a slash makes no difference (Gateway API, HTTPPathModifier).
func (e *PathEdit) Append(dst, path []byte) []byte {
	switch {
	case e.cut < 0:
		return append(dst, e.with...)
	case len(path) == 1 && path[0] == '*':
		return append(dst, '*')
	case len(e.with) == 0 && len(path) <= e.cut:
		return append(dst, '/')
	}
	return append(append(dst, e.with...), path[e.cut:]...)
}

func compilePath(m *mesh.PathModifier, prefix string) *PathEdit {
	switch {
	case m == nil:
		return nil
	case m.ReplaceFullPath != nil:
		return &PathEdit{with: []byte(*m.ReplaceFullPath), cut: -1}
	case m.ReplacePrefixMatch != nil:
		return &PathEdit{with: []byte(strings.TrimSuffix(*m.ReplacePrefixMatch, "/")), cut: len(strings.TrimSuffix(prefix, "/"))}
	}
	return nil
}

// Redirect makes the Location of a redirection.
type Redirect struct {
	Status       int
	scheme, host string
	port         int // 0 for the listener's
	path         *PathEdit
}

// wellKnown is the port of a scheme.
func wellKnown(scheme string) int {
	if scheme == "https" {
		return 443
	}
	return 80
}

// AppendLocation appends where a request of the scheme, Host and path goes. port
// is the listener's, 0 where it is not known.
func (r *Redirect) AppendLocation(dst []byte, scheme string, port int, q *Request) []byte {
	host := q.Host
	scheme, port = cmp.Or(r.scheme, scheme), cmp.Or(r.port, port)
	if port != 0 {
		host = withoutPort(host)
	}
	if len(host) > 0 || r.host != "" {
		dst = append(append(dst, scheme...), "://"...)
		if r.host != "" {
			dst = append(dst, r.host...)
		} else {
			dst = append(dst, host...)
		}
		if port != 0 && port != wellKnown(scheme) {
			dst = strconv.AppendInt(append(dst, ':'), int64(port), 10)
		}
	}
	switch {
	case r.path != nil:
		dst = r.path.Append(dst, q.Path)
	case len(q.Path) > 0 && q.Path[0] == '/':
		dst = append(dst, q.Path...)
	default: // OPTIONS *
		dst = append(dst, '/')
	}
	if len(q.Query) > 0 {
		dst = append(append(dst, '?'), q.Query...)
	}
	return dst
}

// Mirror is a service that gets copies of requests.
type Mirror struct {
	Service mesh.ServiceKey
	Port    int
	// numerator of every denominator requests.
	numerator, denominator uint64
}

// Takes reports whether a request is copied; random is uniform over all uint64.
func (m *Mirror) Takes(random uint64) bool {
	at, _ := bits.Mul64(random, m.denominator)
	return at < m.numerator
}

func compileMirror(m *mesh.RequestMirror, namespace string) Mirror {
	c := Mirror{
		Service: mesh.ServiceKey(namespace + "/" + m.BackendRef.Name),
		Port:    m.BackendRef.Port, numerator: 1, denominator: 1,
	}
	switch {
	case m.Percent != nil:
		c.numerator, c.denominator = uint64(*m.Percent), 100
	case m.Fraction != nil:
		c.numerator, c.denominator = uint64(m.Fraction.Numerator), uint64(cmp.Or(m.Fraction.Denominator, 100))
	}
	return c
}

// filters compiles a list of filters into what a request of it passes, beginning
// with those of the rule when they are of a backend (before, else nil). prefix is
// the one path prefix by which the rule matches. field is where the list stands.
func (b *builder) filters(route *mesh.HTTPRoute, list []mesh.HTTPRouteFilter, before *Filters, prefix, field string) *Filters {
	if len(list) == 0 {
		return before
	}
	f := &Filters{}
	if before != nil {
		*f = *before
		f.Request, f.Response = slices.Clip(f.Request), slices.Clip(f.Response)
		f.Mirrors, f.pages, f.Chains = slices.Clip(f.Mirrors), nil, slices.Clip(f.Chains)
	}
	for i := range list {
		b.filter(route, f, &list[i], prefix, field, i)
	}
	if before != nil {
		f.pages = append(f.pages, before.pages...)
	}
	return f
}

func (b *builder) filter(route *mesh.HTTPRoute, f *Filters, spec *mesh.HTTPRouteFilter, prefix, field string, i int) {
	switch {
	case spec.RequestHeaderModifier != nil:
		f.Request = append(f.Request, compileEdits(spec.RequestHeaderModifier))
	case spec.ResponseHeaderModifier != nil:
		f.Response = append(f.Response, compileEdits(spec.ResponseHeaderModifier))
	case spec.RequestMirror != nil:
		ref := &spec.RequestMirror.BackendRef
		if what := b.unserved(route, ref.Group, ref.Kind, ref.Namespace, ref.Name); what != "" {
			b.fault(route, what, "%s.filters[%d].requestMirror.backendRef", field, i)
			return
		}
		f.Mirrors = append(f.Mirrors, compileMirror(spec.RequestMirror, cmp.Or(ref.Namespace, route.Metadata.Namespace)))
	case spec.RequestRedirect != nil:
		r := spec.RequestRedirect
		f.Redirect = &Redirect{Status: cmp.Or(r.StatusCode, 302), scheme: r.Scheme, host: r.Hostname, port: r.Port, path: compilePath(r.Path, prefix)}
		if r.Port == 0 && r.Scheme != "" {
			f.Redirect.port = wellKnown(r.Scheme)
		}
	case spec.URLRewrite != nil:
		if spec.URLRewrite.Hostname != "" {
			f.Host = []byte(spec.URLRewrite.Hostname)
		}
		if p := compilePath(spec.URLRewrite.Path, prefix); p != nil {
			f.Path = p
		}
	case spec.CORS != nil:
		f.CORS = compileCORS(spec.CORS)
	case spec.ExtensionRef != nil:
		b.extension(route, f, spec.ExtensionRef, field, i)
	default:
		f.Invalid = "filter of type " + spec.Type + " is not served"
		b.fault(route, f.Invalid, "%s.filters[%d]", field, i)
	}
}

func (b *builder) extension(route *mesh.HTTPRoute, f *Filters, ref *mesh.LocalObjectRef, field string, i int) {
	if ref.Group == mesh.MeshGroup && ref.Kind == mesh.KindServiceChain {
		b.chain(route, f, ref.Name, fmt.Sprintf("%s.filters[%d].extensionRef", field, i))
		return
	}
	at := slices.IndexFunc(b.objects.LocalResponses, func(r *mesh.LocalResponse) bool {
		return r.Metadata.Namespace == route.Metadata.Namespace && r.Metadata.Name == ref.Name
	})
	if at < 0 || ref.Group != mesh.MeshGroup || ref.Kind != mesh.KindLocalResponse {
		f.Invalid = "there is no " + ref.Kind + " " + route.Metadata.Namespace + "/" + ref.Name
		b.fault(route, f.Invalid, "%s.filters[%d].extensionRef", field, i)
		return
	}
	spec := &b.objects.LocalResponses[at].Spec
	page := &Page{Status: spec.StatusCode, ContentType: []byte(cmp.Or(spec.ContentType, "text/plain; charset=utf-8")), Body: []byte(spec.Body)}
	if len(spec.Replaces) > 0 {
		for _, status := range spec.Replaces {
			f.pages = append(f.pages, errorPage{status, page})
		}
		return
	}
	page.Status = cmp.Or(page.Status, 200)
	f.Direct = page
}
