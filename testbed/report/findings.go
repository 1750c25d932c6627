package report

import (
	"fmt"

	"github.com/meridian-mesh/meridian/testbed/scenario"
)

// stalledMS is how late the generator's p99 may be before the machine, not the
// mesh, is what the figures show.
const stalledMS = 50

// Findings are sentences that say what the figures of a report show, and name a
// loss as plainly as a win. Comparisons whose policy did not run are left out.
func (r *Report) Findings() []string {
	var out []string
	say := func(format string, a ...any) { out = append(out, fmt.Sprintf(format, a...)) }
	for _, run := range r.Runs {
		if run.Fault != "" {
			say("%s: %s.", run.Policy, run.Fault)
		}
	}
	for _, run := range r.Runs {
		if run.GeneratorLateMS > stalledMS {
			say("%s: one request in a hundred left the generator over %s late, so this machine was busy or stood still; that is in the figures of this run.",
				run.Policy, millis(run.GeneratorLateMS))
		}
	}
	coop := r.run(Cooperative)
	if coop == nil {
		return out
	}

	hot, settled, slow := coop.phase(scenario.Hotspot), coop.phase(HotspotSettled), coop.phase(scenario.Slow)
	say("Cooperative, hotspot: %s has %.1f times its capacity to serve, the mesh is at %.0f %% of its own; %s, %.0f %% of all requests went to another site.",
		r.HotSite, r.HotFactor, 100*r.HotspotLoad, errorsOf(hot.All), 100*hot.All.AwayShare)
	say("%s's weights: %s, %s; at most %s of a pair from 5 s after the step. All sites': %s, at most %s.", r.HotSite,
		spell("the first changed", coop.ReactionMS, "none changed"), spell("settled", coop.SettleMS, "not settled"), count(coop.Reversals, "reversal"),
		spell("settled", coop.SettleAllMS, "not settled"), count(coop.ReversalsAll, "reversal"))

	if none := r.run(None); none != nil {
		a, b := none.phase(scenario.Hotspot).HotHome, hot.HotHome
		say("Hot site's own users, hotspot, median: %s with cooperation, %s alone: %s.", millis(b.MedianMS), millis(a.MedianMS), change(b.MedianMS, a.MedianMS))
		a, b = none.phase(scenario.Slow).SlowHome, slow.SlowHome
		say("%s's users while it works %.0f times longer, p99: %s with cooperation, %s alone: %s.",
			r.SlowSite, scenario.SlowFactor, millis(b.P99MS), millis(a.P99MS), change(b.P99MS, a.P99MS))
	}
	for _, policy := range []string{RoundRobin, WeightedRoundRobin} {
		other := r.run(policy)
		if other == nil {
			continue
		}
		a, b := other.phase(HotspotSettled).All, settled.All
		say("All users from 5 s after the step, mean: %s with cooperation (%.0f %% away), %s with %s (%.0f %% away): %s.",
			millis(b.MeanMS), 100*b.AwayShare, millis(a.MeanMS), policy, 100*a.AwayShare, change(b.MeanMS, a.MeanMS))
	}
	return out
}

func errorsOf(s Stats) string {
	return fmt.Sprintf("%s in %s", count(s.Errors, "error"), count(s.Requests, "request"))
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func spell(what string, v *float64, otherwise string) string {
	if v == nil {
		return otherwise
	}
	return fmt.Sprintf("%s after %s", what, millis(*v))
}

// change says how far ours is from theirs, smaller being better.
func change(ours, theirs float64) string {
	switch {
	case theirs == 0:
		return "no comparison"
	case ours <= theirs:
		return fmt.Sprintf("%.1f %% better", 100*(1-ours/theirs))
	default:
		return fmt.Sprintf("%.1f %% worse", 100*(ours/theirs-1))
	}
}

// millis prints a time with three significant digits at the least.
func millis(v float64) string {
	switch {
	case v >= 10_000:
		return fmt.Sprintf("%.1f s", v/1000)
	case v >= 1000:
		return fmt.Sprintf("%.2f s", v/1000)
	case v >= 100:
		return fmt.Sprintf("%.0f ms", v)
	default:
		return fmt.Sprintf("%.1f ms", v)
	}
}
