package edgeproxy

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
)

// from is a client whose connections come from an address of the loopback network.
func from(t *testing.T, addr string) *http.Client {
	t.Helper()
	tr := &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}}).DialContext}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

func sendAs(t *testing.T, c *http.Client, url, body string, fields ...string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(fields); i += 2 {
		req.Header.Set(fields[i], fields[i+1])
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != 200 {
		t.Fatal(res.Status, err)
	}
}

// flows are what a proxy counted, by "FROM > TO", with "away" behind it where so.
func (p *proxy) flows() map[string]upstream.Sum {
	out := map[string]upstream.Sum{}
	for _, f := range p.Flows(nil) {
		k := fmt.Sprintf("%s > %s", f.From, f.To)
		if f.Away {
			k += " away"
		}
		s := out[k]
		s.Requests, s.RequestBytes, s.ResponseBytes = s.Requests+f.Requests, s.RequestBytes+f.RequestBytes, s.ResponseBytes+f.ResponseBytes
		out[k] = s
	}
	return out
}

// settled waits until the counts of a flow are there, which follow the last byte that
// a client reads, and compares bytes beyond bodies with what heads may take.
func (p *proxy) settled(flow string, requests uint64, sent, received int) {
	p.t.Helper()
	var got upstream.Sum
	for until := time.Now().Add(20 * time.Second); time.Now().Before(until); time.Sleep(time.Millisecond) {
		if got = p.flows()[flow]; got.Requests == requests && got.ResponseBytes >= uint64(received) {
			break
		}
	}
	heads := 700 * requests
	if got.Requests != requests || got.RequestBytes < uint64(sent) || got.RequestBytes > uint64(sent)+heads || got.ResponseBytes < uint64(received) || got.ResponseBytes > uint64(received)+heads {
		p.t.Errorf("%s: %+v, want %d requests, %d and %d bytes and a little for heads; all are %v", flow, got, requests, sent, received, p.flows())
	}
}

// sized answers a request with n bytes.
func sized(t *testing.T, n int) string {
	return backend(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write(bytes.Repeat([]byte("x"), n))
	})
}

func TestFlowsNameTheCaller(t *testing.T) {
	answers := sized(t, 5000)
	o := toOne(answers)
	o.Services[0].Spec.Endpoints[0].Workload = &mesh.Workload{Cluster: "east", Namespace: "shop", Name: "redis"}
	cart := service("cart", "127.9.0.1:1", "127.9.0.2:1")
	// Two workloads share an address: a name would be a guess.
	shared, alone := service("shared", "127.9.0.3:1"), service("alone", "127.9.0.3:2")
	o.Services = append(o.Services, cart, shared, alone)
	o.TrafficPolicies = []*mesh.TrafficPolicy{{
		Metadata: mesh.ObjectMeta{Name: "way", Namespace: "default"},
		Spec: mesh.TrafficPolicySpec{
			TargetRefs: []mesh.PolicyTargetRef{{Group: mesh.GatewayGroup, Kind: mesh.KindGateway, Name: "ingress"}},
			Forwarding: &mesh.Forwarding{TrustedNetworks: []string{"127.9.0.9/32"}},
		},
	}}
	p := startProxy(t, Config{}, Deps{}, o)
	body := strings.Repeat("b", 1000)
	kept := from(t, "127.9.0.1")
	for range 3 {
		sendAs(t, kept, p.url("/"), body)
	}
	sendAs(t, from(t, "127.9.0.2"), p.url("/"), body)
	sendAs(t, from(t, "127.9.0.3"), p.url("/"), body)
	sendAs(t, from(t, "127.9.0.4"), p.url("/"), body)
	// Behind a trusted proxy counts whom it speaks for, and nobody else's word does.
	sendAs(t, from(t, "127.9.0.9"), p.url("/"), body, "X-Forwarded-For", "127.9.0.2")
	sendAs(t, from(t, "127.9.0.4"), p.url("/"), body, "X-Forwarded-For", "127.9.0.2")
	p.settled("default/cart > east/shop/redis", 5, 5000, 25000)
	p.settled("external > east/shop/redis", 3, 3000, 15000)
	// The address of a kept connection is another workload's now.
	cart.Spec.Endpoints = cart.Spec.Endpoints[1:]
	o.Services = append(o.Services, service("web", "127.9.0.1:1"))
	p.apply(o)
	sendAs(t, kept, p.url("/"), body)
	p.settled("default/web > east/shop/redis", 1, 1000, 5000)
	if n := len(p.flows()); n != 3 {
		t.Errorf("flows: %v", p.flows())
	}
}

