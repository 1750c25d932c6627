package agent

import (
	"fmt"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/chaining/path"
)

func TestReport(t *testing.T) {
	s := Status{
		Node: "edge", Fault: "interface f2r is not there", Paths: make([]path.Path, 3), Instances: 40, Down: map[string]string{},
		Chains:        []ChainStatus{{Chain: "default/web", SPIs: []uint32{1, 2}}, {Chain: "default/voice", Refused: "no room"}},
		Configuration: &Configuration{},
	}
	for i := range 20 {
		s.Down[fmt.Sprintf("f-%02d", i)] = "no answer"
	}
	r := s.Report()
	if got := strings.Join(r.Problems, "|"); got != "interface f2r is not there|chain default/voice: no room|4 more instances are down" {
		t.Errorf("problems %s", got)
	}
	if c := r.Chains; r.Node != "chainagent edge" || c.Node != "edge" || c.Chains != 1 || c.Paths != 3 || c.Instances != 40 || len(c.Down) != mesh.MaxProblems || c.Down["f-15"] != "no answer" {
		t.Errorf("%+v of %s", c, r.Node)
	}
	s.Configuration.Refused = "generation 7: no"
	if got := s.Report().Problems; len(got) != 2 {
		t.Errorf("what is refused is said twice: %v", got)
	}
}
