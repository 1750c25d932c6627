package edgeproxy

import (
	"cmp"
	"slices"
	"time"
)

// WeightsView is what a node really does with the load of its shared services,
// now and lately. Times are Unix milliseconds of this node's clock, so that
// readers can line it up with what they measured themselves.
type WeightsView struct {
	Site     string                 `json:"site"`
	Node     string                 `json:"node"`
	NowMS    int64                  `json:"nowMs"`
	Services []ServiceSharesInForce `json:"services"`
	// History are the changes that came into force, oldest first; it is bounded,
	// and DroppedBefore says up to when older ones are gone (0: none).
	History       []ShareChange `json:"history"`
	DroppedBefore int64         `json:"droppedBeforeMs"`
	// Links are the ways to other sites.
	Links []LinkUse `json:"links,omitempty"`
}

// LinkUse is what went over the link to a site.
type LinkUse struct {
	Site string `json:"site"`
	// Carried counts bytes of requests sent there and of the answers, since the start.
	Carried uint64 `json:"carried"`
	// Budget says that the link has a daily budget, Spent that this proxy's part of it is
	// used up, and Most is the count at which it is.
	Budget bool   `json:"budget,omitempty"`
	Spent  bool   `json:"spent,omitempty"`
	Most   uint64 `json:"most,omitempty"`
}

// ServiceSharesInForce are the shares in force for one service.
type ServiceSharesInForce struct {
	Service string `json:"service"`
	// Policy is the service's siteSharing policy.
	Policy string `json:"policy"`
	// Source is controller, standby or fading.
	Source string `json:"source"`
	// Off says why the service is not shared now, empty when it is.
	Off string `json:"off,omitempty"`
	// SinceMS is when these shares came into force.
	SinceMS int64 `json:"sinceMs"`
	// HomeLimit is the gate: fewer requests than this in flight at home stay home.
	HomeLimit int     `json:"homeLimit"`
	HomeShare float64 `json:"homeShare"`
	// InFlight counts requests at the site's own endpoints now.
	InFlight int                  `json:"inFlight"`
	Remotes  []RemoteShareInForce `json:"remotes"`
}

// RemoteShareInForce is the share of one other site.
type RemoteShareInForce struct {
	Site        string  `json:"site"`
	Share       float64 `json:"share"`
	PriceMS     float64 `json:"priceMs"`
	Limit       int     `json:"limit"`
	Outstanding int     `json:"outstanding"`
	RTTMS       float64 `json:"rttMs"`
	// AgeMS is the age of the report that the plan used.
	AgeMS float64 `json:"ageMs"`
	// Excluded and Suspect say why nothing is sent there, empty when it may be.
	Excluded string `json:"excluded,omitempty"`
	Suspect  string `json:"suspect,omitempty"`
}

// ShareChange is a change of the shares in force of one service. Shares holds
// every site with a share, this one too.
type ShareChange struct {
	AtMS      int64              `json:"atMs"`
	Service   string             `json:"service"`
	Source    string             `json:"source"`
	HomeLimit int                `json:"homeLimit"`
	Shares    map[string]float64 `json:"shares"`
}

// Weights returns the shares in force and the changes after since.
func (c *Cooperation) Weights(since time.Time) WeightsView {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := WeightsView{Site: c.Site, Node: c.Node, NowMS: time.Now().UnixMilli(), Services: []ServiceSharesInForce{}}
	for _, s := range c.services {
		is, ok := c.last[s.Key]
		if !ok {
			continue // before the first tick
		}
		v.Services = append(v.Services, c.viewOf(&is, c.now()))
	}
	for _, w := range c.ways {
		m := c.ledger.Meter(w.Site)
		u := LinkUse{Site: w.Site, Carried: m.Carried(), Budget: w.Budget, Spent: m.Spent()}
		u.Most, _ = m.Most()
		v.Links = append(v.Links, u)
	}
	v.History, v.DroppedBefore = c.changes.since(since)
	return v
}

func (c *Cooperation) viewOf(is *inForce, now int64) ServiceSharesInForce {
	w := &is.share.Weights
	out := ServiceSharesInForce{
		Service: string(is.share.Service), Policy: is.share.Gate.Policy(), Source: is.share.Source, Off: w.Off,
		SinceMS: is.since.UnixMilli(), HomeLimit: w.HomeLimit, HomeShare: w.HomeWeight,
		InFlight: is.inFlight, Remotes: []RemoteShareInForce{},
	}
	for _, r := range w.Remotes {
		live := c.ledger.Live(is.share.Service, r.Site)
		out.Remotes = append(out.Remotes, RemoteShareInForce{
			Site: r.Site, Share: r.Weight, PriceMS: r.PriceMS, Limit: r.Limit, Outstanding: live.Outstanding(),
			RTTMS: r.RTTMS, AgeMS: r.AgeMS, Excluded: r.Excluded, Suspect: live.Suspect(now),
		})
	}
	for _, w := range c.ways {
		if slices.ContainsFunc(out.Remotes, func(r RemoteShareInForce) bool { return r.Site == w.Site }) {
			continue
		}
		live := c.ledger.Live(is.share.Service, w.Site)
		out.Remotes = append(out.Remotes, RemoteShareInForce{
			Site: w.Site, Outstanding: live.Outstanding(), RTTMS: w.RTTMS, Suspect: live.Suspect(now),
			Excluded: cmp.Or(w.Excluded, "no load report from this site"),
		})
	}
	return out
}
