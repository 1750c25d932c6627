package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/controller/membership"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

// sheet is one table of top.
type sheet struct {
	Name string     `json:"name"`
	Head []string   `json:"head"`
	Rows [][]string `json:"rows"`
}

func topCommand(e *env) *cobra.Command {
	var output string
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch sites, services, ways and proxies, the busiest first",
		Long: `Top shows, on a terminal, the mesh as it is now: sites, services, the ways between
sites by what goes over them, and proxies. Keys: 1 to 4 or tab change the table, up and
down scroll, p pauses, q ends. Where the output is no terminal, or with -o json, it
prints all tables once.`,
		Example: `  meridian --data ./hub top
  meridian --data ./hub top -o json`,
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every < 100*time.Millisecond {
				return errUsage{fmt.Errorf("--interval %s: at most ten times a second", every)}
			}
			load := func() ([]sheet, error) { return topSheets(cmd, e) }
			if output != outTable || !isTerminal(cmd.OutOrStdout()) || os.Getenv("TERM") == "dumb" {
				sheets, err := load()
				if err != nil {
					return err
				}
				return print(cmd, output, sheets, func(w io.Writer) { plainTop(w, sheets) })
			}
			sheets, err := load() // who cannot be asked at all is said before the screen changes
			if err != nil {
				return err
			}
			_, err = tea.NewProgram(&topModel{load: load, every: every, sheets: sheets, at: time.Now()},
				tea.WithContext(cmd.Context()), tea.WithInput(cmd.InOrStdin()), tea.WithOutput(cmd.OutOrStdout())).Run()
			return err
		},
	}
	cmd.Flags().DurationVar(&every, "interval", time.Second, "how often to look")
	outputFlag(cmd, &output)
	return cmd
}

func plainTop(w io.Writer, sheets []sheet) {
	for i, s := range sheets {
		if i > 0 {
			fmt.Fprintln(w)
		}
		line(w, s.Head)
		for _, r := range s.Rows {
			line(w, r)
		}
	}
}

func line(w io.Writer, cells []string) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(w, "\t")
		}
		fmt.Fprint(w, c)
	}
	fmt.Fprintln(w)
}

// topSheets asks for all tables.
func topSheets(cmd *cobra.Command, e *env) ([]sheet, error) {
	st, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Status, error) { return c.Status(ctx) })
	if err != nil {
		return nil, err
	}
	m, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Weights, error) { return c.Weights(ctx) })
	if err != nil {
		return nil, err
	}
	return []sheet{topSites(st), topServices(st), topWays(st, m), topProxies(st)}, nil
}

// busiest sorts rows by a number, the greatest first, then by their first cells.
func busiest(rows [][]string, by map[string]float64) {
	key := func(r []string) string { return r[0] + " " + r[1] }
	slices.SortFunc(rows, func(a, b []string) int {
		return cmp.Or(cmp.Compare(by[key(b)], by[key(a)]), cmp.Compare(key(a), key(b)))
	})
}

// said calls f for each site that says something of itself.
func said(st *siteapi.Status, f func(*siteapi.SiteStatus)) {
	f(&st.Self)
	for i := range st.Peer {
		if st.Peer[i].Said != nil {
			f(st.Peer[i].Said)
		}
	}
}

func topSites(st *siteapi.Status) sheet {
	s := sheet{Name: "sites", Head: []string{"SITE", "STATUS", "AGE", "LOAD", "DEMAND/S", "SERVED/S", "IN FLIGHT"}}
	by := map[string]float64{}
	add := func(name, status, age string, x *siteapi.SiteStatus) {
		row := []string{name, status, age, "-", "-", "-", "-"}
		if x != nil {
			var busy, slots, demand, served float64
			inFlight := 0
			for _, v := range x.Services {
				if slotsKnown(&v.ServiceReport) {
					busy += v.Arrivals * v.ServiceTimeMS / 1000
					slots += v.Slots
				}
				demand += v.Demand
				served += v.Arrivals
				inFlight += v.InFlight
			}
			row[4], row[5], row[6] = fmt.Sprintf("%.1f", demand), fmt.Sprintf("%.1f", served), fmt.Sprint(inFlight)
			if slots > 0 {
				row[3] = percent(busy / slots)
				by[name+" "+status] = busy / slots
			}
		}
		s.Rows = append(s.Rows, row)
	}
	add(st.Self.Site, withTraffic("alive", st.Self.Traffic), "-", &st.Self)
	for i := range st.Peer {
		p := &st.Peer[i]
		age := "-"
		if p.HeardAt != nil && p.Status != membership.Unknown {
			age = millisSpan(p.AgeMS)
		}
		add(p.Site, withTraffic(string(p.Status), p.Traffic), age, p.Said)
	}
	busiest(s.Rows, by)
	return s
}

