package flows

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/scheduler/traffic"
)

func w(name string) mesh.Workload { return mesh.Workload{Namespace: "n", Name: name} }

func node(flows ...mesh.NodeFlow) *mesh.NodeTraffic {
	return &mesh.NodeTraffic{Site: "a", Node: "a-1", OverMS: 5000, Flows: flows}
}

func TestSiteSumsItsNodes(t *testing.T) {
	s := NewSite()
	now := time.Unix(1000, 0)
	if _, ok := s.Report(now); ok {
		t.Fatal("a site of which no node tells says something")
	}
	if err := s.Hear(now, node()); err != nil || s.Due(now, now) {
		t.Fatal("due with nothing to tell", err)
	}
	s = NewSite()
	// Two nodes, 10 requests a second each; half of one's go to another site.
	tell := func(seconds uint64) {
		f := mesh.NodeFlow{From: w("x"), To: w("y"), Requests: 10 * seconds, RequestBytes: 100 * seconds, ResponseBytes: 900 * seconds}
		half := mesh.NodeFlow{From: w("x"), To: w("y"), Requests: 5 * seconds, RequestBytes: 50 * seconds, ResponseBytes: 450 * seconds}
		away := half
		away.Away = true
		for _, n := range []*mesh.NodeTraffic{node(f), node(half, away)} {
			if err := s.Hear(now, n); err != nil {
				t.Fatal(err)
			}
		}
	}
	var r *mesh.TrafficReport
	for i := range 60 {
		// After a while one report is lost: what it would have said comes with the next.
		now = now.Add(Every)
		if i == 30 {
			continue
		}
		seconds := uint64(5)
		if i == 31 {
			seconds = 10
		}
		tell(seconds)
		if i < 2 && s.Due(now, now) != (i == 0) {
			t.Fatalf("%d: due at once is %v", i, i != 0)
		}
		var ok bool
		if r, ok = s.Report(now); !ok || len(r.Edges) != 1 {
			t.Fatalf("%d: %+v", i, r)
		}
		if e := r.Edges[0]; math.Abs(e.Recent.RequestsPerS-20) > 1e-6 || math.Abs(e.Steady.ResponseBytesPerS-1800) > 1e-6 || math.Abs(e.Across.RequestsPerS-5) > 1e-6 {
			t.Fatalf("%d: %+v", i, e)
		}
	}
	// Silence of the nodes is no end of the traffic.
	if _, ok := s.Report(now.Add(quietFor)); !ok {
		t.Error("silent too soon")
	}
	if _, ok := s.Report(now.Add(quietFor + Every)); ok {
		t.Error("a site without nodes goes on telling")
	}
	if err := s.Hear(now, node(mesh.NodeFlow{From: w("x")}, mesh.NodeFlow{From: w("x"), To: w("z"), Requests: 1})); err == nil || !strings.Contains(err.Error(), "a-1") {
		t.Errorf("a flow to nobody: %v", err)
	}
	if r, _ := s.Report(now.Add(Every)); len(r.Edges) != 2 {
		t.Errorf("a fault of one flow loses another: %+v", r.Edges)
	}
}

func TestReportFitsTheBus(t *testing.T) {
	s := NewSite()
	now := time.Unix(1000, 0)
	long := strings.Repeat("x", 58) // and a number: a DNS label
	total := 0.0
	for i := range 5000 {
		f := mesh.NodeFlow{From: w(fmt.Sprint(long, i%70)), To: w(fmt.Sprint(long, i)), Requests: 1, RequestBytes: uint64(i), ResponseBytes: 7}
		total += float64(i) + 7
		if err := s.Hear(now, node(f)); err != nil {
			t.Fatal(err)
		}
	}
	r, ok := s.Report(now)
	r.Site = "a"
	data, err := mesh.EncodeTrafficReport(r)
	if !ok || err != nil || len(data) > mesh.MaxMessageBytes {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	m := traffic.Matrix{Edges: r.Edges, Rest: r.Rest}
	if got := m.Total().BytesPerS() * Every.Seconds(); math.Abs(got-total) > 1 || len(r.Edges) == 0 || m.Check() != nil {
		t.Errorf("%d edges and %d rests with %.0f bytes, want %.0f", len(r.Edges), len(r.Rest), got, total)
	}
}
