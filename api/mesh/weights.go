package mesh

import "time"

// Report is what one site says of the load of its services. It is soft state:
// sent every 500 ms over the bus and in band on east-west responses, never
// stored. A receiver orders reports of one Reporter by (Epoch, Seq) and, between
// reporters of one site, believes the one whose information is youngest by the
// receiver's own clock.
type Report struct {
	Compat
	Site string `json:"site"`
	// Reporter is the process that made it: a controller or a node of the site.
	Reporter string `json:"reporter"`
	// Epoch is when the reporter started (Unix ns); Seq grows by one a report.
	Epoch    uint64          `json:"epoch"`
	Seq      uint64          `json:"seq"`
	Services []ServiceReport `json:"services"`
}

// ServiceReport is the load of one service at one site. Where services share a
// machine (a pool), Slots, InFlight and Arrivals are the machine's, the others' work
// counted in requests of this one: what one request more meets there.
type ServiceReport struct {
	Service ServiceKey `json:"service"`
	// Slots is how many requests the site works on at once (c of the rule).
	Slots float64 `json:"slots"`
	// Learned says that Slots is not declared but learned: SlotsLowerBound while the
	// site was never seen saturated, SlotsSettled after; SlotsDeclared where it is declared.
	Learned SlotsLearned `json:"learned,omitempty"`
	// ServiceTimeMS is the mean time of one request without waiting, in ms (s).
	ServiceTimeMS float64 `json:"serviceTimeMs"`
	// InFlight counts requests at the site's endpoints now, waiting ones too (n).
	InFlight int `json:"inFlight"`
	// Arrivals is the rate of requests served here, from everywhere, per second (L).
	Arrivals float64 `json:"arrivals"`
	// From splits Arrivals by the site they came from; the site's own are not in it.
	From map[string]float64 `json:"from,omitempty"`
	// Spillers counts the sites that sent requests here lately.
	Spillers int `json:"spillers,omitempty"`
}

// Weights is one site's plan, from its controller to its proxies: soft state that
// fades when nobody renews it. ExpiresAt is by the sender's clock and for people;
// a receiver counts TTL from its own receipt, so clocks need not agree.
type Weights struct {
	Compat
	Site      string    `json:"site"`
	Epoch     uint64    `json:"epoch"`
	Seq       uint64    `json:"seq"`
	IssuedAt  time.Time `json:"issuedAt"`
	ExpiresAt time.Time `json:"expiresAt"`
	// Services has an entry for each service that is shared between sites.
	Services []ServiceWeights `json:"services"`
	// Links has an entry for each link with a daily budget.
	Links []LinkState `json:"links,omitempty"`
}

// LinkState is what a budget leaves of a link, and what using it costs.
type LinkState struct {
	Site string `json:"site"`
	// PriceMS is what a request over the link costs beside the link's declared price,
	// in ms of delay: 0 while the day's budget lasts, more as it runs out.
	PriceMS float64 `json:"priceMs,omitempty"`
	// Grants are the parts of the nodes, by name. A node that is not in it keeps its last.
	Grants map[string]LinkGrant `json:"grants,omitempty"`
}

// LinkGrant is how far one node may go over a link. It is a reading of the node's own
// counter and no amount, so a message that is lost, late or repeated adds nothing.
type LinkGrant struct {
	// Epoch is the node's ([NodeReport.Epoch]): it is for no other process of the name.
	Epoch uint64 `json:"epoch"`
	// Serial is another one with each grant.
	Serial uint64 `json:"serial"`
	// Most is the reading of the node's counter of bytes at which it stops.
	Most uint64 `json:"most"`
}

// ServiceWeights is the plan for one service.
type ServiceWeights struct {
	Service ServiceKey `json:"service"`
	// HomeLimit is the gate: while fewer requests than this are in flight at home, stay home.
	HomeLimit int `json:"homeLimit"`
	// HomeWeight is the planned share of the site's own demand served at home, 0 to 1.
	HomeWeight float64 `json:"homeWeight"`
	// HomeSlots is how many requests home works on at once and HomeServiceTimeMS
	// the mean time of one, 0 where they are not known.
	HomeSlots         float64 `json:"homeSlots,omitempty"`
	HomeServiceTimeMS float64 `json:"homeServiceTimeMs,omitempty"`
	// HomePriceMS is the planned marginal delay at home, in ms: what PriceMS is for
	// another site, 0 where home is not in the plan.
	HomePriceMS float64 `json:"homePriceMs,omitempty"`
	// ShedLimit is the number in flight at home from which a request is refused when
	// no other site is left for it; 0 never refuses.
	ShedLimit int `json:"shedLimit,omitempty"`
	// ClassShedLimits is ShedLimit of the service's priority classes, by name.
	ClassShedLimits map[string]int `json:"classShedLimits,omitempty"`
	// Sessions says that the load is open sessions: a remote's Limit then bounds those
	// that are opened there until the next plan, which knows of them.
	Sessions bool `json:"sessions,omitempty"`
	// Drained says that home is to take nothing while another site can.
	Drained bool `json:"drained,omitempty"`
	// Pinned says that the shares are fixed by the operator: they hold request by
	// request, whatever the load.
	Pinned bool `json:"pinned,omitempty"`
	// Off says why this service is not shared now, empty when it is.
	Off string `json:"off,omitempty"`
	// Remotes are the other sites in no particular order.
	Remotes []RemoteWeight `json:"remotes,omitempty"`
}

// RemoteWeight is the plan towards one other site.
type RemoteWeight struct {
	Site string `json:"site"`
	// Weight is the planned share of own demand, 0 to 1.
	Weight float64 `json:"weight"`
	// Draw is the rate (requests per second) by which the gate draws this site
	// among the remotes; it also says where a burst would go (rw of the rule).
	Draw float64 `json:"draw"`
	// Limit bounds requests outstanding to the site (rl).
	Limit int `json:"limit"`
	// MaxRate is the most requests per second that may go there, 0 for no limit.
	MaxRate float64 `json:"maxRate,omitempty"`
	// RTTMS is the round-trip time used, in ms.
	RTTMS float64 `json:"rttMs"`
	// PriceMS is 1.3 RTT plus the planned marginal delay, in ms: the price when
	// no fresh response says better.
	PriceMS float64 `json:"priceMs"`
	// Slots and ServiceTimeMS are the capacity the plan reckoned with there.
	Slots         float64 `json:"slots,omitempty"`
	ServiceTimeMS float64 `json:"serviceTimeMs,omitempty"`
	// LiveMS[i] is the price (RTT included) of one more request when LiveFrom+i
	// are in flight there. With fewer in flight it is LiveMS[0]; beyond the table
	// it goes on by LiveSlopeMS per request.
	LiveFrom    int       `json:"liveFrom,omitempty"`
	LiveMS      []float64 `json:"liveMs,omitempty"`
	LiveSlopeMS float64   `json:"liveSlopeMs,omitempty"`
	// AgeMS is the age of the report the plan used, in ms. Excluded says why the
	// site gets nothing (stale, suspect, no route), empty otherwise.
	AgeMS    float64 `json:"ageMs"`
	Excluded string  `json:"excluded,omitempty"`
}
