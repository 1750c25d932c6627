// Package pcap reads and writes packets of chains with gopacket: layers for the
// Network Service Header (RFC 8300) and VXLAN-GPE, which gopacket has not, and
// captures as pcapng. It is a second reading of the RFC, independent of
// chaining/nsh and checked against it; it is for people's tools and tests and
// never linked into a node's binaries.
//
// Importing it teaches gopacket Ethernet type 0x894F and UDP port 4790.
package pcap
