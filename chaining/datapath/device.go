package datapath

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
)

// Neighbour is the Ethernet address of the one neighbour on an interface, as the
// kernel's neighbour table has it. A port to a function has one; where there are
// none or several, somebody has to say which.
func Neighbour(name string) (net.HardwareAddr, error) {
	ifc, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	var found net.HardwareAddr
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := netlink.NeighList(ifc.Index, family)
		if err != nil {
			return nil, fmt.Errorf("neighbours of %s: %w", name, err)
		}
		for _, n := range list {
			if len(n.HardwareAddr) != 6 || n.HardwareAddr[0]&1 != 0 || n.State&(netlink.NUD_FAILED|netlink.NUD_INCOMPLETE|netlink.NUD_NOARP) != 0 {
				continue
			}
			if found != nil && found.String() != n.HardwareAddr.String() {
				return nil, fmt.Errorf("interface %s has several neighbours: say which address is the function's", name)
			}
			found = n.HardwareAddr
		}
	}
	if found == nil {
		return nil, fmt.Errorf("interface %s has no neighbour yet: give the function's address, or let it send a packet", name)
	}
	return found, nil
}
