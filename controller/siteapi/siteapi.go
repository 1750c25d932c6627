// Package siteapi is the API of a site controller as its users see it: what is
// asked and answered (JSON over HTTP on loopback or a Unix socket, and over the
// bus), the run file in which a controller says where it listens, and a client.
package siteapi

import (
	"encoding/json"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/history"
	"github.com/meridian-mesh/meridian/controller/membership"
)

// Paths of the HTTP API.
const (
	PathStatus  = "/api/v1/status"
	PathWeights = "/api/v1/weights"
	PathObjects = "/api/v1/objects"
	PathApply   = "/api/v1/apply"
	PathDelete  = "/api/v1/delete"
	PathToken   = "/api/v1/token" //nolint:gosec // a path
	PathRemove  = "/api/v1/remove-site"
	PathTraffic = "/api/v1/site-traffic"
	PathExplain = "/api/v1/explain"
	PathCheck   = "/api/v1/check"
	PathPin     = "/api/v1/pin"
	PathRotate  = "/api/v1/rotate"
	PathHistory = "/api/v1/history"
	PathPast    = "/api/v1/past"
	PathAudit   = "/api/v1/audit"
	// PathLogin is asked who one is, and told who one wants to be.
	PathLogin = "/api/v1/login"
	// PathFlows is who talks to whom; beside /metrics, for what reads both.
	PathFlows = "/traffic"
)

// Verbs of the API on the bus (see bus.APISubject). Those of one site answer for
// that site alone; over HTTP a controller asks the others too.
const (
	VerbStatus  = "status"
	VerbWeights = "weights"
	VerbGet     = "get"
	VerbApply   = "apply"
	VerbDelete  = "delete"
	VerbExplain = "explain"
	VerbHistory = "history"
)

// Document is one named YAML input.
type Document struct {
	Name string `json:"name"`
	YAML string `json:"yaml"`
}

// ApplyRequest sets objects. Either all of it is taken or nothing.
type ApplyRequest struct {
	Documents []Document `json:"documents"`
	// DryRun checks everything and changes nothing.
	DryRun bool `json:"dryRun,omitempty"`
}

// DeleteRequest removes objects. Either all of it is done or nothing.
type DeleteRequest struct {
	Keys   []mesh.Key `json:"keys"`
	DryRun bool       `json:"dryRun,omitempty"`
}

// What happened, or with DryRun would happen, to an object.
const (
	Created   = "created"
	Updated   = "updated"
	Unchanged = "unchanged"
	Deleted   = "deleted"
)

// Change is what happened to one object.
type Change struct {
	Key    mesh.Key `json:"key"`
	Action string   `json:"action"`
}

// Result answers an [ApplyRequest] or [DeleteRequest].
type Result struct {
	Site   string `json:"site"`
	DryRun bool   `json:"dryRun,omitempty"`
	// Changes is empty when Faults is not.
	Changes []Change `json:"changes"`
	// Faults are all reasons why nothing was changed.
	Faults []mesh.Fault `json:"faults,omitempty"`
	// Conditions are what is wrong between the objects named and others. They
	// refuse nothing.
	Conditions []mesh.Condition `json:"conditions,omitempty"`
}

