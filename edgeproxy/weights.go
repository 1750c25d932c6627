package edgeproxy

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
}

// ServiceSharesInForce are the shares in force for one service.
type ServiceSharesInForce struct {
	Service string `json:"service"`
	// Policy is the service's siteSharing policy.
	Policy string `json:"policy"`
	// Source is controller, standby or fading.
	Source string `json:"source"`
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
	// AgeMS is the age of the newest report of that site.
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
