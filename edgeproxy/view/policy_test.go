package view

import (
	"net/netip"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/outlier"
	"github.com/meridian-mesh/meridian/edgeproxy/upstream"
)

func TestOutlierOf(t *testing.T) {
	if c, panicBelow := outlierOf(nil); c != outlier.DefaultConfig || panicBelow != 0 {
		t.Errorf("%+v %v", c, panicBelow)
	}
	all, ten, off := 100, 10, 0
	c, panicBelow := outlierOf(&mesh.OutlierDetection{
		ConsecutiveFailures: &off, SuccessRateMargin: &ten, Interval: span(time.Second), MinRequests: 7,
		BaseEjectionTime: span(time.Hour), MaxEjectionPercent: &all, PanicThreshold: 25,
	})
	want := outlier.Config{Interval: 1e9, Requests: 7, Margin: 0.1, Ejection: 3600e9, MaxEjection: 3600e9, MaxEjected: 1}
	if c != want || panicBelow != 0.25 {
		t.Errorf("%+v %v, want %+v", c, panicBelow, want)
	}
	if c, _ := outlierOf(&mesh.OutlierDetection{MaxEjectionPercent: &off}); c.Failures != 0 || c.Margin != 0 {
		t.Errorf("switched off, but %+v", c)
	}
}

func TestCookieOf(t *testing.T) {
	for want, a := range map[string]mesh.SessionAffinity{
		"meridian-echo=00000000000000ff; Path=/; HttpOnly; SameSite=Lax":     {},
		"sid=00000000000000ff; Path=/a; HttpOnly; SameSite=None; Secure":     {SessionName: "sid", CookieConfig: &mesh.CookieConfig{Path: "/a", SameSite: "None"}},
		"sid=00000000000000ff; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600": {SessionName: "sid", AbsoluteTimeout: span(time.Hour), CookieConfig: &mesh.CookieConfig{LifetimeType: mesh.CookiePermanent}},
	} {
		if got := string(cookieOf("echo", &a).AppendTo(nil, 255)); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestNamedEndpoints: weights multiply, capacity counts for each, and what is
// found twice is there once.
func TestNamedEndpoints(t *testing.T) {
	three := 3
	o := mesh.Objects{Services: []*mesh.MeshService{{
		Metadata: meta("echo"),
		Spec: mesh.MeshServiceSpec{
			Ports: []mesh.ServicePort{{Port: 80}},
			Endpoints: []mesh.Endpoint{
				{Address: "127.0.0.1:1"},
				{Address: "_http._tcp.test", Weight: &three, Capacity: &mesh.Capacity{Concurrency: 2, ServiceTime: *span(time.Millisecond)}},
			},
		},
	}}}
	names := func(string) ([]Target, error) {
		var out []Target
		for i, a := range []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"} {
			out = append(out, Target{Addr: netip.MustParseAddrPort(a), Weight: i + 1})
		}
		return out, nil
	}
	reg := upstream.NewRegistry(1)
	build := func() *Service {
		v, err := Build(&mesh.Snapshot{Objects: o}, Deps{Registry: reg, Loops: 1, Names: names})
		if err != nil || len(v.Problems) > 0 {
			t.Fatal(err, v.Problems)
		}
		return v.Services["default/echo"]
	}
	s := build()
	if len(s.Home) != 3 || s.Concurrency != 4 || s.Hosts[0] != "" || s.Hosts[2] != "_http._tcp.test" {
		t.Fatalf("%d endpoints, %d slots, hosts %q", len(s.Home), s.Concurrency, s.Hosts)
	}
	got := make([]int, 3)
	var c Choice
	for i := range uint64(16000) {
		k, _ := c.Pick(s, nil, i*0x9e3779b97f4a7c15, false, 0)
		got[k]++
	}
	// weights 1, 6 and 9 of 16; two choices of idle endpoints go by weight
	for k, w := range []int{1, 6, 9} {
		if d := got[k] - 1000*w; d < -400 || d > 400 {
			t.Errorf("picks %v, want 1000, 6000, 9000", got)
			break
		}
	}
	if again := build(); again.Home[2] != s.Home[2] || again.IDs[2] != s.IDs[2] {
		t.Error("a rebuild loses the endpoint's handle")
	}
}