// GetRequest asks for objects; an empty field matches all.
type GetRequest struct {
	Kind      string `json:"kind,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
}

// Object is one object and who owns it.
type Object struct {
	Key   mesh.Key `json:"key"`
	Owner string   `json:"owner"`
	// Shadowed reports that another owner's object of the same key is in force.
	Shadowed bool            `json:"shadowed,omitempty"`
	Object   json.RawMessage `json:"object"`
}

// Objects answers a [GetRequest].
type Objects struct {
	Site string `json:"site"`
	// Owner is who this controller's own objects belong to, and Revision how far
	// their bucket is.
	Owner    string   `json:"owner"`
	Revision uint64   `json:"revision"`
	Objects  []Object `json:"objects"`
}

// Status is how a mesh looks from one site.
type Status struct {
	Now  time.Time    `json:"now"`
	Self SiteStatus   `json:"self"`
	Link Link         `json:"link"`
	Peer []PeerStatus `json:"peers"`
	// Conditions are what is wrong between the objects in force at this site.
	Conditions []mesh.Condition `json:"conditions,omitempty"`
}

// Link is the way of a site's controller to the others.
type Link struct {
	// Role is hub, leaf, alone or external (a NATS that is not ours).
	Role      string    `json:"role"`
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"`
	// Sites counts the leaf links that are up at a hub.
	Sites int `json:"sites,omitempty"`
	// MirrorLag says how the mirror of the hub's configuration stands, empty when
	// it follows.
	MirrorLag string `json:"mirrorLag,omitempty"`
	// Faults counts messages that could not be read, Dropped those lost to a full
	// queue, Unsent those published without a connection.
	Faults  uint64 `json:"faults"`
	Dropped uint64 `json:"dropped"`
	Unsent  uint64 `json:"unsent"`
}

// SiteStatus is what a site's controller says of itself.
type SiteStatus struct {
	Site    string    `json:"site"`
	Role    string    `json:"role"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	// Traffic is what the site takes of new requests where that is not all
	// ([mesh.SiteSpec]), and TrafficReason why.
	Traffic       string `json:"traffic,omitempty"`
	TrafficReason string `json:"trafficReason,omitempty"`
	// Standby says who runs the site, when this controller only stands by.
	Standby string `json:"standby,omitempty"`
	// Generation is the newest snapshot, Published whether the bus has it, and
	// Problem why it has not.
	Generation *mesh.Generation `json:"generation,omitempty"`
	Hash       string           `json:"hash,omitempty"`
	Published  bool             `json:"published"`
	Problem    string           `json:"problem,omitempty"`
	Objects    int              `json:"objects"`
	// Now is the site's clock and SnapshotAt when the newest snapshot was made.
	Now        time.Time  `json:"now,omitzero"`
	SnapshotAt *time.Time `json:"snapshotAt,omitempty"`
	// Disk is the file system of the data folder, nil where it could not be asked.
	Disk *Disk `json:"disk,omitempty"`
	// Certificates are those whose end would cut the site off.
	Certificates []Certificate `json:"certificates,omitempty"`
	// Identities is what the site issues; nil where the mesh has none.
	Identities *Identities `json:"identities,omitempty"`
	// Peers are what requests of other sites need here, by the configuration in force;
	// empty where the mesh has no identities.
	Peers []mesh.PeerScope `json:"peers,omitempty"`
	// Doubles are the names under which several processes report here now: "site
	// NAME" and "node NAME".
	Doubles []string `json:"doubles,omitempty"`
	// Links are the ways to other sites that are not as they should be.
	Links []LinkTrouble `json:"links,omitempty"`
	// Budgets are the links with a daily budget.
	Budgets  []LinkBudget    `json:"budgets,omitempty"`
	Nodes    []NodeStatus    `json:"nodes"`
	Services []ServiceStatus `json:"services"`
}

// NodeStatus is one node of a site as its controller sees it.
type NodeStatus struct {
	Node    string            `json:"node"`
	Status  membership.Status `json:"status"`
	AgeMS   float64           `json:"ageMs"`
	Applied mesh.Generation   `json:"applied"`
	// Behind reports that the node does not serve the newest generation.
	Behind     bool             `json:"behind,omitempty"`
	Refused    *mesh.Generation `json:"refused,omitempty"`
	RefusedWhy string           `json:"refusedWhy,omitempty"`
	// Unverified says that the node cannot tell who signed its configuration.
	Unverified bool `json:"unverified,omitempty"`
	// Problems are parts of the generation in force that the node cannot serve.
	Problems []string `json:"problems,omitempty"`
	// Identity is who the node is among the proxies of the mesh; nil where it is nobody.
	Identity *mesh.NodeIdentity `json:"identity,omitempty"`
	// Workload is who other sites see in the node's place; nil where that is nobody else.
	Workload *mesh.NodeWorkload `json:"workload,omitempty"`
	// Chains is of agents of chains, nil of proxies.
	Chains *mesh.NodeChains `json:"chains,omitempty"`
}

// Identities is what a site issues, and whom it believes.
type Identities struct {
	TrustDomain string `json:"trustDomain"`
	// Roots are the mesh's as this site knows them, the newest first.
	Roots []IssuedCertificate `json:"roots"`
	// Denied is the length of the deny list.
	Denied int `json:"denied,omitempty"`
	// Issuer signs the site's nodes; nil while it has no certificate.
	Issuer *IssuedCertificate `json:"issuer,omitempty"`
	// Problem is why the issuer has no certificate, or none that is new.
	Problem string `json:"problem,omitempty"`
}

// IssuedCertificate is a certificate of the mesh's identities.
type IssuedCertificate struct {
	// Name is a SPIFFE ID, or of an operator's root its subject.
	Name string `json:"name"`
	// Serial is in lower-case hexadecimal.
	Serial    string    `json:"serial"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	// RenewAt is when it is replaced by itself; zero where it is not.
	RenewAt time.Time `json:"renewAt,omitzero"`
}

