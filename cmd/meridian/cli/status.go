package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/membership"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

func statusCommand(e *env) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the sites, their nodes, generations and load",
		Long: `Status shows the mesh as one site's controller sees it.

STATUS is alive, suspect (missed some reports), dead (missed many), or unknown with
the time since when: then this side could not have heard, and nothing is known.
How long is too long follows from how regularly a site is heard. Beside it stands what
the operator has taken from the site: cordoned or drained. AGE and FROM are of
the youngest news: who made it, the number of the report since that process started,
and "in band" when it came on a response between proxies. NODES counts live nodes of
all that were seen lately. LOAD is the part of the site's slots that its requests
keep busy. What is not known is shown as "-". With -o wide each service's load
stands below; with -o json there is more: the epoch, when a site becomes suspect, and
each service's load with its own origin and age.`,
		Example: `  meridian --data ./hub status
  meridian --server http://127.0.0.1:7470 status -o json`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Status, error) { return c.Status(ctx) })
			if err != nil {
				return err
			}
			return print(cmd, output, st, func(w io.Writer) {
				statusTable(w, st)
				if output == outWide {
					loadTable(w, st)
				}
			})
		},
	}
	outputFlag(cmd, &output, outWide)
	watchFlag(cmd)
	return cmd
}

func statusTable(w io.Writer, st *siteapi.Status) {
	fmt.Fprintf(w, "seen from site %s (%s)%s\n\n", st.Self.Site, st.Self.Role, linkLine(st))
	fmt.Fprintln(w, "SITE\tSTATUS\tAGE\tFROM\tRTT\tNODES\tGENERATION\tDEMAND/S\tSERVED/S\tIN FLIGHT\tLOAD")
	siteLine(w, st.Self.Site, withTraffic("alive", st.Self.Traffic), "-", "-", "-", &st.Self)
	for _, p := range st.Peer {
		status, age, from, rtt := string(p.Status), "-", "-", "-"
		if p.Status == membership.Unknown && p.UnknownSince != nil {
			status = "unknown since " + p.UnknownSince.Local().Format(time.TimeOnly)
		} else if p.HeardAt != nil {
			age = millisSpan(p.AgeMS)
		}
		if p.From != nil {
			from = fmt.Sprintf("%s #%d", p.From.Reporter, p.From.Seq)
			if p.From.InBand {
				from += " in band"
			}
		}
		if p.RTTMS > 0 {
			rtt = millis(p.RTTMS)
		}
		siteLine(w, p.Site, withTraffic(status, p.Traffic), age, from, rtt, p.Said)
	}
	first := true
	note := func(format string, v ...any) {
		if first {
			fmt.Fprintln(w)
			first = false
		}
		fmt.Fprintf(w, format+"\n", v...)
	}
	trafficNote(note, st.Self.Site, st.Self.Traffic, st.Self.TrafficReason)
	nodeNotes(note, &st.Self)
	budgetNotes(note, &st.Self)
	peerNotes(note, &st.Self)
	for _, p := range st.Peer {
		trafficNote(note, p.Site, p.Traffic, p.TrafficReason)
		if p.Said != nil {
			nodeNotes(note, p.Said)
			budgetNotes(note, p.Said)
			peerNotes(note, p.Said)
		} else if p.Status == membership.Alive {
			note("site %s: its controller does not answer: %s", p.Site, p.Silence)
		}
	}
	for _, c := range st.Conditions {
		note("warning: %s", c)
	}
}

