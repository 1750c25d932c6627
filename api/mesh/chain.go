package mesh

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ServiceChain sends traffic of a class through network functions, in order: packets
// between two nodes, or requests at a Gateway or of the routes that name it.
type ServiceChain struct {
	TypeMeta
	Metadata ObjectMeta       `json:"metadata"`
	Spec     ServiceChainSpec `json:"spec"`

	sfcMetadata string
}

// Ways in which a change of a chain reaches flows that are known already.
const (
	UpdateNewFlows  = "newFlows"  // they stay on their path to their end
	UpdateImmediate = "immediate" // they move at once
)

// What happens to traffic where a function, or a chain, has no instance left.
const (
	FailClosed = "closed" // it is dropped
	FailOpen   = "open"   // it passes without
)

// ServiceChainSpec is the desired state of a ServiceChain.
type ServiceChainSpec struct {
	// Functions are NetworkFunctions of the chain's namespace.
	Functions []string     `json:"functions"`
	Match     []ChainMatch `json:"match,omitempty"`
	Ingress   ChainEnd     `json:"ingress,omitempty,omitzero"`
	Egress    ChainEnd     `json:"egress,omitempty,omitzero"`
	Symmetric *bool        `json:"symmetric,omitempty"`
	Paths     int          `json:"paths,omitempty"`
	Budget    *Duration    `json:"latencyBudget,omitempty"`
	Demand    *ChainDemand `json:"demand,omitempty"`
	Failure   string       `json:"failureMode,omitempty"`
	Update    string       `json:"update,omitempty"`
	// Branches classify the chain's packets again on their way.
	Branches []ChainBranch `json:"branches,omitempty"`
}

// ChainBranch sends packets that match, behind a function, on the way of another
// chain (RFC 7665 4.8); others go on. Answers go back by that other chain.
type ChainBranch struct {
	// After is one of the chain's functions; empty is before the first.
	After string `json:"after,omitempty"`
	// Match may not name what a packet no longer has in the middle of its path: an
	// interface.
	Match ChainMatch `json:"match"`
	// Chain is another ServiceChain of the namespace.
	Chain string `json:"chain"`
}

// ChainEnd is a node where a chain begins or ends, and its port there; or the Gateway
// where one of requests begins.
type ChainEnd struct {
	Node string `json:"node,omitempty"`
	// Interface is the port by which packets leave at this end; empty leaves it to
	// the node's routes.
	Interface string `json:"interface,omitempty"`
	// Gateway is one of the chain's namespace, Listener its listener; none is all for
	// HTTP and HTTPS.
	Gateway  string `json:"gateway,omitempty"`
	Listener string `json:"listener,omitempty"`
}

// ChainDemand is what the chain is expected to carry, each way.
type ChainDemand struct {
	PacketsPerSecond float64 `json:"packetsPerSecond,omitempty"`
	Mbps             float64 `json:"mbps,omitempty"`
}

// ChainMatch is one alternative of a classifier. All that it names must hold; of a
// list, one item.
type ChainMatch struct {
	Interfaces       []string `json:"interfaces,omitempty"`
	Sources          []string `json:"sources,omitempty"`
	Destinations     []string `json:"destinations,omitempty"`
	SourcePorts      []string `json:"sourcePorts,omitempty"`
	DestinationPorts []string `json:"destinationPorts,omitempty"`
	Protocols        []string `json:"protocols,omitempty"`
	DSCP             []int    `json:"dscp,omitempty"`
	// SourceSites, DNNs and Slices are what ChainNode.ports and ChainNode.pools say of
	// where a packet comes from; one port or pool must have all that are named.
	SourceSites []string `json:"sourceSites,omitempty"`
	DNNs        []string `json:"dnns,omitempty"`
	Slices      []string `json:"slices,omitempty"`
	// Hosts, Paths, Methods and Headers are of requests; they match as those of an
	// HTTPRoute do.
	Hosts   []string      `json:"hosts,omitempty"`
	Paths   []PathMatch   `json:"paths,omitempty"`
	Methods []string      `json:"methods,omitempty"`
	Headers []HeaderMatch `json:"headers,omitempty"`
}

// NetworkFunction is a function that chains may name, and its instances.
type NetworkFunction struct {
	TypeMeta
	Metadata ObjectMeta          `json:"metadata"`
	Spec     NetworkFunctionSpec `json:"spec"`
}

// Ways in which packets are handed to a function.
const (
	AttachPlain = "plain"    // as they are: the function knows no NSH
	AttachGPE   = "vxlanGPE" // with NSH, in VXLAN-GPE
	AttachEther = "ethernet" // with NSH, as Ethernet type 0x894F
)

