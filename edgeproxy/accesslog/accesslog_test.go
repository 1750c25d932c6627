package accesslog

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

func field(name, value string) stream.Field {
	return stream.Field{Name: []byte(name), Value: []byte(value)}
}

// entry is a request that has everything.
func entry() *Entry {
	return &Entry{
		Start: 5e9, Duration: 12_345_678, FirstByte: 7_000_000, Status: 200, Flag: "UT", Attempts: 2,
		Received: 11, Sent: 22,
		Client: netip.MustParseAddrPort("192.0.2.7:5555"), Peer: netip.MustParseAddrPort("10.0.0.9:80"), Details: "upstream_response_timeout", Upstream: netip.MustParseAddrPort("[2001:db8::1]:9001"),
		Protocol: "HTTP/1.1", Method: []byte("GET"), Authority: []byte("a.example"), Path: []byte("/x?y=z"),
		Service: "default/echo", Route: "default/all/0", Gateway: "default/ingress", Site: "south", Identity: "spiffe://mesh.example/site/north/ns/meridian/sa/n2",
		Request: []stream.Field{field("User-Agent", "curl"), field("X-Request-Id", "abc")},
	}
}

func opened(t testing.TB, format string) *Log {
	t.Helper()
	f, err := Parse(format)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(Config{
		Path: filepath.Join(t.TempDir(), "access.log"), Format: f, Site: "north", Node: "n1", Rings: 1,
		Now: func() int64 { return 5e9 }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	return l
}

// one is the line of an entry.
func one(t testing.TB, l *Log, e *Entry) string {
	t.Helper()
	r := l.Ring(0)
	if r.Captures() {
		e.Response = r.Capture(nil, []stream.Field{field("Content-Type", "text/plain")}, bytes.Clone)
	}
	r.Add(e)
	l.taken = r.take(l.taken[:0])
	var rec record
	if rest := l.format.read(l.taken, &rec); len(rest) > 0 {
		t.Fatalf("%d bytes behind the record", len(rest))
	}
	return string(l.line(nil, &rec, time.Unix(1_700_000_000, 123_456_789), 5e9))
}

func TestText(t *testing.T) {
	for _, tt := range []struct{ format, want string }{
		{"%START_TIME%", "2023-11-14T22:13:20.123Z"},
		{"%START_TIME(%Y/%m/%d %H:%M:%S.%6f %z)%", "2023/11/14 22:13:20.123456 +0000"},
		{"%START_TIME(%s)%", "1700000000"},
		{`"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%"`, `"GET /x?y=z HTTP/1.1"`},
		{"%METHOD% %PATH% %AUTHORITY% %REQ(:AUTHORITY)%", "GET /x?y=z a.example a.example"},
		{"%RESPONSE_CODE%%%%RESPONSE_FLAGS%", "200%UT"},
		{"%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESPONSE_DURATION%", "11 22 12 7"},
		{"%UPSTREAM_HOST% %UPSTREAM_CLUSTER% %UPSTREAM_SITE% %UPSTREAM_REQUEST_ATTEMPT_COUNT%", "[2001:db8::1]:9001 default/echo south 2"},
		{"%ROUTE_NAME% %GATEWAY% %SITE% %NODE%", "default/all/0 default/ingress north n1"},
		{"%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "192.0.2.7:5555 192.0.2.7"},
		{"%REQ(user-agent)% %REQ(none?x-request-id)% %REQ(none)%", "curl abc -"},
		{"%RESP(content-type)% %RESP(none)% %RESP(CONTENT-TYPE):4%", "text/plain - text"},
		{"%PATH:3%", "/x?"},
	} {
		if got := one(t, opened(t, tt.format), entry()); got != tt.want+"\n" {
			t.Errorf("%s\n got %s want %s", tt.format, got, tt.want)
		}
	}
	if got := one(t, opened(t, "%METHOD% %UPSTREAM_HOST% %RESPONSE_DURATION% %RESPONSE_FLAGS%"), &Entry{FirstByte: -1}); got != "- - - -\n" {
		t.Errorf("nothing is known: %q", got)
	}
}

func TestParse_faults(t *testing.T) {
	for _, tt := range []struct{ format, want string }{
		{"", "want json"},
		{"combined", "want json"},
		{"%METHOD", "no closing"},
		{"a %METHID%", "column 3: %METHID%: no such operator"},
		{"%METHOD(x)%", "takes no argument"},
		{"%REQ()%", "names no header"},
		{"%RESP(:STATUS)%", ":status"},
		{"%START_TIME(%Q)%", "layout"},
		{"%START_TIME(%s %Y)%", "alone"},
		{"%PATH:0%", "over 0"},
		{"%method%", "want OPERATOR"},
	} {
		if _, err := Parse(tt.format); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.format, err, tt.want)
		}
	}
}

func TestJSON(t *testing.T) {
	l := opened(t, FormatJSON)
	var got map[string]any
	if err := json.Unmarshal([]byte(one(t, l, entry())), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"start_time": "2023-11-14T22:13:20.123Z", "method": "GET", "authority": "a.example", "path": "/x?y=z",
		"protocol": "HTTP/1.1", "response_code": 200.0, "response_flags": "UT", "bytes_received": 11.0,
		"bytes_sent": 22.0, "duration": 12.0, "response_duration": 7.0, "downstream_remote_address": "192.0.2.7:5555",
		"upstream_host": "[2001:db8::1]:9001", "upstream_cluster": "default/echo", "upstream_site": "south",
		"downstream_direct_remote_address": "10.0.0.9:80", "response_code_details": "upstream_response_timeout",
		"upstream_attempts": 2.0, "route_name": "default/all/0", "gateway": "default/ingress", "site": "north",
		"node": "n1", "downstream_peer_uri_san": "spiffe://mesh.example/site/north/ns/meridian/sa/n2", "request_id": "abc", "user_agent": "curl", "x_forwarded_for": nil,
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s: %v, want %v", k, got[k], v)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d members, want %d: %v", len(got), len(want), got)
	}
}

