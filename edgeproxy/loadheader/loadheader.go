// Package loadheader reads what an endpoint says of its load in the fields of its
// responses, and writes it for endpoints that want to say it. Two forms are read,
//
//	meridian-endpoint-load: 1;n=3;t=10.25
//	endpoint-load-metrics: TEXT named_metrics.in_flight=3,named_metrics.service_time_ms=10.25
//	endpoint-load-metrics: JSON {"application_utilization": 0.75}
//
// the first Meridian's own: a version, the requests there besides the one that is
// answered, waiting ones too (n), and how long that one took without waiting, in
// ms (t). Unknown keys are skipped. The second is that of ORCA (the xDS message
// OrcaLoadReport, as TEXT or JSON; its protobuf form is not read), of which the two
// named metrics above and, where an endpoint has no such, application_utilization
// or cpu_utilization are looked at.
//
// Endpoints may be hostile: a value is read whole or not at all, nothing negative,
// infinite or above a bound is taken, and reading allocates nothing.
package loadheader

import (
	"strconv"
	"time"
)

// Field names, in lower case.
const (
	Own  = "meridian-endpoint-load"
	ORCA = "endpoint-load-metrics"
)

const (
	// maxValue is the longest value that is read, in bytes.
	maxValue = 4096
	// maxNumber bounds every number. A queue or a time above it is no measurement.
	maxNumber = 1e6
	// maxDigits bounds the length of a number.
	maxDigits = 32
	version   = "1"
)

// Names of ORCA's that are looked at.
const (
	inFlight    = "in_flight"
	serviceTime = "service_time_ms"
	named       = "named_metrics"
)

// Report is what an endpoint said. Of what it did not say, Has is false or the
// number 0.
type Report struct {
	// InFlight counts the requests there besides the one that is answered.
	InFlight    float64
	HasInFlight bool
	// Utilization is the share of the endpoint that is busy, above 1 when requests wait.
	Utilization    float64
	HasUtilization bool
	// Service is how long the answered request took without waiting.
	Service time.Duration

	byApplication bool
}

// Append appends the value of a field named [Own]. A service time of 0 says none.
func Append(dst []byte, inFlight int, service time.Duration) []byte {
	dst = strconv.AppendUint(append(dst, version+";n="...), uint64(max(inFlight, 0)), 10)
	if service > 0 {
		dst = strconv.AppendFloat(append(dst, ";t="...), float64(service)/1e6, 'f', 3, 64)
	}
	return dst
}

// ParseOwn reads the value of a field named [Own].
func ParseOwn(value []byte) (r Report, ok bool) {
	if len(value) > maxValue {
		return r, false
	}
	v, rest := cut(value, ';')
	if string(trim(v)) != version {
		return r, false
	}
	for len(rest) > 0 {
		var pair []byte
		pair, rest = cut(rest, ';')
		key, number := cut(trim(pair), '=')
		switch string(key) {
		case "n":
			ok = r.set(inFlight, number)
		case "t":
			ok = r.set(serviceTime, number)
		default:
			continue
		}
		if !ok {
			return Report{}, false
		}
	}
	return r, r.HasInFlight
}

// ParseORCA reads the value of a field named [ORCA].
func ParseORCA(value []byte) (r Report, ok bool) {
	if value = trim(value); len(value) > maxValue {
		return r, false
	}
	switch form, rest := cut(value, ' '); string(form) {
	case "TEXT":
		ok = r.text(rest)
	case "JSON":
		j := scanner{rest: rest}
		ok = j.object(&r, "", 0) && len(trim(j.rest)) == 0
	}
	if !ok || !r.HasInFlight && !r.HasUtilization && r.Service == 0 {
		return Report{}, false
	}
	return r, true
}

// text reads key=value pairs between commas.
func (r *Report) text(list []byte) bool {
	for len(list) > 0 {
		var pair []byte
		pair, list = cut(list, ',')
		key, number := cut(trim(pair), '=')
		if n := len(named); len(key) > n && string(key[:n]) == named && key[n] == '.' {
			key = key[n+1:]
			if string(key) != inFlight && string(key) != serviceTime {
				continue
			}
		} else if string(key) == inFlight || string(key) == serviceTime {
			continue // no metrics of ORCA's
		}
		if !r.set(string(key), number) {
			return false
		}
	}
	return true
}

// set takes a number in by its name; what it has no use for is skipped.
func (r *Report) set(name string, number []byte) bool {
	switch name {
	case inFlight, serviceTime, "cpu_utilization", "application_utilization":
	default:
		return true
	}
	v, ok := parse(trim(number))
	if !ok {
		return false
	}
	switch name {
	case inFlight:
		r.InFlight, r.HasInFlight = v, true
	case serviceTime:
		r.Service = time.Duration(v * 1e6)
	case "cpu_utilization":
		if !r.byApplication {
			r.Utilization, r.HasUtilization = v, true
		}
	case "application_utilization":
		// 0 means that it is not set (proto3).
		if v > 0 {
			r.Utilization, r.HasUtilization, r.byApplication = v, true, true
		}
	}
	return true
}

func parse(b []byte) (float64, bool) {
	if len(b) == 0 || len(b) > maxDigits {
		return 0, false
	}
	for _, c := range b { // neither hexadecimal nor Inf nor underscores
		if (c < '0' || c > '9') && c != '.' && c != 'e' && c != 'E' && c != '-' && c != '+' {
			return 0, false
		}
	}
	v, err := strconv.ParseFloat(string(b), 64)
	return v, err == nil && v >= 0 && v <= maxNumber
}

func cut(b []byte, at byte) (before, after []byte) {
	for i, c := range b {
		if c == at {
			return b[:i], b[i+1:]
		}
	}
	return b, nil
}

func trim(b []byte) []byte {
	for len(b) > 0 && space(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && space(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

func space(c byte) bool { return c == ' ' || c == '\t' }
