//go:build root

package netns

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/testbed/report"
	demand "github.com/meridian-mesh/meridian/testbed/scenario"
	"github.com/meridian-mesh/meridian/testbed/sim"
	"github.com/meridian-mesh/meridian/testbed/topo"
)

// settledAfter is how long after the step the settled state begins, as in the demo.
const settledAfter = 5 * time.Second

// hotspot is the demo's: its sites, their distances and the step of its hot site.
func hotspot(t *testing.T, length time.Duration) *sim.Scenario {
	t.Helper()
	tp := topo.Default(1)
	var sites []demand.Site
	sc := &sim.Scenario{Name: "demo", DeadlineMS: 2000, Hot: -1}
	for i, s := range tp.Sites {
		sites = append(sites, demand.Site{Name: s.Name, Slots: s.Slots, ServiceTime: s.ServiceTime, Users: tp.UsersOf(i)})
		row := make([]float64, len(tp.Sites))
		for j := range row {
			row[j] = float64(tp.RTT(i, j)) / float64(time.Millisecond)
		}
		sc.Network.RTTMS = append(sc.Network.RTTMS, row)
	}
	d, err := demand.New(sites, demand.MinDuration)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range tp.Sites {
		sc.Network.Sites = append(sc.Network.Sites, sim.Site{
			Name: s.Name, Location: s.Location, Slots: s.Slots, ServiceMS: float64(s.ServiceTime) / float64(time.Millisecond), DemandPerS: d.Load * sites[i].Capacity(),
		})
	}
	const calm = 10 * time.Second
	sc.Hot = d.Hot
	sc.Changes = []sim.Change{{AtS: calm.Seconds(), Site: d.Hot, Demand: d.HotFactor / d.Load}}
	sc.MeasureFromS = (calm + settledAfter).Seconds()
	sc.ForS = (calm + length).Seconds()
	return sc
}

// haproxies are unmodified HAProxies that follow their sites' controllers.
type haproxies struct{}

func (haproxies) flags(m *realMesh, i int) []string {
	s := m.sites[i]
	follow := []string{"socket=" + s.socket("haproxy"), "service=echo", "backend=shop"}
	for j, other := range m.sites {
		if j != i {
			follow = append(follow, fmt.Sprintf("from.%s=from_%s", other.name, other.name))
		}
	}
	return []string{"--export-haproxy", strings.Join(follow, ",")}
}

// east is the port where a site takes requests of the j-th one.
func east(j int) int { return 15500 + j }

func (haproxies) start(m *realMesh, i int, backend string) {
	s := m.sites[i]
	s.t.Helper()
	var c strings.Builder
	fmt.Fprintf(&c, `global
  stats socket %s mode 600 level admin
defaults
  mode http
  timeout connect 2s
  timeout client 30s
  timeout server 30s
frontend users
  bind 127.0.0.1:8080
  default_backend shop
backend shop
  balance roundrobin
  server %s %s weight 256
`, s.socket("haproxy"), s.name, backend)
	for j, other := range m.sites {
		if j != i {
			fmt.Fprintf(&c, "  server %s %s:%d weight 0\n", other.name, other.Addr, east(i))
		}
	}
	for j, other := range m.sites {
		if j != i {
			fmt.Fprintf(&c, "frontend east_%s\n  bind %s:%d\n  default_backend from_%s\nbackend from_%s\n  server %s %s\n",
				other.name, s.Addr, east(j), other.name, other.name, s.name, backend)
		}
	}
	path := filepath.Join(s.node, "haproxy.cfg")
	if err := os.WriteFile(path, []byte(c.String()), 0o600); err != nil {
		s.t.Fatal(err)
	}
	program, err := exec.LookPath("haproxy")
	if err != nil {
		s.t.Fatalf("%v: install the Debian package haproxy", err)
	}
	if err := os.Symlink(program, filepath.Join(s.node, "haproxy")); err != nil {
		s.t.Fatal(err)
	}
	s.startAt(s.node, "haproxy", "-db", "-f", path)
}

func (haproxies) ready(m *realMesh, i int) func() bool {
	s := m.sites[i]
	return func() bool {
		w, err := s.api.Weights(s.t.Context())
		if err != nil {
			return false
		}
		for _, row := range w.Rows {
			if row.Site != s.name || len(row.Services) != 1 || row.Services[0].Off != "" {
				continue
			}
			usable := 0
			for _, r := range row.Services[0].Remotes {
				if r.Excluded == "" {
					usable++
				}
			}
			return usable == len(m.sites)-1
		}
		return false
	}
}

// declareLinks writes the i-th site's round trips to the others into its Site, as an
// operator would: a HAProxy measures none.
func (m *realMesh) declareLinks(i int) {
	s := m.sites[i]
	s.t.Helper()
	at := m.sc.Network.Sites[i].Location
	doc := fmt.Sprintf("apiVersion: mesh.meridian.dev/v1alpha1\nkind: Site\nmetadata: {name: %s}\nspec:\n  location: {type: Point, coordinates: [%g, %g]}\n  gateways: [{address: \"%s:15443\"}]\n  links:\n",
		s.name, at[0], at[1], s.Addr)
	for j, other := range m.sites {
		if j != i {
			doc += fmt.Sprintf("  - {to: %s, rtt: %gms}\n", other.name, m.sc.Network.RTTMS[i][j])
		}
	}
	applySoon(s.t, m.hub, doc)
}

func median(n int, of func(int) float64) float64 {
	all := make([]float64, n)
	for i := range all {
		all[i] = of(i)
	}
	slices.Sort(all)
	return all[n/2]
}

// TestHAProxyHotspot runs the demo's hotspot with our proxies and with unmodified
// HAProxies that our controllers feed, on the same requests: the mean from five
// seconds after the step may be 1.1 times ours. MERIDIAN_ROUNDS says how many pairs
// are run, the median of whose ratios counts.
func TestHAProxyHotspot(t *testing.T) {
	rounds := setting(t, "MERIDIAN_ROUNDS", 1)
	sc := hotspot(t, 30*time.Second)
	run := func(f front, what string) (out []figures) {
		t.Run(what, func(t *testing.T) {
			m := newRealMesh(t, sc, f)
			for i := range m.sites {
				m.declareLinks(i)
			}
			for round := range rounds {
				arrivals, err := sim.Arrivals(sc, uint64(800+round))
				if err != nil {
					t.Fatal(err)
				}
				requests, late := m.run(t, arrivals)
				got := m.measured(requests)
				t.Logf("round %d, %d requests (generators' 99th percentile %.2f ms late): %s", round+1, len(arrivals), late, got)
				if got.errors > 0 {
					t.Errorf("%s: %.2f %% of requests had no answer: %v", what, 100*got.errors, report.ErrorKinds(requests))
				}
				out = append(out, got)
			}
		})
		return out
	}
	ours, theirs := run(edgeproxies{}, "edgeproxy"), run(haproxies{}, "haproxy")
	if len(ours) < rounds || len(theirs) < rounds {
		t.FailNow()
	}
	ratio := median(rounds, func(i int) float64 { return theirs[i].meanMS / ours[i].meanMS })
	t.Logf("HAProxies' mean is %.2f times ours, the 99th percentile %.2f times", ratio, median(rounds, func(i int) float64 { return theirs[i].p99MS / ours[i].p99MS }))
	if ratio > 1.1 {
		t.Errorf("the mean with HAProxies is %.2f times that with ours, want 1.1", ratio)
	}
}
