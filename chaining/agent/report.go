package agent

import (
	"fmt"
	"maps"
	"slices"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Report is the status as the agent tells it its site's controller: a node of its own,
// beside the proxy of the machine.
func (s *Status) Report() *mesh.NodeReport {
	c := &mesh.NodeChains{Node: s.Node, Paths: len(s.Paths), Instances: s.Instances}
	r := &mesh.NodeReport{Node: "chainagent " + s.Node, Chains: c}
	problem := func(format string, v ...any) {
		if len(r.Problems) < mesh.MaxProblems {
			r.Problems = append(r.Problems, fmt.Sprintf(format, v...))
		}
	}
	if s.Configuration != nil && s.Configuration.Refused == "" && s.Fault != "" { // what is refused is said as that
		problem("%s", s.Fault)
	}
	for _, ch := range s.Chains {
		if len(ch.SPIs) > 0 {
			c.Chains++
		}
		if ch.Refused != "" {
			problem("chain %s: %s", ch.Chain, ch.Refused)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Down)) {
		if len(c.Down) == mesh.MaxProblems {
			problem("%d more instances are down", len(s.Down)-mesh.MaxProblems)
			break
		}
		if c.Down == nil {
			c.Down = map[string]string{}
		}
		c.Down[name] = s.Down[name]
	}
	return r
}
