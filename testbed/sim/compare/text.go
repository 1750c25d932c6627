package compare

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Table writes every scenario's cells as columns of plain text that Markdown reads
// as tables too.
func (r *Result) Table(w io.Writer) error {
	var b strings.Builder
	for i := range r.Scenarios {
		s := &r.Scenarios[i]
		fmt.Fprintf(&b, "%s: %s\n\n", s.Name, s.Title)
		b.WriteString("| policy               | D | mean ms | x opt | worst | p99 ms | err % | away % | x opt | sd x opt | settle s | bars |\n")
		b.WriteString("| -------------------- | - | ------- | ----- | ----- | ------ | ----- | ------ | ----- | -------- | -------- | ---- |\n")
		for k := range s.Cells {
			c := &s.Cells[k]
			bars := ""
			if ours(c.Policy) && c.Ratio > 0 {
				if bars = "kept"; len(c.Missed) > 0 {
					bars = strings.Join(c.Missed, ", ")
				}
			}
			delay, settled := "-", strconv.FormatFloat(c.SettleS, 'f', 0, 64)
			if uses(c.Policy) {
				delay = strconv.FormatFloat(c.Delay, 'f', -1, 64)
			}
			if c.SettleS < 0 {
				settled = "never"
			}
			fmt.Fprintf(&b, "| %-20s | %s | %7.2f | %5.2f | %5.2f | %6.1f | %5.2f | %6.1f | %5.2f | %8.2f | %8s | %s |\n",
				c.Policy, delay, c.MeanMS, c.Ratio, c.Worst, c.P99MS, 100*c.Errors, 100*c.Away, c.Cross, c.Spread, settled, bars)
		}
		for k := range s.Cells {
			if c := &s.Cells[k]; len(c.ClassErrors) > 0 {
				fmt.Fprintf(&b, "\n%s at delay %g, errors by priority class:", c.Policy, c.Delay)
				for _, name := range slices.Sorted(maps.Keys(c.ClassErrors)) {
					fmt.Fprintf(&b, " %s %.2f %%", cmp.Or(name, "(none)"), 100*c.ClassErrors[name])
				}
				b.WriteString("\n")
			}
		}
		if s.Unavoidable > 0 {
			fmt.Fprintf(&b, "\n%.2f %% of the requests are beyond all capacity.\n", 100*s.Unavoidable)
		}
		b.WriteString("\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// CSV writes a line for each cell.
func (r *Result) CSV(w io.Writer) error {
	out := csv.NewWriter(w)
	head := []string{
		"scenario", "policy", "delay_periods", "mean_ms", "p50_ms", "p99_ms", "errors", "shed", "away",
		"mean_ratio", "worst_ratio", "cross_ratio", "spread_ratio", "settle_s", "queued_beside_idle_s", "missed",
	}
	if err := out.Write(head); err != nil {
		return err
	}
	f := func(x float64) string { return strconv.FormatFloat(x, 'g', 6, 64) }
	for i := range r.Scenarios {
		s := &r.Scenarios[i]
		for k := range s.Cells {
			c := &s.Cells[k]
			line := []string{
				s.Name, c.Policy, f(c.Delay), f(c.MeanMS), f(c.P50MS), f(c.P99MS), f(c.Errors), f(c.Shed), f(c.Away),
				f(c.Ratio), f(c.Worst), f(c.Cross), f(c.Spread), f(c.SettleS), f(c.IdleS), strings.Join(c.Missed, "; "),
			}
			if err := out.Write(line); err != nil {
				return err
			}
		}
	}
	out.Flush()
	return out.Error()
}

// Missed lists the bars that the product does not keep, with scenario and policy.
func (r *Result) Missed() []string {
	var out []string
	for i := range r.Scenarios {
		for k := range r.Scenarios[i].Cells {
			c := &r.Scenarios[i].Cells[k]
			for _, m := range c.Missed {
				out = append(out, fmt.Sprintf("%s, %s at delay %g: %s", r.Scenarios[i].Name, c.Policy, c.Delay, m))
			}
		}
	}
	return out
}
