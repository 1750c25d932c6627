package mesh

import "strings"

// TrafficRates are means per second of what flows between two workloads.
type TrafficRates struct {
	RequestsPerS float64 `json:"requestsPerS"`
	// RequestBytesPerS flow from the caller to what it calls, ResponseBytesPerS back.
	RequestBytesPerS  float64 `json:"requestBytesPerS"`
	ResponseBytesPerS float64 `json:"responseBytesPerS"`
}

// BytesPerS is both directions together.
func (r TrafficRates) BytesPerS() float64 { return r.RequestBytesPerS + r.ResponseBytesPerS }

// Plus is the sum of two rates.
func (r TrafficRates) Plus(o TrafficRates) TrafficRates {
	return TrafficRates{
		RequestsPerS:      r.RequestsPerS + o.RequestsPerS,
		RequestBytesPerS:  r.RequestBytesPerS + o.RequestBytesPerS,
		ResponseBytesPerS: r.ResponseBytesPerS + o.ResponseBytesPerS,
	}
}

// TrafficEdge is what one workload asks of another. Recent is a mean over about
// five minutes, for scoring; Steady one over about thirty, for advice on moves.
type TrafficEdge struct {
	From   Workload     `json:"from"`
	To     Workload     `json:"to"`
	Recent TrafficRates `json:"recent"`
	Steady TrafficRates `json:"steady"`
	// Across is the part of Steady that another site than the caller's served.
	Across TrafficRates `json:"across,omitzero"`
}

// Callers and callees that are no workload of the mesh. A workload always has a
// namespace, so none can have their names.
var (
	// External is who calls from an address and with a certificate that say nothing:
	// a user, or a process that is in no MeshService.
	External = Workload{Name: "external"}
	// Others are workloads past the number that are told apart.
	Others = Workload{Name: "others"}
)

// TrafficRest is the traffic of one workload that no edge tells of: it was too
// little, or there were too many. As a caller it is in Out, as what is called in In.
type TrafficRest struct {
	Workload Workload     `json:"workload"`
	Out      TrafficRates `json:"out"`
	In       TrafficRates `json:"in"`
}

// NodeTraffic is what flowed through a node's proxy since its last one, every few
// seconds: soft state for the controller of its site. A request is told of once, by
// the proxy that took it from its caller; one that came from another site's proxy was
// told of there.
type NodeTraffic struct {
	Compat
	Site  string `json:"site"`
	Node  string `json:"node"`
	Epoch uint64 `json:"epoch"`
	Seq   uint64 `json:"seq"`
	// OverMS is the time in which it flowed.
	OverMS float64 `json:"overMs"`
	// Flows are at most [MaxNodeFlows]; what is past them is told of as of [Others].
	Flows []NodeFlow `json:"flows"`
}

// NodeFlow counts what one workload asked of another.
type NodeFlow struct {
	From Workload `json:"from"`
	To   Workload `json:"to"`
	// Away says that another site served it.
	Away          bool   `json:"away,omitempty"`
	Requests      uint64 `json:"requests"`
	RequestBytes  uint64 `json:"requestBytes"`
	ResponseBytes uint64 `json:"responseBytes"`
}

// MaxNodeFlows bounds [NodeTraffic.Flows], by which a message stays far below
// [MaxMessageBytes].
const MaxNodeFlows = 1000

func (r *NodeTraffic) site() string { return r.Site }

// EncodeNodeTraffic is [EncodeWeights] for a NodeTraffic.
func EncodeNodeTraffic(r *NodeTraffic) ([]byte, error) { return encode(r) }

// DecodeNodeTraffic is [DecodeWeights] for a NodeTraffic.
func DecodeNodeTraffic(data []byte) (*NodeTraffic, error) { return decode(data, new(NodeTraffic)) }

// TrafficReport is what a site's proxies saw of the traffic between workloads. It
// is soft state like [Report], sent every few seconds and never stored. Every
// request is told of once, by the site where its caller is.
type TrafficReport struct {
	Compat
	Site  string        `json:"site"`
	Epoch uint64        `json:"epoch"`
	Seq   uint64        `json:"seq"`
	Edges []TrafficEdge `json:"edges"`
	Rest  []TrafficRest `json:"rest,omitempty"`
	// RTTMS are the round trips from this site to others, in ms.
	RTTMS map[string]float64 `json:"rttMs,omitempty"`
}

func (r *TrafficReport) site() string { return r.Site }

// EncodeTrafficReport is [EncodeWeights] for a TrafficReport.
func EncodeTrafficReport(r *TrafficReport) ([]byte, error) { return encode(r) }

// DecodeTrafficReport is [DecodeWeights] for a TrafficReport.
func DecodeTrafficReport(data []byte) (*TrafficReport, error) {
	return decode(data, new(TrafficReport))
}

// String prints cluster/namespace/name, without a cluster that is not known.
func (w Workload) String() string {
	if w.Namespace == "" && w.Cluster == "" {
		return w.Name
	}
	if w.Cluster == "" {
		return w.Namespace + "/" + w.Name
	}
	return w.Cluster + "/" + w.Namespace + "/" + w.Name
}

// Compare orders workloads by cluster, namespace and name.
func (w Workload) Compare(o Workload) int {
	if c := strings.Compare(w.Cluster, o.Cluster); c != 0 {
		return c
	}
	if c := strings.Compare(w.Namespace, o.Namespace); c != 0 {
		return c
	}
	return strings.Compare(w.Name, o.Name)
}