// Disk is how full a file system is.
type Disk struct {
	Path string `json:"path"`
	// FreeBytes is what may still be written by who is not root.
	FreeBytes  uint64 `json:"freeBytes"`
	TotalBytes uint64 `json:"totalBytes"`
}

// Certificate is one with an end.
type Certificate struct {
	Name string    `json:"name"`
	Ends time.Time `json:"ends"`
}

// LinkBudget is how much of a link's daily budget is used, by what the site's proxies said.
type LinkBudget struct {
	Site  string `json:"site"`
	Bytes uint64 `json:"bytes"`
	Used  uint64 `json:"used"`
	// PriceMS is what it adds to the price of a request that way.
	PriceMS float64 `json:"priceMs"`
	// Turns is when the next day begins.
	Turns time.Time `json:"turns"`
}

// LinkTrouble is what a node says of its way to another site.
type LinkTrouble struct {
	Node string `json:"node"`
	mesh.LinkReport
}

// ServiceStatus is the load of one service at a site.
type ServiceStatus struct {
	mesh.ServiceReport
	Demand float64 `json:"demand"`
}

// PeerStatus is another site: what is believed of it here and, when its
// controller answered, what it says of itself.
type PeerStatus struct {
	Site   string            `json:"site"`
	Status membership.Status `json:"status"`
	// HeardAt is when its youngest news was made, by our clock; nil when none came.
	HeardAt *time.Time `json:"heardAt,omitempty"`
	AgeMS   float64    `json:"ageMs,omitempty"`
	// From is where that news came from; nil when none came.
	From *Origin `json:"from,omitempty"`
	// SuspectAfterMS and DeadAfterMS are the ages at which it stops being believed,
	// by how regularly it is heard.
	SuspectAfterMS float64 `json:"suspectAfterMs"`
	DeadAfterMS    float64 `json:"deadAfterMs"`
	// UnknownSince is since when nothing is known of it, for status unknown.
	UnknownSince *time.Time `json:"unknownSince,omitempty"`
	RTTMS        float64    `json:"rttMs"`
	// Traffic and TrafficReason are by the Site object here, whatever the site says.
	Traffic       string `json:"traffic,omitempty"`
	TrafficReason string `json:"trafficReason,omitempty"`
	// SkewMS is by how much the site's clock is ahead of this one's, to within
	// SkewWithinMS; nil when it did not answer.
	SkewMS       *float64    `json:"skewMs,omitempty"`
	SkewWithinMS float64     `json:"skewWithinMs,omitempty"`
	Said         *SiteStatus `json:"said,omitempty"`
	// Silence is why Said is missing.
	Silence string `json:"silence,omitempty"`
	// Known is what this site plans with: the youngest report of each service there.
	Known []KnownService `json:"known,omitempty"`
}

