package otlp

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

const parentHeader = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func ended(site, id, parent string, inbound bool) mesh.EndedRequest {
	ms := 1.5
	return mesh.EndedRequest{
		Time: time.Unix(1700000000, 5).UTC(), Site: site, Node: "n1", ID: id, TraceParent: parent, Inbound: inbound,
		Protocol: "HTTP/1.1", Method: "GET", Authority: "shop.example:8080", Path: "/cart?a=b", Status: 200, Client: "192.0.2.7:5555",
		Rule: "default/shop/0", Service: "default/shop", ToSite: "south", Endpoint: "10.0.0.1:80", Attempts: 2, DurationMS: 3, FirstByteMS: &ms,
	}
}

// Proxies that see one request agree on its IDs without a word: the caller's span, the
// ingress, the other site's proxy.
func TestParents(t *testing.T) {
	in, over := ended("north", "id-1", parentHeader, false), ended("south", "id-1", parentHeader, true)
	a, b := spanOf(&in), spanOf(&over)
	if a.TraceID != "0af7651916cd43dd8448eb211c80319c" || a.ParentSpanID != "b7ad6b7169203331" || len(a.SpanID) != 16 {
		t.Errorf("ingress %+v", a)
	}
	if b.TraceID != a.TraceID || b.ParentSpanID != a.SpanID || b.SpanID == a.SpanID || len(b.SpanID) != 16 {
		t.Errorf("over there %+v, its parent %s", b, a.SpanID)
	}
	// A second attempt at the other site is another span with the same parent.
	again := over
	again.Time = again.Time.Add(time.Millisecond)
	if c := spanOf(&again); c.ParentSpanID != a.SpanID || c.SpanID == b.SpanID {
		t.Errorf("second attempt %+v", c)
	}
	// Without a caller's trace it is one of its own, by the request's ID.
	in.TraceParent, over.TraceParent = "", "00-bad"
	c, d := spanOf(&in), spanOf(&over)
	if c.ParentSpanID != "" || c.TraceID == a.TraceID || len(c.TraceID) != 32 || d.TraceID != c.TraceID || d.ParentSpanID != c.SpanID {
		t.Errorf("root %+v, over there %+v", c, d)
	}
	other := ended("north", "id-2", "", false)
	if e := spanOf(&other); e.TraceID == c.TraceID || e.SpanID == c.SpanID {
		t.Error("two requests share IDs")
	}
	if tcp := (mesh.EndedRequest{Protocol: "tcp"}); Traced(&tcp) || !Traced(&in) {
		t.Error("what is no request of HTTP is no span")
	}
}

func TestSpan(t *testing.T) {
	e := ended("north", "id-1", parentHeader, false)
	e.UserAgent = "a\xff"
	data, err := json.Marshal(requestOf([]mesh.EndedRequest{e}, "v1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`{"key":"service.name","value":{"stringValue":"edgeproxy"}}`, `{"key":"meridian.site","value":{"stringValue":"north"}}`, `{"key":"meridian.node","value":{"stringValue":"n1"}}`,
		`"name":"GET default/shop/0","kind":2,"startTimeUnixNano":"1700000000000000005","endTimeUnixNano":"1700000000003000005"`,
		`{"key":"url.path","value":{"stringValue":"/cart"}}`, `{"key":"url.query","value":{"stringValue":"a=b"}}`, `{"key":"server.port","value":{"intValue":"8080"}}`,
		`{"key":"http.response.status_code","value":{"intValue":"200"}}`, `{"key":"network.protocol.version","value":{"stringValue":"1.1"}}`, `"stringValue":"a�"`,
		`"events":[{"timeUnixNano":"1700000000001500005","name":"meridian.response.first_byte"}]`, `"meridian.to_site","value":{"stringValue":"south"}`,
	} {
		if !strings.Contains(string(data), want) {
			t.Errorf("no %s in\n%s", want, data)
		}
	}
	if strings.Contains(string(data), `"status":`) {
		t.Error("200 is no error")
	}
	e.Status, e.Flag, e.Details, e.Method = 503, "UF", "upstream_connection_failure", "EAT"
	s := spanOf(&e)
	if s.Status == nil || s.Status.Code != 2 || s.Status.Message != "upstream_connection_failure" || s.Name != "default/shop/0" {
		t.Errorf("failed: %+v %v", s, s.Status)
	}
	if e.Status, e.Flag = 404, "NR"; spanOf(&e).Status != nil {
		t.Error("404 is no error of a server")
	}
}

// collector answers as the test says and keeps what it was sent.
type collector struct {
	*httptest.Server
	mu     sync.Mutex
	answer func(n int) (status int, body string)
	bodies []string
	spans  int
	header http.Header
}

func newCollector(t *testing.T, answer func(n int) (int, string)) *collector {
	c := &collector{answer: answer}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		status, said := c.answer(len(c.bodies))
		c.bodies, c.header = append(c.bodies, string(body)), r.Header
		var got exportRequest
		if err := json.Unmarshal(body, &got); err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		if status == 200 {
			for _, rs := range got.ResourceSpans {
				c.spans += len(rs.ScopeSpans[0].Spans)
			}
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, said)
	}))
	t.Cleanup(c.Close)
	return c
}