// How the path of a packet is found again that a plain function gives back.
const (
	StateFlow      = "flow"      // by its 5-tuple: routed functions that keep it
	StateMAC       = "mac"       // by its source address: bridges and wires
	StateInterface = "interface" // by the port: functions that change the 5-tuple
)

// NetworkFunctionSpec is the desired state of a NetworkFunction.
type NetworkFunctionSpec struct {
	Attach string `json:"attach,omitempty"`
	// State is for attach: plain.
	State string `json:"state,omitempty"`
	// ChangesTuple says that its packets come back with other addresses or ports, as
	// from a NAT: answers are then known by what the chain's end has seen.
	ChangesTuple bool `json:"changesTuple,omitempty"`
	// Process says that the function is a process which reads packets from a socket:
	// segmentation and checksum offload are turned off at the ports to it.
	Process bool `json:"process,omitempty"`
	// Capacity is that of each instance; absent, that of a function in a kernel.
	Capacity *FunctionCapacity `json:"capacity,omitempty"`
	// Failure is what happens to its traffic when no instance is left.
	Failure   string             `json:"failureMode,omitempty"`
	Health    *FunctionHealth    `json:"health,omitempty"`
	Instances []FunctionInstance `json:"instances,omitempty"`
	// Native makes it a function of requests, which has no instances.
	Native *NativeFunction `json:"native,omitempty"`
	// Wasm, in place of Native, makes it one that is a module.
	Wasm *WasmFunction `json:"wasm,omitempty"`
	// External, in place of Native, makes it one that is asked over HTTP.
	External *ExternalFunction `json:"external,omitempty"`
}

// FunctionCapacity is what an instance can do, as an M/M/c queue.
type FunctionCapacity struct {
	// Concurrency is how many packets it works on at once, ServiceTime how long one
	// takes it.
	Concurrency int      `json:"concurrency"`
	ServiceTime Duration `json:"serviceTime"`
}

// Kinds of health probes.
const (
	HealthNSH   = "nsh-echo" // an echo request with NSH (RFC 9516) comes back through the function
	HealthFrame = "frame"    // a frame that goes in at the left comes out at the right
	HealthICMP  = "icmp"     // an echo request to the instance's address
	HealthTCP   = "tcp"      // a connection to the instance's address and port
	HealthPIDFD = "pidfd"    // the process of the instance's pidFile lives
)

// FunctionHealth is how instances are watched.
type FunctionHealth struct {
	Probe string `json:"probe"`
	Port  int    `json:"port,omitempty"`
	// Interval is the time between probes; an answer may take half of it. Default 100ms.
	Interval *Duration `json:"interval,omitempty"`
	// Failures in a row take an instance out, Successes bring it back. Defaults 2 and 3.
	Failures  int `json:"failures,omitempty"`
	Successes int `json:"successes,omitempty"`
}

// FunctionInstance is one instance, and how it hangs on its node.
type FunctionInstance struct {
	Name string `json:"name"`
	Node string `json:"node"`
	// Left is the node's interface towards the chain's beginning, Right the one
	// towards its end; a function with one arm, and one that knows NSH, has Left only.
	Left  string `json:"left,omitempty"`
	Right string `json:"right,omitempty"`
	// Pairs are what a function of state interface has instead: a pair for each place
	// on a path.
	Pairs []FunctionPair `json:"pairs,omitempty"`
	// LeftMAC and RightMAC are the instance's own addresses; absent, the node's
	// neighbours tell.
	LeftMAC  string `json:"leftMAC,omitempty"`
	RightMAC string `json:"rightMAC,omitempty"`
	// Address is where probes, and packets in VXLAN-GPE, are sent.
	Address string `json:"address,omitempty"`
	PIDFile string `json:"pidFile,omitempty"`
	// Drain takes no new flows.
	Drain bool `json:"drain,omitempty"`
}

// FunctionPair are two interfaces that serve one place on a path.
type FunctionPair struct {
	Left     string `json:"left"`
	Right    string `json:"right"`
	LeftMAC  string `json:"leftMAC,omitempty"`
	RightMAC string `json:"rightMAC,omitempty"`
}

// ChainNode is a node that forwards chains.
type ChainNode struct {
	TypeMeta
	Metadata ObjectMeta    `json:"metadata"`
	Spec     ChainNodeSpec `json:"spec"`
}

