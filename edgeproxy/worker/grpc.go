package worker

import (
	"bytes"
	"math"
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

var typeGRPC = []byte("application/grpc")

// callEnd is how a call of gRPC is answered here, in the words of each of its protocols.
type callEnd struct{ grpc, web, webText []stream.Field }

func endOf(status, message string) (e callEnd) {
	head := func(contentType []byte) []stream.Field {
		return []stream.Field{
			{Name: nameContentType, Value: contentType},
			{Name: []byte("grpc-status"), Value: []byte(status)},
			{Name: []byte("grpc-message"), Value: []byte(message)},
		}
	}
	return callEnd{head(typeGRPC), head([]byte("application/grpc-web")), head([]byte("application/grpc-web-text"))}
}

var (
	callDenied = endOf("7", exchange.Denied.Text())             // PERMISSION_DENIED
	callLate   = endOf("4", "the deadline of the call is over") // DEADLINE_EXCEEDED
)

// endsCall answers a call of gRPC in its own words, with trailers only, where HTTP has none
// that its client would understand, and reports whether it did.
//
// A server resets a call whose deadline is over. Its client knows that for what it is, if it
// comes from the server; what this proxy says of a stream that broke it would take for
// UNAVAILABLE, and call again.
func (w *Worker) endsCall(r *request, act *exchange.Action) bool {
	if kind := value(r.fields, "content-type"); !r.d.many && !r.web.on || len(kind) < len(typeGRPC) || !bytes.EqualFold(kind[:len(typeGRPC)], typeGRPC) {
		return false
	}
	var end *callEnd
	switch {
	case act.Flag == exchange.Denied:
		end = &callDenied
	case act.Status >= 500 && w.late(r):
		end = &callLate
	default:
		return false
	}
	fields := end.grpc
	switch {
	case r.web.textOut:
		fields = end.webText
	case r.web.on:
		fields = end.web
	}
	w.msg = stream.Message{Status: 200, Fields: fields, NoBody: true}
	w.out = stream.Event{Kind: stream.Head, Stream: r.stream, Head: &w.msg}
	if !r.d.conn.Closed() && r.d.send(&w.out, roomFor(&w.msg)) {
		w.out = stream.Event{Kind: stream.End, Stream: r.stream}
		r.d.send(&w.out, framing)
	}
	return true
}

// late reports whether the time is over that a call's client has given it.
func (w *Worker) late(r *request) bool {
	timeout, ok := callTimeout(value(r.fields, "grpc-timeout"))
	return ok && w.Loop.Now()-r.start >= int64(timeout)
}

// callTimeout reads grpc-timeout (PROTOCOL-HTTP2.md): at most eight digits and a unit.
func callTimeout(text []byte) (time.Duration, bool) {
	n := len(text) - 1
	if n < 1 || n > 8 {
		return 0, false
	}
	value := int64(0)
	for _, c := range text[:n] {
		if c < '0' || c > '9' {
			return 0, false
		}
		value = value*10 + int64(c-'0')
	}
	var unit time.Duration
	switch text[n] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	if value > math.MaxInt64/int64(unit) {
		return math.MaxInt64, true
	}
	return time.Duration(value) * unit, true
}
