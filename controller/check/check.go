// Package check finds what is wrong with a mesh, from what its controllers say. It
// does no I/O: what is known goes in, findings with their remedies come out. What is not
// known is a finding too: nothing is taken for healthy because nobody said otherwise.
package check

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/membership"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

const (
	// maxSkew is how far clocks may be apart: tokens, certificates and the times
	// that people compare go by them. Load reports do not.
	maxSkew = time.Second
	// settling is how long nodes may take to serve a new snapshot.
	settling = 5 * time.Second
	// certificateSoon is how long before its end a certificate is spoken of.
	certificateSoon = 30 * 24 * time.Hour
	// A data folder that is nearly full: the last good state can no longer be kept.
	lowBytes, lowPart = 256 << 20, 0.05
	fullBytes         = 32 << 20
	// lowBudget is the part of a link's daily budget from which its use is spoken of.
	lowBudget             = 0.8
	remedySites           = "see on that site: systemctl status sitecontroller; meridian --data DIR status"
	remedyNetwork         = "see whether its hub address and port are reachable from there, and whether a firewall or NAT changed"
	remedySnapshotRefused = "correct what it names (meridian get -o yaml, meridian apply); the node serves its last good generation until then"
)

// Input is what is known of a mesh.
type Input struct {
	// Status is how it looks from where it is asked, with what the others said.
	Status *siteapi.Status
	// Weights are the plans, and Objects the configuration known here.
	Weights *siteapi.Weights
	Objects []siteapi.Object
}

// Findings lists what is wrong, the worst first.
func Findings(in Input) []siteapi.Finding {
	c := &checker{in: in, now: in.Status.Now}
	c.link()
	c.site(&in.Status.Self)
	for i := range in.Status.Peer {
		c.peer(&in.Status.Peer[i])
	}
	c.plans()
	c.objects()
	slices.SortStableFunc(c.found, func(a, b siteapi.Finding) int {
		return cmp.Or(cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Site, b.Site))
	})
	return slices.CompactFunc(c.found, func(a, b siteapi.Finding) bool { return a == b })
}

// Settling reports whether a snapshot is so young that its nodes may still take it:
// then it is too early to judge them.
func Settling(st *siteapi.Status) bool {
	young := func(s *siteapi.SiteStatus) bool {
		if s == nil || s.SnapshotAt == nil || s.Now.IsZero() || s.Now.Sub(*s.SnapshotAt) > settling {
			return false
		}
		return !s.Published && s.Generation != nil || slices.ContainsFunc(s.Nodes, func(n siteapi.NodeStatus) bool { return n.Behind && n.RefusedWhy == "" })
	}
	return young(&st.Self) || slices.ContainsFunc(st.Peer, func(p siteapi.PeerStatus) bool { return young(p.Said) })
}

// Looked says in words what was looked at.
func Looked(in Input) []string {
	sites, answered, nodes, links, services, routes := 1+len(in.Status.Peer), 1, len(in.Status.Self.Nodes), 0, 0, 0
	for i := range in.Status.Peer {
		if said := in.Status.Peer[i].Said; said != nil {
			answered++
			nodes += len(said.Nodes)
		}
	}
	for _, r := range in.Weights.Rows {
		for i := range r.Services {
			services++
			links += len(r.Services[i].Remotes)
		}
	}
	for _, o := range in.Objects {
		if mesh.IsRoute(o.Key.Kind) {
			routes++
		}
	}
	return []string{
		fmt.Sprintf("%d sites, of which %d answered: clocks, disks, certificates, snapshots", sites, answered),
		fmt.Sprintf("%d proxies: generation, listeners, capabilities, ways to other sites", nodes),
		fmt.Sprintf("%d plans for %d ways between sites", services, links),
		fmt.Sprintf("%d objects, %d routes", len(in.Objects), routes),
	}
}

type checker struct {
	in    Input
	now   time.Time
	found []siteapi.Finding
}

func (c *checker) add(severity, code, site, remedy, what string, args ...any) {
	c.found = append(c.found, siteapi.Finding{Code: code, Severity: severity, Site: site, What: fmt.Sprintf(what, args...), Remedy: remedy})
}

// link judges the way from here to the others.
func (c *checker) link() {
	l, self := &c.in.Status.Link, c.in.Status.Self.Site
	if !l.Connected && l.Role != "alone" {
		c.add(siteapi.SeverityError, "link-down", self, remedyNetwork,
			"no link to the other sites since %s: what they do is not known, the site goes on alone", l.Since.Format(time.TimeOnly))
	}
	if l.MirrorLag != "" {
		c.add(siteapi.SeverityError, "config-stale", self, "see the hub's log and disk; the site goes on with the configuration it has",
			"the hub's configuration is not followed: %s", l.MirrorLag)
	}
}

