package function

import (
	"fmt"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// External is a function that is an HTTP service: what to ask it, and what its answer
// means. Asking is the worker's.
type External struct {
	Service mesh.ServiceKey
	Port    int
	Timeout time.Duration
	Prefix  []byte
	MaxBody int64 // 0 sends no body
	// Hop is the value of [mesh.HopField].
	Hop []byte

	names   []string // in lower case
	headers [][]byte
}

func newExternal(namespace string, spec *mesh.ExternalFunction) *External {
	e := &External{
		Service: mesh.ServiceKey(namespace + "/" + spec.Service.Name), Port: spec.Service.Port, Timeout: mesh.DefaultExternalTimeout,
		Prefix: []byte(strings.TrimSuffix(spec.PathPrefix, "/")), MaxBody: int64(spec.MaxBody),
	}
	if spec.Timeout != nil {
		e.Timeout = spec.Timeout.D()
	}
	for _, name := range spec.Headers {
		e.names, e.headers = append(e.names, strings.ToLower(name)), append(e.headers, []byte(name))
	}
	return e
}

// at is the function at a place of a chain.
func (e *External) at(chain string, spi uint32, i int) *External {
	out := *e
	out.Hop = fmt.Appendf(nil, "%q;spi=%d;si=%d", chain, spi, SI(i))
	return &out
}

// Request implements [Function]; a chain does not call it.
func (e *External) Request(*Request) Verdict { return Asks }

// String says what is asked.
func (e *External) String() string {
	port, body := "", "without bodies"
	if e.Port != 0 {
		port = fmt.Sprintf(" port %d", e.Port)
	}
	if e.MaxBody > 0 {
		body = fmt.Sprintf("with bodies of up to %d bytes", e.MaxBody)
	}
	return fmt.Sprintf("MeshService %s%s, for at most %v, %s", e.Service, port, e.Timeout, body)
}

// Judge says what a whole response of the function means.
func (e *External) Judge(status int, fields []stream.Field) Verdict {
	switch {
	case string(valueOf(fields, mesh.VerdictField)) == mesh.VerdictAnswer:
		return Answered
	case status < 300:
		return Passed
	case status < 500:
		return Answered
	}
	return Failed
}

// Apply gives a request's fields those that are the function's to set, of its response;
// without one the request has none of them.
func (e *External) Apply(fields, response []stream.Field) []stream.Field {
	if len(e.names) == 0 {
		return fields
	}
	kept := fields[:0]
	for i := range fields {
		if e.owned(&fields[i]) < 0 {
			kept = append(kept, fields[i])
		}
	}
	for i := range response {
		if at := e.owned(&response[i]); at >= 0 {
			kept = append(kept, stream.Field{Name: e.headers[at], Value: response[i].Value})
		}
	}
	return kept
}

// owned is the place of a field's name among the function's own, negative for none.
func (e *External) owned(f *stream.Field) int {
	for i, name := range e.names {
		if len(f.Name) == len(name) && f.Is(name) {
			return i
		}
	}
	return -1
}

// ForClient reports whether a field of an answer may go to the client.
func ForClient(f *stream.Field) bool { return mesh.EditableField(f.Name) }
