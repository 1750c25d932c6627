package export

import (
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"
)

func TestIntegers(t *testing.T) {
	for _, c := range []struct {
		parts []float64
		total int
		want  []int
	}{
		{[]float64{0.5, 0.5}, 1000, []int{500, 500}},
		{[]float64{1, 1, 1}, 100, []int{34, 33, 33}},
		{[]float64{0, 0}, 10, []int{0, 0}},
		{[]float64{math.NaN(), -1, 2, math.Inf(1)}, 10, []int{0, 0, 10, 0}},
		{nil, 10, []int{}},
	} {
		if got := Integers(c.parts, c.total); !slices.Equal(got, c.want) {
			t.Errorf("Integers(%v, %d) = %v, want %v", c.parts, c.total, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOfN(rapid.Float64Range(0, 1), 1, 40).Draw(t, "parts")
		total := rapid.IntRange(1, 2000).Draw(t, "total")
		sum, got := 0.0, 0
		out := Integers(parts, total)
		for i := range parts {
			sum += parts[i]
			got += out[i]
		}
		if sum == 0 {
			return
		}
		if got != total {
			t.Fatalf("%v adds up to %d, want %d", out, got, total)
		}
		for i := range parts {
			if exact := parts[i] / sum * float64(total); math.Abs(exact-float64(out[i])) > 1+1e-9 {
				t.Fatalf("part %d is %d, exactly %g", i, out[i], exact)
			}
		}
	})
}

func shop(home, away float64) Service {
	return Service{Key: "default/shop", Port: 80, Shares: []Share{
		{"melbourne", home, []Address{{"10.1.0.11", 9000}, {"10.1.0.12", 9000}}},
		{"geelong", away, []Address{{"10.2.0.1", 15443}}},
	}}
}

func TestEnvoyEDS(t *testing.T) {
	data, err := EnvoyEDS([]Service{shop(0.75, 0.25), {Key: "default/gone", Shares: []Share{{Site: "melbourne"}}}}, "v7")
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Version   string `json:"version_info"`
		Resources []struct {
			Type      string `json:"@type"`
			Cluster   string `json:"cluster_name"`
			Endpoints []struct {
				Locality  struct{ Zone string }
				Weight    int `json:"load_balancing_weight"`
				Endpoints []struct {
					Endpoint struct {
						Address struct {
							Socket struct {
								Address string
								Port    int `json:"port_value"`
							} `json:"socket_address"`
						}
					}
				} `json:"lb_endpoints"`
			}
		}
	}
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if got.Version != "v7" || len(got.Resources) != 2 || got.Resources[0].Cluster != "default.shop" ||
		got.Resources[0].Type != "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment" {
		t.Fatalf("%+v", got)
	}
	e := got.Resources[0].Endpoints
	if len(e) != 2 || e[0].Locality.Zone != "melbourne" || e[0].Weight != 750 || len(e[0].Endpoints) != 2 || e[1].Weight != 250 ||
		e[1].Endpoints[0].Endpoint.Address.Socket.Address != "10.2.0.1" || e[1].Endpoints[0].Endpoint.Address.Socket.Port != 15443 {
		t.Errorf("%+v", e)
	}
	if len(got.Resources[1].Endpoints) != 0 {
		t.Errorf("a site without a part has endpoints: %+v", got.Resources[1])
	}
}

func TestGatewayRoutes(t *testing.T) {
	doc := GatewayRoutes([]Service{shop(0.75, 0.25)}, "ingress")
	if want := "    - {name: shop-melbourne, port: 80, weight: 750}\n    - {name: shop-geelong, port: 80, weight: 250}\n"; !strings.Contains(string(doc), want) {
		t.Errorf("%s", doc)
	}
	var route struct {
		Kind     string
		Metadata struct{ Name, Namespace string }
		Spec     struct {
			ParentRefs []struct{ Name string }
			Rules      []struct {
				BackendRefs []struct {
					Name         string
					Port, Weight int
				}
			}
		}
	}
	_, body, _ := strings.Cut(string(doc), "---\n")
	if err := yaml.Unmarshal([]byte(body), &route); err != nil || route.Kind != "HTTPRoute" || route.Metadata.Name != "shop-sites" ||
		route.Metadata.Namespace != "default" || route.Spec.ParentRefs[0].Name != "ingress" || route.Spec.Rules[0].BackendRefs[1].Weight != 250 {
		t.Errorf("%v %+v", err, route)
	}
}

