package traffic

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Lines as the meshes write them, with some of the labels that do not matter.
const (
	istioText = `# HELP istio_requests_total requests
# TYPE istio_requests_total counter
istio_requests_total{reporter="source",source_workload="web",source_workload_namespace="shop",source_cluster="east",destination_workload="cart",destination_workload_namespace="shop",destination_cluster="west",response_code="200",pod="web-1"} %d
istio_requests_total{reporter="destination",source_workload="web",source_workload_namespace="shop",source_cluster="east",destination_workload="cart",destination_workload_namespace="shop",destination_cluster="west",response_code="200",pod="cart-1"} %d
istio_request_bytes_sum{reporter="source",source_workload="web",source_workload_namespace="shop",source_cluster="east",destination_workload="cart",destination_workload_namespace="shop",destination_cluster="west",pod="web-1"} %d
istio_response_bytes_sum{reporter="source",source_workload="web",source_workload_namespace="shop",source_cluster="east",destination_workload="cart",destination_workload_namespace="shop",destination_cluster="west",pod="web-1"} %d 1395066363000
istio_request_bytes_bucket{reporter="source",le="+Inf"} 3
istio_requests_total{reporter="source",source_workload="unknown",source_workload_namespace="unknown",destination_workload="cart",destination_workload_namespace="shop"} 9
`
	linkerdText = `request_total{direction="outbound",namespace="shop",deployment="web",pod="web-1",dst_namespace="shop",dst_statefulset="cart",tls="true"} %d
request_total{direction="inbound",namespace="shop",statefulset="cart"} %d
tcp_write_bytes_total{direction="outbound",peer="dst",namespace="shop",deployment="web",dst_namespace="shop",dst_statefulset="cart"} %d
tcp_read_bytes_total{direction="outbound",peer="dst",namespace="shop",deployment="web",dst_namespace="shop",dst_statefulset="cart"} %d
tcp_read_bytes_total{direction="outbound",peer="src",namespace="shop",deployment="web"} 99999
`
	hubbleText = `hubble_http_requests_total{method="GET",protocol="HTTP/1.1",reporter="server",source_namespace="shop",source_workload="web",destination_namespace="shop",destination_workload="cart",status="200"} %d
hubble_http_requests_total{method="GET",protocol="HTTP/1.1",reporter="client",source_namespace="shop",source_workload="web",destination_namespace="shop",destination_workload="cart",status="200"} %d
`
)

func TestImport(t *testing.T) {
	for _, c := range []struct {
		dialect          Dialect
		text             func(step int) string
		from, to         mesh.Workload
		rate, in, answer float64
		skipped          int
	}{
		{Istio, func(n int) string { return fmt.Sprintf(istioText, 100*n, 100*n, 1000*n, 9000*n) },
			mesh.Workload{Cluster: "east", Namespace: "shop", Name: "web"}, mesh.Workload{Cluster: "west", Namespace: "shop", Name: "cart"}, 10, 100, 900, 1},
		{Linkerd, func(n int) string { return fmt.Sprintf(linkerdText, 100*n, 100*n, 1000*n, 9000*n) },
			mesh.Workload{Cluster: "mine", Namespace: "shop", Name: "web"}, mesh.Workload{Cluster: "mine", Namespace: "shop", Name: "cart"}, 10, 100, 900, 0},
		{Hubble, func(n int) string { return fmt.Sprintf(hubbleText, 100*n, 60*n) },
			mesh.Workload{Cluster: "mine", Namespace: "shop", Name: "web"}, mesh.Workload{Cluster: "mine", Namespace: "shop", Name: "cart"}, 10, 5120, 5120, 0},
	} {
		t.Run(string(c.dialect), func(t *testing.T) {
			i, err := NewImporter(ImportOptions{Dialect: c.dialect, Cluster: "mine"})
			if err != nil {
				t.Fatal(err)
			}
			m := NewMeter(100)
			for n := 5; n < 8; n++ {
				got, err := i.Scrape(strings.NewReader(c.text(n)), time.Duration(n)*10*time.Second, m)
				if err != nil {
					t.Fatal(err)
				}
				if got.First != (n == 5) || got.Skipped != c.skipped {
					t.Errorf("scrape %d: %+v", n, got)
				}
			}
			// A restart: counters fall, and count from 0.
			if _, err := i.Scrape(strings.NewReader(c.text(1)), 80*time.Second, m); err != nil {
				t.Fatal(err)
			}
			x := m.Matrix(10)
			if len(x.Edges) != 1 {
				t.Fatalf("edges %+v", x.Edges)
			}
			e := x.Edges[0]
			if e.From != c.from || e.To != c.to || !near(e.Recent.RequestsPerS, c.rate) ||
				!near(e.Recent.RequestBytesPerS, c.in) || !near(e.Recent.ResponseBytesPerS, c.answer) {
				t.Errorf("got %+v, want %v to %v, %v/s, %v and %v B/s", e, c.from, c.to, c.rate, c.in, c.answer)
			}
		})
	}
}