func topServices(st *siteapi.Status) sheet {
	s := sheet{Name: "services", Head: []string{"SERVICE", "SITE", "LOAD", "SLOTS", "SERVICE TIME", "IN FLIGHT", "SERVED/S", "DEMAND/S"}}
	by := map[string]float64{}
	said(st, func(x *siteapi.SiteStatus) {
		for _, v := range x.Services {
			load := "-"
			if slotsKnown(&v.ServiceReport) {
				busy := v.Arrivals * v.ServiceTimeMS / 1000 / v.Slots
				load = percent(busy)
				by[string(v.Service)+" "+x.Site] = busy
			}
			s.Rows = append(s.Rows, []string{
				string(v.Service), x.Site, load, slotsText(&v.ServiceReport), millis(v.ServiceTimeMS), fmt.Sprint(v.InFlight),
				fmt.Sprintf("%.1f", v.Arrivals), fmt.Sprintf("%.1f", v.Demand),
			})
		}
	})
	busiest(s.Rows, by)
	return s
}

// topWays lists what each site serves for another, and what stands between them.
func topWays(st *siteapi.Status, m *siteapi.Weights) sheet {
	s := sheet{Name: "ways", Head: []string{"FROM", "TO", "NOW/S", "PLANNED", "PRICE", "RTT", "NOTE"}}
	type way struct {
		rate, share, price, rtt float64
		plans                   int
		note                    string
	}
	ways := map[[2]string]*way{}
	at := func(from, to string) *way {
		w := ways[[2]string{from, to}]
		if w == nil {
			w = &way{}
			ways[[2]string{from, to}] = w
		}
		return w
	}
	said(st, func(x *siteapi.SiteStatus) {
		for _, v := range x.Services {
			for from, rate := range v.From {
				at(from, x.Site).rate += rate
			}
		}
	})
	for _, r := range m.Rows {
		for _, p := range r.Services {
			for _, x := range p.Remotes {
				w := at(r.Site, x.Site)
				w.share += x.Weight
				w.price, w.rtt = max(w.price, x.PriceMS), x.RTTMS
				w.plans++
				w.note = cmp.Or(w.note, x.Excluded)
			}
		}
	}
	said(st, func(x *siteapi.SiteStatus) {
		for i := range x.Budgets {
			w := at(x.Site, x.Budgets[i].Site)
			w.note = cmp.Or(w.note, budgetText(&x.Budgets[i]))
		}
	})
	by := map[string]float64{}
	for _, k := range slices.SortedFunc(maps.Keys(ways), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
		w := ways[k]
		planned, price := "-", "-"
		if w.plans > 0 {
			planned = percent(w.share / float64(w.plans))
		}
		if w.price > 0 {
			price = millis(w.price)
		}
		s.Rows = append(s.Rows, []string{k[0], k[1], fmt.Sprintf("%.1f", w.rate), planned, price, millis(w.rtt), w.note})
		by[k[0]+" "+k[1]] = w.rate
	}
	busiest(s.Rows, by)
	return s
}

func topProxies(st *siteapi.Status) sheet {
	s := sheet{Name: "proxies", Head: []string{"SITE", "PROXY", "STATUS", "HEARD", "GENERATION", "NOTE"}}
	by := map[string]float64{}
	said(st, func(x *siteapi.SiteStatus) {
		for _, n := range x.Nodes {
			note := n.RefusedWhy
			if note == "" && len(n.Problems) > 0 {
				note = n.Problems[0]
			}
			if note == "" && n.Behind {
				note = "behind"
			}
			if note != "" || n.Status != membership.Alive {
				by[x.Site+" "+n.Node] = 1
			}
			s.Rows = append(s.Rows, []string{x.Site, n.Node, string(n.Status), millisSpan(n.AgeMS), fmt.Sprint(n.Applied.Counter), note})
		}
	})
	busiest(s.Rows, by)
	return s
}
