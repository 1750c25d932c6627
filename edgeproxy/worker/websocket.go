package worker

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // RFC 6455 asks for it; it protects nothing
	"encoding/base64"
	"encoding/binary"

	"github.com/meridian-mesh/meridian/edgeproxy/exchange"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// The opening handshake of WebSocket differs by the version of HTTP: in HTTP/1 the client
// sends a key and checks what the server makes of it (RFC 6455 4), in HTTP/2 there is none
// (RFC 8441 5). Where the versions on both sides differ the proxy is the other end of
// HTTP/1's handshake.

const (
	protocolWebSocket = "websocket"
	fieldKey          = "sec-websocket-key"
	fieldAccept       = "sec-websocket-accept"
	keyLen            = 24 // base64 of 16 octets
	acceptLen         = 28 // base64 of a SHA-1
)

var (
	nameKey    = []byte("Sec-WebSocket-Key")
	nameAccept = []byte("Sec-WebSocket-Accept")
	valueGET   = []byte("GET")
)

// statusNotImplemented is 501: the protocol of an extended CONNECT is none that is known
// here (RFC 9220 3 has it for the same case).
const statusNotImplemented = 501

// acceptance is what a server answers to a client's key (RFC 6455 4.2.2).
func acceptance(key []byte) (out [acceptLen]byte) {
	const magic = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	var in [keyLen + len(magic)]byte
	copy(in[copy(in[:], key[:keyLen]):], magic)
	sum := sha1.Sum(in[:]) //nolint:gosec // as above
	base64.StdEncoding.Encode(out[:], sum[:])
	return out
}

// validKey takes the base64 of 16 octets.
func validKey(key []byte) bool {
	var sixteen [18]byte
	if len(key) != keyLen {
		return false
	}
	n, err := base64.StdEncoding.Decode(sixteen[:], key)
	return err == nil && n == 16
}

// newKey makes a key for an attempt.
func (w *Worker) newKey(r *request) []byte {
	var random [16]byte
	binary.BigEndian.PutUint64(random[:], w.random())
	binary.BigEndian.PutUint64(random[8:], w.random())
	key := r.store.grab(w, keyLen)
	base64.StdEncoding.Encode(key, random[:])
	return key
}

// switching notes what a request asks to switch to, so that from here on one of HTTP/2
// looks like one of HTTP/1: that is what rules match and policies judge. It reports
// false where that is nothing that is known here.
func (w *Worker) switching(r *request, head *stream.Message) bool {
	if mayTunnel(head) {
		r.head.Upgrade = r.store.copy(w, head.Upgrade)
	}
	if r.extended = r.d.many && string(head.Method) == "CONNECT" && len(head.Upgrade) > 0; !r.extended {
		return true
	}
	r.head.Method, r.head.Length = valueGET, 0
	if r.asksTunnel() {
		return true
	}
	r.none, r.local.status, r.log.details = exchange.ClientProtocol, statusNotImplemented, "protocol_not_supported"
	return false
}

// without leaves fields of a name out, in memory of the loop.
func (w *Worker) without(fields []stream.Field, lower string) []stream.Field {
	kept := w.fields[:0]
	for i := range fields {
		if !fields[i].Is(lower) {
			kept = append(kept, fields[i])
		}
	}
	w.fields = kept[:0]
	return kept
}

// askBackend makes of w.msg what asks the attempt's backend for the tunnel.
func (w *Worker) askBackend(r *request, a *attempt) {
	a.key = nil
	if a.up.mux == nil && !r.extended {
		return // the client's own handshake
	}
	w.msg.Fields = w.without(w.msg.Fields, fieldKey)
	if a.up.mux == nil {
		a.key = w.newKey(r)
		w.msg.Fields = append(w.msg.Fields, stream.Field{Name: nameKey, Value: a.key})
		w.fields = w.msg.Fields[:0]
	}
}

