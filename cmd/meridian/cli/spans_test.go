package cli_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// receivedSpan is what a collector reads of a span, as the specification of OTLP says it
// is encoded in JSON.
type receivedSpan struct {
	TraceID      string `json:"traceId"`
	SpanID       string `json:"spanId"`
	ParentSpanID string `json:"parentSpanId"`
	Name         string `json:"name"`
	Kind         int    `json:"kind"`
	Site         string `json:"-"`
}

var (
	receivedMu sync.Mutex
	received   = map[*testscript.TestScript][]receivedSpan{}
)

// collector VAR starts a receiver of OTLP/HTTP and sets VAR to its address.
func collector(ts *testscript.TestScript, _ bool, args []string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var got struct {
			ResourceSpans []struct {
				Resource struct {
					Attributes []struct {
						Key   string
						Value struct{ StringValue string }
					}
				}
				ScopeSpans []struct{ Spans []receivedSpan }
			}
		}
		if err == nil {
			err = json.Unmarshal(body, &got)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			http.Error(w, "no traces", http.StatusBadRequest)
			return
		}
		receivedMu.Lock()
		defer receivedMu.Unlock()
		for _, rs := range got.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				for _, sp := range ss.Spans {
					for _, a := range rs.Resource.Attributes {
						if a.Key == "meridian.site" {
							sp.Site = a.Value.StringValue
						}
					}
					received[ts] = append(received[ts], sp)
				}
			}
		}
		_, _ = io.WriteString(w, "{}")
	}))
	ts.Setenv(args[0], s.URL)
	ts.Defer(func() {
		s.Close()
		receivedMu.Lock()
		defer receivedMu.Unlock()
		delete(received, ts)
	})
}

// spans TRACE PARENT NORTH SOUTH sends requests to http://$INGRESS as part of a trace,
// until the collector has the span of the proxy of NORTH, whose parent is PARENT, and
// that of SOUTH, whose parent is the first; and then requests that are no part of one,
// until it has such spans of a trace of their own.
func spans(ts *testscript.TestScript, _ bool, args []string) {
	trace, parent, north, south := args[0], args[1], args[2], args[3]
	ingress := listener(ts, ts.MkAbs(north+"-n1"), "http")
	for _, header := range []string{"00-" + trace + "-" + parent + "-01", ""} {
		for end := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			req, err := http.NewRequest(http.MethodGet, "http://"+ingress+"/cart", nil)
			ts.Check(err)
			req.Host = "shop.example"
			if header != "" {
				req.Header.Set("Traceparent", header)
			}
			resp, err := http.DefaultClient.Do(req)
			ts.Check(err)
			_, err = io.Copy(io.Discard, resp.Body)
			ts.Check(err)
			ts.Check(resp.Body.Close())
			if linked(ts, trace, parent, north, south, header != "") {
				break
			}
			if time.Now().After(end) {
				receivedMu.Lock()
				defer receivedMu.Unlock()
				ts.Fatalf("no linked spans of %s and %s with traceparent %q among %d: %+v", north, south, header, len(received[ts]), received[ts])
			}
		}
	}
}

func linked(ts *testscript.TestScript, trace, parent, north, south string, inTrace bool) bool {
	receivedMu.Lock()
	defer receivedMu.Unlock()
	for _, a := range received[ts] {
		if a.Site != north || a.Kind != 2 || a.Name != "GET default/shop/0" || (a.TraceID == trace) != inTrace || inTrace && a.ParentSpanID != parent || !inTrace && a.ParentSpanID != "" {
			continue
		}
		for _, b := range received[ts] {
			if b.Site == south && b.TraceID == a.TraceID && b.ParentSpanID == a.SpanID && b.SpanID != a.SpanID {
				return true
			}
		}
	}
	return false
}
