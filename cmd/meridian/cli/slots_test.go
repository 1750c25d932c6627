package cli

import (
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

// How sure slots are is to be read in every table that has them.
func TestSlotsText(t *testing.T) {
	for want, r := range map[string]mesh.ServiceReport{
		"4":            {Slots: 4},
		"0":            {},
		"2.5 learned":  {Slots: 2.5, Learned: mesh.SlotsSettled},
		">=3 learning": {Slots: 3, Learned: mesh.SlotsLowerBound},
		"learning":     {Learned: mesh.SlotsLowerBound},
	} {
		if got := slotsText(&r); got != want {
			t.Errorf("%+v: %q, want %q", r, got, want)
		}
		st := new(siteapi.Status)
		r.Service = "default/echo"
		st.Self.Site = "north"
		st.Self.Services = []siteapi.ServiceStatus{{ServiceReport: r}}
		var out strings.Builder
		loadTable(&out, st)
		if !strings.Contains(out.String(), "\t"+want+"\t") {
			t.Errorf("status: %q is missing:\n%s", want, out.String())
		}
		if rows := topServices(st).Rows; len(rows) != 1 || rows[0][3] != want || (rows[0][2] == "-") == slotsKnown(&r) {
			t.Errorf("top: %q", rows)
		}
	}
}
