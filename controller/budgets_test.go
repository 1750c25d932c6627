package controller_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

// TestBudgetOfALink lets two proxies spend what they are granted of a link, over a real
// bus and across a restart of the controller: together they carry the budget and no more,
// the price rises, and the link is closed in the plan.
func TestBudgetOfALink(t *testing.T) {
	const gb = 1_000_000_000
	cfg := controller.Config{Site: "a", Hub: true, Data: t.TempDir(), Version: "test"}
	s := start(t, cfg)
	// A day that ends soon would make the budget cheap.
	reset := time.Now().UTC().Add(-time.Hour).Format("15:04Z")
	s.must(strings.Replace(siteDoc("a", 0), "\n---", "\n  links: [{to: b, budget: {gigabytesPerDay: 1, resetAt: \""+reset+"\"}}]\n---", 1) + siteDoc("b", 0.01) + shopDoc)
	n1, n2 := s.node("n1"), s.node("n2")
	epoch, seq := uint64(time.Now().UnixNano()), uint64(0)
	carried, grant := map[string]uint64{}, map[string]*mesh.LinkGrant{}
	tell := func(n *node, name string) {
		seq++
		load := mesh.ServiceReport{Service: "default/shop", Slots: 4, ServiceTimeMS: 10, InFlight: 2, Arrivals: 300}
		there := load
		there.Arrivals = 40
		r := &mesh.NodeReport{Site: "a", Node: name, Epoch: epoch, Seq: seq,
			Services: []mesh.NodeServiceReport{{Demand: 300, ServiceReport: load}},
			Heard:    []mesh.HeardReport{{Site: "b", Reporter: "edge", Epoch: epoch, Seq: seq, Service: there}},
			Links:    []mesh.LinkReport{{Site: "b", Carried: carried[name], Grant: grant[name]}},
		}
		if err := n.bus.PublishReport(r); err != nil {
			t.Fatal(err)
		}
		if w := n.weights.Load(); w != nil {
			for _, l := range w.Links {
				if g, ok := l.Grants[name]; ok && l.Site == "b" && g.Epoch == epoch {
					grant[name] = &g
				}
			}
		}
	}
	use := func() siteapi.LinkBudget {
		if b := s.status().Self.Budgets; len(b) == 1 {
			return b[0]
		}
		return siteapi.LinkBudget{}
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		within(t, 20*time.Second, what, func() bool {
			tell(n1, "n1")
			tell(n2, "n2")
			time.Sleep(30 * time.Millisecond)
			return ok()
		})
	}
	until("both have a part", func() bool { return grant["n1"] != nil && grant["n2"] != nil && grant["n2"].Most > 0 })
	if sum := grant["n1"].Most + grant["n2"].Most; sum > gb {
		t.Errorf("%d bytes are granted", sum)
	}
	carried["n1"] = 400_000_000
	until("the price rises", func() bool { return use().Used == 400_000_000 && use().PriceMS > 5 })
	until("the plan knows it", func() bool {
		w := n1.weights.Load()
		return len(w.Links) == 1 && w.Links[0].PriceMS > 5 && len(w.Services) == 1 && len(w.Services[0].Remotes) == 1 && w.Services[0].Remotes[0].Excluded == ""
	})
	s.stop()
	cfg.Listen = strings.TrimPrefix(s.run.NATS, "nats://")
	s = start(t, cfg)
	n1, n2 = s.node("n1"), s.node("n2")
	until("it is remembered", func() bool { return use().Used == 400_000_000 })

	until("all is used", func() bool {
		for _, name := range []string{"n1", "n2"} {
			carried[name] = max(carried[name], grant[name].Most)
		}
		return use().Used >= gb
	})
	if sum := carried["n1"] + carried["n2"]; sum != gb {
		t.Errorf("%d bytes were carried of %d", sum, gb)
	}
	until("the link is closed", func() bool {
		w := n1.weights.Load()
		return w != nil && len(w.Services) == 1 && len(w.Services[0].Remotes) == 1 && strings.Contains(w.Services[0].Remotes[0].Excluded, "budget for today (1 GB) is used up, the next day begins at "+reset)
	})
	if c, err := s.api.Check(short(t)); err != nil || !strings.Contains(findings(c), "budget-spent") {
		t.Errorf("check finds %s, %v", findings(c), err)
	}
	req, err := http.NewRequestWithContext(short(t), http.MethodGet, s.run.API+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if want := `meridian_link_budget_used_bytes{site="b"} 1e+09`; err != nil || !strings.Contains(string(text), want) {
		t.Errorf("metrics lack %s: %v", want, err)
	}
}

func findings(c *siteapi.Checked) string {
	if c == nil {
		return ""
	}
	var codes []string
	for _, f := range c.Findings {
		codes = append(codes, f.Code)
	}
	return strings.Join(codes, ",")
}
