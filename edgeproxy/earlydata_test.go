package edgeproxy

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// eager is a client's connection whose first flight says that early data follows (RFC 8446
// 4.2.10), and whose early data follows: a request, which nobody must see.
type eager struct {
	net.Conn
	begun bool
}

// Write puts the extension into the ClientHello, and a record of data behind it.
func (e *eager) Write(p []byte) (int, error) {
	if e.begun {
		return e.Conn.Write(p)
	}
	e.begun = true
	hello := append([]byte(nil), p...)
	at := 5 + 4 + 2 + 32 // record and handshake header, version, random
	at += 1 + int(hello[at])
	at += 2 + int(binary.BigEndian.Uint16(hello[at:]))
	at += 1 + int(hello[at])
	extensions := binary.BigEndian.Uint16(hello[at:])
	if at+2+int(extensions) != len(p) {
		return 0, fmt.Errorf("not one ClientHello: %x", p)
	}
	hello = append(hello, 0, 42, 0, 0) // early_data, empty
	binary.BigEndian.PutUint16(hello[at:], extensions+4)
	binary.BigEndian.PutUint16(hello[3:], uint16(len(hello)-5))
	hello[6], hello[7], hello[8] = 0, byte((len(hello)-9)>>8), byte(len(hello)-9)
	request := "GET /early HTTP/1.1\r\nHost: x\r\nMeridian-Service: default/echo\r\nMeridian-Source: a\r\n\r\n"
	hello = append(hello, 23, 3, 3, 0, byte(len(request)))
	if _, err := e.Conn.Write(append(hello, request...)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// TestEarlyDataIsRefused: data before the handshake's end could be somebody's replay. It
// is refused by name, and no backend sees it.
func TestEarlyDataIsRefused(t *testing.T) {
	log, lines := logged(t, "%RESPONSE_CODE_DETAILS%")
	p := newPair(t, Deps{AccessLog: log})
	p.introduce()
	good := p.leaf("a", "a-1", time.Now())
	ask := func(wrap func(net.Conn) net.Conn) error {
		conn, err := net.Dial("tcp", p.b.addr("eastwest").String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(30 * time.Second))
		s := tls.Client(wrap(conn), &tls.Config{Certificates: []tls.Certificate{good}, InsecureSkipVerify: true})
		if _, err := io.WriteString(s, "GET / HTTP/1.1\r\nHost: x\r\nMeridian-Service: default/echo\r\nMeridian-Source: a\r\n\r\n"); err != nil {
			return err
		}
		res, err := http.ReadResponse(bufio.NewReader(s), nil)
		if err == nil {
			res.Body.Close()
		}
		return err
	}
	if err := ask(func(c net.Conn) net.Conn { return c }); err != nil {
		t.Fatalf("without early data: %v", err)
	}
	before := p.served.Load()
	if err := ask(func(c net.Conn) net.Conn { return &eager{Conn: c} }); err == nil {
		t.Error("answered")
	}
	if got := lines(2)[1]; got != "tls_early_data" {
		t.Errorf("the log says %q", got)
	}
	if n := p.served.Load() - before; n != 0 {
		t.Errorf("%d requests came to the backend", n)
	}
}
