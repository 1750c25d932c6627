package bus

import (
	"fmt"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// HubDomain is the JetStream domain of the hub's embedded server. Each other
// site's domain is its [Domain].
const HubDomain = "hub"

// HubBucket holds the configuration that the hub owns. Only the hub writes it;
// a site reads its own mirror of the same name.
const HubBucket = "cfg_hub"

// Subjects of soft state. Reports of a site go to every site, the others stay
// inside theirs because nobody elsewhere listens.
const (
	reportPrefix  = "mesh.report."
	nodePrefix    = "mesh.node."
	weightsPrefix = "mesh.weights."
	apiPrefix     = "mesh.api."
	askPrefix     = "mesh.ask."
	trafficPrefix = "mesh.traffic."
	flowsPrefix   = "mesh.flows."
)

// AllReports matches the reports of every site.
const AllReports = reportPrefix + "*"

// AllInboxes matches where answers to any request go. Each site's controller has
// its own branch ([Inboxes]), so that a site can be kept from reading what others
// are answered.
const AllInboxes = "_INBOX.>"

// Inboxes matches where answers to the requests of a site's controller go.
func Inboxes(site string) string { return inboxPrefix(site) + ".>" }

func inboxPrefix(site string) string { return "_INBOX." + Token(site) }

// ReportSubject carries the [mesh.Report] of a site, every 500 ms.
func ReportSubject(site string) string { return reportPrefix + Token(site) }

// NodeSubject carries the [mesh.NodeReport] of one node: load, and which
// generation it applied or refused, which makes it the acknowledgement too.
func NodeSubject(site, node string) string {
	return nodePrefix + Token(site) + "." + Token(node)
}

// NodesSubject matches the reports of all nodes of a site.
func NodesSubject(site string) string { return nodePrefix + Token(site) + ".*" }

// AllTraffic matches the traffic reports of every site.
const AllTraffic = trafficPrefix + "*"

// TrafficSubject carries the [mesh.TrafficReport] of a site, every few seconds.
func TrafficSubject(site string) string { return trafficPrefix + Token(site) }

// FlowsSubject carries the [mesh.NodeTraffic] of one node, every few seconds.
func FlowsSubject(site, node string) string {
	return flowsPrefix + Token(site) + "." + Token(node)
}

// AllFlows matches those of all nodes of a site.
func AllFlows(site string) string { return flowsPrefix + Token(site) + ".*" }

// WeightsSubject carries the [mesh.Weights] for a site's nodes.
func WeightsSubject(site string) string { return weightsPrefix + Token(site) }

// APISubject answers requests for one verb of a site's controller.
func APISubject(site, verb string) string { return apiPrefix + Token(site) + "." + verb }

// VerbExplain is the verb of a node that says where a request would go.
const VerbExplain = "explain"

// Verbs of a node about requests that are over: of a tap, and those that failed.
const (
	VerbTap    = "tap"
	VerbFailed = "failed"
)

// VerbTrace is the verb of a node that sends a request.
const VerbTrace = "trace"

// VerbLogs is the verb of a node that gives the end of its logs.
const VerbLogs = "logs"

// NodeAPISubject answers requests for one verb of a node, of its site's controller.
func NodeAPISubject(site, node, verb string) string {
	return askPrefix + Token(site) + "." + Token(node) + "." + verb
}

// NodeAPIs matches all verbs of all nodes of a site.
func NodeAPIs(site string) string { return askPrefix + Token(site) + ".*.*" }

// AnyAPISubject matches one verb of any site's controller.
func AnyAPISubject(verb string) string { return apiPrefix + "*." + verb }

// SnapshotBucket holds the snapshot of a site under the key [Token](site). The
// name carries the site because with an external NATS all sites share one
// JetStream, and because two servers that both listened on one bucket's subjects
// would both store what one site writes.
func SnapshotBucket(site string) string { return "snapshot_" + Token(site) }

// SiteBucket holds the configuration that a site owns. It never leaves the site.
func SiteBucket(site string) string { return "cfg_site_" + Token(site) }

// Domain is the JetStream domain of a site's embedded server.
func Domain(site string) string { return Token(site) }

// Token writes a name as one subject token, bucket name or key element: letters,
// digits and hyphens stay, any other byte becomes _XX in hexadecimal, which keeps
// different names different.
func Token(name string) string {
	plain := name != ""
	for i := 0; i < len(name) && plain; i++ {
		plain = isPlain(name[i])
	}
	if plain {
		return name
	}
	if name == "" {
		return "_"
	}
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if isPlain(name[i]) {
			b.WriteByte(name[i])
		} else {
			fmt.Fprintf(&b, "_%02x", name[i])
		}
	}
	return b.String()
}

func isPlain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-'
}

// name is the inverse of Token.
func name(token string) (string, error) {
	if token == "_" {
		return "", nil
	}
	if !strings.Contains(token, "_") {
		return token, nil
	}
	var b strings.Builder
	for i := 0; i < len(token); i++ {
		if token[i] != '_' {
			b.WriteByte(token[i])
			continue
		}
		var c byte
		if i+2 >= len(token) {
			return "", fmt.Errorf("%q ends inside an escape", token)
		}
		if _, err := fmt.Sscanf(token[i+1:i+3], "%02x", &c); err != nil {
			return "", fmt.Errorf("%q: %w", token, err)
		}
		b.WriteByte(c)
		i += 2
	}
	return b.String(), nil
}

// objectKey is the bucket key of an object; keyObject is its inverse.
func objectKey(k mesh.Key) string {
	return Token(k.Kind) + "." + Token(k.Namespace) + "." + Token(k.Name)
}

func keyObject(key string) (mesh.Key, error) {
	p := strings.Split(key, ".")
	if len(p) != 3 {
		return mesh.Key{}, fmt.Errorf("bucket key %q is not kind.namespace.name", key)
	}
	var out [3]string
	for i, t := range p {
		n, err := name(t)
		if err != nil {
			return mesh.Key{}, fmt.Errorf("bucket key %q: %w", key, err)
		}
		out[i] = n
	}
	return mesh.Key{Kind: out[0], Namespace: out[1], Name: out[2]}, nil
}
