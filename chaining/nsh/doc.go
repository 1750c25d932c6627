// Package nsh reads and writes the Network Service Header (RFC 8300) and the two
// shells in which it travels between nodes: VXLAN-GPE over UDP 4790
// (draft-ietf-nvo3-vxlan-gpe) and Ethernet type 0x894F.
//
// A [Header] is a view of the bytes of a packet: [Parse] checks them once, the
// getters read and the setters write in place, and nothing allocates. What a
// forwarder must do to a header before it looks the path up is [Header.Forward],
// what a function does after its work is [Header.Serve]; both tell by an error
// value why a packet may not go on, see section 2.2 and 2.3.
//
// The package is pure. A Header belongs to whoever owns the bytes.
package nsh
