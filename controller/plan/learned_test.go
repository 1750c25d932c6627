package plan

import (
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/controller/price"
)

// A home whose slots are a lower bound keeps its users however dear that looks, refuses
// nobody and says why; once they are settled the same numbers send most of them away.
func TestLowerBoundStaysHome(t *testing.T) {
	p := New(svc, new(price.Curves))
	in := Input{
		DemandPerS: 300, Slots: 2, ServiceMS: 10, LowerBound: true, ShedAfterMS: 50, Classes: []Class{{"gold", 10}},
		Options: []Option{{Site: "b", Slots: 4, ServiceMS: 10, RTTMS: 5}},
	}
	w := p.Tick(1e9, in)
	checkPlan(t, &w, &in)
	if w.HomeWeight != 1 || w.HomeLimit != MaxLimit || w.ShedLimit != 0 || len(w.ClassShedLimits) != 0 || !strings.Contains(w.Off, "being learned") {
		t.Errorf("while it learns: %+v", w)
	}
	if r := w.Remotes[0]; r.Excluded == "" || r.Weight != 0 {
		t.Errorf("while it learns: %+v", r)
	}
	in.LowerBound = false
	for i := range 20 {
		w = p.Tick(1e9+int64(i+1)*1e8, in)
	}
	if w.Off != "" || w.HomeWeight > 0.8 || w.HomeLimit > 20 || w.ShedLimit == 0 {
		t.Errorf("settled: %+v", w)
	}
}

// Where nothing was served yet, one slot as quick as those at home is taken; where
// nothing at all is known there, nothing goes.
func TestNewcomer(t *testing.T) {
	p := New(svc, new(price.Curves))
	in := Input{DemandPerS: 420, Slots: 4, ServiceMS: 10, Options: []Option{{Site: "b", Slots: 1, LowerBound: true, RTTMS: 5}}}
	var w = p.Tick(1e9, in)
	for i := range 30 {
		w = p.Tick(1e9+int64(i+1)*1e8, in)
	}
	checkPlan(t, &w, &in)
	if r := w.Remotes[0]; r.Excluded != "" || r.Draw < 20 || r.Draw > 100 || r.ServiceTimeMS != 10 {
		t.Errorf("a site that serves nothing yet: %+v", r)
	}
	in.Options[0].LowerBound = false
	if w = p.Tick(6e9, in); w.Remotes[0].Excluded != "its capacity is not known" {
		t.Errorf("a site that says nothing of its times: %+v", w.Remotes[0])
	}
	in.Options[0].LowerBound, in.Options[0].Slots = true, 0
	if w = p.Tick(7e9, in); w.Remotes[0].Excluded == "" {
		t.Errorf("a site without endpoints: %+v", w.Remotes[0])
	}
}
