package http1

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// forward passes what a client sent through both codecs, as a proxy does, and
// returns what reaches the backend and what the proxy believes that it sent.
// Requests that end in a fault or not at all are not sent.
func forward(t testing.TB, in string) (wire string, sent []string) {
	s, c := NewServer(Limits{}), NewClient(Limits{})
	rest := []byte(in)
	var one []byte
	var body, said string
	open := false
	for {
		var ev stream.Event
		n, err := s.Decode(rest, &ev)
		rest = rest[n:]
		if err != nil || ev.Kind == stream.None {
			return wire, sent
		}
		from := ev.Stream
		switch ev.Kind {
		case stream.Head:
			m := ev.Head
			if string(m.Method) == "CONNECT" || len(m.Authority) == 0 {
				return wire, sent // what the proxy answers itself
			}
			id, ok := c.Open()
			if open = ok; !ok {
				t.Fatal("client not open")
			}
			ev.Stream, one, body = id, nil, ""
			said = fmt.Sprintf("%s %s %s %d", m.Method, m.Authority, m.Path, len(m.Fields))
		case stream.Data:
			body += string(ev.Data)
		}
		if !open {
			t.Fatal("event without a head")
		}
		ev.Stream = c.id
		if one, err = c.Encode(one, &ev); err != nil {
			t.Fatalf("%q: %v", clip(in), err)
		}
		if ev.Kind != stream.End {
			continue
		}
		wire += string(one)
		sent = append(sent, said+" "+body)
		answer := []byte("HTTP/1.1 204 No Content\r\n\r\n")
		for len(answer) > 0 || c.Active() > 0 {
			n, err := c.Decode(answer, &ev)
			if err != nil {
				t.Fatal(err)
			}
			answer = answer[n:]
			ev.Stream = from
			if _, err := s.Encode(nil, &ev); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// read takes the wire apart with the standard library's parser, which is more
// tolerant than this package's.
func read(t testing.TB, wire string) (got []string) {
	r := bufio.NewReader(strings.NewReader(wire))
	for {
		q, err := http.ReadRequest(r)
		if errors.Is(err, io.EOF) {
			return got
		}
		if err != nil {
			t.Fatalf("%q: %v", clip(wire), err)
		}
		body, err := io.ReadAll(q.Body)
		if err != nil {
			t.Fatalf("%q: %v", clip(wire), err)
		}
		fields := 0
		for name, v := range q.Header {
			switch name {
			case "Te", "Expect", "Connection", "Content-Length", "Upgrade":
			default:
				fields += len(v)
			}
		}
		got = append(got, fmt.Sprintf("%s %s %s %d %s", q.Method, q.Host, q.RequestURI, fields, body))
	}
}

// TestForwardedIsUnambiguous: an independent parser finds in the backend's bytes
// the requests that the proxy sent, each with the same target, fields and body,
// whatever the client wrote. This is what request smuggling would break.
func TestForwardedIsUnambiguous(t *testing.T) {
	check := func(in string) {
		t.Helper()
		wire, sent := forward(t, in)
		if got := read(t, wire); fmt.Sprint(got) != fmt.Sprint(sent) {
			t.Fatalf("input %q\nwire  %q\nsent  %q\nfound %q", clip(in), clip(wire), sent, got)
		}
	}
	rows := requestRows()
	forwarded := 0
	for _, r := range rows {
		check(r.in)
		if _, sent := forward(t, r.in); len(sent) > 0 {
			forwarded++
		}
	}
	if forwarded < 50 {
		t.Errorf("only %d rows were forwarded", forwarded)
	}
	rnd := rand.New(rand.NewPCG(21, 22))
	for range 10000 {
		check(mutate(rnd, rows))
	}
}

// TestAnswersAreUnambiguous is the same towards the client.
func TestAnswersAreUnambiguous(t *testing.T) {
	rnd := rand.New(rand.NewPCG(23, 24))
	passed := 0
	for i := range 10000 + len(responses) {
		var raw string
		if i < len(responses) {
			raw = responses[i].in
		} else {
			raw = mutate(rnd, responses)
		}
		method, in := splitMethod(raw)
		if method != "HEAD" {
			method = "GET"
		}
		s, c := answering(t, method+" / HTTP/1.1\r\nHost: a\r\n\r\n"), NewClient(Limits{})
		id, _ := c.Open()
		mustEncode(t, c, id, head(request(method)), end)
		var wire []byte
		var body string
		status, complete := 0, false
		rest := []byte(in)
		for !complete {
			var ev stream.Event
			n, err := c.Decode(rest, &ev)
			rest = rest[n:]
			if err == nil && ev.Kind == stream.None {
				err = c.EOF(&ev)
			}
			if err != nil || ev.Kind == stream.Reset {
				break
			}
			switch ev.Kind {
			case stream.Head:
				status = ev.Head.Status
			case stream.Data:
				body += string(ev.Data)
			case stream.End:
				complete = true
			}
			ev.Stream = 1
			if wire, err = s.Encode(wire, &ev); err != nil {
				t.Fatalf("input %q: %v", clip(in), err)
			}
		}
		if !complete {
			continue
		}
		passed++
		r := bufio.NewReader(strings.NewReader(string(wire)))
		for {
			a, err := http.ReadResponse(r, &http.Request{Method: method})
			if err != nil {
				t.Fatalf("wire %q: %v", clip(string(wire)), err)
			}
			if a.StatusCode < 200 {
				continue
			}
			got, err := io.ReadAll(a.Body)
			if err != nil || string(got) != body || a.StatusCode != status {
				t.Fatalf("input %q\nwire  %q\nfound %d %q, %v\nwant  %d %q", clip(in), clip(string(wire)), a.StatusCode, got, err, status, body)
			}
			break
		}
		if left, _ := io.ReadAll(r); len(left) > 0 {
			t.Fatalf("input %q\nwire %q\nleft %q", clip(in), clip(string(wire)), left)
		}
	}
	if passed < 1000 {
		t.Errorf("only %d responses passed", passed)
	}
}
