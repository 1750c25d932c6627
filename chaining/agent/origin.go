package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/chaining/path"
)

// matchesOf is a match in the planner's terms. Where it names origins it becomes one
// alternative for the node's ports that have them all, and one for the pools; ports
// says whether packets still have the port that they came in by.
func matchesOf(m *mesh.ChainMatch, node *mesh.ChainNode, ports bool) ([]path.Match, error) {
	base, err := matchOf(m)
	if err != nil {
		return nil, err
	}
	if len(m.SourceSites)+len(m.DNNs)+len(m.Slices) == 0 {
		return []path.Match{base}, nil
	}
	if node == nil {
		return nil, errors.New("names origins, and the chain's ingress is no ChainNode that could tell them")
	}
	var out []path.Match
	if ports {
		byPort := base
		byPort.Interfaces = nil
		for _, p := range node.Spec.Ports {
			if m.ComesFrom(&p.ChainOrigin) && (len(base.Interfaces) == 0 || slices.Contains(base.Interfaces, p.Interface)) {
				byPort.Interfaces = append(byPort.Interfaces, p.Interface)
			}
		}
		if len(byPort.Interfaces) > 0 {
			out = append(out, byPort)
		}
	}
	byPool := base
	byPool.Src = nil
	for _, p := range node.Spec.Pools {
		if !m.ComesFrom(&p.ChainOrigin) {
			continue
		}
		for _, text := range p.Prefixes {
			prefix, err := netip.ParsePrefix(text)
			if err != nil {
				return nil, err
			}
			byPool.Src = append(byPool.Src, within(prefix, base.Src)...)
		}
	}
	if len(byPool.Src) > 0 {
		out = append(out, byPool)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no port or pool of ChainNode %s that the rest of the match leaves is of %s", node.Metadata.Name, originText(m))
	}
	return out, nil
}

// within is the part of a prefix that lies in one of a list's; all of it where the
// list is empty.
func within(p netip.Prefix, list []path.Prefix) []path.Prefix {
	if len(list) == 0 {
		return []path.Prefix{p}
	}
	var out []path.Prefix
	for _, q := range list {
		if !p.Overlaps(q) {
			continue
		}
		if q.Bits() > p.Bits() {
			out = append(out, q)
		} else if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

func originText(m *mesh.ChainMatch) string {
	var parts []string
	for _, x := range []struct {
		what string
		list []string
	}{{"site", m.SourceSites}, {"DNN", m.DNNs}, {"slice", m.Slices}} {
		if len(x.list) > 0 {
			parts = append(parts, x.what+" "+strings.Join(x.list, " or "))
		}
	}
	return strings.Join(parts, " and ")
}