// loadTable lists each service's load at each site that says it.
func loadTable(w io.Writer, st *siteapi.Status) {
	fmt.Fprintln(w, "\nSITE\tSERVICE\tLOAD\tSLOTS\tSERVICE TIME\tIN FLIGHT\tSERVED/S\tFOR OTHERS/S")
	line := func(s *siteapi.SiteStatus) {
		for _, x := range s.Services {
			load, others := "-", 0.0
			if slotsKnown(&x.ServiceReport) {
				load = percent(x.Arrivals * x.ServiceTimeMS / 1000 / x.Slots)
			}
			for _, rate := range x.From {
				others += rate
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%.1f\t%.1f\n", s.Site, x.Service, load, slotsText(&x.ServiceReport), millis(x.ServiceTimeMS), x.InFlight, x.Arrivals, others)
		}
	}
	line(&st.Self)
	for i := range st.Peer {
		if said := st.Peer[i].Said; said != nil {
			line(said)
		}
	}
}

func withTraffic(status, traffic string) string {
	if traffic == "" {
		return status
	}
	return status + ", " + traffic
}

// trafficNote says why a site does not take all requests.
func trafficNote(note func(string, ...any), site, traffic, reason string) {
	if traffic != "" && reason != "" {
		note("site %s is %s: %s", site, traffic, reason)
	}
}

// peerNotes says what requests of other sites need where that is not the default.
func peerNotes(note func(string, ...any), s *siteapi.SiteStatus) {
	if len(s.Peers) == 1 && s.Peers[0].From == mesh.PeerModeDefault {
		return
	}
	for _, p := range s.Peers {
		note("site %s: mtls is %s for %s, by %s", s.Site, p.MTLS, p, p.From)
	}
}

func linkLine(st *siteapi.Status) string {
	l := st.Link
	if st.Self.Standby != "" {
		return ", standing by; the site is run by " + st.Self.Standby
	}
	switch l.Role {
	case "hub":
		return fmt.Sprintf(", %d sites connected", l.Sites)
	case "alone":
		return ", which is connected to no other"
	}
	state := "down"
	if l.Connected {
		state = "up"
	}
	out := fmt.Sprintf(", link to the others %s since %s", state, l.Since.Local().Format(time.TimeOnly))
	if l.MirrorLag != "" {
		out += " (" + l.MirrorLag + ")"
	}
	return out
}

func siteLine(w io.Writer, name, status, age, from, rtt string, s *siteapi.SiteStatus) {
	if s == nil {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t-\t-\t-\t-\t-\t-\n", name, status, age, from, rtt)
		return
	}
	live := 0
	for _, n := range s.Nodes {
		if n.Status == membership.Alive {
			live++
		}
	}
	generation := "none"
	if s.Generation != nil {
		generation = fmt.Sprint(s.Generation.Counter)
		if !s.Published {
			generation += " (not published)"
		}
	}
	load := "-\t-\t-\t-"
	if len(s.Services) > 0 {
		var demand, served, busy, slots float64
		inFlight := 0
		for _, x := range s.Services {
			demand += x.Demand
			served += x.Arrivals
			inFlight += x.InFlight
			if slotsKnown(&x.ServiceReport) {
				busy += x.Arrivals * x.ServiceTimeMS / 1000
				slots += x.Slots
			}
		}
		part := "-"
		if slots > 0 {
			part = percent(busy / slots)
		}
		load = fmt.Sprintf("%.1f\t%.1f\t%d\t%s", demand, served, inFlight, part)
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d/%d\t%s\t%s\n", name, status, age, from, rtt, live, len(s.Nodes), generation, load)
}

// budgetNotes says how much the links with a budget carried today.
func budgetNotes(note func(string, ...any), s *siteapi.SiteStatus) {
	for i := range s.Budgets {
		note("link %s to %s: %s", s.Site, s.Budgets[i].Site, budgetText(&s.Budgets[i]))
	}
}

func budgetText(b *siteapi.LinkBudget) string {
	out := fmt.Sprintf("%s of %s used today", gigabytes(b.Used), gigabytes(b.Bytes))
	switch {
	case b.Used >= b.Bytes:
		out += ", closed until " + b.Turns.Local().Format("15:04")
	case b.PriceMS > 0:
		out += ", +" + millis(b.PriceMS) + " a request"
	}
	return out
}

func gigabytes(n uint64) string { return fmt.Sprintf("%.3g GB", float64(n)/1e9) }

// nodeNotes names the nodes that are not as they should be.
func nodeNotes(note func(string, ...any), s *siteapi.SiteStatus) {
	if s.Problem != "" {
		note("site %s: %s", s.Site, s.Problem)
	}
	for _, n := range s.Nodes {
		switch {
		case n.Status != membership.Alive:
			note("node %s/%s: %s, last heard of %s ago", s.Site, n.Node, n.Status, millisSpan(n.AgeMS))
		case n.RefusedWhy != "":
			note("node %s/%s: refuses generation %s, serves %d: %s", s.Site, n.Node, refused(n), n.Applied.Counter, n.RefusedWhy)
		case n.Behind:
			note("node %s/%s: serves generation %d", s.Site, n.Node, n.Applied.Counter)
		}
		if c := n.Chains; c != nil && n.Status == membership.Alive {
			note("node %s/%s: %s with %s, %d of %s up", s.Site, n.Node, count(c.Chains, "chain"), count(c.Paths, "path"), c.Instances-len(c.Down), count(c.Instances, "instance"))
			for _, p := range n.Problems {
				note("node %s/%s: %s", s.Site, n.Node, p)
			}
			for _, name := range slices.Sorted(maps.Keys(c.Down)) {
				note("node %s/%s: instance %s is down: %s", s.Site, n.Node, name, c.Down[name])
			}
		}
	}
}

func refused(n siteapi.NodeStatus) string {
	if n.Refused == nil {
		return "?"
	}
	return fmt.Sprint(n.Refused.Counter)
}
