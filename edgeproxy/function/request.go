package function

import (
	"strconv"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// Memory gives bytes that stay until the request is over.
type Memory interface {
	Grab(n int) []byte
}

// Request is a request on its way to a backend, or with Status its response on the way
// back, and what is known of it. Functions change Fields, whose names and values must
// outlive them, as those of Memory do.
type Request struct {
	Method, Host []byte
	Path         []byte // with query
	Fields       []stream.Field
	// Asked are the request's fields while the message is its response, else nil.
	Asked  []stream.Field
	Status int // of a response, else 0

	// Site is the one of the user, Address the client's, and Identity what its
	// certificate says, empty without one.
	Site, Address, Identity []byte
	Route, Gateway          string

	Memory Memory
	Loop   int
	// Now is the loop's time, in ns; Clock asks for the real one, to time functions.
	Now   int64
	Clock func() int64

	// Backup is room for a copy of Fields, kept for the next request.
	Backup []stream.Field
	// Contexts are what functions keep of a request for its response, by hop.
	Contexts *[MaxHops]uint32

	// Answer is what a function says that answers the request itself.
	Answer Answer

	chain *Chain
	hop   *Hop
	at    int // the hop's place
	text  []byte
}

// Answer is a response of a function's own.
type Answer struct {
	Status int
	Fields []stream.Field
	Body   []byte
}

// Context is what the function at this hop keeps of the request.
func (q *Request) Context() *uint32 { return &q.Contexts[q.at] }

// Keep copies bytes into the request's memory.
func (q *Request) Keep(b []byte) []byte { return q.keep(b) }

// keep copies bytes into the request's memory.
func (q *Request) keep(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	p := q.Memory.Grab(len(b))
	copy(p, b)
	return p
}

// template makes a field's value of text and values of the request.
type template []mesh.TemplatePart

// value is the template's for the request, in the request's memory.
func (t template) value(q *Request, geo *position) []byte {
	b := q.text[:0]
	for i := range t {
		b = appendPart(b, &t[i], q, geo)
	}
	q.text = b[:0]
	return q.keep(b)
}

func appendPart(b []byte, p *mesh.TemplatePart, q *Request, geo *position) []byte {
	switch p.Value {
	case "":
		return append(b, p.Text...)
	case mesh.ValueSourceSite:
		return append(b, q.Site...)
	case mesh.ValueSourceAddress:
		return append(b, q.Address...)
	case mesh.ValueSourceIdentity:
		return append(b, q.Identity...)
	case mesh.ValueSourceGeo:
		return geo.appendTo(b, q.asked())
	case mesh.ValueChain:
		return append(b, q.chain.Key...)
	case mesh.ValueChainSPI:
		return append(b, q.chain.spi...)
	case mesh.ValueChainSI:
		return append(b, q.hop.si...)
	case mesh.ValueFunction:
		return append(b, q.hop.Name...)
	case mesh.ValueRoute:
		return append(b, q.Route...)
	case mesh.ValueGateway:
		return append(b, q.Gateway...)
	case mesh.ValueMethod:
		return append(b, q.Method...)
	case mesh.ValueHost:
		return append(b, q.Host...)
	case mesh.ValuePath:
		return append(b, q.Path...)
	case mesh.ValueStatus:
		return strconv.AppendInt(b, int64(q.Status), 10)
	case mesh.ValueHeader:
		return append(b, valueOf(q.asked(), p.Field)...)
	}
	return b
}

// asked are the request's fields.
func (q *Request) asked() []stream.Field {
	if q.Status != 0 {
		return q.Asked
	}
	return q.Fields
}

// valueOf is the first value of a field, nil where there is none.
func valueOf(fields []stream.Field, lower string) []byte {
	for i := range fields {
		if fields[i].Is(lower) {
			return fields[i].Value
		}
	}
	return nil
}
