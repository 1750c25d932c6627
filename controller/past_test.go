package controller_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

// A controller remembers how the mesh looked: what its nodes said, whom it served for,
// the sites it does not hear of, and ways that do not work.
func TestPast(t *testing.T) {
	s := start(t, controller.Config{Site: "a", Hub: true, Version: "test"})
	s.must(siteDoc("a", 0) + siteDoc("b", 0.1) + shopDoc)
	n := s.node("n1")
	go func() {
		for seq := uint64(1); ; seq++ {
			_ = n.bus.PublishReport(&mesh.NodeReport{
				Site: "a", Node: "n1", Epoch: 1, Seq: seq,
				Links: []mesh.LinkReport{{Site: "b", Fault: mesh.ProbeRefused, Probe: "nothing listens"}},
				Services: []mesh.NodeServiceReport{{ServiceReport: mesh.ServiceReport{
					Service: "default/shop", Slots: 4, ServiceTimeMS: 10, InFlight: 3, Arrivals: 200, From: map[string]float64{"b": 50, "c": 0.01},
				}}},
			})
			select {
			case <-t.Context().Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	within(t, 30*time.Second, "a moment with the node's load", func() bool {
		m, err := s.api.PastAt(short(t), time.Now())
		if err != nil || len(m.Sites) != 2 || m.Sites[0].Load == nil {
			return false
		}
		if x := m.Sites[0]; x.Site != "a" || x.Status != "alive" || *x.Load != 0.5 || x.ServedPerS != 200 || x.InFlight != 3 {
			t.Errorf("site a: %+v, load %v", x, *x.Load)
		}
		if x := m.Sites[1]; x.Site != "b" || x.Status == "alive" || x.Load != nil {
			t.Errorf("site b, which never reported: %+v", x)
		}
		if len(m.Flows) != 1 || m.Flows[0].From != "b" || m.Flows[0].To != "a" || m.Flows[0].PerS != 50 {
			t.Errorf("flows %+v", m.Flows)
		}
		if len(m.Cuts) != 1 || m.Cuts[0].From != "a" || m.Cuts[0].To != "b" || m.Cuts[0].Why != "nothing listens" {
			t.Errorf("cuts %+v", m.Cuts)
		}
		return true
	})
	past, err := s.api.Past(short(t))
	if err != nil || past.Site != "a" || len(past.Times) == 0 || time.Since(past.Times[0]) > time.Minute {
		t.Errorf("%+v, %v", past, err)
	}
	if first, err := s.api.PastAt(short(t), past.Times[0]); err != nil || !first.At.Equal(past.Times[0]) {
		t.Errorf("at %v: %+v, %v", past.Times[0], first, err)
	}
	resp, err := http.Get(s.run.API + siteapi.PathPast + "?" + url.Values{"at": {"yesterday"}}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("no time at all: %s", resp.Status)
	}
}