// peer judges another site, from here and by its own word.
func (c *checker) peer(p *siteapi.PeerStatus) {
	switch p.Status {
	case membership.Dead, membership.Suspect:
		c.add(siteapi.SeverityError, "site-unreachable", p.Site, remedySites+"; "+remedyNetwork,
			"it is %s: nothing was heard of it for %s", p.Status, age(p.AgeMS))
	case membership.Unknown:
		since := ""
		if p.UnknownSince != nil {
			since = " since " + p.UnknownSince.Format(time.TimeOnly)
		}
		remedy := "start its sitecontroller; a site that has not joined needs a token (meridian token create " + p.Site + "); one that is gone for good: meridian site remove " + p.Site
		c.add(siteapi.SeverityError, "site-unreachable", p.Site, remedy, "nothing is known of it%s", since)
	}
	if p.Said == nil {
		if p.Status == membership.Alive {
			c.add(siteapi.SeverityError, "controller-silent", p.Site, remedySites, "its load is heard, but its controller does not answer: %s", p.Silence)
		}
		return
	}
	if p.SkewMS != nil {
		skew, within := time.Duration(*p.SkewMS*1e6), time.Duration(p.SkewWithinMS*1e6)
		if skew.Abs()-within > maxSkew {
			word := "ahead of"
			if skew < 0 {
				word = "behind"
			}
			c.add(siteapi.SeverityError, "clock-skew", p.Site, "synchronise the clocks of both sites (timedatectl status, chronyc tracking)",
				"its clock is %s %s that of site %s", skew.Abs().Round(100*time.Millisecond), word, c.in.Status.Self.Site)
		}
	}
	c.site(p.Said)
}

// site judges what a controller says of its own site.
func (c *checker) site(s *siteapi.SiteStatus) {
	switch {
	case s.Problem != "":
		c.add(siteapi.SeverityError, "snapshot", s.Site, "see the controller's log; until then the nodes keep their last snapshot", "its snapshot is not handed out: %s", s.Problem)
	case s.Generation != nil && !s.Published && s.Standby == "":
		c.add(siteapi.SeverityError, "snapshot", s.Site, "see the controller's log and its disk", "generation %d is not handed out to the nodes", s.Generation.Counter)
	}
	c.disk(s)
	for _, cert := range s.Certificates {
		switch left := cert.Ends.Sub(s.Now); {
		case left <= 0:
			c.add(siteapi.SeverityError, "certificate", s.Site, "restart the hub's sitecontroller, which makes a new one; then the sites connect again", "%s has ended on %s", cert.Name, cert.Ends.Format(time.DateOnly))
		case left < certificateSoon:
			c.add(siteapi.SeverityWarning, "certificate", s.Site, "restart the hub's sitecontroller, which makes a new one", "%s ends on %s", cert.Name, cert.Ends.Format(time.DateOnly))
		}
	}
	c.identities(s)
	c.peers(s)
	for _, name := range s.Doubles {
		c.add(siteapi.SeverityError, "duplicate-id", s.Site, "stop one of them: a data folder is for one process, and a copy of it is no new site (meridian token create, meridian join; for proxies another --node)",
			"several processes report as %s", name)
	}
	if !slices.ContainsFunc(s.Nodes, func(n siteapi.NodeStatus) bool { return n.Chains == nil }) && s.Generation != nil && s.Objects > 0 && s.Role != "hub" {
		c.add(siteapi.SeverityWarning, "no-proxy", s.Site, "start an edgeproxy with --config nats://… of this site (run.json has it)", "no proxy reports")
	}
	for i := range s.Nodes {
		c.node(s, &s.Nodes[i])
	}
	for i := range s.Links {
		c.way(s.Site, &s.Links[i])
	}
	for i := range s.Budgets {
		c.budget(s, &s.Budgets[i])
	}
}

// budget speaks of a link whose budget is used up, or nearly and too early.
func (c *checker) budget(s *siteapi.SiteStatus, b *siteapi.LinkBudget) {
	const remedy = "see what goes there (meridian top), raise links[].budget of the Site, or give the site more capacity of its own"
	until := b.Turns.UTC().Format("15:04Z")
	switch part := float64(b.Used) / float64(max(1, b.Bytes)); {
	case part >= 1:
		c.add(siteapi.SeverityError, "budget-spent", s.Site, remedy,
			"the budget of the link to site %s (%.3g GB a day) is used up: nothing new goes there until %s", b.Site, float64(b.Bytes)/1e9, until)
	case part >= lowBudget && b.PriceMS > 0:
		c.add(siteapi.SeverityWarning, "budget-low", s.Site, remedy,
			"%.0f %% of the budget of the link to site %s (%.3g GB a day) is used, and the day lasts until %s", 100*part, b.Site, float64(b.Bytes)/1e9, until)
	}
}

func (c *checker) disk(s *siteapi.SiteStatus) {
	d := s.Disk
	if d == nil {
		c.add(siteapi.SeverityWarning, "disk", s.Site, "see the controller's log", "how full its disk is is not known")
		return
	}
	part := float64(d.FreeBytes) / float64(max(1, d.TotalBytes))
	const remedy = "free space there (du -xh, journalctl --vacuum-size=100M): configuration, generations and the last good snapshot are kept on it"
	switch {
	case d.FreeBytes < fullBytes:
		c.add(siteapi.SeverityError, "disk-full", s.Site, remedy, "the disk of %s is full: %d MiB of %d are free", d.Path, d.FreeBytes>>20, d.TotalBytes>>20)
	case d.FreeBytes < lowBytes || part < lowPart && d.FreeBytes < 8*lowBytes:
		c.add(siteapi.SeverityWarning, "disk-low", s.Site, remedy, "the disk of %s is nearly full: %d MiB of %d are free", d.Path, d.FreeBytes>>20, d.TotalBytes>>20)
	}
}

func age(ms float64) time.Duration {
	return time.Duration(ms * float64(time.Millisecond)).Round(100 * time.Millisecond)
}