// FuzzHostile proves that no byte from outside ends a line or makes a member.
func FuzzHostile(f *testing.F) {
	f.Add([]byte("/\"},\n{\"status\":200,\\u0000\x00\x7f\x1b[31m"))
	f.Add([]byte("\xff\xfe\xc3\x28 \u2028\u2029 é \U0001f600"))
	f.Add(bytes.Repeat([]byte{0x80}, 2*maxText))
	f.Fuzz(func(t *testing.T, hostile []byte) {
		e := entry()
		e.Path, e.Request[0].Value = hostile, hostile
		line := one(t, opened(t, FormatJSON), e)
		var got map[string]any
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		if strings.Count(line, "\n") != 1 || len(got) != len(members) || strings.ContainsAny(line, "\x00\x1b\x7f\u2028\u2029") {
			t.Fatalf("%q", line)
		}
		if v := hostile[:min(len(hostile), maxText)]; utf8.Valid(v) && len(v) > 0 && got["path"] != string(v) {
			t.Fatalf("path %q, sent %q", got["path"], v)
		}
		plain := one(t, opened(t, "%PATH% %REQ(USER-AGENT)%"), e)
		for _, c := range []byte(plain[:len(plain)-1]) {
			if c < 0x20 || c >= 0x7f {
				t.Fatalf("%q", plain)
			}
		}
	})
}

// A full ring loses records and says how many; those that it took come out whole
// and in order, over its end too.
func TestRing_full(t *testing.T) {
	l := opened(t, "%PATH%")
	r := l.Ring(0)
	var want, got []string
	var rec record
	read := func() {
		for l.taken = r.take(l.taken[:0]); len(l.taken) > 0; {
			l.taken = l.format.read(l.taken, &rec)
			got = append(got, string(rec.path))
		}
	}
	e := entry()
	sent := 0
	for round := range 3 {
		for i := range 2000 {
			e.Path = fmt.Appendf(nil, "/%d/%d/%s", round, i, strings.Repeat("x", i%1500))
			was := r.dropped.Load()
			r.Add(e)
			sent++
			if r.dropped.Load() == was {
				want = append(want, string(e.Path))
			}
		}
		read()
	}
	if lost := l.Stats().Dropped; lost == 0 || int(lost)+len(want) != sent {
		t.Errorf("%d sent, %d taken, %d dropped", sent, len(want), lost)
	}
	if len(got) != len(want) {
		t.Fatalf("%d records, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("record %d is %.40q, want %.40q", i, got[i], want[i])
		}
	}
}

func TestAdd_doesNotAllocate(t *testing.T) {
	l := opened(t, FormatJSON)
	e, r := entry(), l.Ring(0)
	var rec record
	now := time.Now()
	lines := make([]byte, 0, 4<<10)
	if n := testing.AllocsPerRun(1000, func() {
		r.Add(e)
		l.format.read(r.take(l.taken[:0]), &rec)
		lines = l.line(lines[:0], &rec, now, 0)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// The file is opened again when it was renamed and when somebody asks; nothing is lost.
func TestReopen(t *testing.T) {
	for _, how := range []string{"asked", "found"} {
		t.Run(how, func(t *testing.T) {
			l := opened(t, "%PATH%")
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() { l.Run(ctx); close(ended) }()
			e := entry()
			add := func(path string) { e.Path = []byte(path); l.Ring(0).Add(e) }
			holds := func(file, want string) {
				t.Helper()
				var data []byte
				var err error
				for range 500 {
					if data, err = os.ReadFile(file); err == nil && string(data) == want {
						return
					}
					time.Sleep(10 * time.Millisecond)
				}
				t.Fatalf("%s holds %q, want %q (%v)", file, data, want, err)
			}
			add("/1")
			holds(l.path, "/1\n")
			if err := os.Rename(l.path, l.path+".1"); err != nil {
				t.Fatal(err)
			}
			if how == "asked" {
				l.Reopen()
				holds(l.path, "")
			} else {
				time.Sleep(renameCheck + 10*time.Millisecond)
			}
			add("/2")
			holds(l.path, "/2\n")
			holds(l.path+".1", "/1\n")
			add("/3")
			stop()
			<-ended
			holds(l.path, "/2\n/3\n")
			if s := l.Stats(); s.Written != 3 || s.Dropped+s.Failed > 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}
