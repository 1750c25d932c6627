package pcap

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// Layer types, of numbers from gopacket's range for others.
const (
	LayerTypeNSH      gopacket.LayerType = 1894
	LayerTypeVXLANGPE gopacket.LayerType = 1479
)

const (
	etherTypeNSH = 0x894F
	portGPE      = 4790
	gpeNSH       = 4
)

func init() {
	gopacket.RegisterLayerType(int(LayerTypeNSH), gopacket.LayerTypeMetadata{Name: "NSH", Decoder: gopacket.DecodeFunc(decodeNSH)})
	gopacket.RegisterLayerType(int(LayerTypeVXLANGPE), gopacket.LayerTypeMetadata{Name: "VXLAN-GPE", Decoder: gopacket.DecodeFunc(decodeGPE)})
	layers.EthernetTypeMetadata[etherTypeNSH] = layers.EnumMetadata{DecodeWith: gopacket.DecodeFunc(decodeNSH), Name: "NSH", LayerType: LayerTypeNSH}
	layers.RegisterUDPPortLayerType(portGPE, LayerTypeVXLANGPE)
}

// NSH is a Network Service Header.
type NSH struct {
	layers.BaseLayer
	Version      uint8
	OAM          bool
	TTL          uint8
	Length       uint8 // in words of four bytes
	MDType       uint8
	NextProtocol uint8
	SPI          uint32
	SI           uint8
	// Context is what follows the service path header: four words with MD type 1.
	Context []byte
}

// ContextHeader is one of MD type 2 (RFC 8300 2.5.1).
type ContextHeader struct {
	Class uint16
	Type  uint8
	Value []byte
}

var errNSH = errors.New("NSH: the header is longer than the packet, or shorter than it can be")

// LayerType implements gopacket.Layer.
func (n *NSH) LayerType() gopacket.LayerType { return LayerTypeNSH }

// CanDecode implements gopacket.DecodingLayer.
func (n *NSH) CanDecode() gopacket.LayerClass { return LayerTypeNSH }

// NextLayerType implements gopacket.DecodingLayer.
func (n *NSH) NextLayerType() gopacket.LayerType {
	switch n.NextProtocol {
	case 1:
		return layers.LayerTypeIPv4
	case 2:
		return layers.LayerTypeIPv6
	case 3:
		return layers.LayerTypeEthernet
	case 4:
		return LayerTypeNSH
	case 5:
		return layers.LayerTypeMPLS
	}
	return gopacket.LayerTypePayload
}

// DecodeFromBytes implements gopacket.DecodingLayer.
func (n *NSH) DecodeFromBytes(data []byte, df gopacket.DecodeFeedback) error {
	if len(data) < 8 {
		df.SetTruncated()
		return errNSH
	}
	base, service := binary.BigEndian.Uint32(data), binary.BigEndian.Uint32(data[4:])
	*n = NSH{
		Version: uint8(base >> 30), OAM: base>>29&1 == 1, TTL: uint8(base >> 22 & 63), Length: uint8(base >> 16 & 63),
		MDType: uint8(base >> 8 & 15), NextProtocol: uint8(base), SPI: service >> 8, SI: uint8(service),
	}
	if size := int(n.Length) * 4; size < 8 || size > len(data) {
		df.SetTruncated()
		return errNSH
	}
	switch {
	case n.Version != 0:
		return fmt.Errorf("NSH: version %d", n.Version)
	case n.MDType == 1 && n.Length != 6:
		return fmt.Errorf("NSH: MD type 1 of %d words", n.Length)
	case n.MDType != 1 && n.MDType != 2:
		return fmt.Errorf("NSH: MD type %d", n.MDType)
	}
	size := int(n.Length) * 4
	n.Contents, n.Payload, n.Context = data[:size], data[size:], data[8:size]
	return nil
}

// Headers are the context headers of MD type 2.
func (n *NSH) Headers() ([]ContextHeader, error) {
	if n.MDType != 2 {
		return nil, nil
	}
	var out []ContextHeader
	for b := n.Context; len(b) > 0; {
		if len(b) < 4 || 4+(int(b[3]&127)+3)/4*4 > len(b) {
			return out, errors.New("NSH: context headers do not end where the header does")
		}
		size := int(b[3] & 127)
		out = append(out, ContextHeader{binary.BigEndian.Uint16(b), b[2], b[4 : 4+size]})
		b = b[4+(size+3)/4*4:]
	}
	return out, nil
}

