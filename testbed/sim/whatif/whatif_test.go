package whatif

import (
	"strings"
	"testing"
)

func live() World {
	return World{
		Sites: []Site{
			{Name: "a", Slots: 4, ServiceMS: 10, DemandPerS: 200}, {Name: "b", Slots: 4, ServiceMS: 10, DemandPerS: 200},
			{Name: "c", Slots: 4, ServiceMS: 10, DemandPerS: 100},
		},
		RTTMS: map[[2]string]float64{{"a", "b"}: 4, {"b", "c"}: 4, {"a", "c"}: 8},
	}
}

func TestRun(t *testing.T) {
	same, err := Run(live(), Change{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if same.Before != same.After || len(same.Overloaded) != 0 || same.Before.Errors != 0 {
		t.Errorf("no change changes something: %+v", same)
	}
	lost, err := Run(live(), Change{Lose: []string{"a"}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	// 500 requests/s at 800 of capacity: b takes a's users and shares them with c.
	if !lost.Sites[0].Lost || lost.After.MeanMS <= lost.Before.MeanMS || lost.After.Errors > 0.001 || lost.Sites[2].After < lost.Sites[2].Before+0.1 {
		t.Errorf("without a: %+v", lost)
	}
	more, err := Run(live(), Change{Scale: 3}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(more.Overloaded) != 3 || more.After.Errors < 0.1 {
		t.Errorf("three times 500 requests/s at 1,200 of capacity: %+v", more)
	}
	alone, err := Run(live(), Change{Scale: 1.9, Cut: [][2]string{{"a", "b"}, {"a", "c"}}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if alone.After.MeanMS < 1.5*alone.Before.MeanMS || alone.Sites[0].After < 0.9 {
		t.Errorf("a cut off: %+v", alone)
	}
}

func TestRunRefuses(t *testing.T) {
	for _, k := range []struct {
		c    Change
		want string
	}{
		{Change{Lose: []string{"x"}}, `no site "x"`},
		{Change{Lose: []string{"a", "b", "c"}}, "no site would be left"},
		{Change{Cut: [][2]string{{"a", "x"}}}, "no link"},
		{Change{Scale: -1}, "times -1"},
	} {
		if _, err := Run(live(), k.c, 1); err == nil || !strings.Contains(err.Error(), k.want) {
			t.Errorf("%+v: %v", k.c, err)
		}
	}
	w := live()
	w.Sites[1].Slots = 0
	if _, err := Run(w, Change{}, 1); err == nil || !strings.Contains(err.Error(), "site b: its capacity is not known") {
		t.Errorf("no capacity: %v", err)
	}
}
