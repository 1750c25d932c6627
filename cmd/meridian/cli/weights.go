package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

func weightsCommand(e *env) *cobra.Command {
	var output, service, from string
	cmd := &cobra.Command{
		Use:   "weights",
		Short: "Show how each site shares its load, service by service",
		Long: `Weights shows the plans of all sites that answer: for each service a matrix of the
share of a site's own requests (row) that is planned to be served at a site
(column), and below it the reasons.

LIMIT is for the site itself the number of requests in flight under which all stay
at home, and for another site the most that may be outstanding there. PRICE is what
one more request costs in ms of delay, round trip included. AGE is the age of the
report that the plan used. IN FORCE is what the nodes really do and whose plan it
is. A site that gets nothing says why.`,
		Example: `  meridian --data ./hub weights
  meridian --data ./hub weights --service default/shop --from north -o json`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Weights, error) { return c.Weights(ctx) })
			if err != nil {
				return err
			}
			if err := filter(m, mesh.ServiceKey(service), from); err != nil {
				return err
			}
			return print(cmd, output, m, func(w io.Writer) { weightsTable(w, m) })
		},
	}
	cmd.Flags().StringVar(&service, "service", "", "only this service, `namespace/name`")
	cmd.Flags().StringVar(&from, "from", "", "only the plan of this `site`")
	outputFlag(cmd, &output)
	watchFlag(cmd)
	cmd.AddCommand(pinCommands(e)...)
	completeLive(cmd, "service", e, func(m *siteapi.Weights) (out []string) {
		for _, k := range services(m) {
			out = append(out, string(k))
		}
		return out
	})
	completeLive(cmd, "from", e, func(m *siteapi.Weights) (out []string) {
		for _, r := range m.Rows {
			out = append(out, r.Site)
		}
		return out
	})
	return cmd
}

// completeLive completes a flag with names from the matrix of the mesh.
func completeLive(cmd *cobra.Command, flag string, e *env, names func(*siteapi.Weights) []string) {
	err := cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		m, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Weights, error) { return c.Weights(ctx) })
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return names(m), cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(err) // the flag is not there: a mistake in this package
	}
}

// filter keeps one service and one site where they are given.
func filter(m *siteapi.Weights, service mesh.ServiceKey, from string) error {
	if from != "" {
		if why, ok := m.Missing[from]; ok {
			return fmt.Errorf("site %s does not answer: %s", from, why)
		}
		m.Missing = nil
		m.Rows = slices.DeleteFunc(m.Rows, func(r siteapi.WeightsRow) bool { return r.Site != from })
		if len(m.Rows) == 0 {
			return fmt.Errorf("there is no site %s", from)
		}
	}
	if service == "" {
		return nil
	}
	if known := services(m); !slices.Contains(known, service) {
		return hinted{fmt.Errorf("no site shares a service %s", service), fmt.Sprintf("shared are %v; a service is shared when it has export: {scope: mesh}", known)}
	}
	for i := range m.Rows {
		r := &m.Rows[i]
		r.Services = slices.DeleteFunc(r.Services, func(s mesh.ServiceWeights) bool { return s.Service != service })
		for n, in := range r.Nodes {
			r.Nodes[n] = slices.DeleteFunc(in, func(x siteapi.Effective) bool { return x.Service != service })
		}
	}
	return nil
}

