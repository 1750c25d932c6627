package function

import (
	"strconv"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// headers is header enrichment.
type headers struct {
	request, response edits
	geo               position
}

// edits are what is done to the fields of a message.
type edits struct {
	drop []string // in lower case
	add  []made
}

// made is a field whose value is made for each message.
type made struct {
	name  []byte
	value template
}

// mostAdded bounds what one function adds to a message (16 of set, 16 of add).
const mostAdded = 32

func newHeaders(spec *mesh.HeaderEnrichment, site *mesh.Location) (*headers, error) {
	h := &headers{geo: newPosition(spec.ClientPosition, site)}
	var err error
	if h.request, err = newEdits(spec.Request); err != nil {
		return nil, err
	}
	h.response, err = newEdits(spec.Response)
	return h, err
}

func newEdits(m *mesh.HeaderModifier) (e edits, err error) {
	if m == nil {
		return e, nil
	}
	for _, s := range m.Set {
		e.drop = append(e.drop, strings.ToLower(s.Name))
	}
	for _, name := range m.Remove {
		e.drop = append(e.drop, strings.ToLower(name))
	}
	for _, list := range [][]mesh.HeaderValue{m.Set, m.Add} {
		for _, v := range list {
			t, err := mesh.ParseTemplate(v.Value)
			if err != nil {
				return e, err
			}
			e.add = append(e.add, made{[]byte(v.Name), t})
		}
	}
	return e, nil
}

func (h *headers) Request(q *Request) Verdict  { return h.request.apply(q, &h.geo) }
func (h *headers) Response(q *Request) Verdict { return h.response.apply(q, &h.geo) }

// apply makes all values before a field goes, which one of them may name.
func (e *edits) apply(q *Request, geo *position) Verdict {
	var values [mostAdded][]byte
	if len(e.add) > mostAdded {
		return Failed
	}
	for i := range e.add {
		values[i] = e.add[i].value.value(q, geo)
	}
	if len(e.drop) > 0 {
		q.drop(e.drop)
	}
	for i := range e.add {
		if len(values[i]) > 0 {
			q.Fields = append(q.Fields, stream.Field{Name: e.add[i].name, Value: values[i]})
		}
	}
	return Passed
}

// drop takes fields out by name.
func (q *Request) drop(lower []string) {
	kept := q.Fields[:0]
next:
	for i := range q.Fields {
		for _, name := range lower {
			if q.Fields[i].Is(name) {
				continue next
			}
		}
		kept = append(kept, q.Fields[i])
	}
	q.Fields = kept
}

// position finds where a request comes from, as a geo URI (RFC 5870).
type position struct {
	geo, latitude, longitude string // header names in lower case
	site                     []byte // where no header says it; empty when not known
}

func newPosition(p *mesh.ClientPosition, site *mesh.Location) (out position) {
	if p != nil {
		out.geo, out.latitude, out.longitude = strings.ToLower(p.GeoHeader), strings.ToLower(p.LatitudeHeader), strings.ToLower(p.LongitudeHeader)
	}
	if site != nil {
		b := append([]byte(nil), "geo:"...)
		b = strconv.AppendFloat(b, site.Lat, 'f', -1, 64)
		out.site = strconv.AppendFloat(append(b, ','), site.Lon, 'f', -1, 64)
	}
	return out
}

func (p *position) appendTo(b []byte, fields []stream.Field) []byte {
	if p.geo != "" {
		if v := valueOf(fields, p.geo); isGeo(v) {
			return append(b, v...)
		}
	}
	if p.latitude != "" {
		lat, lon := valueOf(fields, p.latitude), valueOf(fields, p.longitude)
		if isDegrees(lat, 90) && isDegrees(lon, 180) {
			return append(append(append(append(b, "geo:"...), lat...), ','), lon...)
		}
	}
	return append(b, p.site...)
}

// isGeo reports whether v is a geo URI: two or three numbers, then parameters, which
// are passed on when their characters are those of RFC 5870 3.3.
func isGeo(v []byte) bool {
	const scheme = "geo:"
	if len(v) < len(scheme) || len(v) > 128 || string(v[:len(scheme)]) != scheme {
		return false
	}
	v = v[len(scheme):]
	end := len(v)
	for i, c := range v {
		if c == ';' {
			end = i
			break
		}
	}
	for _, c := range v[end:] {
		alnum := '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !alnum && !strings.ContainsRune("-._~;=:&+$[]!*'()%", rune(c)) {
			return false
		}
	}
	bounds := [3]float64{90, 180, 1e6}
	n, from := 0, 0
	for i := 0; i <= end; i++ {
		if i < end && v[i] != ',' {
			continue
		}
		if n == len(bounds) || !isDegrees(v[from:i], bounds[n]) {
			return false
		}
		n, from = n+1, i+1
	}
	return n >= 2
}

// isDegrees reports whether v is a number in decimal within a bound. It allocates
// nothing, which strconv's on bytes does.
func isDegrees(v []byte, bound float64) bool {
	if len(v) > 0 && v[0] == '-' {
		v = v[1:]
	}
	whole, digits, point := 0.0, 0, false
	for i, c := range v {
		switch {
		case c == '.' && !point && i > 0:
			point = true
		case '0' <= c && c <= '9':
			if digits++; !point {
				whole = whole*10 + float64(c-'0')
			}
		default:
			return false
		}
	}
	return digits > 0 && len(v) <= 24 && v[len(v)-1] != '.' && whole <= bound
}