// SerializeTo implements gopacket.SerializableLayer. FixLengths sets Length.
func (n *NSH) SerializeTo(b gopacket.SerializeBuffer, opts gopacket.SerializeOptions) error {
	if len(n.Context)%4 != 0 || len(n.Context) > 62*4 {
		return fmt.Errorf("NSH: context of %d bytes", len(n.Context))
	}
	if opts.FixLengths {
		n.Length = uint8(2 + len(n.Context)/4)
	}
	at, err := b.PrependBytes(8 + len(n.Context))
	if err != nil {
		return err
	}
	base := uint32(n.Version&3)<<30 | uint32(n.TTL&63)<<22 | uint32(n.Length&63)<<16 | uint32(n.MDType&15)<<8 | uint32(n.NextProtocol)
	if n.OAM {
		base |= 1 << 29
	}
	binary.BigEndian.PutUint32(at, base)
	binary.BigEndian.PutUint32(at[4:], n.SPI<<8|uint32(n.SI))
	copy(at[8:], n.Context)
	return nil
}

func decodeNSH(data []byte, p gopacket.PacketBuilder) error {
	n := &NSH{}
	if err := n.DecodeFromBytes(data, p); err != nil {
		return err
	}
	p.AddLayer(n)
	return p.NextDecoder(n.NextLayerType())
}

// VXLANGPE is a VXLAN-GPE header (draft-ietf-nvo3-vxlan-gpe 3.1).
type VXLANGPE struct {
	layers.BaseLayer
	ValidVNI, HasNext bool
	NextProtocol      uint8
	VNI               uint32
}

// LayerType implements gopacket.Layer.
func (v *VXLANGPE) LayerType() gopacket.LayerType { return LayerTypeVXLANGPE }

// CanDecode implements gopacket.DecodingLayer.
func (v *VXLANGPE) CanDecode() gopacket.LayerClass { return LayerTypeVXLANGPE }

// NextLayerType implements gopacket.DecodingLayer.
func (v *VXLANGPE) NextLayerType() gopacket.LayerType {
	switch {
	case !v.HasNext:
		return layers.LayerTypeEthernet // as plain VXLAN
	case v.NextProtocol == 1:
		return layers.LayerTypeIPv4
	case v.NextProtocol == 2:
		return layers.LayerTypeIPv6
	case v.NextProtocol == 3:
		return layers.LayerTypeEthernet
	case v.NextProtocol == gpeNSH:
		return LayerTypeNSH
	}
	return gopacket.LayerTypePayload
}

// DecodeFromBytes implements gopacket.DecodingLayer.
func (v *VXLANGPE) DecodeFromBytes(data []byte, df gopacket.DecodeFeedback) error {
	if len(data) < 8 {
		df.SetTruncated()
		return errors.New("VXLAN-GPE: fewer than 8 bytes")
	}
	*v = VXLANGPE{BaseLayer: layers.BaseLayer{Contents: data[:8], Payload: data[8:]},
		ValidVNI: data[0]&8 != 0, HasNext: data[0]&4 != 0, NextProtocol: data[3], VNI: binary.BigEndian.Uint32(data[4:]) >> 8}
	if data[0]>>4&3 != 0 {
		return fmt.Errorf("VXLAN-GPE: version %d", data[0]>>4&3)
	}
	return nil
}

// SerializeTo implements gopacket.SerializableLayer.
func (v *VXLANGPE) SerializeTo(b gopacket.SerializeBuffer, _ gopacket.SerializeOptions) error {
	at, err := b.PrependBytes(8)
	if err != nil {
		return err
	}
	clear(at)
	if v.ValidVNI {
		at[0] |= 8
	}
	if v.HasNext {
		at[0] |= 4
	}
	at[3] = v.NextProtocol
	binary.BigEndian.PutUint32(at[4:], v.VNI<<8)
	return nil
}

func decodeGPE(data []byte, p gopacket.PacketBuilder) error {
	v := &VXLANGPE{}
	if err := v.DecodeFromBytes(data, p); err != nil {
		return err
	}
	p.AddLayer(v)
	return p.NextDecoder(v.NextLayerType())
}
