package report

import (
	"fmt"
	"strings"
	"text/tabwriter"
)

// Table renders the report for people: the mesh, a line per policy and phase,
// and the findings.
func (r *Report) Table() string {
	var b strings.Builder
	line := func(w *tabwriter.Writer, cells ...string) {
		// A strings.Builder takes every write.
		_, _ = fmt.Fprintln(w, strings.Join(cells, "\t")+"\t")
	}
	table := func() *tabwriter.Writer { return tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight) }

	fmt.Fprintf(&b, "%d sites, %.0f s per policy, seed %d, %s\n\n", len(r.Sites), r.DurationS, r.Seed, r.Version)
	w := table()
	line(w, "site", "slots", "service time", "capacity", "users", "RTT to others", "role")
	for i, s := range r.Sites {
		role := "-"
		switch s.Name {
		case r.HotSite:
			role = "hot"
		case r.SlowSite:
			role = "slow"
		}
		line(w, s.Name, fmt.Sprint(s.Slots), millis(s.ServiceTimeMS), fmt.Sprintf("%.0f/s", s.Capacity), fmt.Sprint(s.Users), rttRange(s.RTTMS, i), role)
	}
	_ = w.Flush() // as above

	b.WriteString("\n")
	w = table()
	line(w, "policy", "phase", "seconds", "requests", "errors", "median", "mean", "p99", "away", "hot users' median", "p99", "slow site's users' p99")
	for _, run := range r.Runs {
		for _, p := range run.Phases {
			line(w, run.Policy, p.Name, fmt.Sprintf("%.1f-%.1f", p.FromS, p.ToS), fmt.Sprint(p.All.Requests), fmt.Sprint(p.All.Errors),
				millis(p.All.MedianMS), millis(p.All.MeanMS), millis(p.All.P99MS), fmt.Sprintf("%.0f %%", 100*p.All.AwayShare),
				millis(p.HotHome.MedianMS), millis(p.HotHome.P99MS), millis(p.SlowHome.P99MS))
		}
	}
	_ = w.Flush() // as above

	b.WriteString("\n")
	w = table()
	line(w, "policy", "reaction", "settled", "reversals", "errors by kind", "generator late (p99)", "CPU")
	for _, run := range r.Runs {
		line(w, run.Policy, orDash(run.ReactionMS), orDash(run.SettleMS), fmt.Sprint(run.Reversals), kinds(run.ErrorKinds),
			millis(run.GeneratorLateMS), fmt.Sprintf("%.2f cores", run.CPU))
	}
	_ = w.Flush() // as above

	if found := r.Findings(); len(found) > 0 {
		b.WriteString("\nWhat to see\n")
		for _, f := range found {
			b.WriteString("  - " + f + "\n")
		}
	}
	return b.String()
}

func orDash(v *float64) string {
	if v == nil {
		return "-"
	}
	return millis(*v)
}

func rttRange(rtt []float64, self int) string {
	lo, hi := -1.0, -1.0
	for j, v := range rtt {
		if j == self {
			continue
		}
		if lo < 0 || v < lo {
			lo = v
		}
		hi = max(hi, v)
	}
	if lo < 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f-%.1f ms", lo, hi)
}

func kinds(k map[string]int) string {
	if len(k) == 0 {
		return "-"
	}
	var out []string
	for o := BadStatus; o <= Broken; o++ {
		if n := k[o.String()]; n > 0 {
			out = append(out, fmt.Sprintf("%d %s", n, o))
		}
	}
	return strings.Join(out, ", ")
}
