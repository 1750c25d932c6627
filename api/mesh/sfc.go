package mesh

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// KindAfSfcRequirement is the kind of [AfSfcRequirement].
const KindAfSfcRequirement = "AfSfcRequirement"

// AfSfcRequirement is what an application function of a 5G network asks of the N6-LAN
// (3GPP TS 29.514, AfSfcRequirement): that traffic of some users passes chains that are
// configured already. It gives those chains further matches; they stay as they are
// written.
type AfSfcRequirement struct {
	TypeMeta
	Metadata ObjectMeta           `json:"metadata"`
	Spec     AfSfcRequirementSpec `json:"spec"`
}

// AfSfcRequirementSpec has the names of an AppSessionContextReqData (TS 29.514 5.6.2.3):
// what is asked, and of whose traffic. All that it names of traffic must hold.
type AfSfcRequirementSpec struct {
	Requirement SfcRequirement `json:"afSfcReq"`
	DNN         string         `json:"dnn,omitempty"`
	Slice       *Snssai        `json:"sliceInfo,omitempty"`
	// UEIPv4 and UEIPv6 are addresses of one user; with neither it is all of the
	// data network or slice.
	UEIPv4 string `json:"ueIpv4,omitempty"`
	UEIPv6 string `json:"ueIpv6,omitempty"`
}

// SfcRequirement is the AfSfcRequirement itself.
type SfcRequirement struct {
	// Uplink and Downlink are ServiceChains of the namespace. The same one has to be
	// symmetric; where they differ, or one is absent, neither is.
	Uplink   string `json:"sfcIdUl,omitempty"`
	Downlink string `json:"sfcIdDl,omitempty"`
	// Spatial says where the users are.
	Spatial *SpatialValidity `json:"spVal,omitempty"`
	// Metadata is passed on to functions that know NSH, as it is.
	Metadata string `json:"metadata,omitempty"`
}

// Snssai names a slice (TS 29.571 5.4.4.2).
type Snssai struct {
	SST int    `json:"sst"`
	SD  string `json:"sd,omitempty"`
}

// SpatialValidity are areas (TS 29.514 5.6.2.16), of which one is enough.
type SpatialValidity struct {
	PresenceInfoList map[string]PresenceInfo `json:"presenceInfoList"`
}

// PresenceInfo is an area by its identity, which here is the name of a site that ports
// or pools say users come from.
type PresenceInfo struct {
	PRAID string `json:"praId"`
}

// text is the slice as [ChainOrigin] writes it.
func (s *Snssai) text() string {
	if s.SD == "" {
		return strconv.Itoa(s.SST)
	}
	return strconv.Itoa(s.SST) + "-" + s.SD
}

func sfcRelations(s *AfSfcRequirementSpec, fault faultFunc) {
	if s.DNN == "" && s.Slice == nil && s.UEIPv4 == "" && s.UEIPv6 == "" {
		fault("", "names no traffic", "add dnn, sliceInfo, ueIpv4 or ueIpv6")
	}
	if a, err := netip.ParseAddr(s.UEIPv4); s.UEIPv4 != "" && (err != nil || !a.Is4()) {
		fault("ueIpv4", fmt.Sprintf("%q is no IPv4 address", s.UEIPv4), "such as 10.60.0.7")
	}
	if a, err := netip.ParseAddr(s.UEIPv6); s.UEIPv6 != "" && (err != nil || !a.Is6() || a.Is4In6() || a.Zone() != "") {
		fault("ueIpv6", fmt.Sprintf("%q is no IPv6 address", s.UEIPv6), "such as 2001:db8::7")
	}
}

func sfcRequirementRelations(r *SfcRequirement, fault faultFunc) {
	if r.Uplink == "" && r.Downlink == "" {
		fault("", "names no chain", "sfcIdUl or sfcIdDl is a ServiceChain of this namespace")
	}
	if n := len(r.Metadata); n > maxSfcMetadata {
		fault("metadata", fmt.Sprintf("has %d bytes, and a packet's header has room for %d", n, maxSfcMetadata), "shorten it, for instance to a name that the functions know")
	}
	if r.Spatial != nil && len(r.Spatial.PresenceInfoList) == 0 {
		fault("spVal.presenceInfoList", "has no area", "leave spVal out where the requirement holds everywhere")
	}
}

