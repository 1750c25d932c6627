package path

import "slices"

// Changes leads from one plan to the next without a packet lost: make before
// break. Each view must be in force on every node before the next is begun.
//
//	add     entries of new paths, on all nodes; nobody uses them yet
//	flip    new flows take the new paths; old flows of chains with update newFlows
//	        stay on the old ones, those of immediate move
//	drain   all flows are on the new paths; begun when old ones have ended, or the
//	        operator's patience has
//	remove  entries of old paths go; begun a packet's lifetime later
//
// A step that would change nothing is left out; from nil it is one step.
func Changes(from, to *Plan) []View {
	if from == nil {
		return []View{{Name: "flip", Plan: to}}
	}
	stays := map[uint32]bool{}
	for i := range to.Paths {
		stays[to.Paths[i].SPI] = true
	}
	gone := slices.DeleteFunc(slices.Clone(from.Paths), func(p Path) bool { return stays[p.SPI] })
	was := map[uint32]bool{}
	for i := range from.Paths {
		was[from.Paths[i].SPI] = true
	}
	fresh := slices.DeleteFunc(slices.Clone(to.Paths), func(p Path) bool { return was[p.SPI] })
	linger := slices.DeleteFunc(slices.Clone(gone), func(p Path) bool {
		c := to.Find(p.Chain)
		return c == nil || c.Immediate
	})
	var views []View
	if len(fresh) > 0 {
		// Ways back of new paths must be followed before all nodes have flipped.
		views = append(views, View{Name: "add", Plan: from, AlsoHops: fresh, AlsoLive: fresh})
	}
	views = append(views, View{Name: "flip", Plan: to, AlsoHops: gone, AlsoLive: linger})
	if len(linger) > 0 {
		views = append(views, View{Name: "drain", Plan: to, AlsoHops: gone})
	}
	if len(gone) > 0 {
		views = append(views, View{Name: "remove", Plan: to})
	}
	return views
}
