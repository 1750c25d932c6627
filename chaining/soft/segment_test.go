package soft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// largeFrame is a frame as a local sender with segmentation offload makes it: its
// checksum is the pseudo header's sum only.
func largeFrame(t *testing.T, six, udp bool, payload []byte) []byte {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: []byte{2, 0, 0, 0, 0, 1}, DstMAC: []byte{2, 0, 0, 0, 0, 2}, EthernetType: layers.EthernetTypeIPv4}
	var ip gopacket.SerializableLayer
	var network gopacket.NetworkLayer
	proto := layers.IPProtocolTCP
	if udp {
		proto = layers.IPProtocolUDP
	}
	if six {
		eth.EthernetType = layers.EthernetTypeIPv6
		v6 := &layers.IPv6{Version: 6, NextHeader: proto, HopLimit: 64, SrcIP: bytes.Repeat([]byte{0xfd}, 16), DstIP: bytes.Repeat([]byte{0xfe, 1}, 8)}
		ip, network = v6, v6
	} else {
		v4 := &layers.IPv4{Version: 4, Protocol: proto, TTL: 64, Id: 0xfffe, Flags: layers.IPv4DontFragment, SrcIP: []byte{10, 1, 0, 2}, DstIP: []byte{10, 2, 0, 2}}
		ip, network = v4, v4
	}
	var trans gopacket.SerializableLayer
	if udp {
		u := &layers.UDP{SrcPort: 4000, DstPort: 443}
		_ = u.SetNetworkLayerForChecksum(network) // both are network layers
		trans = u
	} else {
		tcp := &layers.TCP{SrcPort: 4000, DstPort: 443, Seq: 0xfffffff0, Ack: 7, ACK: true, PSH: true, FIN: true, CWR: true, Window: 100,
			Options: []layers.TCPOption{{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: make([]byte, 8)}}}
		_ = tcp.SetNetworkLayerForChecksum(network)
		trans = tcp
	}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, eth, ip, trans, gopacket.Payload(payload)); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(buf.Bytes())
}

func TestFinish_segments(t *testing.T) {
	payload := make([]byte, 60_001)
	for i := range payload {
		payload[i] = byte(rand.Uint32())
	}
	for _, six := range []bool{false, true} {
		for _, udp := range []bool{false, true} {
			frame := largeFrame(t, six, udp, payload)
			const segment = 1400
			var got []byte
			n := 0
			out := make([]byte, 2048)
			err := Finish(frame, Unfinished{Checksum: true, Segment: segment, UDP: udp}, out, func(b []byte) {
				p := gopacket.NewPacket(bytes.Clone(b), layers.LayerTypeEthernet, gopacket.Default)
				if p.ErrorLayer() != nil {
					t.Fatalf("segment %d: %v", n, p.ErrorLayer().Error())
				}
				last := len(got)+segment >= len(payload)
				var data []byte
				if udp {
					u := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
					data = u.Payload
					if int(u.Length) != len(data)+8 {
						t.Errorf("segment %d: UDP length %d of %d bytes", n, u.Length, len(data))
					}
				} else {
					tcp := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
					data = tcp.Payload
					if tcp.Seq != 0xfffffff0+uint32(len(got)) || tcp.PSH != last || tcp.FIN != last || tcp.CWR != (n == 0) || !tcp.ACK {
						t.Errorf("segment %d: %+v", n, tcp)
					}
				}
				if !last && len(data) != segment {
					t.Errorf("segment %d has %d bytes", n, len(data))
				}
				transport(t, b, six)
				if v4, ok := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4); ok {
					if v4.Id != uint16(0xfffe+n) || sum(0, b[14:34]) != 0xffff {
						t.Errorf("segment %d: id %#x, header sum %#x", n, v4.Id, sum(0, b[14:34]))
					}
				}
				got = append(got, data...)
				n++
			})
			if err != nil || !bytes.Equal(got, payload) || n != 43 {
				t.Errorf("IPv6 %v, UDP %v: %d segments, %d bytes: %v", six, udp, n, len(got), err)
			}
		}
	}
}

// transport asserts a frame's transport checksum.
func transport(t *testing.T, frame []byte, six bool) {
	t.Helper()
	ip := frame[14:]
	pseudo, trans := uint32(sum(0, ip[12:20]))+uint32(ip[9]), ip[20:]
	if six {
		pseudo, trans = uint32(sum(0, ip[8:40]))+uint32(ip[6]), ip[40:]
	}
	if s := sum(pseudo+uint32(len(trans)), trans); s != 0xffff {
		t.Errorf("transport sum %#x, want 0xffff", s)
	}
}

func TestFinish_checksum(t *testing.T) {
	for _, six := range []bool{false, true} {
		for _, udp := range []bool{false, true} {
			frame := largeFrame(t, six, udp, []byte("an odd number of bytes, and no padding"[:37]))
			start, offset := 34, 16
			if six {
				start = 54
			}
			if udp {
				offset = 6
			}
			want := bytes.Clone(frame)
			// What a sender leaves is the pseudo header's sum.
			ip := frame[14:]
			pseudo := uint32(sum(0, ip[12:20])) + uint32(ip[9])
			if six {
				pseudo = uint32(sum(0, ip[8:40])) + uint32(ip[6])
			}
			left := pseudo + uint32(len(frame)-start)
			for left > 0xffff {
				left = left&0xffff + left>>16
			}
			binary.BigEndian.PutUint16(frame[start+offset:], uint16(left))
			calls := 0
			if err := Finish(frame, Unfinished{Checksum: true, Start: start, Offset: offset}, nil, func(b []byte) {
				calls++
				if !bytes.Equal(b, want) {
					t.Errorf("IPv6 %v, UDP %v:\n%x, want\n%x", six, udp, b, want)
				}
			}); err != nil || calls != 1 {
				t.Errorf("%d calls: %v", calls, err)
			}
		}
	}
}

// What does not fit is refused, and nothing is read or written beyond the frame.
func FuzzFinish(f *testing.F) {
	f.Add([]byte("short"), true, 3, 4, 10, false)
	f.Add(make([]byte, 80), true, 34, 16, 8, true)
	f.Fuzz(func(t *testing.T, frame []byte, checksum bool, start, offset, segment int, udp bool) {
		out := make([]byte, 128)
		err := Finish(frame, Unfinished{Checksum: checksum, Start: start, Offset: offset, Segment: max(0, segment), UDP: udp}, out, func(b []byte) {
			if len(b) > max(len(frame), len(out)) {
				t.Errorf("%d bytes of %d", len(b), len(frame))
			}
		})
		if err != nil && !errors.Is(err, ErrUnfinished) {
			t.Error(err)
		}
	})
}
