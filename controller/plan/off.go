package plan

import "github.com/meridian-mesh/meridian/api/mesh"

// learning is why nothing is sent away where home's slots are a lower bound.
const learning = "the slots of this site are being learned: it was not seen saturated yet, so its users are served here"

// off is the plan of a service that cannot be shared.
func (p *Planner) off(out mesh.ServiceWeights, in Input, why string) mesh.ServiceWeights {
	p.home, p.share = 1, map[string]float64{}
	out.Off = why
	for i := range in.Options {
		out.Remotes = append(out.Remotes, excluded(&in.Options[i], "sharing is off"))
	}
	return out
}

// excluded is an option that gets nothing.
func excluded(o *Option, why string) mesh.RemoteWeight {
	return mesh.RemoteWeight{Site: o.Site, RTTMS: finite(o.RTTMS), AgeMS: finite(o.AgeMS), Excluded: why}
}
