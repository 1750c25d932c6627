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
}

// TrafficRest is the traffic of one workload that no edge tells of: it was too
// little, or there were too many. As a caller it is in Out, as what is called in In.
type TrafficRest struct {
	Workload Workload     `json:"workload"`
	Out      TrafficRates `json:"out"`
	In       TrafficRates `json:"in"`
}

// TrafficReport is what a site's proxies saw of the traffic between workloads. It
// is soft state like [Report], sent every few seconds and never stored. Every
// request is told of once, by the site where it met the workload that served it.
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
