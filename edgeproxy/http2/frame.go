package http2

import "encoding/binary"

// A frame's header (RFC 9113 4.1):
//
//	+-----------------------------------------------+
//	|                 Length (24)                   |
//	+---------------+---------------+---------------+
//	|   Type (8)    |   Flags (8)   |
//	+-+-------------+---------------+-------------------------------+
//	|R|                 Stream Identifier (31)                      |
//	+=+=============================================================+
type frame struct {
	kind, flags uint8
	length      int
	id          uint32
}

const frameHead = 9

// Types of frames (RFC 9113 6).
const (
	frameData uint8 = iota
	frameHeaders
	framePriority
	frameReset
	frameSettings
	framePush
	framePing
	frameGoAway
	frameWindow
	frameContinuation
)

// Flags of frames.
const (
	flagEndStream  = 0x1 // DATA, HEADERS
	flagAck        = 0x1 // SETTINGS, PING
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// Settings (RFC 9113 6.5.2).
const (
	settingTableSize = 1
	settingPush      = 2
	settingStreams   = 3
	settingWindow    = 4
	settingFrameSize = 5
	settingHeadSize  = 6
	settingConnect   = 8 // RFC 8441 3
	defaultWindow    = 1<<16 - 1
	maxWindow        = 1<<31 - 1
	everyStream      = 1<<31 - 1
	unlimited        = 1<<31 - 1
	largestPeerFrame = 1<<24 - 1
	settingLen       = 6
	priorityLen      = 5
	pingLen          = 8
	goAwayLen        = 8
	preface          = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
)

// parseFrame reads a frame's header from the front of in, which holds it whole.
func parseFrame(in []byte) frame {
	return frame{
		length: int(in[0])<<16 | int(in[1])<<8 | int(in[2]),
		kind:   in[3], flags: in[4],
		id: binary.BigEndian.Uint32(in[5:]) & everyStream,
	}
}

func appendFrame(dst []byte, length int, kind, flags uint8, id uint32) []byte {
	return append(dst, byte(length>>16), byte(length>>8), byte(length), kind, flags,
		byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

func putLength(head []byte, n int) { head[0], head[1], head[2] = byte(n>>16), byte(n>>8), byte(n) }

func appendSetting(dst []byte, key uint16, v int) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(dst, key), uint32(v))
}

func appendReset(dst []byte, id uint32, c code) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(dst, 4, frameReset, 0, id), uint32(c))
}

func appendWindow(dst []byte, id uint32, n int) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(dst, 4, frameWindow, 0, id), uint32(n))
}

func appendGoAway(dst []byte, last uint32, c code) []byte {
	dst = appendFrame(dst, goAwayLen, frameGoAway, 0, 0)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(dst, last), uint32(c))
}

// Preface is what a client sends first (RFC 9113 3.4).
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
