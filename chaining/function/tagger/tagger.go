// Package tagger names flows: by the server name of a TLS hello, by the question of
// a DNS query, and others to the same addresses by the answer to that query. The
// name travels with the packets as a context header, which functions behind read.
// The package is pure.
package tagger

import (
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/chaining/flow"
	"github.com/meridian-mesh/meridian/chaining/function"
	"github.com/meridian-mesh/meridian/edgeproxy/clienthello"
)

// Bounds of what is remembered.
const (
	maxFlows = 1 << 16
	maxNames = 1 << 14
	// maxName is the longest tag: a context header's 127 bytes.
	maxName = 120
	// minTTL keeps names of addresses longer than short-lived answers say: clients do.
	minTTL = time.Minute
	maxTTL = time.Hour
	// Unfinished hellos: how many, of what size, and how long they wait.
	maxHellos = 1024
	maxHello  = 8 << 10
	helloTime = 3 * time.Second
)

// Tagger is the function.
type Tagger struct {
	flows   map[flow.Key]tag
	hosts   map[[16]byte]tag
	hellos  map[flow.Key]partial
	packet  flow.Packet
	scratch [clienthello.MaxBytes]byte
}

// partial is a hello of which more must come, from sequence number next on.
type partial struct {
	bytes []byte
	next  uint32
	until time.Duration
}

type tag struct {
	name  string
	until time.Duration
}

// New makes a tagger.
func New() *Tagger {
	return &Tagger{flows: make(map[flow.Key]tag), hosts: make(map[[16]byte]tag), hellos: make(map[flow.Key]partial)}
}

// Process implements function.Function.
func (f *Tagger) Process(b []byte, d function.Direction, now time.Duration) function.Result {
	p := &f.packet
	if !flow.Parse(b, p) {
		return function.Result{Drop: "malformed"}
	}
	r := function.Result{Packet: b}
	if p.LaterFragment || p.Error {
		return r
	}
	key := p.Key
	if d == function.Back {
		key = key.Reverse(0)
	}
	if p.Payload >= 0 {
		if name := f.look(b, d, now); name != "" {
			f.remember(f.flowRoom(now), key, name, now)
			r.Tag = name
			return r
		}
	}
	if t, ok := f.flows[key]; ok && now <= t.until {
		r.Tag = t.name
		return r
	}
	if t, ok := f.hosts[key.Dst]; ok && now <= t.until {
		r.Tag = t.name
	}
	return r
}

// look finds a name in the packet itself.
func (f *Tagger) look(b []byte, d function.Direction, now time.Duration) string {
	p := &f.packet
	t := b[p.Payload:p.Length]
	switch {
	case p.Proto == flow.ProtoTCP && d == function.Forward:
		hello := f.hello(t, now)
		if hello == nil {
			return ""
		}
		name, ok, err := clienthello.ServerName(hello, f.scratch[:])
		if !ok && err == nil {
			f.keep(t, hello, now)
			return ""
		}
		if err != nil || len(name) == 0 || len(name) > maxName {
			return ""
		}
		return strings.ToLower(string(name))
	case p.Proto == flow.ProtoUDP && d == function.Forward && p.DstPort == 53:
		name, _, ok := question(t[8:])
		if !ok {
			return ""
		}
		return name
	case p.Proto == flow.ProtoUDP && d == function.Back && p.SrcPort == 53:
		f.answer(t[8:], now)
	}
	return ""
}

// hello is the beginning of a client's TLS handshake as far as it is known with this
// segment, nil for any other. One that is too long for a segment, as with
// post-quantum keys, is put together from those that follow in order.
func (f *Tagger) hello(t []byte, now time.Duration) []byte {
	at := int(t[12]>>4) * 4
	if at < 20 || at >= len(t) {
		return nil
	}
	h, ok := f.hellos[f.packet.Key]
	if !ok {
		if t[at] != 22 {
			return nil // no TLS handshake begins here
		}
		return t[at:]
	}
	delete(f.hellos, f.packet.Key)
	if now > h.until || binary.BigEndian.Uint32(t[4:]) != h.next {
		return nil
	}
	return append(h.bytes, t[at:]...)
}

