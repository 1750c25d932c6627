package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/testbed/load"
	"github.com/meridian-mesh/meridian/testbed/report"
	"github.com/meridian-mesh/meridian/testbed/scenario"
	"github.com/meridian-mesh/meridian/testbed/topo"
)

func TestDocumentsAreInOrder(t *testing.T) {
	tp := topo.Default(1)
	l := &layout{topology: tp}
	for i := range tp.Sites {
		l.endpoints = append(l.endpoints, []endpoint{{fmt.Sprintf("127.0.0.1:%d", 9000+2*i), 2}, {fmt.Sprintf("127.0.0.1:%d", 9001+2*i), 1}})
		var row []string
		for j := range tp.Sites {
			row = append(row, fmt.Sprintf("127.0.0.1:%d", 10000+10*i+j))
		}
		l.links = append(l.links, row)
	}
	for _, name := range report.Policies() {
		o := l.objects()
		o.TrafficPolicies = append(o.TrafficPolicies, policy(name))
		text, err := documents(o)
		if err != nil {
			t.Fatal(err)
		}
		got, err := mesh.ParseYAML("demo.yaml", text)
		if err != nil {
			t.Fatalf("%s: the mesh refuses its own demo:\n%v", name, err)
		}
		if len(got.Sites) != len(tp.Sites) || len(got.Services[0].Spec.Endpoints) != 2*len(tp.Sites) || len(got.Sites[0].Spec.Links) != len(tp.Sites)-1 {
			t.Errorf("%d sites, %d endpoints, %d links", len(got.Sites), len(got.Services[0].Spec.Endpoints), len(got.Sites[0].Spec.Links))
		}
		if p := got.TrafficPolicies[0].Spec; p.SiteSharing.Policy != sharing[name] || p.SiteSharing.Policy == "" {
			t.Errorf("%s became %q", name, p.SiteSharing.Policy)
		}
	}
}

func TestFindNamesWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"meridian", "edgeproxy"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	_, err := find(dir)
	if err == nil || !strings.Contains(err.Error(), "no sitecontroller in "+dir) || !strings.Contains(err.Error(), "make build") {
		t.Errorf("got %v", err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	o := Options{Policies: []string{"none", "fastest", "none"}, Fault: "earthquake", Topology: topo.Default(1), Duration: 3 * time.Second}
	err := o.Validate()
	for _, want := range []string{`"fastest" is not one of cooperative`, "none is there twice", `"earthquake"`, "3s is too short"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	o = Options{Policies: report.Policies(), Fault: FaultControllers, Topology: topo.Default(1), Duration: 30 * time.Second}
	if err := o.Validate(); err != nil {
		t.Error(err)
	}
}

func TestTimelineHoldsAWeightUntilTheNext(t *testing.T) {
	start := time.UnixMilli(1_000_000)
	answers := [][]shareChange{
		{{AtMS: 999_000, Service: serviceKey, Shares: map[string]float64{"a": 1}}},
		{ // the first again, and two new ones
			{AtMS: 999_000, Service: serviceKey, Shares: map[string]float64{"a": 1}},
			{AtMS: 1_000_120, Service: serviceKey, Shares: map[string]float64{"a": 0.6, "b": 0.4}},
			{AtMS: 1_000_130, Service: "default/other", Shares: map[string]float64{"b": 1}},
			{AtMS: 1_000_260, Service: serviceKey, Shares: map[string]float64{"a": 0.5, "b": 0.5}},
		},
	}
	n := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		v := weightsView{Services: []serviceShares{{Service: serviceKey, Policy: "cooperative"}}, History: answers[n]}
		n++
		if err := json.NewEncoder(w).Encode(v); err != nil {
			t.Error(err)
		}
	}))
	defer srv.Close()
	w := newWatch(srv.Client(), []string{"a", "b"}, func(int) string { return strings.TrimPrefix(srv.URL, "http://") })
	for range answers {
		if err := w.poll(context.Background(), 0); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, o := range w.timeline(start, 300*time.Millisecond) {
		got = append(got, fmt.Sprintf("%d:%.1f", o.At.Milliseconds(), o.Shares[1]))
	}
	want := "0:0.0 50:0.0 100:0.0 120:0.4 150:0.4 200:0.4 250:0.4 260:0.5 300:0.5"
	if strings.Join(got, " ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, " "), want)
	}
	if w.shares()[0].Policy != "cooperative" {
		t.Errorf("%+v", w.shares()[0])
	}
}