// Origin says who made a report.
type Origin struct {
	// Reporter is the process, Epoch when it started (Unix ns, its clock), Seq the
	// number of the report since then.
	Reporter string `json:"reporter"`
	Epoch    uint64 `json:"epoch"`
	Seq      uint64 `json:"seq"`
	// InBand says that it came on a response between proxies, not over the bus.
	InBand bool `json:"inBand,omitempty"`
}

// KnownService is the load of a service at another site, as it is believed here.
type KnownService struct {
	mesh.ServiceReport
	Origin
	AgeMS float64 `json:"ageMs"`
}

// Weights is the matrix of plans: a row for each site that answered.
type Weights struct {
	Rows []WeightsRow `json:"rows"`
	// Missing says, by site, why its row is not there.
	Missing map[string]string `json:"missing,omitempty"`
}

// WeightsRow is one site's plan and what its nodes made of it.
type WeightsRow struct {
	Site     string                 `json:"site"`
	AgeMS    float64                `json:"ageMs"`
	Services []mesh.ServiceWeights  `json:"services"`
	Nodes    map[string][]Effective `json:"nodes,omitempty"`
}

// History is the demand of the last hour: a row for each site that answered.
type History struct {
	Rows []HistoryRow `json:"rows"`
	// Missing says, by site, why its row is not there.
	Missing map[string]string `json:"missing,omitempty"`
}

// HistoryRow is the demand of one site's own users, as its controller remembers it.
type HistoryRow struct {
	Site string `json:"site"`
	// StepS is how long each step of the series is, in seconds.
	StepS    float64          `json:"stepS"`
	Services []history.Series `json:"services"`
	// Missed is how many services are not recorded because there are too many.
	Missed int `json:"missed,omitempty"`
}

// Login opens a session of a user.
type Login struct {
	Name     string `json:"name"`
	Password string `json:"password"`
}

// Caller is who asks. Programs on the controller's machine need no login: they are
// Local, and have no name.
type Caller struct {
	Name  string `json:"name,omitempty"`
	Role  string `json:"role,omitempty"`
	Local bool   `json:"local,omitempty"`
}

// Audit is the last changes that were asked of this controller, the oldest first.
type Audit struct {
	Changes []Audited `json:"changes"`
}

// Audited is one of them: who asked for what, from where, and what became of it.
type Audited struct {
	At      time.Time `json:"at"`
	Who     string    `json:"who"`
	From    string    `json:"from,omitempty"`
	What    string    `json:"what"`
	Outcome string    `json:"outcome"`
}

// Past is when the mesh was looked at from a site, the oldest first; how it looked then
// is a [history.Moment].
type Past struct {
	Site  string      `json:"site"`
	Times []time.Time `json:"times"`
}

// Effective is what a node really uses for a service.
type Effective = mesh.EffectiveWeights

// RunFile is <data>/run.json, written when a controller serves and removed when
// it stops.
type RunFile struct {
	Site    string `json:"site"`
	PID     int    `json:"pid"`
	Version string `json:"version"`
	// NATS is where the site's nodes connect, with the token in TokenFile.
	NATS      string `json:"nats"`
	TokenFile string `json:"tokenFile,omitempty"`
	// API is the HTTP API: http://host:port, or unix:/path.
	API string `json:"api"`
	// TrustKey is the file of the public key that seals the site's snapshots.
	TrustKey string `json:"trustKey"`
	// Leaf is where other sites connect to a hub (tls://host:port), Join where new
	// ones ask to (https://host:port), and HubCA the certificate it proves itself by.
	Leaf  string `json:"leaf,omitempty"`
	Join  string `json:"join,omitempty"`
	HubCA string `json:"hubCA,omitempty"`
	// SFC is where application functions set AfSfcRequirements, empty where they do not.
	SFC string `json:"sfc,omitempty"`
	// Page is where the page is served to users with a login, empty where it is not.
	Page string `json:"page,omitempty"`
}

// TokenRequest asks a hub for a token that lets a site join.
type TokenRequest struct {
	Site string `json:"site"`
	// TTLSeconds is how long it is good for; 0 means an hour.
	TTLSeconds float64 `json:"ttlSeconds,omitempty"`
	// Hosts are where the new site reaches the hub, instead of what the hub was
	// told to advertise.
	Hosts []string `json:"hosts,omitempty"`
}

