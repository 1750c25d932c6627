package route

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// What mesh.Check calls shadowed is never met by a request: random routes over few
// words, and the requests that each shadowed match asks for.
func TestShadowed_isNeverMet(t *testing.T) {
	shadowed := 0
	for seed := range uint64(400) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		pick := func(words ...string) string { return words[rnd.IntN(len(words))] }
		g := &mesh.Gateway{Metadata: mesh.ObjectMeta{Namespace: "default", Name: "g"}, Spec: mesh.GatewaySpec{
			Listeners: []mesh.Listener{{Name: "http", Port: 8080, Protocol: mesh.ProtocolHTTP}},
		}}
		o := &mesh.Objects{Gateways: []*mesh.Gateway{g}}
		for i := range 1 + rnd.IntN(3) {
			r := &mesh.HTTPRoute{Metadata: mesh.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("r%d", i)}}
			r.Spec.ParentRefs = []mesh.ParentRef{{Namespace: "default", Name: "g"}}
			if h := pick("", "a.example"); h != "" {
				r.Spec.Hostnames = []string{h}
			}
			for range 1 + rnd.IntN(3) {
				m := mesh.HTTPRouteMatch{Path: &mesh.PathMatch{Type: pick(mesh.PathExact, mesh.PathPrefix), Value: pick("/", "/x", "/x/")}, Method: pick("", "", "GET")}
				if rnd.IntN(3) == 0 {
					m.Headers = []mesh.HeaderMatch{{Type: mesh.MatchExact, Name: pick("k", "K"), Value: "v"}}
				}
				r.Spec.Rules = append(r.Spec.Rules, mesh.HTTPRouteRule{Matches: []mesh.HTTPRouteMatch{m}})
			}
			o.HTTPRoutes = append(o.HTTPRoutes, r)
		}
		table, _ := Build(g, g.Spec.Listeners, o)
		for _, c := range mesh.Check(o) {
			if c.Reason != mesh.ReasonShadowed {
				continue
			}
			shadowed++
			var rule, match int
			if _, err := fmt.Sscanf(c.Path, "spec.rules[%d].matches[%d]", &rule, &match); err != nil {
				t.Fatalf("%s: %v", c.Path, err)
			}
			for _, r := range o.HTTPRoutes {
				if r.Metadata.Name != c.Object.Name {
					continue
				}
				m := r.Spec.Rules[rule].Matches[match]
				q := Request{Host: []byte("a.example"), Method: []byte("GET"), Path: []byte(m.Path.Value)}
				for _, h := range m.Headers {
					q.Fields = append(q.Fields, stream.Field{Name: []byte(strings.ToLower(h.Name)), Value: []byte(h.Value)})
				}
				if got, ok := table.Match(&q); ok && got.Key == fmt.Sprintf("default/%s/%d", c.Object.Name, rule) {
					t.Errorf("seed %d: %s met %s", seed, c, got.Key)
				}
			}
		}
	}
	if shadowed < 100 {
		t.Errorf("only %d shadowed matches were made", shadowed)
	}
}