func frames(t *testing.T, columns int, color bool) string {
	t.Helper()
	tp := topo.Default(1)
	sc, err := plan(&Options{Topology: tp, Duration: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	m := newMeter(sc)
	var b bytes.Buffer
	v := NewView(&b, nil, color)
	if columns > 0 {
		v = NewView(&b, func() int { return columns }, color)
	}
	n := len(tp.Sites)
	mesh := make([]serviceShares, n)
	mesh[sc.Hot] = serviceShares{Service: serviceKey, Source: "standby", HomeShare: 0.45, InFlight: 5,
		Remotes: []remoteShare{{Site: "melbourne", Share: 0.35}, {Site: "geelong", Share: 0.2}}}
	killed := make([]bool, n)
	killed[sc.Hot] = true
	for i := range 3 {
		live := make([]load.Live, n)
		live[sc.Hot] = load.Live{Sent: 250 * i, Answered: 200 * i, Away: 100 * i, Errors: i, Waiting: time.Duration(i) * 8 * time.Second}
		v.show(m.frame(report.Cooperative, sc.Phase(scenario.Hotspot).From+time.Duration(i)*time.Second, live, mesh, killed))
	}
	v.step("done")
	return b.String()
}

func TestPlainViewIsALineASecond(t *testing.T) {
	got := frames(t, 0, true)
	if strings.Contains(got, "\x1b") {
		t.Error("control characters without a terminal")
	}
	lines := strings.Split(strings.TrimSpace(got), "\n")
	if len(lines) != 4 {
		t.Fatalf("%d lines:\n%s", len(lines), got)
	}
	for _, want := range []string{"cooperative", "hotspot", "250 req/s", "mean     40 ms", "50 % away", "home 45 %, melbourne 35 %, geelong 20 % (standby)", "2 errors"} {
		if !strings.Contains(lines[2], want) {
			t.Errorf("no %q in %q", want, lines[2])
		}
	}
}

func TestLiveViewRedrawsInPlace(t *testing.T) {
	got := frames(t, 200, false)
	height := len(topo.Default(1).Sites) + 2
	if n := strings.Count(got, fmt.Sprintf("\x1b[%dA\x1b[J", height)); n != 3 {
		t.Errorf("%d redraws, want 3: two frames and the last line over the picture\n%q", n, got)
	}
	if strings.Contains(got, "\x1b[31m") {
		t.Error("colours although none are wanted")
	}
	if !strings.Contains(got, "controller killed") || !strings.HasSuffix(got, "done\n") {
		t.Errorf("%q", got)
	}
	if !strings.Contains(frames(t, 200, true), "\x1b[31m") {
		t.Error("no colour although wanted")
	}
}

func TestLiveViewFitsTheTerminal(t *testing.T) {
	for line := range strings.Lines(frames(t, 60, false)) {
		line = line[strings.LastIndexByte(line, 'J')+1:] // past a redraw's control characters
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 60 {
			t.Errorf("%d columns of 60: %q", n, line)
		}
	}
	if got := clip("\x1b[31mabc\x1b[0mdef", 4); got != "\x1b[31mabc\x1b[0md\x1b[0m" {
		t.Errorf("%q", got)
	}
	if got := clip("abc", 3); got != "abc" {
		t.Errorf("%q", got)
	}
}