func exporter(t *testing.T, base string) (*Exporter, func()) {
	t.Helper()
	endpoint, err := TracesURL(base)
	if err != nil {
		t.Fatal(err)
	}
	x := New(Config{Endpoint: endpoint, Headers: map[string]string{"Authorization": "Bearer x"}, Log: slog.New(slog.DiscardHandler)})
	x.pause = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() { x.Run(ctx); close(over) }()
	stop := sync.OnceFunc(func() { cancel(); <-over })
	t.Cleanup(stop)
	return x, stop
}

func until(t *testing.T, x *Exporter, what string, ok func(Stats) bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(x.Stats()); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: never; %+v", what, x.Stats())
		}
	}
}

func list(n int) (out []mesh.EndedRequest) {
	for i := range n {
		out = append(out, ended("north", fmt.Sprintf("id-%d", i), "", false))
	}
	return out
}

// A collector that is overloaded is asked again, and gets each span once; one that
// refuses is not; one that takes a part says so.
func TestDelivery(t *testing.T) {
	c := newCollector(t, func(n int) (int, string) {
		if n < 3 {
			return []int{503, 429, 504}[n], ""
		}
		return 200, `{}`
	})
	x, stop := exporter(t, c.URL)
	x.Add(list(1200))
	until(t, x, "all are taken", func(s Stats) bool { return s.Exported == 1200 && s.Failures == 3 && s.Queued == 0 })
	c.mu.Lock()
	if c.spans != 1200 || c.header.Get("Content-Type") != "application/json" || c.header.Get("Authorization") != "Bearer x" || len(c.bodies) != 6 {
		t.Errorf("%d spans in %d calls, %v", c.spans, len(c.bodies), c.header)
	}
	c.answer = func(int) (int, string) { return 400, "no such tenant" }
	c.mu.Unlock()
	x.Add(list(3))
	until(t, x, "refused", func(s Stats) bool { return s.Refused == 3 })
	c.mu.Lock()
	c.answer = func(int) (int, string) { return 200, `{"partialSuccess":{"rejectedSpans":"2","errorMessage":"old"}}` }
	c.mu.Unlock()
	x.Add(list(3))
	until(t, x, "taken in part", func(s Stats) bool { return s.Refused == 5 && s.Exported == 1201 })
	// What waits at the end still goes.
	c.mu.Lock()
	c.answer = func(int) (int, string) { return 200, "" }
	c.mu.Unlock()
	x.Add(list(7))
	stop()
	if s := x.Stats(); s.Exported != 1208 || s.Queued != 0 || s.Undelivered != 0 {
		t.Errorf("at the end %+v", s)
	}
}

// While the collector is away spans wait, but not more than there is room for; all
// that are lost are counted.
func TestAway(t *testing.T) {
	c := newCollector(t, func(int) (int, string) { return 502, "" })
	x, stop := exporter(t, c.URL)
	x.Add(list(maxQueue))
	until(t, x, "it was asked", func(s Stats) bool { return s.Failures > 0 && s.Queued == maxQueue-maxBatch })
	x.Add(list(maxBatch + 9))
	if s := x.Stats(); s.NoRoom != 9 || s.Queued != maxQueue {
		t.Errorf("%+v", s)
	}
	stop()
	if s := x.Stats(); s.Undelivered != maxQueue+maxBatch || s.Queued != 0 || s.Exported != 0 {
		t.Errorf("at the end %+v", s)
	}
}

func TestAddresses(t *testing.T) {
	for base, want := range map[string]string{"http://c:4318": "http://c:4318/v1/traces", "https://c/otlp/": "https://c/otlp/v1/traces"} {
		if got, err := TracesURL(base); err != nil || got != want {
			t.Errorf("%s: %s, %v", base, got, err)
		}
	}
	for _, bad := range []string{"c:4317", "grpc://c", "http://", "http://u:p@c", "http://c?x", "http://c/%zz"} {
		if got, err := TracesURL(bad); err == nil || strings.Contains(err.Error(), "u:p") {
			t.Errorf("%s: %s, %v", bad, got, err)
		}
	}
	got, err := ParseHeaders(" api-key=a%2Cb , x=y=z,")
	if err != nil || len(got) != 2 || got["api-key"] != "a,b" || got["x"] != "y=z" {
		t.Errorf("%v %v", got, err)
	}
	for _, bad := range []string{"secret", "=secret", "a b=secret", "a=secret%0d%0ab", "a=secret%"} {
		if _, err := ParseHeaders(bad); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
