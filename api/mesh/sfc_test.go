package mesh

import (
	"fmt"
	"strings"
	"testing"
)

const sfcChains = `
apiVersion: mesh.meridian.dev/v1alpha1
kind: ChainNode
metadata: {name: upf}
spec:
  ports: [{interface: n6, dnn: internet, sourceSite: north}, {interface: out}]
  pools: [{prefixes: [10.60.0.0/16, "2001:db8::/48"], dnn: ims, slice: 1-0000d1}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ServiceChain
metadata: {name: both}
spec: {functions: [f], ingress: {node: upf}, egress: {node: upf, interface: out}}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ServiceChain
metadata: {name: up}
spec: {functions: [f], symmetric: false, ingress: {node: upf}, egress: {node: upf, interface: out}}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ServiceChain
metadata: {name: down}
spec: {functions: [f], symmetric: false, ingress: {node: upf, interface: out}, egress: {node: upf}, match: [{protocols: [udp]}]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ServiceChain
metadata: {name: requests}
spec: {functions: [g]}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: AfSfcRequirement
metadata: {name: r}
spec: %s
`

// TestRequirements: what a requirement adds to its chains, by direction, and why it adds
// nothing.
func TestRequirements(t *testing.T) {
	for spec, want := range map[string]string{
		"{afSfcReq: {sfcIdUl: both, sfcIdDl: both}, dnn: internet}":                                                       "both: dnns [internet]",
		"{afSfcReq: {sfcIdUl: up, sfcIdDl: down}, dnn: ims, sliceInfo: {sst: 1, sd: 0000D1}}":                             "up: dnns [ims] slices [1-0000D1]; down: to [10.60.0.0/16 2001:db8::/48]",
		"{afSfcReq: {sfcIdUl: up, sfcIdDl: down}, ueIpv4: 10.60.0.7, ueIpv6: \"2001:db8::7\"}":                            "up: from [10.60.0.7/32 2001:db8::7/128]; down: to [10.60.0.7/32 2001:db8::7/128]",
		"{afSfcReq: {sfcIdDl: down}, dnn: ims, ueIpv4: 10.60.0.7}":                                                        "down: to [10.60.0.7/32]",
		"{afSfcReq: {sfcIdUl: up, spVal: {presenceInfoList: {b: {praId: north}, a: {praId: south}}}}, ueIpv4: 10.60.0.7}": "up: from [10.60.0.7/32] sites [south north]",
		"{afSfcReq: {sfcIdUl: none, sfcIdDl: down}, ueIpv4: 10.60.0.7}":                                                   "down: to [10.60.0.7/32]; sfcIdUl: there is no ServiceChain default/none",
		"{afSfcReq: {sfcIdUl: requests}, ueIpv4: 10.60.0.7}":                                                              "sfcIdUl: ServiceChain default/requests is of requests, and users' traffic is packets",
		"{afSfcReq: {sfcIdUl: up, sfcIdDl: up}, ueIpv4: 10.60.0.7}":                                                       "sfcIdUl: ServiceChain default/up takes one direction only (symmetric: false), and is named for both",
		"{afSfcReq: {sfcIdDl: both}, ueIpv4: 10.60.0.7}":                                                                  "sfcIdDl: ServiceChain default/both takes the answers, too, and is named for one direction: it needs symmetric: false",
		"{afSfcReq: {sfcIdUl: up}, dnn: voice}":                                                                           "sfcIdUl: ChainNode upf has no port or pool for the users that the requirement names",
		"{afSfcReq: {sfcIdDl: down}, dnn: internet}":                                                                      "sfcIdDl: downlink is known by the users' addresses: ChainNode upf has no port or pool for the users that the requirement names",
		"{afSfcReq: {sfcIdUl: up}, dnn: ims, ueIpv4: 10.99.0.7}":                                                          "sfcIdUl: ChainNode upf has no port or pool for the users that the requirement names",
	} {
		o := mustParse(t, fmt.Sprintf(sfcChains, spec))
		var got []string
		packets := o.OfPackets()
		for i, c := range packets.ServiceChains {
			for _, m := range c.Spec.Match[len(o.ServiceChains[i].Spec.Match):] {
				text := c.Metadata.Name + ":"
				for _, x := range []struct {
					what string
					list []string
				}{{"from", m.Sources}, {"to", m.Destinations}, {"dnns", m.DNNs}, {"slices", m.Slices}, {"sites", m.SourceSites}} {
					if len(x.list) > 0 {
						text += fmt.Sprint(" ", x.what, " ", x.list)
					}
				}
				got = append(got, text)
			}
		}
		for _, c := range Check(o) {
			if c.Object.Kind == KindAfSfcRequirement {
				got = append(got, strings.TrimPrefix(c.Path, "spec.afSfcReq.")+": "+c.Message)
			}
		}
		if s := strings.Join(got, "; "); s != want {
			t.Errorf("%s:\n got %s\nwant %s", spec, s, want)
		}
		if len(packets.AfSfcRequirements) > 0 || len(o.ServiceChains[0].Spec.Match) > 0 {
			t.Errorf("%s: requirements stay, or chains changed: %+v", spec, o.ServiceChains[0].Spec)
		}
	}
	o := mustParse(t, fmt.Sprintf(sfcChains, "{afSfcReq: {sfcIdUl: up}, ueIpv4: 10.60.0.7}"))
	var idle []string
	for _, c := range Check(o) {
		if c.Reason == ReasonNoTraffic {
			idle = append(idle, c.Object.Name)
		}
	}
	if fmt.Sprint(idle) != "[both]" {
		t.Errorf("chains without traffic: %v", idle)
	}
}

func TestRequirementFaults(t *testing.T) {
	for spec, want := range map[string]string{
		"{afSfcReq: {}, dnn: internet}":                                                                      "names no chain",
		"{afSfcReq: {sfcIdUl: a}}":                                                                           "names no traffic",
		"{afSfcReq: {sfcIdUl: a, metadata: 13-characters}, dnn: internet}":                                   "metadata: has 13 bytes, and a packet's header has room for 12",
		"{afSfcReq: {sfcIdUl: a, spVal: {presenceInfoList: {}}}, dnn: i}":                                    "has no area",
		"{afSfcReq: {sfcIdUl: a}, ueIpv4: \"2001:db8::7\"}":                                                  "is no IPv4 address",
		"{afSfcReq: {sfcIdUl: a}, ueIpv6: 10.0.0.1}":                                                         "is no IPv6 address",
		"{afSfcReq: {sfcIdUl: a}, sliceInfo: {sst: 256}}":                                                    "sst: 256 is out of range",
		"{afSfcReq: {sfcIdUl: a}, sliceInfo: {sst: 1, sd: d1}}":                                              "is no slice differentiator",
		"{afSfcReq: {sfcIdUl: a, spVal: {presenceInfoList: {x: {praId: a, trackingAreaList: []}}}}, dnn: i}": "trackingAreaList",
	} {
		_, err := ParseYAML("r.yaml", fmt.Appendf(nil, "apiVersion: mesh.meridian.dev/v1alpha1\nkind: AfSfcRequirement\nmetadata: {name: r}\nspec: %s\n", spec))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", spec, err, want)
		}
	}
}
