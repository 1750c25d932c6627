package http2

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// client is another implementation's, without TLS.
func client() *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Timeout: time.Minute, Transport: tr}
}

// TestServerAgainstTwin has another implementation's client speak to the server
// codec: many streams at a time, bodies larger than the windows both ways.
func TestServerAgainstTwin(t *testing.T) {
	addr := serveEcho(t, Limits{})
	c := client()
	defer c.CloseIdleConnections()
	var all sync.WaitGroup
	for i := range 60 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for range 5 {
				body := bytes.Repeat([]byte{byte('a' + i%26)}, r.IntN(400_000))
				path := []string{"/x", "/known", "/trailers"}[r.IntN(3)]
				req, _ := http.NewRequest("PUT", "http://"+addr+path, bytes.NewReader(body))
				req.Header.Set("X-Long", strings.Repeat("v", r.IntN(5000)))
				req.Header.Add("Cookie", "a=b")
				if r.IntN(2) == 0 {
					req.ContentLength = -1
				}
				resp, err := c.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || !bytes.Equal(got, body) || resp.Header.Get("X-Method") != "PUT" {
					t.Errorf("%s: %d bytes of %d, %v", path, len(got), len(body), err)
				}
				if path == "/trailers" && resp.Trailer.Get("Grpc-Status") != "0" {
					t.Errorf("trailers %v", resp.Trailer)
				}
			}
		})
	}
	all.Wait()
	for _, tt := range []struct {
		method, path string
		length       int64
		n            int
	}{{"GET", "/large", -1, 300_000}, {"HEAD", "/large", -1, 0}, {"HEAD", "/known", 0, 0}, {"GET", "/known", 0, 0}} {
		req, _ := http.NewRequest(tt.method, "http://"+addr+tt.path, nil)
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || len(got) != tt.n || resp.ContentLength != tt.length {
			t.Errorf("%s %s: %d bytes, length %d, %v", tt.method, tt.path, len(got), resp.ContentLength, err)
		}
	}
	// An answer before the body: the rest of the body is not wanted, and the
	// connection goes on.
	pr, pw := io.Pipe()
	go func() { _, _ = pw.Write(make([]byte, 1<<20)) }()
	req, _ := http.NewRequest("POST", "http://"+addr+"/early", pr)
	resp, err := c.Do(req)
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	pr.Close()
	if _, err := c.Get("http://" + addr + "/reset"); err == nil || !strings.Contains(err.Error(), "INTERNAL_ERROR") {
		t.Errorf("reset came as %v", err)
	}
}

// caller drives a client codec over a connection.
type caller struct {
	t     *testing.T
	c     net.Conn
	codec *Codec
	out   []byte
	in    []byte
}

func (k *caller) encode(ev *stream.Event) {
	var err error
	if k.out, err = k.codec.Encode(k.out, ev); err != nil {
		k.t.Fatal(err)
	}
}

// turn writes what there is and reads until handle has had an event.
func (k *caller) turn(handle func(*stream.Event)) error {
	k.out = k.codec.Say(k.out)
	if len(k.out) > 0 {
		if _, err := k.c.Write(k.out); err != nil {
			return err
		}
		k.out = k.out[:0]
	}
	for {
		var ev stream.Event
		n, err := k.codec.Decode(k.in, &ev)
		kept := k.in
		if err != nil {
			return err
		}
		if ev.Kind != stream.None {
			handle(&ev)
			k.in = append(k.in[:0], kept[n:]...)
			return nil
		}
		k.in = append(k.in[:0], kept[n:]...)
		buf := make([]byte, 4<<10)
		n, err = k.c.Read(buf)
		if k.in = append(k.in, buf[:n]...); n == 0 && err != nil {
			return err
		}
	}
}