// Who serves nothing has its name from a Caller. An address that an endpoint of another
// workload has too is nobody's.
func TestFlowsNameWhoServesNothing(t *testing.T) {
	o := toOne(sized(t, 100))
	o.Services = append(o.Services, service("cart", "127.9.0.1:1"))
	o.Callers = []*mesh.Caller{
		{Metadata: mesh.ObjectMeta{Namespace: "shop", Name: "batch-a"}, Spec: mesh.CallerSpec{
			Workload: &mesh.Workload{Cluster: "east", Namespace: "shop", Name: "batch"}, Addresses: []string{"127.9.0.1", "127.9.0.2", "::ffff:127.9.0.3"}}},
		{Metadata: mesh.ObjectMeta{Namespace: "shop", Name: "cron"}, Spec: mesh.CallerSpec{Addresses: []string{"127.9.0.4"}}},
	}
	p := startProxy(t, Config{}, Deps{}, o)
	for i := range 5 {
		sendAs(t, from(t, fmt.Sprint("127.9.0.", i+1)), p.url("/"), "body")
	}
	p.settled("external > default/echo", 2, 8, 200)
	p.settled("east/shop/batch > default/echo", 2, 8, 200)
	p.settled("shop/cron > default/echo", 1, 4, 100)
	if n := len(p.flows()); n != 3 {
		t.Errorf("flows: %v", p.flows())
	}
}

func TestFlowsNameTheIdentity(t *testing.T) {
	a := newAuthority(t)
	a.issue("site", nil, "a.example.com")
	id, err := url.Parse("spiffe://other.example/site/s/ns/shop/sa/cart")
	if err != nil {
		t.Fatal(err)
	}
	named, plain := a.issue("client", func(c *x509.Certificate) { c.URIs = []*url.URL{id} }), a.issue("plain", nil)
	o := a.overTLS(sized(t, 1))
	o.Gateways[0].Spec.Listeners[0].TLS.FrontendValidation = &mesh.FrontendValidation{Mode: mesh.AllowMissing, CACertificateRefs: []mesh.CertificateRef{certificateRef("issuer")}}
	p := startProxy(t, Config{}, Deps{}, o)
	for _, pair := range []*tls.Certificate{&named, &plain} {
		c := a.config("a.example.com")
		c.Certificates = []tls.Certificate{*pair}
		s, err := p.session(c)
		if err != nil {
			t.Fatal(err)
		}
		if status, err := askTLS(s, "a.example.com"); status != 200 {
			t.Fatal(status, err)
		}
	}
	p.settled("shop/cart > default/echo", 1, 0, 1)
	p.settled("external > default/echo", 1, 0, 1)
}

// A request that another site serves is told of by the site where it was asked, once.
func TestFlowsAcrossSites(t *testing.T) {
	endpoints := map[string]string{"a": sized(t, 10), "b": sized(t, 2000)}
	b := startProxy(t, Config{Site: "b", Loops: 1}, Deps{Sharing: &decided{pick: upstream.Home}}, siteObjects(endpoints, nil))
	objects := siteObjects(endpoints, map[string]string{"b": b.addr("eastwest").String(), "c": refused(t)})
	cart := service("cart", "")
	cart.Spec.Endpoints = []mesh.Endpoint{{Address: "127.9.0.1:1", Site: "a"}, {Address: "127.9.0.2:1", Site: "b"}}
	objects.Services = append(objects.Services, cart)
	gate := &decided{pick: 0}
	a := startProxy(t, Config{Site: "a"}, Deps{Sharing: gate}, objects)
	sendAs(t, from(t, "127.9.0.1"), a.url("/"), "body")
	sendAs(t, from(t, "127.9.0.1"), a.url("/"), "body")
	sendAs(t, from(t, "127.9.0.2"), a.url("/"), "body") // the address of another site's endpoint may be another's here
	a.settled("default/cart > default/echo away", 2, 8, 4000)
	a.settled("external > default/echo away", 1, 4, 2000)
	if n := b.flows(); len(n) != 0 {
		t.Errorf("the serving site tells of them too: %v", n)
	}
	gate.mu.Lock()
	gate.pick = upstream.Home
	gate.mu.Unlock()
	sendAs(t, from(t, "127.9.0.1"), a.url("/"), "body")
	a.settled("default/cart > default/echo", 1, 4, 10)
}

