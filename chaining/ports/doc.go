// Package ports forwards a node's chains in userspace, over sockets, by
// chaining/soft: where BPF cannot be loaded, and where headers need a code (RFC 9145).
//
// Plain packets, and NSH on Ethernet, come in and go out by packet sockets on the
// node's ports; VXLAN-GPE by UDP sockets; what belongs to no chain goes back to the
// kernel by a TUN device, and the end of a path without a known neighbour goes by
// raw IP. A packet socket gets a copy: that the kernel does not forward the original,
// too, is the work of routing rules (datapath.Divert), which outlive the process, so
// that chains are closed while nobody forwards.
//
// What senders left to hardware, segments and checksums, is done before forwarding,
// in soft.Finish: every packet on a path is a whole one.
package ports
