package datapath

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// toPeer reports whether a device is one end of a veth whose other end is in another
// network namespace, with offloads on. Only then may a frame go to that end without
// being sent: the kernel drops what goes there otherwise, and a function that reads
// packets from a socket relies on their being cut on the way out.
func toPeer(index int, name string) (bool, error) {
	rib, err := syscall.NetlinkRIB(unix.RTM_GETLINK, unix.AF_UNSPEC)
	if err != nil {
		return false, fmt.Errorf("links of this node: %w", err)
	}
	messages, err := syscall.ParseNetlinkMessage(rib)
	if err != nil {
		return false, fmt.Errorf("links of this node: %w", err)
	}
	for i := range messages {
		m := &messages[i]
		if m.Header.Type != unix.RTM_NEWLINK || len(m.Data) < unix.SizeofIfInfomsg {
			continue
		}
		if at := int32(uint32(m.Data[4]) | uint32(m.Data[5])<<8 | uint32(m.Data[6])<<16 | uint32(m.Data[7])<<24); int(at) != index {
			continue
		}
		attributes, err := syscall.ParseNetlinkRouteAttr(m)
		if err != nil {
			return false, fmt.Errorf("link %s: %w", name, err)
		}
		veth, elsewhere := false, false
		for _, a := range attributes {
			switch a.Attr.Type &^ unix.NLA_F_NESTED {
			case unix.IFLA_LINK_NETNSID:
				elsewhere = true
			case unix.IFLA_LINKINFO: // nested: the kind comes first
				veth = len(a.Value) >= 8 && string(a.Value[4:8]) == "veth"
			}
		}
		if !veth || !elsewhere {
			return false, nil
		}
		return offloads(name)
	}
	return false, nil
}
