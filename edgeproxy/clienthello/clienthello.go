// Package clienthello finds the server name that a TLS client asks for in the
// first bytes of its connection (RFC 8446 4.1.2, RFC 6066 3), without taking part
// in the session.
package clienthello

import (
	"encoding/binary"
	"errors"
)

// MaxBytes bounds the bytes of a connection that are looked at.
const MaxBytes = 16 << 10

// Faults of a client's first bytes.
var (
	ErrNotTLS    = errors.New("the connection does not begin with a TLS handshake")
	ErrTooLong   = errors.New("the client hello is longer than 16 KiB")
	ErrMalformed = errors.New("the client hello is malformed")
)

const (
	recordHead     = 5
	handshakeHead  = 4
	typeHandshake  = 22
	typeHello      = 1
	extServerName  = 0
	nameTypeHost   = 0
	maxName        = 255
	randomAndStart = 2 + 32 // legacy_version, random
)

// ServerName reads a client's first bytes. ok is false while they are not enough;
// the caller calls again with more after them. name is empty when the client asks
// for none; it borrows from in or from scratch, which takes a hello that came in
// several records and has MaxBytes.
func ServerName(in, scratch []byte) (name []byte, ok bool, err error) {
	hello, ok, err := assemble(in, scratch)
	if !ok || err != nil {
		if err == nil && len(in) >= MaxBytes {
			err = ErrTooLong
		}
		return nil, false, err
	}
	name, valid := serverName(hello)
	if !valid {
		return nil, false, ErrMalformed
	}
	return name, true, nil
}

// assemble returns the body of the hello message once all of it is there.
func assemble(in, scratch []byte) (hello []byte, ok bool, err error) {
	need, have := handshakeHead, 0
	var head [handshakeHead]byte
	for at := 0; ; {
		if err := checkRecord(in[min(at, len(in)):]); err != nil {
			return nil, false, err
		}
		if len(in)-at < recordHead {
			return nil, false, nil
		}
		length := int(binary.BigEndian.Uint16(in[at+3:]))
		start := at + recordHead
		part := in[start:min(start+length, len(in))]
		if have < handshakeHead {
			copy(head[have:], part)
		}
		if have == 0 && len(part) > 0 && part[0] != typeHello {
			return nil, false, ErrNotTLS
		}
		if have+len(part) >= handshakeHead && need == handshakeHead {
			need += int(head[1])<<16 | int(head[2])<<8 | int(head[3])
			if need > MaxBytes {
				return nil, false, ErrTooLong
			}
		}
		if have == 0 && len(part) >= need && need > handshakeHead {
			return part[handshakeHead:need], true, nil
		}
		have += copy(scratch[have:], part)
		switch {
		case have >= need && need > handshakeHead:
			return scratch[handshakeHead:need], true, nil
		case have >= need: // a hello of no bytes
			return nil, false, ErrMalformed
		case len(part) < length:
			return nil, false, nil
		}
		at = start + length
	}
}

// checkRecord refuses as early as it can what is no handshake record.
func checkRecord(r []byte) error {
	switch {
	case len(r) > 0 && r[0] != typeHandshake, len(r) > 1 && r[1] != 3:
		return ErrNotTLS
	case len(r) >= recordHead:
		if n := binary.BigEndian.Uint16(r[3:]); n == 0 || n > 1<<14 {
			return ErrMalformed // RFC 8446 5.1
		}
	}
	return nil
}

// vector takes a vector with a length of size bytes from the front of b.
func vector(b []byte, size int) (v, rest []byte, ok bool) {
	if len(b) < size {
		return nil, nil, false
	}
	n := int(b[0])
	if size == 2 {
		n = int(binary.BigEndian.Uint16(b))
	}
	if b = b[size:]; len(b) < n {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

func serverName(b []byte) (name []byte, ok bool) {
	if len(b) < randomAndStart {
		return nil, false
	}
	session, b, ok := vector(b[randomAndStart:], 1)
	if !ok || len(session) > 32 {
		return nil, false
	}
	suites, b, ok := vector(b, 2)
	if !ok || len(suites) == 0 || len(suites)%2 != 0 {
		return nil, false
	}
	methods, b, ok := vector(b, 1)
	if !ok || len(methods) == 0 {
		return nil, false
	}
	if len(b) == 0 {
		return nil, true // before TLS 1.3 extensions may be left out
	}
	extensions, b, ok := vector(b, 2)
	if !ok || len(b) > 0 {
		return nil, false
	}
	seen := false
	for len(extensions) > 0 {
		if len(extensions) < 2 {
			return nil, false
		}
		kind := binary.BigEndian.Uint16(extensions)
		var data []byte
		if data, extensions, ok = vector(extensions[2:], 2); !ok {
			return nil, false
		}
		if kind != extServerName {
			continue
		}
		if seen {
			return nil, false
		}
		seen = true
		if name, ok = hostName(data); !ok {
			return nil, false
		}
	}
	return name, true
}

// hostName reads the extension's data: a list that holds one name of a host.
func hostName(data []byte) ([]byte, bool) {
	list, rest, ok := vector(data, 2)
	if !ok || len(rest) > 0 || len(list) == 0 || list[0] != nameTypeHost {
		return nil, false
	}
	name, rest, ok := vector(list[1:], 2)
	if !ok || len(rest) > 0 || len(name) == 0 || len(name) > maxName {
		return nil, false
	}
	for _, c := range name {
		if c <= ' ' || c >= 0x7f || c == ':' || c == '/' {
			return nil, false
		}
	}
	return name, true
}
