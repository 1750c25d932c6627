package edgeproxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// TestForwarding sends what a client says of its way from a trusted peer and from
// another one.
func TestForwarding(t *testing.T) {
	names := []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "Forwarded", "Via"}
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		for _, n := range names {
			fmt.Fprintf(w, "%s: %s\n", n, strings.Join(r.Header[http.CanonicalHeaderKey(n)], " | "))
		}
	})
	o := toOne(b)
	o.HTTPRoutes[0].Spec.Hostnames = nil
	p := startProxy(t, Config{}, Deps{}, o)
	policy := func(f *mesh.Forwarding) {
		o.TrafficPolicies = []*mesh.TrafficPolicy{{
			Metadata: mesh.ObjectMeta{Name: "way", Namespace: "default"},
			Spec: mesh.TrafficPolicySpec{
				TargetRefs: []mesh.PolicyTargetRef{{Group: mesh.GatewayGroup, Kind: mesh.KindGateway, Name: "ingress", SectionName: "http"}},
				Forwarding: f,
			},
		}}
		p.apply(o)
	}
	port := func() string { return fmt.Sprint(p.addr("http").Port()) }
	ask := func(fields ...string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", p.url("/"), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "shop:81"
		for i := 0; i < len(fields); i += 2 {
			req.Header.Add(fields[i], fields[i+1])
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(body)
	}
	says := func(values ...string) string {
		var s strings.Builder
		for i, n := range names {
			fmt.Fprintf(&s, "%s: %s\n", n, values[i])
		}
		return s.String()
	}
	claims := []string{
		"X-Forwarded-For", "192.0.2.1", "X-Forwarded-For", "192.0.2.2", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "h",
		"X-Forwarded-Port", "443", "Forwarded", "for=192.0.2.1", "Via", "1.0 fred",
	}
	for _, tt := range []struct {
		name   string
		policy *mesh.Forwarding
		fields []string
		want   string
	}{
		{"nothing said", nil, nil, says("127.0.0.1", "http", "shop:81", port(), "", "1.1 meridian")},
		{"not believed", nil, claims, says("192.0.2.1, 192.0.2.2, 127.0.0.1", "http", "shop:81", port(), "", "1.0 fred | 1.1 meridian")},
		{"believed", &mesh.Forwarding{TrustedNetworks: []string{"10.0.0.0/8", "127.0.0.0/8"}, Via: "edge-7"}, claims,
			says("192.0.2.1, 192.0.2.2, 127.0.0.1", "https", "h", "443", "for=192.0.2.1", "1.0 fred | 1.1 edge-7")},
		{"Forwarded", &mesh.Forwarding{TrustedNetworks: []string{"10.0.0.0/8"}, Forwarded: true}, claims,
			says("192.0.2.1, 192.0.2.2, 127.0.0.1", "http", "shop:81", port(), `for=127.0.0.1;host="shop:81";proto=http`, "1.0 fred | 1.1 meridian")},
		{"Forwarded of a trusted peer", &mesh.Forwarding{TrustedNetworks: []string{"127.0.0.1/32"}, Forwarded: true}, claims,
			says("192.0.2.1, 192.0.2.2, 127.0.0.1", "https", "h", "443", `for=192.0.2.1 | for=127.0.0.1;host="shop:81";proto=http`, "1.0 fred | 1.1 meridian")},
	} {
		policy(tt.policy)
		if status, got := ask(tt.fields...); status != 200 || got != tt.want {
			t.Errorf("%s: %d\n%swant\n%s", tt.name, status, got, tt.want)
		}
	}
	policy(&mesh.Forwarding{Via: "edge-7"})
	for visits, want := range map[int]int{7: 200, 8: 508} {
		if status, body := ask("Via", strings.Repeat("1.1 Edge-7 (x), ", visits)+"1.1 meridian"); status != want {
			t.Errorf("%d visits: %d %q, want %d", visits, status, body, want)
		}
	}
}
