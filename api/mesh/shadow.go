package mesh

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// shadowed finds matches of rules that no request ever comes to, because a rule that
// goes before asks for the very same: at the same listeners the route first by
// namespace and name wins, in a route the first rule (Gateway API).
func (c *checker) shadowed() {
	routes := slices.SortedStableFunc(slices.Values(c.o.RequestRoutes()), func(a, b *HTTPRoute) int { return byName(a.Metadata, b.Metadata) })
	first := map[string]string{} // who has it, by what is asked for
	for _, r := range routes {
		name := r.RouteKind() + " " + r.Metadata.Namespace + "/" + r.Metadata.Name
		for i, rule := range r.Spec.Rules {
			matches := rule.Matches
			if len(matches) == 0 {
				matches = []HTTPRouteMatch{{}}
			}
			for j := range matches {
				path := fmt.Sprintf("spec.rules[%d]", i)
				if len(rule.Matches) > 0 {
					path += fmt.Sprintf(".matches[%d]", j)
				}
				if by := claim(first, r, &matches[j], name+" "+path); by != "" {
					c.add(r.RouteKind(), r.Metadata, path, ReasonShadowed, "no request comes here: %s asks for the same and goes first", by)
				}
			}
		}
	}
}

// claim books a match at every place where it can be met, and returns who has been
// before it at all of them, empty where it is met somewhere.
func claim(first map[string]string, r *HTTPRoute, m *HTTPRouteMatch, who string) (by string) {
	asked := r.Metadata.Labels[MeshGroup+"/site"] + " " + m.asked()
	hosts := r.Spec.Hostnames
	if len(hosts) == 0 {
		hosts = []string{""}
	}
	met := false
	for _, p := range r.Spec.ParentRefs {
		for _, h := range hosts {
			key := fmt.Sprintf("%s %s/%s %s %d %s %s", p.Kind, p.Namespace, p.Name, p.SectionName, p.Port, strings.ToLower(h), asked)
			if other := first[key]; other == "" {
				first[key], met = who, true
			} else if other != who {
				by = other
			}
		}
	}
	if met {
		return ""
	}
	return by
}

// asked is what a match asks for, the same text for the same requests.
func (m *HTTPRouteMatch) asked() string {
	path := PathMatch{Type: PathPrefix, Value: "/"}
	if m.Path != nil {
		path = PathMatch{cmp.Or(m.Path.Type, PathPrefix), cmp.Or(m.Path.Value, "/")}
	}
	if path.Type == PathPrefix && path.Value != "/" {
		path.Value = strings.TrimSuffix(path.Value, "/")
	}
	var more []string
	for _, h := range m.Headers {
		more = append(more, fmt.Sprintf("h %q %s %q", strings.ToLower(h.Name), cmp.Or(h.Type, MatchExact), h.Value))
	}
	for _, q := range m.QueryParams {
		more = append(more, fmt.Sprintf("q %q %s %q", q.Name, cmp.Or(q.Type, MatchExact), q.Value))
	}
	slices.Sort(more)
	return fmt.Sprintf("%s %q %s %s", path.Type, path.Value, m.Method, strings.Join(more, " "))
}
