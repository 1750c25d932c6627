package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// listening reports whether a socket of this namespace takes connections at an address:
// the kernel finds it as it would for a SYN from nowhere (sock_diag(7)), without a
// connection that the proxy would see, and without a list of all its sockets.
func listening(at netip.AddrPort) (bool, error) {
	req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, 0)
	req.AddData(diagnosed(at))
	messages, err := req.Execute(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY)
	switch {
	case errors.Is(err, unix.ENOENT):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("whether the proxy listens at %s: %w", at, err)
	}
	const stateAt, stateListen = 1, 10 // of struct inet_diag_msg, and TCP_LISTEN
	return len(messages) > 0 && len(messages[0]) > stateAt && messages[0][stateAt] == stateListen, nil
}

// diagnosed is the address of the socket that is asked about, a struct inet_diag_req_v2.
type diagnosed netip.AddrPort

// Len implements nl.NetlinkRequestData.
func (diagnosed) Len() int { return 56 }

// Serialize implements nl.NetlinkRequestData.
func (d diagnosed) Serialize() []byte {
	at := netip.AddrPort(d)
	b := make([]byte, d.Len())
	b[0], b[1] = unix.AF_INET6, unix.IPPROTO_TCP
	if at.Addr().Is4() {
		b[0] = unix.AF_INET
	}
	binary.NativeEndian.PutUint32(b[4:], ^uint32(0)) // any state
	binary.BigEndian.PutUint16(b[8:], at.Port())
	copy(b[12:28], at.Addr().AsSlice())
	binary.NativeEndian.PutUint64(b[48:], ^uint64(0)) // no cookie is known
	return b
}
