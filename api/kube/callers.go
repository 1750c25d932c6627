package kube

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// callers names the workloads whose pods serve nothing that the mesh knows: those that no
// Service selects, and those of Services to which no route leads.
func (t *translation) callers() {
	serves := map[netip.Addr]bool{}
	for _, s := range t.out.Objects.Services {
		for _, e := range s.Spec.Endpoints {
			if at, err := netip.ParseAddrPort(e.Address); err == nil { // else it is a name
				serves[at.Addr()] = true
			}
		}
	}
	type where struct{ namespace, workload, site string }
	addresses := map[where][]string{}
	for _, p := range t.in.Pods {
		if a, err := netip.ParseAddr(p.Address); err == nil && !serves[a] {
			at := where{p.Namespace, p.Workload, t.siteOf(p.Node)}
			addresses[at] = append(addresses[at], p.Address)
		}
	}
	for _, at := range slices.SortedFunc(maps.Keys(addresses), func(a, b where) int {
		return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.workload, b.workload), cmp.Compare(a.site, b.site))
	}) {
		if !isSubdomain(at.workload) {
			t.notice("workload %s/%s: its name, by a label of its pods, is no DNS name: it has none where it calls", at.namespace, at.workload)
			continue
		}
		list := addresses[at]
		slices.Sort(list)
		list = slices.Compact(list)
		if n := len(list) - mesh.MaxCallerAddresses; n > 0 {
			t.notice("workload %s/%s: %d of its pods at site %s have no name where they call, %d have", at.namespace, at.workload, n, at.site, mesh.MaxCallerAddresses)
			list = list[:mesh.MaxCallerAddresses]
		}
		// One object for each site, of which only that site's proxies are told.
		suffix := "-" + at.site
		name := at.workload + suffix
		if len(name) > maxLabel {
			name = short(at.workload, suffix, at.namespace+"/"+at.workload+suffix)
		}
		t.out.Objects.Callers = append(t.out.Objects.Callers, &mesh.Caller{
			Metadata: mesh.ObjectMeta{Name: name, Namespace: at.namespace, Labels: map[string]string{SiteLabel: at.site}},
			Spec: mesh.CallerSpec{
				Workload:  &mesh.Workload{Cluster: t.in.Cluster, Namespace: at.namespace, Name: at.workload},
				Addresses: list,
			},
		})
	}
}

// isSubdomain reports whether a text can be the name of a workload (RFC 1123 subdomain).
func isSubdomain(s string) bool {
	for part := range strings.SplitSeq(s, ".") {
		if !isLabel(part) {
			return false
		}
	}
	return len(s) <= 253
}