// keep remembers an unfinished hello for the segment behind t.
func (f *Tagger) keep(t, hello []byte, now time.Duration) {
	if len(f.hellos) >= maxHellos {
		for k, h := range f.hellos {
			if now > h.until {
				delete(f.hellos, k)
			}
		}
	}
	if len(f.hellos) < maxHellos && len(hello) < maxHello {
		size := uint32(len(t) - int(t[12]>>4)*4)
		f.hellos[f.packet.Key] = partial{slices.Clone(hello), binary.BigEndian.Uint32(t[4:]) + size, now + helloTime}
	}
}

func (f *Tagger) remember(room bool, key flow.Key, name string, now time.Duration) {
	if room {
		f.flows[key] = tag{name, now + maxTTL}
	}
}

func (f *Tagger) flowRoom(now time.Duration) bool {
	if len(f.flows) < maxFlows {
		return true
	}
	for k, t := range f.flows {
		if now > t.until {
			delete(f.flows, k)
		}
	}
	return len(f.flows) < maxFlows
}

// question reads the first question of a DNS message (RFC 1035 4.1): its name in
// lower case, and where it ends.
func question(m []byte) (name string, end int, ok bool) {
	if len(m) < 12 || binary.BigEndian.Uint16(m[4:]) != 1 {
		return "", 0, false
	}
	name, end, ok = domain(m, 12)
	if !ok || end+4 > len(m) || name == "" {
		return "", 0, false
	}
	return name, end + 4, true
}

// domain reads a name that is not compressed.
func domain(m []byte, at int) (string, int, bool) {
	var b strings.Builder
	for at < len(m) {
		n := int(m[at])
		at++
		if n == 0 {
			return strings.ToLower(b.String()), at, true
		}
		if n > 63 || at+n > len(m) || b.Len()+n+1 > maxName {
			return "", 0, false
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.Write(m[at : at+n])
		at += n
	}
	return "", 0, false
}

// answer remembers the addresses that a DNS response gives for its question's name.
func (f *Tagger) answer(m []byte, now time.Duration) {
	name, at, ok := question(m)
	if !ok || m[2]&0x80 == 0 {
		return
	}
	for range binary.BigEndian.Uint16(m[6:]) {
		if at = skipName(m, at); at < 0 || at+10 > len(m) {
			return
		}
		typ, ttl, size := binary.BigEndian.Uint16(m[at:]), binary.BigEndian.Uint32(m[at+4:]), int(binary.BigEndian.Uint16(m[at+8:]))
		at += 10
		if at+size > len(m) {
			return
		}
		var addr [16]byte
		switch {
		case typ == 1 && size == 4: // A
			addr[10], addr[11] = 0xff, 0xff
			copy(addr[12:], m[at:at+4])
		case typ == 28 && size == 16: // AAAA
			copy(addr[:], m[at:])
		default:
			at += size
			continue
		}
		at += size
		if len(f.hosts) < maxNames || f.hosts[addr].name != "" || f.hostRoom(now) {
			f.hosts[addr] = tag{name, now + min(max(minTTL, time.Duration(ttl)*time.Second), maxTTL)}
		}
	}
}

func (f *Tagger) hostRoom(now time.Duration) bool {
	for a, t := range f.hosts {
		if now > t.until {
			delete(f.hosts, a)
		}
	}
	return len(f.hosts) < maxNames
}

// skipName is the offset behind a name that may be compressed, -1 when it is cut.
func skipName(m []byte, at int) int {
	for at < len(m) {
		switch n := int(m[at]); {
		case n == 0:
			return at + 1
		case n >= 0xc0:
			return at + 2
		case n > 63:
			return -1
		default:
			at += n + 1
		}
	}
	return -1
}
