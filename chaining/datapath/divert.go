package datapath

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// divertPriority is where our routing rules stand: behind that of the node's own
// addresses (0), before all that route.
const divertPriority = 0x4d

// Divert has the kernel forward nothing that comes in on the ports, of IPv4 and
// IPv6, and forward again what comes in on others: somebody in userspace does it for
// these. What is sent to the node itself still arrives. It needs no BPF, and stays in
// force when the process ends, so that traffic is not let through unclassified.
func Divert(ports []string) error {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := diverted(family)
		if len(ports) == 0 && (errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT)) {
			continue // a kernel without routing rules has none of ours
		}
		if err != nil {
			return err
		}
		var there []string
		for i := range rules {
			if slices.Contains(ports, rules[i].IifName) && !slices.Contains(there, rules[i].IifName) {
				there = append(there, rules[i].IifName)
				continue
			}
			if err := netlink.RuleDel(&rules[i]); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("routing rule for %s: %w", rules[i].IifName, err)
			}
		}
		for _, name := range ports {
			if slices.Contains(there, name) {
				continue
			}
			there = append(there, name)
			r := netlink.NewRule()
			r.Family, r.Priority, r.IifName, r.Type = family, divertPriority, name, unix.RTN_BLACKHOLE
			err := netlink.RuleAdd(r)
			if family == netlink.FAMILY_V6 && errors.Is(err, unix.EAFNOSUPPORT) {
				break // a kernel without IPv6 forwards nothing of it
			}
			if err != nil {
				return fmt.Errorf("routing rule for %s (CONFIG_IP_MULTIPLE_TABLES): %w", name, err)
			}
		}
	}
	return nil
}

func diverted(family int) ([]netlink.Rule, error) {
	all, err := netlink.RuleListFiltered(family, &netlink.Rule{Priority: divertPriority}, netlink.RT_FILTER_PRIORITY)
	if err != nil {
		return nil, fmt.Errorf("routing rules: %w", err)
	}
	for i := range all {
		all[i].Family = family
	}
	return slices.DeleteFunc(all, func(r netlink.Rule) bool { return r.Priority != divertPriority || r.IifName == "" }), nil
}