func services(m *siteapi.Weights) []mesh.ServiceKey {
	seen := map[mesh.ServiceKey]bool{}
	for _, r := range m.Rows {
		for _, s := range r.Services {
			seen[s.Service] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

func weightsTable(w io.Writer, m *siteapi.Weights) {
	keys := services(m)
	if len(keys) == 0 {
		fmt.Fprintln(w, "no service is shared between sites: a service is when it has export: {scope: mesh}")
	}
	for i, key := range keys {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "SERVICE %s\n\n", key)
		matrix(w, m, key)
		fmt.Fprintln(w)
		details(w, m, key)
	}
	for _, site := range slices.Sorted(maps.Keys(m.Missing)) {
		fmt.Fprintf(w, "\nsite %s: plan unknown: %s\n", site, m.Missing[site])
	}
}

// plan is one row's plan for a service.
func plan(r siteapi.WeightsRow, key mesh.ServiceKey) (mesh.ServiceWeights, bool) {
	for _, s := range r.Services {
		if s.Service == key {
			return s, true
		}
	}
	return mesh.ServiceWeights{}, false
}

func matrix(w io.Writer, m *siteapi.Weights, key mesh.ServiceKey) {
	columns := map[string]bool{}
	for _, r := range m.Rows {
		if s, ok := plan(r, key); ok {
			columns[r.Site] = true
			for _, x := range s.Remotes {
				columns[x.Site] = true
			}
		}
	}
	names := slices.Sorted(maps.Keys(columns))
	fmt.Fprint(w, "FROM \\ TO")
	for _, n := range names {
		fmt.Fprintf(w, "\t%s", n)
	}
	fmt.Fprintln(w)
	for _, r := range m.Rows {
		s, ok := plan(r, key)
		if !ok {
			continue
		}
		share := map[string]string{r.Site: percent(s.HomeWeight)}
		for _, x := range s.Remotes {
			share[x.Site] = percent(x.Weight)
			if x.Excluded != "" {
				share[x.Site] = "x"
			}
		}
		fmt.Fprint(w, r.Site)
		for _, n := range names {
			text := share[n]
			if text == "" {
				text = "-"
			}
			fmt.Fprintf(w, "\t%s", text)
		}
		fmt.Fprintln(w)
	}
}

func details(w io.Writer, m *siteapi.Weights, key mesh.ServiceKey) {
	fmt.Fprintln(w, "FROM\tTO\tSHARE\tLIMIT\tPRICE\tRTT\tAGE\tIN FORCE\tNOTE")
	for _, r := range m.Rows {
		s, ok := plan(r, key)
		if !ok {
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t-\t-\t-\t%s\t%s\n", r.Site, r.Site, percent(s.HomeWeight), limit(s.HomeLimit), inForce(r, key, r.Site), planNote(&s))
		for _, x := range s.Remotes {
			if x.Excluded != "" {
				fmt.Fprintf(w, "%s\t%s\t-\t-\t-\t%s\t%s\t%s\t%s\n", r.Site, x.Site, millis(x.RTTMS), millisSpan(x.AgeMS), inForce(r, key, x.Site), x.Excluded)
				continue
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", r.Site, x.Site, percent(x.Weight), limit(x.Limit), millis(x.PriceMS), millis(x.RTTMS), millisSpan(x.AgeMS), inForce(r, key, x.Site))
		}
	}
}

// planNote says what is special about a site's plan.
func planNote(s *mesh.ServiceWeights) string {
	switch {
	case s.Off != "":
		return s.Off
	case s.Pinned:
		return "pinned"
	case s.Drained:
		return "drained"
	}
	return ""
}

// unbounded is the size from which a limit means that there is none.
const unbounded = 1 << 20

func limit(n int) string {
	if n >= unbounded {
		return "none"
	}
	return fmt.Sprint(n)
}

// inForce is the mean share that the row's nodes give a site now, and whose plan
// that is.
func inForce(r siteapi.WeightsRow, key mesh.ServiceKey, to string) string {
	sum, nodes, source := 0.0, 0, ""
	for _, name := range slices.Sorted(maps.Keys(r.Nodes)) {
		for _, x := range r.Nodes[name] {
			if x.Service != key {
				continue
			}
			sum += x.Shares[to]
			nodes++
			if source != "" && source != x.Source {
				source = "mixed"
			} else {
				source = x.Source
			}
		}
	}
	if nodes == 0 {
		return "-"
	}
	return fmt.Sprintf("%s (%s)", percent(sum/float64(nodes)), source)
}