const stat = `# pxname,svname,qcur,qmax,scur,smax,slim,stot,status,weight,
shop,melbourne-1,1,2,3,4,,1000,UP,256,
shop,melbourne-2,0,2,2,4,,500,UP 1/2,256,
shop,geelong,0,0,1,4,,100,no check,0,
shop,melbourne-east,0,0,0,0,,7,DOWN,1,
shop_from_geelong,melbourne-1,0,0,4,4,,50,UP,1,
other,melbourne-1,9,9,9,9,,9,UP,9,
`

func TestHAProxy(t *testing.T) {
	h, err := ParseHAProxy("socket=/run/haproxy.sock,service=shop,backend=shop,from.geelong=shop_from_geelong")
	if err != nil || h.Service != "default/shop" {
		t.Fatalf("%+v, %v", h, err)
	}
	servers, err := h.parse(stat)
	if err != nil || len(servers) != 5 {
		t.Fatalf("%+v, %v", servers, err)
	}
	// Two servers of melbourne are up: each has half of its part.
	if got, want := h.Commands(servers, shop(0.8, 0.2)), []string{
		"set weight shop/geelong 128", "set weight shop/melbourne-east 256",
	}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
	if got := h.Commands(servers, shop(0, 0)); got != nil {
		t.Errorf("nobody has a part: %q", got)
	}
	// A site's name may begin with another's.
	x := shop(0.5, 0.5)
	x.Shares = append(x.Shares, Share{Site: "melbourne-east", Part: 0})
	if got := h.Commands(servers, x); !slices.Contains(got, "set weight shop/melbourne-east 0") {
		t.Errorf("%q", got)
	}

	m := NewMeter(h, "melbourne")
	capacity := mesh.ServiceReport{Service: "default/shop", Slots: 8, ServiceTimeMS: 20}
	at := time.Unix(1, 0)
	sites := []string{"melbourne", "geelong"}
	read := func() mesh.NodeServiceReport {
		r, err := m.Read(at, "shop", servers, sites, capacity)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := read(); r.InFlight != 10 || r.Arrivals != 0 || r.Demand != 0 || r.Slots != 8 {
		t.Errorf("first reading: %+v", r)
	}
	for range 100 {
		at = at.Add(100 * time.Millisecond)
		for i, n := range []uint64{20, 10, 10, 0, 5} {
			servers[i].Total += n
		}
		read()
	}
	r := read()
	near := func(got, want float64) bool { return math.Abs(got-want) < 0.01*want }
	if !near(r.Demand, 400) || !near(r.Arrivals, 350) || !near(r.From["geelong"], 50) || r.Spillers != 1 {
		t.Errorf("%+v", r)
	}
	// A HAProxy that was started anew counts from zero: no rate of 2^64.
	at = at.Add(100 * time.Millisecond)
	for i := range servers {
		servers[i].Total = 0
	}
	if r := read(); r.Demand > 400 {
		t.Errorf("after a restart: %+v", r)
	}
	if _, err := m.Read(at, "shop", servers, sites, mesh.ServiceReport{}); err == nil || !strings.Contains(err.Error(), "declare no capacity") {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{"", "socket", "socket=/x,service=a", "socket=/x,service=a,backend=b,more=c", "socket=/x,service=a,backend=b;shutdown", "socket=/x,service=a,backend=b,from.=c"} {
		if _, err := ParseHAProxy(bad); err == nil {
			t.Errorf("taken: %q", bad)
		}
	}
	for _, bad := range []string{"", "Unknown command\n", "# pxname,svname\n", "# pxname,svname,status,weight,scur,qcur,stot\n"} {
		if _, err := h.parse(bad); err == nil {
			t.Errorf("taken: %q", bad)
		}
	}
}