func TestFlowsOfConnections(t *testing.T) {
	o := tcpTo(tcpBackend(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) }))
	o.Services = append(o.Services, service("cart", "127.9.0.1:1"))
	p := startProxy(t, Config{}, Deps{}, o)
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.9.0.1")}}
	c, err := d.DialContext(t.Context(), "tcp", p.addr("tcp").String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent := bytes.Repeat([]byte("x"), 300_000)
	go func() { _, _ = c.Write(sent) }()
	if _, err := io.ReadFull(c, make([]byte, len(sent))); err != nil {
		t.Fatal(err)
	}
	// While the connection is open, not when it ends.
	p.settled("default/cart > default/echo", 1, len(sent), len(sent))

	o = udpTo(udpBackend(t, func(_ *net.UDPAddr, p []byte) []byte { return append(p, p...) }))
	o.Services = append(o.Services, service("cart", "127.9.0.1:1"))
	u := startProxy(t, Config{}, Deps{}, o)
	var at net.Addr
	for _, l := range u.Listeners() {
		at = net.UDPAddrFromAddrPort(l.Addr)
	}
	packets, err := (&net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP("127.9.0.1")}}).DialContext(t.Context(), "udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	if _, err := packets.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if n, err := packets.Read(make([]byte, 1000)); n != 200 {
		t.Fatal(n, err)
	}
	u.settled("default/cart > default/echo", 1, 100, 200)
}

// What could not be sent is told of in the next report, and nothing twice.
func TestTrafficReports(t *testing.T) {
	o := toOne(sized(t, 100))
	o.Services = append(o.Services, service("cart", "127.9.0.1:1"))
	p := startProxy(t, Config{}, Deps{}, o)
	var got []mesh.NodeFlow
	fault := errors.New("no connection")
	told := NewTraffic(TrafficConfig{Site: "a", Node: "a-1", Log: slog.New(slog.DiscardHandler), Publish: func(r *mesh.NodeTraffic) error {
		got = r.Flows
		if data, err := mesh.EncodeNodeTraffic(r); err != nil || len(data) > mesh.MaxMessageBytes || len(r.Flows) > mesh.MaxNodeFlows {
			t.Errorf("%d flows in %d bytes: %v", len(r.Flows), len(data), err)
		}
		return fault
	}})
	says := func(requests ...uint64) {
		t.Helper()
		told.report(p.Server, time.Now())
		var n []uint64
		for _, f := range got {
			if f.From != (mesh.Workload{Namespace: "default", Name: "cart"}) || f.RequestBytes == 0 || f.ResponseBytes == 0 {
				t.Errorf("told %+v", f)
			}
			n = append(n, f.Requests)
		}
		if fmt.Sprint(n) != fmt.Sprint(requests) {
			t.Errorf("told of %v requests, want %v", n, requests)
		}
	}
	c := from(t, "127.9.0.1")
	says()
	for range 3 {
		sendAs(t, c, p.url("/"), "body")
	}
	p.settled("default/cart > default/echo", 3, 12, 300)
	says(3)
	sendAs(t, c, p.url("/"), "body")
	p.settled("default/cart > default/echo", 4, 16, 400)
	says(4)
	fault = nil
	says(4)
	says()
	sendAs(t, c, p.url("/"), "body")
	p.settled("default/cart > default/echo", 5, 20, 500)
	says(1)
}

// However many pairs there are, a report stays small and tells of all bytes.
func TestTrafficReportIsBounded(t *testing.T) {
	told := NewTraffic(TrafficConfig{Site: "a", Node: "a-1"})
	var flows []Flow
	var want upstream.Sum
	e := new(upstream.Endpoint)
	for i := range 5000 {
		w := func(kind string, n int) mesh.Workload {
			return mesh.Workload{Namespace: "a-namespace-with-a-long-name", Name: fmt.Sprintf("%s-%d", kind, n)}
		}
		s := upstream.Sum{Requests: 1, RequestBytes: uint64(i), ResponseBytes: 2}
		want.Requests, want.RequestBytes, want.ResponseBytes = want.Requests+s.Requests, want.RequestBytes+s.RequestBytes, want.ResponseBytes+s.ResponseBytes
		flows = append(flows, Flow{From: w("from", i%100), To: w("to", i), Sum: s, Away: i%2 == 0, key: flowKey{e, i, 0}})
	}
	r := told.fresh(flows)
	var got upstream.Sum
	for _, f := range r.Flows {
		got.Requests, got.RequestBytes, got.ResponseBytes = got.Requests+f.Requests, got.RequestBytes+f.RequestBytes, got.ResponseBytes+f.ResponseBytes
	}
	if len(r.Flows) > mesh.MaxNodeFlows || len(r.Flows) < mesh.MaxNodeFlows/2 || got != want {
		t.Errorf("%d flows with %+v, want at most %d with %+v", len(r.Flows), got, mesh.MaxNodeFlows, want)
	}
	if data, err := mesh.EncodeNodeTraffic(r); err != nil || len(data) > mesh.MaxMessageBytes/2 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if f := r.Flows[0]; f.To.Name != "to-4999" {
		t.Errorf("the heaviest is %+v", f)
	}
}

