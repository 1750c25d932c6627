package traffic

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/meridian-mesh/meridian/api/mesh"
)

func workload(name string) mesh.Workload {
	return mesh.Workload{Cluster: "c", Namespace: "n", Name: name}
}

func drawRates(t *rapid.T, label string) Rates {
	v := func(n string) float64 { return rapid.Float64Range(0, 1e6).Draw(t, label+n) }
	return Rates{RequestsPerS: v("rps"), RequestBytesPerS: v("out"), ResponseBytesPerS: v("in")}
}

func drawMatrix(t *rapid.T, label string) *Matrix {
	m := &Matrix{}
	names := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"})
	for range rapid.IntRange(0, 12).Draw(t, label+"edges") {
		m.Edges = append(m.Edges, Edge{
			From: workload(names.Draw(t, label+"from")), To: workload(names.Draw(t, label+"to")),
			Recent: drawRates(t, label+"recent"), Steady: drawRates(t, label+"steady"), Across: drawRates(t, label+"across"),
		})
	}
	for range rapid.IntRange(0, 3).Draw(t, label+"rest") {
		m.Rest = append(m.Rest, Rest{Workload: workload(names.Draw(t, label+"of")), Out: drawRates(t, label+"o"), In: drawRates(t, label+"i")})
	}
	return m
}

// Whatever order reports come in, the sum is the same to the last bit.
func TestMergeIsCommutative(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := drawMatrix(t, "a"), drawMatrix(t, "b"), drawMatrix(t, "c")
		want := Merge(a, b, c)
		for _, got := range []*Matrix{Merge(c, b, a), Merge(b, a, c), Merge(a, c, b)} {
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("another order gives\n%+v, want\n%+v", got, want)
			}
		}
		if err := want.Check(); err != nil {
			t.Fatal(err)
		}
		grouped := Merge(Merge(a, b), c)
		if len(grouped.Edges) != len(want.Edges) || !near(grouped.Total().BytesPerS(), want.Total().BytesPerS()) {
			t.Fatalf("grouping changes the sum: %v, want %v", grouped.Total(), want.Total())
		}
	})
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*math.Max(1, math.Max(a, b)) }

func TestBoundKeepsTheTotal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := Merge(drawMatrix(t, "m"))
		k := rapid.IntRange(0, 4).Draw(t, "k")
		b := m.Bound(k)
		if err := b.Check(); err != nil {
			t.Fatal(err)
		}
		if !near(b.Total().BytesPerS(), m.Total().BytesPerS()) || !near(b.Total().RequestsPerS, m.Total().RequestsPerS) {
			t.Fatalf("bound %d changes the total from %v to %v", k, m.Total(), b.Total())
		}
		workloads := map[mesh.Workload]bool{}
		for _, e := range m.Edges {
			workloads[e.From], workloads[e.To] = true, true
		}
		if len(b.Edges) > k*len(workloads) {
			t.Fatalf("%d edges for %d workloads, bound %d", len(b.Edges), len(workloads), k)
		}
		if k > 0 && len(m.Edges) > 0 {
			if h := m.Bound(1).Edges; len(h) == 0 {
				t.Fatal("the heaviest edge is not kept")
			}
		}
		if !reflect.DeepEqual(m.Bound(1000).Edges, m.Edges) {
			t.Fatal("a wide bound drops edges")
		}
	})
}

func TestMeter(t *testing.T) {
	m := NewMeter(100)
	flow := func(perS float64, d time.Duration) {
		for range int(d / (10 * time.Second)) {
			if err := m.Add(workload("a"), workload("b"), Counts{Requests: perS * 10, RequestBytes: perS * 1000, ResponseBytes: perS * 5000}); err != nil {
				t.Fatal(err)
			}
			m.Tick(10 * time.Second)
		}
	}
	edge := func() Edge {
		x := m.Matrix(10)
		if len(x.Edges) != 1 {
			t.Fatalf("%d edges, want 1", len(x.Edges))
		}
		return x.Edges[0]
	}
	flow(10, time.Minute)
	// A mean is right from the first interval on, not biased towards 0.
	if e := edge(); !near(e.Recent.RequestsPerS, 10) || !near(e.Steady.RequestsPerS, 10) || !near(e.Recent.ResponseBytesPerS, 5000) {
		t.Fatalf("after a minute of 10/s: %+v", e)
	}
	flow(10, 3*time.Hour)
	flow(0, 5*time.Minute)
	e := edge()
	if want := 10 / math.E; math.Abs(e.Recent.RequestsPerS-want) > 0.01 {
		t.Errorf("recent after one time constant of silence: %.3f, want %.3f", e.Recent.RequestsPerS, want)
	}
	if want := 10 * math.Exp(-5.0/30); math.Abs(e.Steady.RequestsPerS-want) > 0.05 {
		t.Errorf("steady after five minutes of silence: %.3f, want %.3f", e.Steady.RequestsPerS, want)
	}
	flow(0, 10*time.Hour)
	if x := m.Matrix(10); len(x.Edges) != 0 {
		t.Errorf("a pair silent for ten hours is kept: %+v", x.Edges)
	}
}