// ComesFrom reports whether an origin has all that the match names.
func (m *ChainMatch) ComesFrom(o *ChainOrigin) bool {
	has := func(list []string, is string) bool { return len(list) == 0 || slices.Contains(list, is) }
	sameSlice := func(s string) bool { return strings.EqualFold(s, o.Slice) } // hexadecimal digits
	return has(m.SourceSites, o.SourceSite) && has(m.DNNs, o.DNN) && (len(m.Slices) == 0 || slices.ContainsFunc(m.Slices, sameSlice))
}

// maxSfcMetadata is chaining/nsh's MaxMetadata; a test of chaining/agent compares them.
const maxSfcMetadata = 12

// SfcMetadata is what the chain's functions are told of its traffic: set by
// [Objects.OfPackets] for the chain of a requirement with metadata, else empty.
func (c *ServiceChain) SfcMetadata() string { return c.sfcMetadata }

// ChainOfRequirement is the name of the chain from which that of a requirement with
// metadata is made, and of another chain its own.
func ChainOfRequirement(name string) string {
	name, _, _ = strings.Cut(name, "@")
	return name
}

// steering is what a requirement adds to a chain.
type steering struct {
	chain *ServiceChain
	match ChainMatch
}

// ReasonNoTraffic is of a chain that nothing leads to.
const ReasonNoTraffic = "NoTraffic"

// unmet says why a requirement, or a part of it, is not in force.
type unmet struct{ field, reason, message string }

