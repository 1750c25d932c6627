package flows

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
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

func report(site string, epoch, seq uint64, rps float64) *mesh.TrafficReport {
	r := mesh.TrafficRates{RequestsPerS: rps, RequestBytesPerS: rps / 3, ResponseBytesPerS: rps / 7}
	return &mesh.TrafficReport{Site: site, Epoch: epoch, Seq: seq, Edges: []mesh.TrafficEdge{{From: w("x"), To: w("y"), Recent: r, Steady: r}}}
}

func TestBoardAddsUpInAnyOrder(t *testing.T) {
	at := time.Unix(1000, 0)
	var all []*mesh.TrafficReport
	for i := range 6 {
		for seq := range uint64(3) {
			all = append(all, report(fmt.Sprint("s", i), 1, seq, float64(i)+float64(seq)/10))
		}
	}
	var want *traffic.Matrix
	for range 20 {
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		var b Board
		for _, r := range all {
			if err := b.Hear(at, r); err != nil {
				t.Fatal(err)
			}
		}
		got := Sum(b.Said())
		if want == nil {
			want = got
		}
		if !reflect.DeepEqual(got, want) || math.Abs(got.Edges[0].Recent.RequestsPerS-16.2) > 1e-9 {
			t.Fatalf("%+v, want %+v", got, want)
		}
	}
}

func TestBoardBelieves(t *testing.T) {
	at := time.Unix(1000, 0)
	var b Board
	for _, r := range []*mesh.TrafficReport{report("a", 1, 5, 1), report("a", 2, 1, 2), report("a", 1, 9, 3), report("b", 1, 1, 4)} {
		if err := b.Hear(at, r); err != nil {
			t.Fatal(err)
		}
	}
	if m := Sum(b.Said()); m.Edges[0].Recent.RequestsPerS != 6 {
		t.Errorf("%+v", m.Edges)
	}
	bad := report("b", 1, 2, 1)
	bad.Edges[0].Steady.RequestsPerS = 1e12
	if err := b.Hear(at, bad); err == nil || !strings.Contains(err.Error(), "site b") || !strings.Contains(err.Error(), "n/x to n/y") {
		t.Errorf("impossible traffic: %v", err)
	}
	if err := b.Hear(at.Add(Believed), report("b", 1, 3, 4)); err != nil {
		t.Fatal(err)
	}
	b.Forget(at.Add(Believed + time.Second))
	if said := b.Said(); len(said) != 1 || said[0].Site != "b" {
		t.Errorf("%+v", said)
	}
}

func TestDelays(t *testing.T) {
	a, b, c := report("a", 1, 1, 1), report("b", 1, 1, 1), report("c", 1, 1, 1)
	a.RTTMS = map[string]float64{"b": 10, "c": 0}
	b.RTTMS = map[string]float64{"a": 14, "d": 40}
	got := Delays([]Said{{Site: "c", Report: c}, {Site: "b", Report: b}, {Site: "a", Report: a}})
	want := traffic.Measured{Sites: []string{"a", "b", "c", "d"}, OneWayMS: [][]float64{{0, 6, -1, -1}, {6, 0, -1, 20}, {-1, -1, 0, -1}, {-1, 20, -1, 0}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if _, err := traffic.NewDelays([]string{"n"}, func(string) string { return "a" }, got.Sites, got.OneWayMS); err != nil {
		t.Error(err)
	}
}
