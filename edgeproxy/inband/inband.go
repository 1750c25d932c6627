// Package inband is the codec of the load reports that sites attach to east-west
// traffic, so that sharing survives the bus and the controllers.
//
// Every response on an east-west connection carries one header,
//
//	meridian-load: 1;s=melb-3;r=edge-a;e=5k2j;q=1041;v=default/echo;c=4;t=10.25;l=312.5;f=88.1;p=2;n=17
//
// version first, then key=value fields in any order. A reader skips keys it does
// not know; a version it does not know it refuses. The number in flight comes
// last, so that a writer keeps everything before it as a prefix for 100 ms and
// only appends a number per response. An answer to a probe is 204 with
// such a header for each service.
//
//	s site  r reporting process  e its start (hex)  q report number
//	v service (namespace/name)  c slots  t service time, ms
//	l arrivals from everywhere, 1/s  f of these from the asking site, 1/s
//	p number of sites that sent requests lately  n in flight now
//	u how the slots are known where nobody states them: l a lower bound, s settled
//
// Reading and writing allocate nothing. Strings of a read Report borrow from the
// bytes read.
package inband

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Header names, lower case as HTTP/2 writes them.
const (
	// HeaderService names the MeshService (namespace/name) that an east-west
	// request is for.
	HeaderService = "meridian-service"
	// HeaderSource names the site that an east-west request comes from.
	HeaderSource = "meridian-source"
	// HeaderClient is the client's address on an east-west request, where it is not
	// the last one in x-forwarded-for.
	HeaderClient = "meridian-client"
	// HeaderLoad carries a load report on an east-west response.
	HeaderLoad = "meridian-load"
)

// MaxValue is the longest value that is read or written, in bytes.
const MaxValue = 1024

const (
	version = '1'
	// maxName bounds a site, a reporter and a service; Kubernetes names are
	// shorter even as namespace/name.
	maxName = 253
	// maxNumber bounds rates, slots and times. Above it a value is a fault.
	maxNumber = 1e9
)

// ErrVersion says that the report is of a version this build cannot read.
var ErrVersion = errors.New("load report of an unknown version")

// ErrMalformed is what every other fault of a value is.
var ErrMalformed = errors.New("malformed load report")

// Report is one service's load at one site, as the site says it to one other.
// Zero Slots or ServiceMS mean that the capacity is not known.
type Report struct {
	Site, Reporter, Service []byte
	Epoch, Seq              uint64
	Slots                   float64
	ServiceMS               float64
	ArrivalsPerS            float64
	// FromYouPerS is the part of ArrivalsPerS that the asking site sent.
	FromYouPerS float64
	Spillers    int
	InFlight    int
	// Learned is what mesh.ServiceReport says under that name: a word of a
	// later build is read as none, an earlier one skips the field.
	Learned mesh.SlotsLearned
}

// AppendPrefix appends the value up to where the number in flight belongs;
// [Append] completes it. InFlight is not written. It is an error when a name is
// empty, too long or holds a byte that the form reserves, or when a number is
// negative or too large.
func (r *Report) AppendPrefix(dst []byte) ([]byte, error) {
	for _, f := range [...]struct {
		what string
		name []byte
	}{{"site", r.Site}, {"reporter", r.Reporter}, {"service", r.Service}} {
		if !validName(f.name) {
			return dst, fmt.Errorf("%w: %s %q", ErrMalformed, f.what, f.name)
		}
	}
	for _, f := range [...]struct {
		what  string
		value float64
	}{
		{"slots", r.Slots}, {"service time", r.ServiceMS}, {"arrivals", r.ArrivalsPerS},
		{"share", r.FromYouPerS}, {"spillers", float64(r.Spillers)},
	} {
		if !(f.value >= 0 && f.value <= maxNumber) {
			return dst, fmt.Errorf("%w: %s %v", ErrMalformed, f.what, f.value)
		}
	}
	dst = append(dst, version)
	dst = append(append(dst, ";s="...), r.Site...)
	dst = append(append(dst, ";r="...), r.Reporter...)
	dst = strconv.AppendUint(append(dst, ";e="...), r.Epoch, 16)
	dst = strconv.AppendUint(append(dst, ";q="...), r.Seq, 10)
	dst = append(append(dst, ";v="...), r.Service...)
	dst = appendFixed(append(dst, ";c="...), r.Slots)
	dst = appendFixed(append(dst, ";t="...), r.ServiceMS)
	dst = appendFixed(append(dst, ";l="...), r.ArrivalsPerS)
	dst = appendFixed(append(dst, ";f="...), r.FromYouPerS)
	dst = strconv.AppendUint(append(dst, ";p="...), uint64(r.Spillers), 10)
	switch r.Learned {
	case mesh.SlotsLowerBound:
		dst = append(dst, ";u=l"...)
	case mesh.SlotsSettled:
		dst = append(dst, ";u=s"...)
	}
	return append(dst, ";n="...), nil
}

// Append appends a whole value: a prefix of [Report.AppendPrefix] and the number
// in flight at this moment. It allocates only when dst is too small.
func Append(dst, prefix []byte, inFlight int) []byte {
	return strconv.AppendUint(append(dst, prefix...), uint64(max(0, inFlight)), 10)
}

