package traffic

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

func report(site string, epoch, seq uint64, rps float64) *mesh.TrafficReport {
	r := mesh.TrafficRates{RequestsPerS: rps, RequestBytesPerS: rps / 3, ResponseBytesPerS: rps / 7}
	return &mesh.TrafficReport{Site: site, Epoch: epoch, Seq: seq, Edges: []mesh.TrafficEdge{{From: workload("x"), To: workload("y"), Recent: r, Steady: r}}}
}

func TestBoardAddsUpInAnyOrder(t *testing.T) {
	at := time.Unix(1000, 0)
	var all []*mesh.TrafficReport
	for i := range 6 {
		for seq := range uint64(3) {
			all = append(all, report(fmt.Sprint("s", i), 1, seq, float64(i)+float64(seq)/10))
		}
	}
	var want *Matrix
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
	if err := b.Hear(at, bad); err == nil || !strings.Contains(err.Error(), "site b") || !strings.Contains(err.Error(), "n/x to c/n/y") {
		t.Errorf("impossible traffic: %v", err)
	}
	if err := b.Hear(at.Add(time.Hour), report("b", 1, 3, 4)); err != nil {
		t.Fatal(err)
	}
	b.Forget(at.Add(time.Hour+time.Second), time.Hour)
	if said := b.Said(); len(said) != 1 || said[0].Site != "b" {
		t.Errorf("%+v", said)
	}
}

func TestBetween(t *testing.T) {
	a, b, c := report("a", 1, 1, 1), report("b", 1, 1, 1), report("c", 1, 1, 1)
	a.RTTMS = map[string]float64{"b": 10, "c": 0}
	b.RTTMS = map[string]float64{"a": 14, "d": 40}
	got := Between([]Said{{Site: "c", Report: c}, {Site: "b", Report: b}, {Site: "a", Report: a}})
	want := Measured{Sites: []string{"a", "b", "c", "d"}, OneWayMS: [][]float64{{0, 6, -1, -1}, {6, 0, -1, 20}, {-1, -1, 0, -1}, {-1, 20, -1, 0}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if _, err := NewDelays([]string{"n"}, func(string) string { return "a" }, got.Sites, got.OneWayMS); err != nil {
		t.Error(err)
	}
}
