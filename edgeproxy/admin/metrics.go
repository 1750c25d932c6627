package admin

import (
	"net/http"
	"time"
)

func (n Node) metrics(w http.ResponseWriter, r *http.Request) {
	done, err := n.Turn(r.Context())
	if err != nil {
		return // the scraper has gone
	}
	defer done()
	t := &Text{b: make([]byte, 0, 32<<10)}
	n.writeBuild(t)
	n.writeConfig(t, time.Now())
	n.writeProxy(t)
	n.writeWeights(t)
	if err := writeProcess(t); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	write(w, http.StatusOK, "text/plain; version=0.0.4; charset=utf-8", t.b)
}

func (n Node) writeBuild(t *Text) {
	t.Family("meridian_build_info", gauge, "Which program this is; always 1.")
	t.Value(1, "version", n.Build.Version, "revision", n.Build.Revision, "goversion", n.Build.GoVersion)
}

func (n Node) writeConfig(t *Text, now time.Time) {
	c := n.Config()
	t.Family("meridian_config_last_reload_successful", gauge, "Whether the newest configuration that was offered is in force.")
	t.Bool(c.Snapshot != nil && c.Refused == nil)
	t.Family("meridian_config_reloads_total", counter, "Configurations that came into force.")
	t.Count(c.Reloads)
	t.Family("meridian_config_refusals_total", counter, "Configurations that were refused, by reason.")
	t.Count(c.Lower, "reason", "lower_generation")
	t.Count(c.Tampered, "reason", "not_from_origin")
	t.Count(c.Refusals-c.Lower-c.Tampered, "reason", "invalid")
	t.Family("meridian_config_restored", gauge, "Whether the configuration in force is the last good copy from disk.")
	t.Bool(c.Restored)
	if !c.CheckedAt.IsZero() {
		t.Family("meridian_config_check_age_seconds", gauge, "Time since the source last gave anything, good or bad.")
		t.Value(now.Sub(c.CheckedAt).Seconds())
	}
	if c.Snapshot != nil {
		t.Family("meridian_config_age_seconds", gauge, "Time since the configuration in force came into force.")
		t.Value(now.Sub(c.AppliedAt).Seconds())
		t.Family("meridian_config_generation_incarnation", gauge, "Incarnation of the generation in force.")
		t.Count(c.Snapshot.Generation.Incarnation)
		t.Family("meridian_config_generation_counter", gauge, "Counter of the generation in force, within its incarnation.")
		t.Count(c.Snapshot.Generation.Counter)
	}
	if c.Link != nil {
		t.Family("meridian_controller_connected", gauge, "Whether the node has a connection to its controller.")
		t.Bool(c.Link.Connected)
		t.Family("meridian_controller_state_age_seconds", gauge, "Time since the connection to the controller came or went.")
		t.Value(now.Sub(c.Link.Since).Seconds())
	}
}

func (n Node) writeWeights(t *Text) {
	v := n.Weights(time.Now())
	if len(v.Services) == 0 {
		return
	}
	t.Family("meridian_share_ratio", gauge, "Planned share of the site's own requests for a service, by the site that serves them.")
	for _, s := range v.Services {
		t.Value(s.HomeShare, "service", s.Service, "site", v.Site)
		for _, r := range s.Remotes {
			t.Value(r.Share, "service", s.Service, "site", r.Site)
		}
	}
	t.Family("meridian_share_home_limit", gauge, "Requests in flight at home below which none leaves.")
	for _, s := range v.Services {
		t.Value(float64(s.HomeLimit), "service", s.Service)
	}
	t.Family("meridian_share_source", gauge, "Who made the plan in force: 1 for one of controller, standby, fading.")
	for _, s := range v.Services {
		for _, source := range []string{"controller", "fading", "standby"} {
			t.Bool(s.Source == source, "service", s.Service, "source", source)
		}
	}
	t.Family("meridian_remote_price_seconds", gauge, "Price of sending a request to another site, round trip included.")
	for _, s := range v.Services {
		for _, r := range s.Remotes {
			t.Value(r.PriceMS/1000, "service", s.Service, "site", r.Site)
		}
	}
	t.Family("meridian_remote_outstanding_requests", gauge, "Requests sent to another site that are not answered.")
	for _, s := range v.Services {
		for _, r := range s.Remotes {
			t.Value(float64(r.Outstanding), "service", s.Service, "site", r.Site)
		}
	}
	t.Family("meridian_remote_report_age_seconds", gauge, "Age of the newest load report of another site.")
	for _, s := range v.Services {
		for _, r := range s.Remotes {
			t.Value(r.AgeMS/1000, "service", s.Service, "site", r.Site)
		}
	}
	t.Family("meridian_remote_bytes_total", counter, "Bytes of requests sent to another site and of the answers.")
	for _, l := range v.Links {
		t.Value(float64(l.Carried), "site", l.Site)
	}
	t.Family("meridian_link_budget_spent", gauge, "Whether this proxy's part of a link's daily budget is used up.")
	for _, l := range v.Links {
		if l.Budget {
			t.Bool(l.Spent, "site", l.Site)
		}
	}
	t.Family("meridian_remote_suspect", gauge, "Whether nothing is sent to another site because it does not answer.")
	for _, s := range v.Services {
		for _, r := range s.Remotes {
			t.Bool(r.Suspect != "", "service", s.Service, "site", r.Site)
		}
	}
}