// TestClientAgainstTwin has the client codec speak to another implementation's
// server: forty streams on one connection, echoed bodies larger than the windows.
func TestClientAgainstTwin(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	srv := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Seen", fmt.Sprint(r.Method, " ", r.Host, " ", r.URL, " ", r.Header.Get("X-Id")))
		w.Header().Set("Trailer", "X-Sum")
		if r.URL.Path == "/early" {
			return
		}
		n, err := io.Copy(w, r.Body)
		w.Header().Set("X-Sum", fmt.Sprint(n, err))
	})}
	srv.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = srv.Serve(ln) }()
	defer srv.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	type call struct {
		body   []byte
		sent   int
		ended  bool
		seen   string
		sum    string
		got    []byte
		status int
		done   bool
	}
	k := &caller{t: t, c: c, codec: NewClient(Limits{})}
	calls := map[stream.ID]*call{}
	pump := func(id stream.ID, s *call) {
		for s.sent < len(s.body) {
			n := min(k.codec.Sendable(id), len(s.body)-s.sent, 10_000)
			if n == 0 {
				return
			}
			k.encode(&stream.Event{Kind: stream.Data, Stream: id, Data: s.body[s.sent:][:n]})
			s.sent += n
		}
		if !s.ended {
			s.ended = true
			if id%3 == 0 {
				k.encode(&stream.Event{Kind: stream.Trailers, Stream: id, Fields: []stream.Field{{Name: []byte("X-Last"), Value: []byte("word")}}})
			}
			k.encode(&stream.Event{Kind: stream.End, Stream: id})
		}
	}
	const n = 40
	for i := range n {
		id, ok := k.codec.Open()
		if !ok {
			t.Fatal("no stream")
		}
		s := &call{body: bytes.Repeat([]byte{byte(i)}, i*7000)}
		calls[id] = s
		m := &stream.Message{Method: []byte("POST"), Authority: []byte("example.com:80"), Path: fmt.Appendf(nil, "/%d?q", i), Length: -1, TrailersOK: true,
			Fields: []stream.Field{{Name: []byte("X-Id"), Value: fmt.Append(nil, i)}, {Name: []byte("Cookie"), Value: []byte("a=b")}}}
		if i%2 == 0 {
			m.Length = int64(len(s.body))
		}
		k.encode(&stream.Event{Kind: stream.Head, Stream: id, Head: m})
		pump(id, s)
	}
	left := n
	for left > 0 {
		err := k.turn(func(ev *stream.Event) {
			s := calls[ev.Stream]
			switch ev.Kind {
			case stream.Head:
				s.status = ev.Head.Status
				for _, f := range ev.Head.Fields {
					if f.Is("x-seen") {
						s.seen = string(f.Value)
					}
				}
			case stream.Data:
				s.got = append(s.got, ev.Data...)
				k.encode(&stream.Event{Kind: stream.Window, Stream: ev.Stream, N: len(ev.Data)})
			case stream.Trailers:
				s.sum = string(ev.Fields[0].Value)
			case stream.End:
				s.done = true
				left--
			case stream.Reset:
				t.Errorf("stream %d reset: %d", ev.Stream, ev.Reason)
				left--
			case stream.Window:
				for id, s := range calls {
					if !s.done {
						pump(id, s)
					}
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for id, s := range calls {
		i := int(id) / 2
		sum := fmt.Sprint(len(s.body), error(nil))
		if s.status != 200 || s.seen != fmt.Sprintf("POST example.com:80 /%d?q %d", i, i) || !bytes.Equal(s.got, s.body) || s.sum != sum {
			t.Errorf("stream %d: %d %q, %d bytes, %q, want %q", id, s.status, s.seen, len(s.got), s.sum, sum)
		}
	}
	if k.codec.Active() != 0 {
		t.Errorf("%d streams left", k.codec.Active())
	}
	id, _ := k.codec.Open()
	k.encode(&stream.Event{Kind: stream.Head, Stream: id, Head: &stream.Message{Method: []byte("POST"), Authority: []byte("x"), Path: []byte("/early"), Length: -1}})
	for ended := false; !ended; {
		if err := k.turn(func(ev *stream.Event) { ended = ev.Kind == stream.End }); err != nil {
			t.Fatal(err)
		}
	}
	if k.codec.Active() != 0 {
		t.Error("a stream whose answer is whole is still open")
	}
}