func TestMeterTellsWhatCrosses(t *testing.T) {
	m := NewMeter(10)
	here, away := Counts{Requests: 10, RequestBytes: 100}, Counts{Requests: 20, RequestBytes: 10, ResponseBytes: 30}
	for range 3 {
		for _, to := range []string{"b", "c"} {
			if err := m.Add(workload("a"), workload(to), here); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.AddAcross(workload("a"), workload("b"), away); err != nil {
			t.Fatal(err)
		}
		m.Tick(10 * time.Second)
	}
	x := m.Matrix(10)
	if e := x.Edges[0]; !near(e.Steady.RequestsPerS, 3) || !near(e.Across.RequestsPerS, 2) || !near(e.Across.BytesPerS(), 4) {
		t.Errorf("%+v", e)
	}
	if got := x.Crossing(5); len(got) != 1 || got[0].To != workload("b") {
		t.Errorf("crossing: %+v", got)
	}
}

func TestMeterIsBounded(t *testing.T) {
	m := NewMeter(3)
	for i := range 20 {
		if err := m.Add(workload("hub"), workload(string(rune('a'+i))), Counts{RequestBytes: 100}); err != nil {
			t.Fatal(err)
		}
	}
	m.Tick(time.Second)
	x := m.Matrix(100)
	if len(x.Edges) != 3 || len(x.Rest) > 4 {
		t.Errorf("%d edges and %d rests, want 3 and at most 4", len(x.Edges), len(x.Rest))
	}
	if got := x.Total().BytesPerS(); !near(got, 2000) {
		t.Errorf("total %v, want 2000: overflow must be counted", got)
	}
	for _, c := range []Counts{{Requests: -1}, {RequestBytes: math.NaN()}, {ResponseBytes: math.Inf(1)}} {
		if err := m.Add(workload("a"), workload("b"), c); err == nil || !strings.Contains(err.Error(), "c/n/a") {
			t.Errorf("%+v: error %v, want one that names the workload", c, err)
		}
	}
	if err := m.Add(mesh.Workload{}, workload("b"), Counts{}); err == nil {
		t.Error("a workload without a name is taken")
	}
}

func TestIndexHasBothDirections(t *testing.T) {
	m := &Matrix{Edges: []Edge{
		{From: workload("a"), To: workload("b"), Recent: rates(1, 10, 100)},
		{From: workload("a"), To: workload("a"), Recent: rates(1, 1, 1)},
		{From: workload("b"), To: workload("a"), Recent: rates(2, 7, 3)},
	}}
	x := m.Index(Recent)
	a, b := x.Peers(workload("a")), x.Peers(workload("b"))
	if len(a) != 1 || len(b) != 1 {
		t.Fatalf("peers %v and %v", a, b)
	}
	if a[0] != (Peer{workload("b"), 13, 107, 3}) || b[0] != (Peer{workload("a"), 107, 13, 3}) {
		t.Errorf("a sees %+v, b sees %+v", a[0], b[0])
	}
}

func TestReadJSON(t *testing.T) {
	m := Merge(&Matrix{Edges: []Edge{{From: workload("a"), To: workload("b"), Recent: rates(1, 2, 3), Steady: rates(4, 5, 6)}}})
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadJSON(bytes.NewReader(b))
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Fatalf("read back %+v, %v", got, err)
	}
	for text, want := range map[string]string{
		`{"edges":[{"from":{"namespace":"n","name":"a"},"to":{"namespace":"n","name":"b"},"recent":{"requestBytesPerS":-4}}]}`:    "n/a to n/b): recent.requestBytesPerS is -4",
		`{"edges":[{"from":{"namespace":"n","name":"a"},"to":{"namespace":"n","name":"b"},"steady":{"responseBytesPerS":1e99}}]}`: "mistake of units",
		`{"edges":[{"from":{"namespace":"n"},"to":{"namespace":"n","name":"b"}}]}`:                                                "has no name",
		`{"edgs":[]}`: "unknown field",
		`{`:           "traffic matrix",
	} {
		if _, err := ReadJSON(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestWritePrometheusReadsBack(t *testing.T) {
	m := &Matrix{
		Edges: []Edge{{From: workload(`q"\`), To: workload("b"), Recent: rates(1.5, 2, 3), Across: rates(0, 1, 2)}},
		Rest:  []Rest{{Workload: workload("b"), In: rates(0, 7, 0)}},
	}
	var b bytes.Buffer
	if err := m.WritePrometheus(&b); err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	err := readSamples(&b, func(string) bool { return true }, func(s sample) error {
		found[s.name+"/"+s.labels["source"]+s.labels["direction"]] = s.value
		return nil
	})
	want := map[string]float64{
		`meridian_traffic_requests_per_second/q"\`: 1.5, `meridian_traffic_request_bytes_per_second/q"\`: 2, `meridian_traffic_response_bytes_per_second/q"\`: 3,
		`meridian_traffic_across_sites_bytes_per_second/q"\`: 3,
		"meridian_traffic_rest_bytes_per_second/out":         0, "meridian_traffic_rest_bytes_per_second/in": 7,
	}
	if err != nil || !reflect.DeepEqual(found, want) {
		t.Errorf("read back %v, %v; want %v", found, err, want)
	}
}

func rates(requests, out, in float64) Rates {
	return Rates{RequestsPerS: requests, RequestBytesPerS: out, ResponseBytesPerS: in}
}

func TestRanksPutWhatTalksInARow(t *testing.T) {
	edge := func(a, b string, v float64) Edge {
		return Edge{From: workload(a), To: workload(b), Recent: rates(1, v, 0)}
	}
	m := Merge(&Matrix{Edges: []Edge{edge("a", "b", 10), edge("b", "c", 1), edge("x", "y", 8), edge("x", "z", 1)}})
	r := m.Index(Recent).Ranks()
	for i, w := range []string{"b", "a", "c", "x", "y", "z"} {
		if r.Of(workload(w)) != i {
			t.Errorf("%s has rank %d, want %d", w, r.Of(workload(w)), i)
		}
	}
	if r.Of(workload("unknown")) != math.MaxInt {
		t.Error("a workload without traffic has a rank")
	}
}
