package route

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// CORS is the cross-origin rules of a route (Fetch standard, CORS protocol).
type CORS struct {
	origins     []origin
	any         bool // every origin
	credentials bool

	methods, headers, expose []byte // nil for none
	anyMethod, anyHeader     bool
	maxAge                   []byte
}

// origin is a pattern of origins: scheme, host and port, lower case.
type origin struct {
	scheme, host, port string
	wild               bool // host is a suffix, with at least one octet before it
}

// Names of the CORS protocol.
var (
	varyName          = []byte("Vary")
	originName        = []byte("Origin")
	allowOriginName   = []byte("Access-Control-Allow-Origin")
	allowMethodsName  = []byte("Access-Control-Allow-Methods")
	allowHeadersName  = []byte("Access-Control-Allow-Headers")
	exposeHeadersName = []byte("Access-Control-Expose-Headers")
	credentialsName   = []byte("Access-Control-Allow-Credentials")
	maxAgeName        = []byte("Access-Control-Max-Age")
	trueValue         = []byte("true")
	asterisk          = []byte("*")
)

// corsOwn are the fields of a backend's response in whose place the filter's
// stand: two opinions would make a browser refuse both.
var corsOwn = Edits{drop: []string{"access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers"}}

func compileCORS(m *mesh.CORS) *CORS {
	c := &CORS{
		credentials: m.AllowCredentials,
		anyMethod:   slices.Contains(m.AllowMethods, "*"), anyHeader: slices.Contains(m.AllowHeaders, "*"),
		maxAge: strconv.AppendInt(nil, int64(cmp.Or(m.MaxAge, 5)), 10),
	}
	list := func(values []string) []byte {
		if len(values) == 0 {
			return nil
		}
		return []byte(strings.Join(values, ", "))
	}
	c.methods, c.headers = list(m.AllowMethods), list(m.AllowHeaders)
	// With credentials * is the name of a header and no wildcard.
	if !slices.Contains(m.ExposeHeaders, "*") || !c.credentials {
		c.expose = list(m.ExposeHeaders)
	}
	for _, text := range m.AllowOrigins {
		if text == "*" {
			c.any = true
			continue
		}
		o, ok := splitOrigin([]byte(strings.ToLower(text)))
		if !ok {
			continue
		}
		pattern := origin{scheme: string(o.scheme), host: string(o.host), port: string(o.port)}
		pattern.host, pattern.wild = strings.CutPrefix(pattern.host, "*")
		c.origins = append(c.origins, pattern)
	}
	return c
}

type originParts struct{ scheme, host, port []byte }

var httpPort, httpsPort = []byte("80"), []byte("443")

func splitOrigin(b []byte) (o originParts, ok bool) {
	var rest []byte
	if o.scheme, rest, ok = bytes.Cut(b, []byte("://")); !ok {
		return o, false
	}
	o.host, o.port = rest, httpPort
	if len(o.scheme) == len("https") {
		o.port = httpsPort
	}
	if i := bytes.LastIndexByte(rest, ':'); i >= 0 && bytes.IndexByte(rest[i:], ']') < 0 {
		o.host, o.port = rest[:i], rest[i+1:]
	}
	return o, len(o.host) > 0
}

// Allows reports whether a page of the origin, an Origin field's value, may read
// the responses.
func (c *CORS) Allows(value []byte) bool {
	if c.any {
		return true
	}
	o, ok := splitOrigin(value)
	if !ok {
		return false
	}
	for i := range c.origins {
		p := &c.origins[i]
		host := o.host
		if p.wild {
			if len(host) <= len(p.host) {
				continue
			}
			host = host[len(host)-len(p.host):]
		}
		if equalFold(o.scheme, p.scheme) && equalFold(host, p.host) && string(o.port) == p.port {
			return true
		}
	}
	return false
}

func equalFold(b []byte, lower string) bool {
	return stream.Field{Name: b}.Is(lower)
}

// Apply appends a response's fields to dst, which may be fields[:0], with what a
// browser is told: allowed is the Origin field of the request, nil when it is not
// allowed or there is none.
func (c *CORS) Apply(dst, fields []stream.Field, allowed []byte) []stream.Field {
	dst = corsOwn.Apply(dst, fields)
	if !c.any || c.credentials {
		dst = append(dst, stream.Field{Name: varyName, Value: originName})
	}
	if allowed == nil {
		return dst
	}
	dst = c.appendOrigin(dst, allowed)
	if len(c.expose) > 0 {
		dst = append(dst, stream.Field{Name: exposeHeadersName, Value: c.expose})
	}
	return dst
}

func (c *CORS) appendOrigin(dst []stream.Field, allowed []byte) []stream.Field {
	if c.any && !c.credentials {
		allowed = asterisk
	}
	dst = append(dst, stream.Field{Name: allowOriginName, Value: allowed})
	if c.credentials {
		dst = append(dst, stream.Field{Name: credentialsName, Value: trueValue})
	}
	return dst
}

// AppendPreflight appends what the answer to a preflight request says besides
// what Apply adds: method and headers are what the request asks for, headers nil
// when it asks for none.
func (c *CORS) AppendPreflight(dst []stream.Field, method, headers []byte) []stream.Field {
	allow := c.methods
	if c.anyMethod {
		allow = method
	}
	if len(allow) > 0 {
		dst = append(dst, stream.Field{Name: allowMethodsName, Value: allow})
	}
	allow = c.headers
	if c.anyHeader {
		allow = headers
	}
	if len(allow) > 0 && headers != nil {
		dst = append(dst, stream.Field{Name: allowHeadersName, Value: allow})
	}
	return append(dst, stream.Field{Name: maxAgeName, Value: c.maxAge})
}
