package cli

import (
	"fmt"

	"github.com/meridian-mesh/meridian/api/mesh"
)

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