// steer resolves a requirement: what it adds to chains, and what it cannot.
func (o *Objects) steer(r *AfSfcRequirement) (adds []steering, faults []unmet) {
	up, down := r.Spec.Requirement.Uplink, r.Spec.Requirement.Downlink
	base := ChainMatch{}
	if r.Spec.DNN != "" {
		base.DNNs = []string{r.Spec.DNN}
	}
	if r.Spec.Slice != nil {
		base.Slices = []string{r.Spec.Slice.text()}
	}
	if v := r.Spec.Requirement.Spatial; v != nil {
		for _, key := range slices.Sorted(maps.Keys(v.PresenceInfoList)) {
			if site := v.PresenceInfoList[key].PRAID; !slices.Contains(base.SourceSites, site) {
				base.SourceSites = append(base.SourceSites, site)
			}
		}
	}
	var users []netip.Prefix
	for _, text := range []string{r.Spec.UEIPv4, r.Spec.UEIPv6} {
		if a, err := netip.ParseAddr(text); err == nil {
			users = append(users, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	direction := func(field string, add steering, why *unmet) {
		if why != nil {
			why.field = field
		} else if why = o.carries(r, add.chain); why == nil {
			adds = append(adds, add)
			return
		}
		faults = append(faults, *why)
	}
	if up != "" {
		add, why := o.steerUp(r, up, down == up, base, users)
		direction("spec.afSfcReq.sfcIdUl", add, why)
	}
	if down != "" && down != up {
		add, why := o.steerDown(r, down, base, users)
		direction("spec.afSfcReq.sfcIdDl", add, why)
	}
	return adds, faults
}

// carries says why a chain cannot have the requirement's metadata, nil where it can: it
// takes a path of its own, and some functions have as many places as ports.
func (o *Objects) carries(r *AfSfcRequirement, c *ServiceChain) *unmet {
	if r.Spec.Requirement.Metadata == "" {
		return nil
	}
	for _, f := range o.NetworkFunctions {
		if f.Metadata.Namespace == c.Metadata.Namespace && slices.Contains(c.Spec.Functions, f.Metadata.Name) && f.Spec.State == StateInterface {
			return &unmet{field: "spec.afSfcReq.metadata", reason: ReasonUnsupportedFunction, message: fmt.Sprintf(
				"NetworkFunction %s/%s of ServiceChain %s has interfaces for each place on a path (state: interface), and metadata needs a path of its own",
				f.Metadata.Namespace, f.Metadata.Name, c.Metadata.Name)}
		}
	}
	return nil
}

// steered finds a chain that a requirement names, which has to take answers, too, or not.
func (o *Objects) steered(r *AfSfcRequirement, name string, both bool) (*ServiceChain, *unmet) {
	key := r.Metadata.Namespace + "/" + name
	at := slices.IndexFunc(o.ServiceChains, func(c *ServiceChain) bool { return c.Metadata.Namespace+"/"+c.Metadata.Name == key })
	if at < 0 {
		return nil, &unmet{reason: ReasonTargetNotFound, message: "there is no ServiceChain " + key}
	}
	c := o.ServiceChains[at]
	symmetric := c.Spec.Symmetric == nil || *c.Spec.Symmetric
	switch {
	case c.Spec.ForRequests():
		return nil, &unmet{reason: ReasonUnsupportedFunction, message: "ServiceChain " + key + " is of requests, and users' traffic is packets"}
	case both && !symmetric:
		return nil, &unmet{reason: ReasonConflicted, message: "ServiceChain " + key + " takes one direction only (symmetric: false), and is named for both"}
	case !both && symmetric:
		return nil, &unmet{reason: ReasonConflicted, message: "ServiceChain " + key + " takes the answers, too, and is named for one direction: it needs symmetric: false"}
	}
	return c, nil
}

// chainNode finds a node by name.
func (o *Objects) chainNode(name string) (*ChainNode, *unmet) {
	for _, n := range o.ChainNodes {
		if n.Metadata.Name == name {
			return n, nil
		}
	}
	return nil, &unmet{reason: ReasonTargetNotFound, message: "there is no ChainNode " + name + ", where the chain meets the users"}
}

func (o *Objects) steerUp(r *AfSfcRequirement, name string, both bool, m ChainMatch, users []netip.Prefix) (steering, *unmet) {
	c, why := o.steered(r, name, both)
	if why != nil {
		return steering{}, why
	}
	for _, p := range users {
		m.Sources = append(m.Sources, p.String())
	}
	if len(m.DNNs)+len(m.Slices)+len(m.SourceSites) == 0 {
		return steering{c, m}, nil
	}
	n, why := o.chainNode(c.Spec.Ingress.Node)
	if why != nil {
		return steering{}, why
	}
	if slices.ContainsFunc(n.Spec.Ports, func(p ChainPort) bool { return m.ComesFrom(&p.ChainOrigin) }) || len(poolsOf(n, &m, users)) > 0 {
		return steering{c, m}, nil
	}
	return steering{}, noOrigin(n)
}

func noOrigin(n *ChainNode) *unmet {
	return &unmet{reason: ReasonTargetNotFound, message: "ChainNode " + n.Metadata.Name + " has no port or pool for the users that the requirement names"}
}

// steerDown matches by destination: a packet from outside says nothing else of the user.
func (o *Objects) steerDown(r *AfSfcRequirement, name string, m ChainMatch, users []netip.Prefix) (steering, *unmet) {
	c, why := o.steered(r, name, false)
	if why != nil {
		return steering{}, why
	}
	to := users
	if len(m.DNNs)+len(m.Slices)+len(m.SourceSites) > 0 {
		n, why := o.chainNode(c.Spec.Egress.Node)
		if why != nil {
			return steering{}, why
		}
		if to = poolsOf(n, &m, users); len(to) == 0 {
			why = noOrigin(n)
			why.message = "downlink is known by the users' addresses: " + why.message
			return steering{}, why
		}
	}
	match := ChainMatch{}
	for _, p := range to {
		match.Destinations = append(match.Destinations, p.String())
	}
	return steering{c, match}, nil
}

// poolsOf are a node's addresses of the origin that a match names, of the users only
// where there are some.
func poolsOf(n *ChainNode, m *ChainMatch, users []netip.Prefix) (out []netip.Prefix) {
	for i := range n.Spec.Pools {
		if !m.ComesFrom(&n.Spec.Pools[i].ChainOrigin) {
			continue
		}
		for _, text := range n.Spec.Pools[i].Prefixes {
			p, err := netip.ParsePrefix(text)
			if err != nil {
				continue // a fault of the node's own
			}
			if len(users) == 0 {
				out = append(out, p)
			}
			for _, u := range users {
				if p.Overlaps(u) {
					out = append(out, u)
				}
			}
		}
	}
	return out
}

// withRequirements are the chains with what requirements add to them: matches, and
// before a chain those of its requirements that have metadata. These are chains of their
// own, since metadata is a path's, named after both; the ones of a single user come
// first, and all before the chain's own matches.
func (o *Objects) withRequirements() []*ServiceChain {
	out := o.ServiceChains
	single := func(r *AfSfcRequirement) int {
		if r.Spec.UEIPv4 != "" || r.Spec.UEIPv6 != "" {
			return 0
		}
		return 1
	}
	for _, r := range slices.SortedFunc(slices.Values(o.AfSfcRequirements), func(a, b *AfSfcRequirement) int {
		return cmp.Or(single(a)-single(b), cmp.Compare(a.Metadata.Namespace, b.Metadata.Namespace), cmp.Compare(a.Metadata.Name, b.Metadata.Name))
	}) {
		adds, _ := o.steer(r) // what is not in force is a condition
		for _, add := range adds {
			at := slices.IndexFunc(out, func(c *ServiceChain) bool {
				return c.Metadata.Namespace == add.chain.Metadata.Namespace && c.Metadata.Name == add.chain.Metadata.Name
			})
			with := *out[at]
			out = slices.Clone(out)
			if text := r.Spec.Requirement.Metadata; text != "" {
				with.Metadata.Name += "@" + r.Metadata.Name // no name of a document has an @
				with.sfcMetadata = text
				with.Spec.Match = []ChainMatch{add.match}
				with.Spec.Demand = nil // its traffic is a part of the chain's
				out = slices.Insert(out, at, &with)
				continue
			}
			with.Spec.Match = append(slices.Clip(with.Spec.Match), add.match)
			out[at] = &with
		}
	}
	return out
}

// requirements checks what AfSfcRequirements name, and that chains have traffic.
func (c *checker) requirements() {
	takes := map[*ServiceChain]bool{}
	for _, r := range c.o.AfSfcRequirements {
		adds, faults := c.o.steer(r)
		for _, f := range faults {
			c.add(KindAfSfcRequirement, r.Metadata, f.field, f.reason, "%s", f.message)
		}
		for _, a := range adds {
			takes[a.chain] = true
		}
	}
	for _, s := range c.o.ServiceChains {
		if !s.Spec.ForRequests() && len(s.Spec.Match) == 0 && !takes[s] {
			c.add(KindServiceChain, s.Metadata, "spec.match", ReasonNoTraffic, "takes no traffic: it has no match, and no AfSfcRequirement in force names it")
		}
	}
}

var sfcRules = map[string]rule{
	"AfSfcRequirementSpec.afSfcReq":    {doc: "What is asked: chains for the users' traffic, by direction."},
	"AfSfcRequirementSpec.dnn":         {format: &formatSubdomain, doc: "The data network of the users."},
	"AfSfcRequirementSpec.sliceInfo":   {doc: "The users' slice, an S-NSSAI."},
	"AfSfcRequirementSpec.ueIpv4":      {doc: "The IPv4 address of one user."},
	"AfSfcRequirementSpec.ueIpv6":      {doc: "The IPv6 address of one user."},
	"SfcRequirement.sfcIdUl":           {format: &formatSubdomain, doc: "ServiceChain of this namespace for traffic from the users."},
	"SfcRequirement.sfcIdDl":           {format: &formatSubdomain, doc: "ServiceChain of this namespace for traffic to the users. The same as sfcIdUl has to be symmetric, another one not."},
	"SfcRequirement.spVal":             {doc: "Where the users are; absent, anywhere."},
	"SfcRequirement.metadata":          {doc: "What functions that know NSH are told of the traffic, as it is; at most 12 bytes."},
	"SpatialValidity.presenceInfoList": {doc: "Areas, one of which the users are in."},
	"PresenceInfo.praId":               {format: &formatLabel, doc: "A site that ports or pools of the ChainNode name as sourceSite."},
	"Snssai.sst":                       {span: &span{lo: 0, hi: 255}, doc: "Slice/service type."},
	"Snssai.sd":                        {format: &formatSD, doc: "Slice differentiator, six hexadecimal digits."},
}

func init() { maps.Copy(rules, sfcRules) }