// appendFixed writes v with at most three decimals.
func appendFixed(dst []byte, v float64) []byte {
	milli := uint64(math.Round(v * 1000))
	dst = strconv.AppendUint(dst, milli/1000, 10)
	frac := milli % 1000
	if frac == 0 {
		return dst
	}
	dst = append(dst, '.', byte('0'+frac/100), byte('0'+frac/10%10), byte('0'+frac%10))
	for dst[len(dst)-1] == '0' {
		dst = dst[:len(dst)-1]
	}
	return dst
}

func validName(b []byte) bool {
	if len(b) == 0 || len(b) > maxName {
		return false
	}
	for _, c := range b {
		if c <= ' ' || c >= 0x7f || c == ';' || c == '=' || c == ',' || c == '"' {
			return false
		}
	}
	return true
}

// Parse reads a value into r, whose names then borrow from b. On an error, which
// is ErrVersion or ErrMalformed, r is not to be used. It allocates nothing.
func (r *Report) Parse(b []byte) error {
	*r = Report{}
	if len(b) > MaxValue || len(b) < 2 {
		return ErrMalformed
	}
	end := indexByte(b, ';')
	if end < 0 || !digits(b[:end]) {
		return ErrMalformed
	}
	if end != 1 || b[0] != version {
		return ErrVersion
	}
	sawFlight := false
	for rest := b[end:]; len(rest) > 0; {
		rest = rest[1:] // the ';'
		field := rest
		if i := indexByte(rest, ';'); i >= 0 {
			field, rest = rest[:i], rest[i:]
		} else {
			rest = nil
		}
		eq := indexByte(field, '=')
		if eq < 1 {
			return ErrMalformed
		}
		if eq != 1 {
			continue // a longer key of a later build
		}
		val, ok := field[2:], true
		switch field[0] {
		case 's':
			r.Site, ok = val, validName(val)
		case 'r':
			r.Reporter, ok = val, validName(val)
		case 'v':
			r.Service, ok = val, validName(val)
		case 'e':
			r.Epoch, ok = parseUint(val, 16)
		case 'q':
			r.Seq, ok = parseUint(val, 10)
		case 'c':
			r.Slots, ok = parseFixed(val)
		case 't':
			r.ServiceMS, ok = parseFixed(val)
		case 'l':
			r.ArrivalsPerS, ok = parseFixed(val)
		case 'f':
			r.FromYouPerS, ok = parseFixed(val)
		case 'p':
			r.Spillers, ok = parseCount(val)
		case 'u':
			switch string(val) {
			case "l":
				r.Learned = mesh.SlotsLowerBound
			case "s":
				r.Learned = mesh.SlotsSettled
			}
		case 'n':
			r.InFlight, ok = parseCount(val)
			sawFlight = true
		}
		if !ok {
			return ErrMalformed
		}
	}
	if r.Site == nil || r.Reporter == nil || r.Service == nil || !sawFlight {
		return ErrMalformed
	}
	return nil
}

// ServiceReport returns the report in the mesh's vocabulary, with its own
// strings. asking is the site that the report was said to.
func (r *Report) ServiceReport(asking string) mesh.ServiceReport {
	s := mesh.ServiceReport{
		Service:       mesh.ServiceKey(r.Service),
		Slots:         r.Slots,
		ServiceTimeMS: r.ServiceMS,
		InFlight:      r.InFlight,
		Arrivals:      r.ArrivalsPerS,
		Spillers:      r.Spillers,
		Learned:       r.Learned,
	}
	if r.FromYouPerS > 0 {
		s.From = map[string]float64{asking: r.FromYouPerS}
	}
	return s
}

// indexByte is bytes.IndexByte for fields of a few bytes, where a loop wins.
func indexByte(b []byte, c byte) int {
	for i, x := range b {
		if x == c {
			return i
		}
	}
	return -1
}

func digits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0
}

func parseUint(b []byte, base uint64) (uint64, bool) {
	var v uint64
	for _, c := range b {
		d := uint64(c - '0')
		if c >= 'a' {
			d = uint64(c-'a') + 10
		} else if c > '9' {
			return 0, false
		}
		if d >= base || v > (math.MaxUint64-d)/base {
			return 0, false
		}
		v = v*base + d
	}
	return v, len(b) > 0
}

func parseCount(b []byte) (int, bool) {
	v, ok := parseUint(b, 10)
	return int(v), ok && v <= maxNumber
}

func parseFixed(b []byte) (float64, bool) {
	whole, frac := b, []byte(nil)
	if i := indexByte(b, '.'); i >= 0 {
		if whole, frac = b[:i], b[i+1:]; len(frac) == 0 || len(frac) > 9 {
			return 0, false
		}
	}
	v, ok := parseUint(whole, 10)
	if !ok || v > maxNumber {
		return 0, false
	}
	if frac == nil {
		return float64(v), true
	}
	f, ok := parseUint(frac, 10)
	return float64(v) + float64(f)/pow10[len(frac)], ok
}

var pow10 = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9}