// ChainNodeSpec is the desired state of a ChainNode.
type ChainNodeSpec struct {
	Site string `json:"site,omitempty"`
	// Ports are interfaces towards users, servers and other networks: what comes in
	// there is classified.
	Ports []ChainPort `json:"ports,omitempty"`
	// Pools say of source addresses where they come from, on any of the ports.
	Pools    []ChainPool    `json:"pools,omitempty"`
	Underlay *ChainUnderlay `json:"underlay,omitempty"`
	// Border is the interface towards nodes of other sites that have one, too; absent
	// where the underlay is trusted that far. Headers there carry a code (RFC 9145).
	Border *ChainUnderlay `json:"border,omitempty"`
	Links  []ChainLink    `json:"links,omitempty"`
	// Redirect is absent where processes of the node reach services by themselves.
	Redirect *Redirect `json:"redirect,omitempty"`
}

// ChainPort is an interface whose packets are classified.
type ChainPort struct {
	Interface string `json:"interface"`
	Zone      int    `json:"zone,omitempty"`
	ChainOrigin
}

// ChainPool are addresses of one origin, such as those that a UPF gives to the
// sessions of a data network.
type ChainPool struct {
	Prefixes []string `json:"prefixes"`
	ChainOrigin
}

// ChainOrigin is where packets come from.
type ChainOrigin struct {
	// SourceSite is the site of the users.
	SourceSite string `json:"sourceSite,omitempty"`
	// DNN is a data network's name (TS 23.003 9A).
	DNN string `json:"dnn,omitempty"`
	// Slice is an S-NSSAI (TS 23.003 28.4): SST, and SD in six hexadecimal digits.
	Slice string `json:"slice,omitempty"`
}

// ChainUnderlay is an interface towards other nodes, and the node's address there.
type ChainUnderlay struct {
	Interface string `json:"interface"`
	Address   string `json:"address"`
}

// ChainLink is what is known of the way to another node.
type ChainLink struct {
	To   string   `json:"to"`
	RTT  Duration `json:"rtt"`
	Mbps float64  `json:"mbps,omitempty"`
}

// PortRange reads a port or a range of ports as a chain's match writes it.
func PortRange(s string) (from, to uint16, err error) {
	lo, hi, found := strings.Cut(s, "-")
	if !found {
		hi = lo
	}
	a, errA := strconv.ParseUint(lo, 10, 16)
	b, errB := strconv.ParseUint(hi, 10, 16)
	if errA != nil || errB != nil || a > b {
		return 0, 0, fmt.Errorf("%q is no port or range of ports such as 80 or 8000-8999", s)
	}
	return uint16(a), uint16(b), nil
}

func checkPortRange(s string) (string, string) {
	if _, _, err := PortRange(s); err != nil {
		return fmt.Sprintf("%q is no port or range", s), "such as \"80\" or \"8000-8999\", up to 65535"
	}
	return "", ""
}

// checkSlice reads an S-NSSAI: SST of 8 bits and, behind a hyphen, SD of 24.
func checkSlice(s string) (string, string) {
	sst, sd, found := strings.Cut(s, "-")
	_, err := strconv.ParseUint(sst, 10, 8)
	if found && err == nil {
		if _, err = strconv.ParseUint(sd, 16, 24); len(sd) != 6 {
			err = strconv.ErrSyntax
		}
	}
	if err != nil {
		return fmt.Sprintf("%q is no S-NSSAI", s), "an SST from 0 to 255 and, if there is one, an SD: \"1\" or \"1-0000d1\""
	}
	return "", ""
}

func checkSD(s string) (string, string) {
	if _, err := strconv.ParseUint(s, 16, 24); err != nil || len(s) != 6 {
		return fmt.Sprintf("%q is no slice differentiator", s), "six hexadecimal digits, such as 0000d1"
	}
	return "", ""
}

func checkMAC(s string) (string, string) {
	hex := strings.ReplaceAll(s, ":", "")
	if b, err := strconv.ParseUint(hex, 16, 48); err != nil || len(s) != 17 || b == 0 || b>>40&1 == 1 {
		return fmt.Sprintf("%q is no Ethernet address of one interface", s), "such as 02:00:00:00:00:01"
	}
	return "", ""
}

