package geo

import (
	"errors"
	"math"

	"github.com/paulmach/orb"
)

// Position is where a client says it is.
type Position struct {
	Point orb.Point
	// AltitudeMeters is above the WGS 84 ellipsoid; 0 when not given.
	AltitudeMeters float64
	// UncertaintyMeters is the radius within which the client is; negative when
	// not given (0 is a claim of exactness).
	UncertaintyMeters float64
}

// Errors of [ParseURI] and [ParseLatLon]. They are fixed values, so that a
// request with a bad header costs nothing more than one with a good header.
var (
	ErrScheme      = errors.New("not a geo URI: it does not start with the scheme geo")
	ErrCoordinates = errors.New("coordinates are not latitude,longitude or latitude,longitude,altitude in plain decimals")
	ErrRange       = errors.New("position is off the earth: latitude is -90 to 90, longitude -180 to 180")
	ErrCRS         = errors.New("coordinate reference system is not wgs84")
	ErrUncertainty = errors.New("uncertainty u is not a decimal from 0 up")
	ErrParameter   = errors.New("parameter is malformed, repeated or out of order: crs comes first, then u")
)

// ParseURI reads a geo URI (RFC 5870 section 3.3): geo:latitude,longitude with
// optional altitude, crs (wgs84 only), u and further parameters, which are
// checked for syntax and ignored. Scheme, parameter names and the crs compare
// without case. At a pole the longitude means nothing and becomes 0; -180 and
// 180 are the same meridian and become 180 (section 3.4.4). It does not allocate
// and keeps nothing of b.
func ParseURI(b []byte) (Position, error) {
	if len(b) < 4 || !equalFold(b[:3], "geo") || b[3] != ':' {
		return Position{}, ErrScheme
	}
	coords, params := cut(b[4:], ';')
	latText, rest := cut(coords, ',')
	lonText, altText := cut(rest, ',')
	lat, ok1 := number(latText, true)
	lon, ok2 := number(lonText, true)
	p := Position{UncertaintyMeters: -1}
	ok3 := true
	if altText != nil {
		p.AltitudeMeters, ok3 = number(altText, true)
	}
	if !ok1 || !ok2 || !ok3 {
		return Position{}, ErrCoordinates
	}
	if err := p.parameters(params); err != nil {
		return Position{}, err
	}
	var err error
	p.Point, err = place(lat, lon)
	if err != nil {
		return Position{}, err
	}
	return p, nil
}

// parameters reads what follows the first semicolon; nil is none.
func (p *Position) parameters(params []byte) error {
	for crs, i := false, 0; params != nil; i++ {
		var param []byte
		param, params = cut(params, ';')
		name, value := cut(param, '=')
		switch {
		case equalFold(name, "crs"):
			if i != 0 {
				return ErrParameter
			}
			if !equalFold(value, "wgs84") {
				return ErrCRS
			}
			crs = true
		case equalFold(name, "u"):
			if i > 1 || i == 1 && !crs {
				return ErrParameter
			}
			u, ok := number(value, false)
			if !ok {
				return ErrUncertainty
			}
			p.UncertaintyMeters = u
		default:
			if !validParameter(name, value) {
				return ErrParameter
			}
		}
	}
	return nil
}

// ParseLatLon reads a pair of headers in decimal degrees, as -37.8136 and
// 144.9631; white space around them and a leading + are taken. The longitude is
// normalised as by [ParseURI]. It does not allocate.
func ParseLatLon(lat, lon []byte) (orb.Point, error) {
	la, ok1 := number(signed(trim(lat)), true)
	lo, ok2 := number(signed(trim(lon)), true)
	if !ok1 || !ok2 {
		return orb.Point{}, ErrCoordinates
	}
	return place(la, lo)
}

func place(lat, lon float64) (orb.Point, error) {
	if lat < -90 || lat > 90 || lon < -180 || lon > 180 {
		return orb.Point{}, ErrRange
	}
	if lat == 90 || lat == -90 {
		lon = 0
	} else if lon == -180 {
		lon = 180
	}
	return orb.Point{lon, lat}, nil
}

// number reads [-]1*DIGIT["." 1*DIGIT], RFC 5870's num and (unsigned) pnum.
// Eighteen significant digits count, which is past a float64's precision.
func number(b []byte, sign bool) (x float64, ok bool) {
	negative := sign && len(b) > 0 && b[0] == '-'
	if negative {
		b = b[1:]
	}
	var mantissa uint64
	exp, digits, fraction := 0, 0, false
	for _, c := range b {
		switch {
		case c == '.' && !fraction && digits > 0:
			fraction, digits = true, 0
			continue
		case c < '0' || c > '9':
			return 0, false
		}
		digits++
		if mantissa < 1e17 {
			mantissa = mantissa*10 + uint64(c-'0')
			if fraction {
				exp--
			}
		} else if !fraction {
			exp++
		}
	}
	if digits == 0 {
		return 0, false
	}
	x = float64(mantissa)
	if exp < 0 {
		x /= math.Pow10(-exp)
	} else if exp > 0 {
		x *= math.Pow10(exp)
	}
	if math.IsInf(x, 0) {
		return 0, false
	}
	if negative {
		x = -x
	}
	return x, true
}

// validParameter checks pname ["=" pvalue] of RFC 5870: alphanumerics and -, and
// unreserved, percent-encoded or [ ] : & + $ characters.
func validParameter(name, value []byte) bool {
	if len(name) == 0 || (value != nil && len(value) == 0) {
		return false
	}
	for _, c := range name {
		if !alphanumeric(c) && c != '-' {
			return false
		}
	}
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case alphanumeric(c):
		case c == '%':
			if i+2 >= len(value) || !hex(value[i+1]) || !hex(value[i+2]) {
				return false
			}
			i += 2
		default:
			switch c {
			case '[', ']', ':', '&', '+', '$', '-', '_', '.', '!', '~', '*', '\'', '(', ')':
			default:
				return false
			}
		}
	}
	return true
}

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}

func hex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f' }

// cut splits at the first separator; after is nil when there is none.
func cut(b []byte, sep byte) (before, after []byte) {
	for i, c := range b {
		if c == sep {
			return b[:i], b[i+1:]
		}
	}
	return b, nil
}

func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := range b {
		c := b[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

func signed(b []byte) []byte {
	if len(b) > 1 && b[0] == '+' && b[1] != '-' {
		return b[1:]
	}
	return b
}
