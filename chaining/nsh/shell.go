package nsh

import (
	"encoding/binary"
	"errors"
)

// The shells in which a header travels.
const (
	EtherType = 0x894F // on Ethernet (RFC 8300 9.2.1)
	GPEPort   = 4790   // UDP port of VXLAN-GPE
	GPESize   = 8
	// GPENextNSH is VXLAN-GPE's next protocol for NSH.
	GPENextNSH = 4
)

// ErrGPE says that a datagram is no VXLAN-GPE with NSH in it.
var ErrGPE = errors.New("nsh: not VXLAN-GPE with an NSH")

// PutGPE writes a VXLAN-GPE header for an NSH into b, which must hold [GPESize]
// bytes (draft-ietf-nvo3-vxlan-gpe 3.1).
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+---+-+-+-+-+-------------------------------+---------------+
//	|R|R|Ver|I|P|B|O|           Reserved            | Next Protocol |
//	+-+-+---+-+-+-+-+-------------------------------+---------------+
//	|        VXLAN Network Identifier (VNI)         |   Reserved    |
//	+-----------------------------------------------+---------------+
func PutGPE(b []byte, vni uint32) {
	_ = b[GPESize-1]
	binary.BigEndian.PutUint32(b, 0x0c000000|GPENextNSH) // I and P
	binary.BigEndian.PutUint32(b[4:], vni<<8)
}

// ParseGPE checks the VXLAN-GPE header at the beginning of a datagram's payload
// and returns its VNI and what follows.
func ParseGPE(b []byte) (vni uint32, rest []byte, err error) {
	if len(b) < GPESize {
		return 0, nil, ErrShort
	}
	// Version 0, I and P set, B and O clear.
	if b[0]&0x3f != 0x0c || b[3] != GPENextNSH {
		return 0, nil, ErrGPE
	}
	return binary.BigEndian.Uint32(b[4:]) >> 8, b[GPESize:], nil
}