// Token answers a [TokenRequest].
type Token struct {
	Site    string    `json:"site"`
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
	// Hosts are those that it names.
	Hosts []string `json:"hosts"`
}

// RemoveRequest asks a hub to take a site out of the mesh.
type RemoveRequest struct {
	Site string `json:"site"`
}

// Removed answers a [RemoveRequest].
type Removed struct {
	Site string `json:"site"`
	// Did is what was done, in words.
	Did []string `json:"did"`
	// Left are objects that still name the site, and are the operator's to change.
	Left []mesh.Key `json:"left,omitempty"`
}

// TrafficRequest says what a site is to take of new requests from now on.
type TrafficRequest struct {
	Site string `json:"site"`
	// Traffic is one of [mesh.SiteAccepts], [mesh.SiteCordoned], [mesh.SiteDrained].
	Traffic string `json:"traffic"`
	// Reason is kept with the site and shown to who asks.
	Reason string `json:"reason,omitempty"`
	// Force drains the last site that takes requests, too.
	Force  bool `json:"force,omitempty"`
	DryRun bool `json:"dryRun,omitempty"`
}

// TrafficResult answers a [TrafficRequest].
type TrafficResult struct {
	Result
	// Stays are services whose requests stay at a drained site, and why.
	Stays []string `json:"stays,omitempty"`
}

// ExplainRequest asks where a request would go, and why.
type ExplainRequest struct {
	mesh.ExplainQuery
	// Site is where the request comes in, Node which proxy there is asked; empty is
	// any that is alive.
	Site string `json:"site,omitempty"`
	Node string `json:"node,omitempty"`
	// From is where the client is, a geo URI (RFC 5870), in place of Site: the
	// nearest site is asked.
	From string `json:"from,omitempty"`
	// Deep asks the site that is chosen for its endpoints too.
	Deep bool `json:"deep,omitempty"`
}

// Explained answers an [ExplainRequest].
type Explained struct {
	// Nearest are the sites by distance from the client, where its position is given.
	Nearest []Distance `json:"nearest,omitempty"`
	mesh.Explanation
}

// Distance is how far a site is from a client.
type Distance struct {
	Site string  `json:"site"`
	KM   float64 `json:"km"`
}

// Severities of a [Finding]: an error costs somebody something now, a warning will.
const (
	SeverityError   = "error"
	SeverityWarning = "warning"
)

// Finding is something that is not as it should be.
type Finding struct {
	// Code names the kind of finding.
	Code     string `json:"code"`
	Severity string `json:"severity"`
	// Site is where it is, empty where it is nowhere in particular.
	Site string `json:"site,omitempty"`
	// What says what is wrong, Remedy what to do about it.
	What   string `json:"what"`
	Remedy string `json:"remedy"`
}

// Checked is what a check of the mesh found.
type Checked struct {
	// Site is where it was made.
	Site string    `json:"site"`
	At   time.Time `json:"at"`
	// Looked says what was looked at, in words.
	Looked   []string  `json:"looked"`
	Findings []Finding `json:"findings"`
}

// PinRequest fixes where the requests of one site's own users for a service go, or
// frees them where To is empty.
type PinRequest struct {
	Service mesh.ServiceKey `json:"service"`
	From    string          `json:"from"`
	To      []mesh.PinShare `json:"to,omitempty"`
	DryRun  bool            `json:"dryRun,omitempty"`
}

// What [RotateRequest] may ask for.
const (
	RotateRoot   = "root"   // at the hub
	RotateIssuer = "issuer" // of the site that is asked
)

// RotateRequest replaces a key and its certificate before they end.
type RotateRequest struct {
	What string `json:"what"`
}

// Rotated is the certificate that took over.
type Rotated struct {
	Site string            `json:"site"`
	What string            `json:"what"`
	New  IssuedCertificate `json:"new"`
}