func TestImportRefuses(t *testing.T) {
	i, err := NewImporter(ImportOptions{Dialect: Istio})
	if err != nil {
		t.Fatal(err)
	}
	m := NewMeter(10)
	for text, want := range map[string]string{
		"\n" + `istio_requests_total{reporter="source"} much`: "line 2 (istio_requests_total)",
		`istio_requests_total{reporter="source"} NaN`:         "finite",
		`istio_requests_total{reporter="source"} -3`:          "not negative",
		`istio_requests_total{reporter="source} 3`:            "does not end",
		`istio_requests_total{reporter=source} 3`:             "not quoted",
		`istio_requests_total{reporter="source"}`:             "want a value",
		`<html>`: "",
		`{}`:     "not a metric",
	} {
		_, err := i.Scrape(strings.NewReader(text), time.Second, m)
		if want == "" {
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := NewImporter(ImportOptions{Dialect: "consul"}); err == nil {
		t.Error("an unknown dialect is taken")
	}
}

func FuzzSamples(f *testing.F) {
	f.Add(istioText)
	f.Add(`a{b="\\\"\n",} 1 2`)
	f.Add("a 1\nb{ 2")
	f.Fuzz(func(t *testing.T, text string) {
		_ = readSamples(strings.NewReader(text), func(string) bool { return true }, func(s sample) error {
			if s.name == "" {
				t.Error("a sample without a name")
			}
			return nil
		})
	})
}

func TestDelays(t *testing.T) {
	sites := map[string]string{"n1": "a", "n2": "a", "n3": "b", "n4": "elsewhere", "n5": ""}
	nodes := []string{"n1", "n2", "n3", "n4", "n5"}
	d, err := NewDelays(nodes, func(n string) string { return sites[n] }, []string{"a", "b", "c"},
		[][]float64{{0.5, 10, -1}, {20, 1, 3}, {4, 5, 0}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		i, j int
		want float64
	}{{0, 0, 0}, {0, 1, 0.5}, {0, 2, 10}, {2, 0, 20}, {0, 3, 20}, {3, 4, 20}, {4, 4, 0}} {
		if got := d.MS(c.i, c.j); got != c.want {
			t.Errorf("from %s to %s: %v ms, want %v", nodes[c.i], nodes[c.j], got, c.want)
		}
	}
	if d.Unknown() == 0 || d.MaxMS() != 20 {
		t.Errorf("%d unknown, far %v", d.Unknown(), d.MaxMS())
	}
	for text, want := range map[string]string{
		"0,1\n2":             "record on line 2",
		"0,1\n2,x":           "row 2, column 2",
		"0,NaN\n2,0":         "from node-1 to node-2: NaN ms",
		"0,1e9\n2,0":         "1e+09 ms",
		",a,b\na,0,1\n":      `column "b" has no row`,
		",a,a\na,0,1\na,1,0": "twice",
	} {
		if _, err := ReadDelaysCSV(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	d, err = ReadDelaysCSV(strings.NewReader(",b,a\na,7,0\nb,0,9\n"))
	if err != nil {
		t.Fatal(err)
	}
	a, _ := d.Node("a")
	b, _ := d.Node("b")
	if d.MS(a, b) != 7 || d.MS(b, a) != 9 {
		t.Errorf("a to b %v, b to a %v: rows and columns are mixed up", d.MS(a, b), d.MS(b, a))
	}
}
