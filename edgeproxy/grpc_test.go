package edgeproxy

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/http2"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// TestGRPCRoute sends calls by service, method and metadata, beside an HTTPRoute of
// the same host, and passes their status on in the trailers.
func TestGRPCRoute(t *testing.T) {
	server := func(name string) *mesh.MeshService {
		s := service(name, http2Backend(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Trailer", "Grpc-Status")
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s %s %s", name, r.Proto, r.Header.Get("X-Added"), body)
			w.Header().Set("Grpc-Status", "7")
		}))
		s.Spec.Ports[0].Protocol = mesh.PortHTTP2
		return s
	}
	method := func(typ, service, method string) mesh.GRPCRouteMatch {
		return mesh.GRPCRouteMatch{Method: &mesh.GRPCMethodMatch{Type: typ, Service: service, Method: method}}
	}
	to := func(name string, matches ...mesh.GRPCRouteMatch) mesh.GRPCRouteRule {
		return mesh.GRPCRouteRule{Matches: matches, BackendRefs: []mesh.GRPCBackendRef{{Group: mesh.MeshGroup, Kind: mesh.KindMeshService, Name: name, Port: 80}}}
	}
	o := toOne(backend(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "web") }))
	o.Services = append(o.Services, server("exact"), server("service"), server("method"), server("pattern"), server("tagged"))
	tagged := mesh.GRPCRouteMatch{Headers: []mesh.HeaderMatch{{Name: "x-tag", Value: "yes"}}, Method: &mesh.GRPCMethodMatch{Service: "shop.Cart"}}
	added := to("exact", method("", "shop.Cart", "Add"))
	added.Filters = []mesh.GRPCRouteFilter{{Type: mesh.FilterRequestHeaderModifier, RequestHeaderModifier: &mesh.HeaderModifier{Set: []mesh.HeaderValue{{Name: "X-Added", Value: "added"}}}}}
	o.GRPCRoutes = []*mesh.GRPCRoute{{
		Metadata: mesh.ObjectMeta{Name: "all", Namespace: "default"}, // as the HTTPRoute is named
		Spec: mesh.GRPCRouteSpec{ParentRefs: []mesh.ParentRef{{Name: "ingress"}}, Rules: []mesh.GRPCRouteRule{
			to("service", method("", "shop.Cart", "")), added, to("method", method("", "", "Health")),
			to("pattern", method(mesh.MatchRegularExpression, `shop\.(A|B)`, "Get.*")), to("tagged", tagged),
		}},
	}}
	p := startProxy(t, Config{}, Deps{}, o)
	c := http2Client(t)
	for _, x := range []struct{ path, tag, want string }{
		{"/shop.Cart/Add", "", "exact HTTP/2.0 added ping"},
		{"/shop.Cart/Drop", "", "service HTTP/2.0  ping"},
		{"/shop.Cart/Drop", "yes", "tagged HTTP/2.0  ping"},
		{"/any.Thing/Health", "", "method HTTP/2.0  ping"},
		{"/shop.A/GetAll", "", "pattern HTTP/2.0  ping"},
		{"/shop.AB/GetAll", "", "web"},
		{"/shop.Carts/Add", "", "web"},
		{"/any.Thing/Healthy", "", "web"},
	} {
		req, _ := http.NewRequest("POST", p.url(x.path), bytes.NewReader([]byte("ping")))
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("TE", "trailers")
		if x.tag != "" {
			req.Header.Set("X-Tag", x.tag)
		}
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || string(body) != x.want {
			t.Errorf("%s: %q, %v, want %q", x.path, body, err, x.want)
		}
		if status := res.Trailer.Get("Grpc-Status"); x.want != "web" && status != "7" {
			t.Errorf("%s: status %q in the trailers", x.path, status)
		}
	}
	if problems := p.Problems(); len(problems) > 0 {
		t.Error(problems)
	}
}

// TestGRPCFailsAtOnce passes a head on that ends its stream, as gRPC servers answer a
// call that fails before it began, as such: clients take an empty piece of a body
// behind it for a broken answer.
func TestGRPCFailsAtOnce(t *testing.T) {
	b := http2Backend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", "12")
	})
	p := startProxy(t, Config{}, Deps{}, bothWays(b))
	c := dialHTTP2(t, p, http2.Limits{})
	id, _ := c.codec.Open()
	c.send(stream.Event{Kind: stream.Head, Stream: id, Head: &stream.Message{Method: []byte("POST"), Authority: []byte("x"), Path: []byte("/two"), Length: stream.LengthUnknown, TrailersOK: true}},
		stream.Event{Kind: stream.End, Stream: id})
	ev, ok := c.next()
	for ok && ev.Kind == stream.Window {
		ev, ok = c.next()
	}
	if !ok || ev.Kind != stream.Head || ev.Head.Status != 200 || !ev.Head.NoBody {
		t.Fatalf("answered by %+v %+v, want a head that ends the stream", ev, ev.Head)
	}
	if got := http1Get(t, p.url("/two")); !strings.Contains(got, "Grpc-Status: 12") || !strings.Contains(got, "Content-Length: 0") {
		t.Errorf("by HTTP/1.1: %q", got)
	}
}

func http1Get(t *testing.T, url string) string {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := httputil.DumpResponse(res, true)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
