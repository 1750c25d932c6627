package mesh

// MaxChainHops bounds the hops of all paths in [NodeChains.Hops] together.
const MaxChainHops = 256

// ChainPath is a service function path, as the agent of one node that it passes sees it.
type ChainPath struct {
	// Chain is namespace/name of the ServiceChain.
	Chain string `json:"chain"`
	SPI   uint32 `json:"spi"`
	// Reversed is true of the way back.
	Reversed bool `json:"reversed,omitempty"`
	// Broken says where an echo along the path (RFC 9516) got no further, in words; empty
	// when the last one came to its end, and at nodes where the path does not begin.
	Broken string     `json:"broken,omitempty"`
	Hops   []ChainHop `json:"hops"`
}

// ChainHop is a stop of a path, or with neither function nor instance its end (or, before
// the end, a place where packets are classified again).
type ChainHop struct {
	SI       uint8  `json:"si"`
	Node     string `json:"node"`
	Function string `json:"function,omitempty"`
	Instance string `json:"instance,omitempty"`
	// Counted is what this node sent to the hop; nil where it sends nothing there.
	Counted *HopCount `json:"counted,omitempty"`
	// ProbeMS is the time in which the instance answers probes of its health, smoothed; nil
	// where this node does not probe it.
	ProbeMS *float64 `json:"probeMs,omitempty"`
	// EchoMS is the round trip of echoes from the path's beginning to this hop, before its
	// function works on them, smoothed; nil where the last came not so far, and at nodes
	// where the path does not begin.
	EchoMS *float64 `json:"echoMs,omitempty"`
}

// HopCount is what one node counted of a hop: since it is in a table, and per second of
// the last few.
type HopCount struct {
	Packets     uint64  `json:"packets"`
	Drops       uint64  `json:"drops"`
	PacketsPerS float64 `json:"packetsPerS"`
	Mbps        float64 `json:"mbps"`
	DropsPerS   float64 `json:"dropsPerS"`
}