// clientKey is the one key of the client's handshake, nil where that is not valid.
func (r *request) clientKey() []byte {
	var key []byte
	for i := range r.head.Fields {
		if f := &r.head.Fields[i]; f.Is(fieldKey) {
			if key != nil {
				return nil
			}
			key = f.Value
		}
	}
	if !validKey(key) {
		return nil
	}
	return key
}

// answerable reports whether the client's handshake, where it is for the proxy to answer,
// can be.
func (r *request) answerable(a *attempt) bool {
	return !r.asksTunnel() || r.extended || !a.speaks.many || r.clientKey() != nil
}

// tunnelFault looks at the final head of an answer to who asked for a tunnel, and says what is
// wrong with it, or nothing.
func (w *Worker) tunnelFault(r *request, a *attempt, head *stream.Message) (wrong string) {
	switch {
	case len(head.Upgrade) == 0 && r.extended && head.Status/100 == 2:
		return "websocket_not_agreed" // which the client would take it for
	case len(head.Upgrade) == 0 || a.key == nil:
		return ""
	}
	want, n := acceptance(a.key), 0
	for i := range head.Fields {
		if f := &head.Fields[i]; f.Is(fieldAccept) {
			if n++; !bytes.Equal(f.Value, want[:]) {
				n = 2
			}
		}
	}
	if n != 1 {
		return "websocket_accept_invalid"
	}
	return ""
}

// statusFor is the status that the client gets for an answer: each version of HTTP has
// one of its own for a tunnel.
func (r *request) statusFor(head *stream.Message) int {
	switch {
	case len(head.Upgrade) == 0 || !r.asksTunnel():
		return head.Status
	case r.d.many:
		return 200
	}
	return 101
}

// agree makes of w.msg the head that tells the client of the tunnel.
func (w *Worker) agree(r *request, a *attempt) {
	w.msg.Status, w.msg.Upgrade, w.msg.Length = r.statusFor(&w.msg), r.head.Upgrade, stream.LengthUnknown
	if a.up.mux == nil && !r.extended {
		return // the backend's own handshake
	}
	w.msg.Fields = w.without(w.msg.Fields, fieldAccept)
	if !r.extended {
		accept := acceptance(r.clientKey())
		w.msg.Fields = append(w.msg.Fields, stream.Field{Name: nameAccept, Value: r.store.copy(w, accept[:])})
		w.fields = w.msg.Fields[:0]
	}
}

// offer is whether a connection may be asked for a tunnel.
type offer uint8

const (
	offered   offer = iota // or none is asked for
	undecided              // its other end has not said yet
	missing
)

func (u *up) offers(a *attempt) offer {
	if u.mux == nil || !a.r.asksTunnel() && !a.r.udp {
		return offered
	}
	switch takes, known := u.mux.Extended(); {
	case !known:
		return undecided
	case !takes:
		return missing
	}
	return offered
}

// settles has an attempt wait for what the other end of a new connection says, which is
// bounded as is a connection's making.
func (u *up) settles(a *attempt) {
	u.unsettled, a.settling = true, true
	u.w.Loop.Wheel.Set(&a.timer, u.w.Loop.Now()+int64(a.connect))
}

// declines fails an attempt whose backend has no tunnels; another may have them.
func (u *up) declines(a *attempt) {
	u.forget(a)
	a.up = nil
	a.r.log.declined = "websocket_not_offered"
	u.w.failed(a, exchange.UpstreamProtocol)
}

// settled goes on with the attempts that waited for the other end's settings.
func (u *up) settled() {
	if _, known := u.mux.Extended(); !known {
		return
	}
	u.unsettled = false
	for !u.conn.Closed() {
		a := u.attempts
		for a != nil && !a.settling {
			a = a.next
		}
		if a == nil {
			return
		}
		a.settling = false
		u.w.Loop.Wheel.Clear(&a.timer)
		u.forget(a)
		u.carried--
		u.w.pool.Remove(&u.idle)
		u.attach(a)
	}
}