func functionRelations(s *NetworkFunctionSpec, fault faultFunc) {
	if s.ForRequests() {
		requestFunctionRelations(s, fault)
		return
	}
	if len(s.Instances) == 0 {
		fault("instances", "is missing", "where packets are handed over; a function of requests has native, wasm or external instead")
	}
	pairs := s.State == StateInterface
	if pairs && s.Attach != "" && s.Attach != AttachPlain {
		fault("state", "is interface, though packets are not handed over plain", "leave attach out, or state")
	}
	for i, in := range s.Instances {
		at := fmt.Sprintf("instances[%d]", i)
		switch {
		case pairs && (len(in.Pairs) == 0 || in.Left != "" || in.Right != "" || in.LeftMAC != "" || in.RightMAC != ""):
			fault(at, "has interfaces of its own or no pairs, though the state is interface", "give it pairs: [{left: ..., right: ...}] instead, one for each place on a path")
		case !pairs && (in.Left == "" || len(in.Pairs) > 0):
			fault(at, "has no left, or pairs, which are for state: interface", "name the node's interface to it as left")
		}
	}
	if s.Health == nil {
		return
	}
	if (s.Health.Probe == HealthTCP) != (s.Health.Port != 0) {
		fault("health", "port and probe do not fit", "a tcp probe needs a port, others have none")
	}
	if s.Health.Probe == HealthNSH && s.Attach != AttachGPE {
		fault("health", "an nsh-echo probe needs a function that knows NSH", "set attach: vxlanGPE, or another probe")
	}
	if s.Health.Probe == HealthFrame && s.State != StateMAC {
		fault("health", "a frame probe needs a function that hands frames on", "set state: mac, or another probe")
	}
	for i, in := range s.Instances {
		at := fmt.Sprintf("instances[%d]", i)
		switch {
		case s.Health.Probe == HealthPIDFD && in.PIDFile == "":
			fault(at, "has no pidFile, which the pidfd probe needs", "")
		case s.Health.Probe == HealthFrame && in.Right == "":
			fault(at, "has no right, where the frame probe listens", "")
		case s.Health.Probe != HealthPIDFD && s.Health.Probe != HealthFrame && in.Address == "":
			fault(at, "has no address, which the "+s.Health.Probe+" probe needs", "")
		}
	}
}

func chainBranchRelations(b *ChainBranch, fault faultFunc) {
	if b.Match.requestMatch() {
		fault("match", "names what requests have, and branches are of packets", "match addresses, ports, protocols, DSCP or pools")
	}
	if len(b.Match.Interfaces) > 0 {
		fault("match.interfaces", "are named, which a packet has no longer in the middle of its path", "match addresses, ports, protocols, DSCP or pools")
	}
}

func chainPoolRelations(p *ChainPool, fault faultFunc) {
	if p.ChainOrigin == (ChainOrigin{}) {
		fault("prefixes", "come from nowhere: the pool says nothing of them", "add sourceSite, dnn or slice")
	}
}

func chainNodeRelations(s *ChainNodeSpec, fault faultFunc) {
	if s.Border != nil && s.Site == "" {
		fault("border", "is there, though the node is of no site", "name the site")
	}
}

// requestFunctionRelations refuses what a function of requests has no use for.
func requestFunctionRelations(s *NetworkFunctionSpec, fault faultFunc) {
	switch {
	case s.Wasm != nil && s.Native != nil:
		fault("wasm", "is there beside native", "make it a NetworkFunction of its own")
	case s.External != nil && (s.Native != nil || s.Wasm != nil):
		fault("external", "is there beside native or wasm", "make it a NetworkFunction of its own")
	}
	for _, f := range []struct {
		field string
		set   bool
	}{
		{"attach", s.Attach != "" && s.Attach != AttachPlain}, {"state", s.State != "" && s.State != StateFlow}, {"changesTuple", s.ChangesTuple},
		{"process", s.Process}, {"capacity", s.Capacity != nil}, {"health", s.Health != nil}, {"instances", len(s.Instances) > 0},
	} {
		if f.set {
			fault(f.field, "is of functions of packets", "leave it out")
		}
	}
}

func chainRelations(s *ServiceChainSpec, fault faultFunc) {
	if s.ForRequests() {
		requestChainRelations(s, fault)
		return
	}
	packetChainRelations(s, fault)
	for i, b := range s.Branches {
		if b.After != "" && !slices.Contains(s.Functions, b.After) {
			fault(fmt.Sprintf("branches[%d].after", i), "is "+b.After+", which is none of the chain's functions", "name one of "+strings.Join(s.Functions, ", "))
		}
	}
}

func chainMatchRelations(m *ChainMatch, fault faultFunc) {
	if m.requestMatch() && m.packetMatch() {
		fault("", "names what packets have and what requests have", "a chain is of one or the other")
		return
	}
	if len(m.SourcePorts)+len(m.DestinationPorts) == 0 {
		return
	}
	if len(m.Protocols) == 0 {
		fault("protocols", "is missing, though ports are matched", "add protocols: [tcp] or [udp]")
	}
	for _, p := range m.Protocols {
		if p == "icmp" || p == "icmp6" {
			fault("protocols", p+" has no ports", "match it in an alternative of its own")
		}
	}
}