func TestCallersAreBounded(t *testing.T) {
	r := upstream.NewRegistry(1)
	first := r.NewCaller(mesh.Workload{Namespace: "n", Name: "0"})
	for i := range 2 * upstream.MaxCallers {
		r.NewCaller(mesh.Workload{Namespace: "n", Name: fmt.Sprint(i)}).Index()
	}
	late := r.NewCaller(mesh.Workload{Namespace: "n", Name: "late"})
	if names := r.CallerNames(); len(names) != upstream.MaxCallers || names[late.Index()].Workload != mesh.Others || names[first.Index()].Name != "0" || names[(*upstream.Caller)(nil).Index()].Workload != mesh.External {
		t.Errorf("%d names, the last is %s", len(names), names[late.Index()])
	}
	cell := new(upstream.EndpointCell)
	for i := range upstream.MaxCallers {
		cell.Flow(i).Requests.Add(1)
	}
	if n := cell.Flow(late.Index()).Requests.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// More callers come and go than there are places: the places of those that are silent for
// an hour are given again, counts begin anew there, and nobody gets another's.
func TestCallersAreReclaimed(t *testing.T) {
	o := toOne(sized(t, 100))
	o.Services = append(o.Services, service("cart", "127.9.0.1:1"), service("late", "127.9.0.2:1"))
	p := startProxy(t, Config{}, Deps{}, o)
	got := map[string]uint64{}
	told := NewTraffic(TrafficConfig{Site: "a", Node: "a-1", Log: slog.New(slog.DiscardHandler), Publish: func(r *mesh.NodeTraffic) error {
		for _, f := range r.Flows {
			got[f.From.Name] += f.Requests
		}
		return nil
	}})
	// Certificates of many accounts take what places there are, once each.
	now := time.Now()
	others := func() {
		for i := range upstream.MaxCallers {
			p.registry.Caller(mesh.Workload{Namespace: "n", Name: fmt.Sprint("job-", i)})
		}
	}
	cart, late := from(t, "127.9.0.1"), from(t, "127.9.0.2")
	sendAs(t, cart, p.url("/"), "body")
	p.settled("default/cart > default/echo", 1, 4, 100)
	others()
	told.report(p.Server, now)
	sendAs(t, late, p.url("/"), "body")
	p.settled("others > default/echo", 1, 4, 100)
	told.report(p.Server, now.Add(callerMemory/2))
	// cart goes on, on the same connection; the others and late's place among them rest.
	sendAs(t, cart, p.url("/"), "body")
	p.settled("default/cart > default/echo", 2, 8, 200)
	told.report(p.Server, now.Add(callerMemory))
	for i := range 2 {
		told.report(p.Server, now.Add(callerMemory+time.Duration(i+1)*time.Second))
	}
	sendAs(t, late, p.url("/"), "body")
	p.settled("default/late > default/echo", 1, 4, 100)
	sendAs(t, cart, p.url("/"), "body")
	p.settled("default/cart > default/echo", 3, 12, 300)
	told.report(p.Server, now.Add(callerMemory+3*time.Second))
	// All are silent; once places are short cart's is taken too, though its connection stays.
	others()
	for i := range 3 {
		told.report(p.Server, now.Add(3*callerMemory+time.Duration(i)*time.Second))
	}
	others()
	sendAs(t, cart, p.url("/"), "body")
	p.settled("others > default/echo", 2, 8, 200)
	told.report(p.Server, now.Add(3*callerMemory+4*time.Second))
	want := map[string]uint64{"cart": 3, "late": 1, "others": 2}
	if !maps.Equal(got, want) {
		t.Errorf("told of %v requests, want %v", got, want)
	}
}
