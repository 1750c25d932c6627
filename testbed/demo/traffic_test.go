package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/testbed/report"
	"github.com/meridian-mesh/meridian/testbed/topo"
)

// shopService is a service of one endpoint, which answers with so many bytes.
func shopService(t *testing.T, name, site, address string, answer int) (*mesh.MeshService, *mesh.HTTPRoute) {
	t.Helper()
	l, err := net.Listen("tcp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	body := bytes.Repeat([]byte("x"), answer)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write(body)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	svc := &mesh.MeshService{
		TypeMeta: mesh.TypeMeta{APIVersion: mesh.MeshAPIVersion, Kind: mesh.KindMeshService},
		Metadata: mesh.ObjectMeta{Name: name, Namespace: mesh.DefaultNamespace},
		Spec: mesh.MeshServiceSpec{
			Ports:     []mesh.ServicePort{{Port: servicePort}},
			Endpoints: []mesh.Endpoint{{Address: l.Addr().String(), Site: site, Capacity: &mesh.Capacity{Concurrency: 100, ServiceTime: mesh.Duration(time.Millisecond)}}},
			Export:    &mesh.Export{Scope: mesh.ScopeMesh},
		},
	}
	route := &mesh.HTTPRoute{
		TypeMeta: mesh.TypeMeta{APIVersion: mesh.GatewayAPIVersion, Kind: mesh.KindHTTPRoute},
		Metadata: mesh.ObjectMeta{Name: name, Namespace: mesh.DefaultNamespace},
		Spec: mesh.HTTPRouteSpec{
			ParentRefs: []mesh.ParentRef{{Name: gatewayName, Namespace: mesh.DefaultNamespace}},
			Hostnames:  []string{name + ".demo"},
			Rules: []mesh.HTTPRouteRule{{BackendRefs: []mesh.BackendRef{
				{Group: mesh.MeshGroup, Kind: mesh.KindMeshService, Name: name, Port: servicePort},
			}}},
		},
	}
	return svc, route
}

// caller asks services through its site's proxy, from the address of its own endpoint.
type caller struct {
	client *http.Client
	proxy  netip.AddrPort
}

func (c *caller) ask(ctx context.Context, service string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.proxy.String()+"/", strings.NewReader("what is there?"))
	if err != nil {
		return err
	}
	req.Host = service + ".demo"
	res, err := c.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", service, res.Status)
	}
	return nil
}

// Real proxies see who talks to whom, their sites' controllers tell each other, and
// the hub's answer names the pair that talks most across sites.
func TestProxiesSeeWhoTalksToWhom(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a mesh of processes")
	}
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { noneLeft(t, dir) })
	bin, err := find(dir)
	if err != nil {
		t.Fatal(err)
	}
	d := &demo{Options: Options{Topology: topo.Default(1).First(2), Seed: 1}, programs: bin, dir: t.TempDir()}
	d.View = NewView(io.Discard, nil, false)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Minute, errors.New("the test took too long"))
	defer cancel()
	ctx, d.fail = context.WithCancelCause(ctx)
	stop, err := d.startLoops()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	c, err := d.start(ctx, 0, report.None)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { c.close(); c.family.close() }()

	// A shop: web and cart at one site, redis at the other, stock beside cart.
	here, there := d.Topology.Sites[0].Name, d.Topology.Sites[1].Name
	var o mesh.Objects
	for _, x := range []struct {
		name, site, address string
		answer              int
	}{{"web", here, "127.81.0.1", 10}, {"cart", here, "127.81.0.2", 100}, {"stock", here, "127.81.0.3", 60_000}, {"redis", there, "127.81.0.4", 20_000}, {"users", there, "127.81.0.5", 2000}} {
		svc, route := shopService(t, x.name, x.site, x.address, x.answer)
		o.Services, o.HTTPRoutes = append(o.Services, svc), append(o.HTTPRoutes, route)
	}
	if err := c.apply(ctx, "shop.yaml", &o); err != nil {
		t.Fatal(err)
	}
	proxy, err := c.proxies[0].listener(usersName)
	if err != nil {
		t.Fatal(err)
	}
	callers := map[string]*caller{}
	for name, address := range map[string]string{"web": "127.81.0.1", "cart": "127.81.0.2"} {
		tr := &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).DialContext}
		t.Cleanup(tr.CloseIdleConnections)
		callers[name] = &caller{&http.Client{Transport: tr, Timeout: 20 * time.Second}, proxy}
	}
	// redis answers cart with most of what crosses; stock answers with more, at home.
	for _, call := range []struct {
		from, to string
		times    int
	}{{"cart", "redis", 20}, {"cart", "stock", 20}, {"web", "cart", 30}, {"web", "users", 20}} {
		// A site of which no report has come yet gets nothing in the first moments.
		for range call.times {
			if err := within(ctx, startLimit, call.to+" to answer "+call.from, func() error { return callers[call.from].ask(ctx, call.to) }); err != nil {
				t.Fatal(err)
			}
		}
	}
	// As a user asks: no file, any site's controller.
	rows := regexp.MustCompile(`(?m)^(default/\S+) +(default/\S+) +.* +100%$`)
	advise := func(server string) (pairs []string, said string) {
		cmd := exec.CommandContext(ctx, filepath.Join(dir, "meridian"), "--server", server, "placement", "advise")
		out, err := cmd.CombinedOutput()
		if err != nil {
			return nil, fmt.Sprintf("%v: %s", err, out)
		}
		for _, m := range rows.FindAllStringSubmatch(string(out), -1) {
			pairs = append(pairs, m[1]+" "+m[2])
		}
		return pairs, string(out)
	}
	want := "[default/cart default/redis default/web default/users]"
	for _, run := range c.plane.runs {
		if err := within(ctx, startLimit, "advice at "+run.Site, func() error {
			if pairs, said := advise(run.API); fmt.Sprint(pairs) != want {
				return fmt.Errorf("want %s in:\n%s", want, said)
			} else {
				t.Logf("at %s:\n%s", run.Site, said)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}

	// The same for a program, and for Prometheus.
	api, err := siteapi.Dial(c.plane.runs[1].API)
	if err != nil {
		t.Fatal(err)
	}
	seen, err := api.Traffic(ctx)
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(seen.Edges, func(e mesh.TrafficEdge) bool { return e.From.Name == "cart" && e.To.Name == "stock" })
	if at < 0 || seen.Edges[at].Across != (mesh.TrafficRates{}) || seen.Edges[at].Recent.ResponseBytesPerS < 1000 {
		t.Errorf("cart and stock, which share a site: %+v", seen.Edges)
	}
	// The relays delay what crosses by the topology's round trip.
	i, j := slices.Index(seen.Delays.Sites, here), slices.Index(seen.Delays.Sites, there)
	if real := d.Topology.RTT(0, 1).Seconds() * 1e3; i < 0 || j < 0 || seen.Delays.OneWayMS[i][j] < 0.3*real || seen.Delays.OneWayMS[i][j] > 10*real {
		t.Errorf("delays %+v, a round trip takes %.1f ms", seen.Delays, real)
	}
	res, err := c.client.Get(c.plane.runs[0].API + siteapi.PathFlows + "?format=prometheus")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if line := `meridian_traffic_across_sites_bytes_per_second{source_cluster="",source_namespace="default",source="cart",destination_cluster="",destination_namespace="default",destination="redis"} `; err != nil || !strings.Contains(string(text), line) {
		t.Errorf("no %s in\n%s", line, text)
	}
}
