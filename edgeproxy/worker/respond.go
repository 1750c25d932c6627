package worker

import (
	"errors"

	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// malformed answers a fault of the protocol and closes.
func (d *down) malformed(err error, ev *stream.Event) {
	var fault *stream.ProtocolError
	status, what := exchange.ClientProtocol.Status(), ""
	if errors.As(err, &fault) {
		status, what = fault.Status, fault.What
	}
	if d.many { // the codec says it for all streams
		d.endAll(exchange.Event{Kind: exchange.Stop, Flag: exchange.ClientProtocol})
		d.w.count(d.w.shared.Unrouted, 0, exchange.ClientProtocol, 0)
		d.w.logRefused(d, 0, exchange.ClientProtocol, what)
		d.w.say(&d.conn, d.mux())
	} else if r := d.find(ev.Stream); r != nil && ev.Kind == stream.Reset {
		r.log.details = what
		d.w.stop(r, exchange.ClientProtocol, status)
	} else if fault != nil && fault.Foreign && d.carried == 0 && !d.agreed {
		// RFC 9112 2.2 has a server answer what appears to be an HTTP message; RFC 9113
		// 3.4 has it end a connection whose preface is none. Such a line may be either.
		d.w.count(d.w.shared.Unrouted, 0, exchange.ClientProtocol, 0)
		d.w.logRefused(d, 0, exchange.ClientProtocol, what)
	} else {
		d.refuse(exchange.ClientProtocol, status, ev.Stream, what)
	}
	d.close(true)
}

// refuse answers a request whose head never came whole. what says more than the
// flag in the access log, or is empty.
func (d *down) refuse(f exchange.Flag, status int, id stream.ID, what string) {
	d.w.count(d.w.shared.Unrouted, status, f, 0)
	d.w.logRefused(d, status, f, what)
	_ = d.codec.Close(nil)
	d.reply(id, status, f)
	d.close(true)
}

// reply sends a whole own response that says the flag.
func (d *down) reply(id stream.ID, status int, f exchange.Flag) {
	d.respond(id, status, localFields, localBodies[f])
}

// respond sends a whole own response.
func (d *down) respond(id stream.ID, status int, fields []stream.Field, body []byte) {
	w := d.w
	if r := d.find(id); r != nil && r.extended && status/100 == 2 {
		status = statusNotImplemented // it would be taken for a tunnel
	}
	w.msg = stream.Message{Status: status, Fields: fields, Length: int64(len(body)), NoBody: status == 204 || status == 304}
	w.out = stream.Event{Kind: stream.Head, Stream: id, Head: &w.msg}
	if d.conn.Closed() || !d.send(&w.out, roomFor(&w.msg)) {
		return
	}
	var out sending
	to := &out
	if r := d.find(id); r != nil {
		to = &r.out
		if !w.msg.NoBody && string(r.head.Method) != "HEAD" {
			r.log.sent = int64(len(body))
		}
	}
	switch err := w.push(&d.conn, d.codec, d.mux(), id, to, body); {
	case err != nil:
	case to.backlog.Len() > 0:
		to.ended = true
	default:
		w.out = stream.Event{Kind: stream.End, Stream: id}
		d.send(&w.out, framing)
	}
}

var textPlain = []byte("text/plain; charset=utf-8")

var localFields = []stream.Field{{Name: nameContentType, Value: textPlain}}

var localBodies = func() (bodies [exchange.Flags][]byte) {
	for f := range exchange.Flags {
		bodies[f] = append([]byte(f.Text()), '\n')
	}
	return bodies
}()
