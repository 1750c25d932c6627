package mesh

import "time"

// NodeReport is what a node (proxy, or the agent of its chains) tells its own site's controller, every
// 100 ms while anything changes and at least every 500 ms. Soft state.
type NodeReport struct {
	Compat
	Site  string `json:"site"`
	Node  string `json:"node"`
	Epoch uint64 `json:"epoch"`
	Seq   uint64 `json:"seq"`
	// Applied is the generation in force; Refused and RefusedWhy name a newer one
	// that the node would not serve.
	Applied    Generation  `json:"applied"`
	Refused    *Generation `json:"refused,omitempty"`
	RefusedWhy string      `json:"refusedWhy,omitempty"`
	// Unverified says that the node has no key by which to tell who signed what it serves.
	Unverified bool `json:"unverified,omitempty"`
	// Problems are the parts of the generation in force that cannot be served, the
	// first [MaxProblems] of them.
	Problems []string `json:"problems,omitempty"`
	// Identity is who the node is among the proxies of its mesh; nil where it is nobody.
	Identity *NodeIdentity `json:"identity,omitempty"`
	// Workload is the workload that the node's proxy is beside and that other sites see in
	// its place; nil where it is beside none.
	Workload *NodeWorkload       `json:"workload,omitempty"`
	Services []NodeServiceReport `json:"services,omitempty"`
	Heard    []HeardReport       `json:"heard,omitempty"`
	Links    []LinkReport        `json:"links,omitempty"`
	InForce  []EffectiveWeights  `json:"inForce,omitempty"`
	// Chains is there when the report is an agent's, of chains, and no proxy's.
	Chains *NodeChains `json:"chains,omitempty"`
}

// NodeChains is what the agent of a ChainNode's chains says.
type NodeChains struct {
	Node string `json:"node"`
	// Chains have paths, of which Paths are all; what has none is a problem.
	Chains int `json:"chains"`
	Paths  int `json:"paths"`
	// Instances are the functions' on this node, Down those that do not answer, with
	// the reason, the first [MaxProblems] of them.
	Instances int               `json:"instances"`
	Down      map[string]string `json:"down,omitempty"`
	// Hops are those of paths that pass this node, [MaxChainHops] at most; Left is how many
	// paths are not told of because there are more.
	Hops []ChainPath `json:"hops,omitempty"`
	Left int         `json:"left,omitempty"`
}

// NodeWorkload is a workload by its namespace and account, and its certificate, nil before
// there is one.
type NodeWorkload struct {
	Name     string        `json:"name"`
	Identity *NodeIdentity `json:"identity,omitempty"`
}

// NodeIdentity is a node's or workload's certificate.
type NodeIdentity struct {
	ID string `json:"id"`
	// Serial is in lower-case hexadecimal.
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"notAfter"`
}

// NodeServiceReport is one service's load at one node.
type NodeServiceReport struct {
	ServiceReport
	// Demand is the rate of requests from the site's own users, wherever they
	// were served, per second (lambda of the rule).
	Demand float64 `json:"demand"`
	// PoolPerS is the part of Arrivals that services which share the machine do, in
	// requests of this one per second.
	PoolPerS float64 `json:"poolPerS,omitempty"`
}

// HeardReport is a report of another site that came in band on a response.
type HeardReport struct {
	Site     string        `json:"site"`
	Reporter string        `json:"reporter"`
	Epoch    uint64        `json:"epoch"`
	Seq      uint64        `json:"seq"`
	AgeMS    float64       `json:"ageMs"`
	Service  ServiceReport `json:"service"`
}

// LinkReport is the way to another site as a node sees it.
type LinkReport struct {
	Site string `json:"site"`
	// RTTMS is the smoothed measured round trip, 0 while none was measured.
	RTTMS       float64 `json:"rttMs"`
	Outstanding int     `json:"outstanding"`
	// Suspect says why the node sends nothing there now, empty when it may.
	Suspect string `json:"suspect,omitempty"`
	// Fault is the kind of what was wrong with the last probe, one of the Probe
	// constants, and Probe says it in words; empty when it was answered.
	Fault string `json:"fault,omitempty"`
	Probe string `json:"probe,omitempty"`
	// Carried counts the bytes of requests sent there and of the answers since the node
	// started; Grant is the part of the link's budget in force, nil for none.
	Carried uint64     `json:"carried,omitempty"`
	Grant   *LinkGrant `json:"grant,omitempty"`
}

// MaxProblems bounds [NodeReport.Problems].
const MaxProblems = 16

// What can be wrong with a probe of another site's gateway ([LinkReport.Fault]).
const (
	ProbeRefused   = "refused"   // nothing listens at the address
	ProbeTimeout   = "timeout"   // packets get no answer
	ProbeNoRoute   = "noRoute"   // this machine has no way there
	ProbeName      = "name"      // the name is not found
	ProbeOtherSite = "otherSite" // another site answers
	ProbeIdentity  = "identity"  // one of the two does not believe the other's certificate, or has none
	ProbeStranger  = "stranger"  // what answers is no gateway of a site
)

// EffectiveWeights are the shares a node really uses now for one service.
type EffectiveWeights struct {
	Service ServiceKey `json:"service"`
	// Source is "controller", "standby" (the node's own plan while nobody renews)
	// or "fading" between the two.
	Source    string             `json:"source"`
	HomeLimit int                `json:"homeLimit"`
	Shares    map[string]float64 `json:"shares"`
}
