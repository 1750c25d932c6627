package cli

import (
	"fmt"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// slotsKnown says whether a load may be reckoned by the slots: of a lower bound it would
// say more than there is.
func slotsKnown(r *mesh.ServiceReport) bool {
	return r.Slots > 0 && r.Learned != mesh.SlotsLowerBound
}

// slotsText says how many requests are worked on at once, and where that is learned how
// sure it is.
func slotsText(r *mesh.ServiceReport) string {
	n := fmt.Sprintf("%.3g", r.Slots)
	switch {
	case r.Learned == mesh.SlotsSettled:
		return n + " learned"
	case r.Learned == mesh.SlotsLowerBound && r.Slots == 0:
		return "learning"
	case r.Learned == mesh.SlotsLowerBound:
		return ">=" + n + " learning"
	}
	return n
}
