package soft

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"time"

	"github.com/meridian-mesh/meridian/chaining/nsh"
)

// macSize is that of HMAC-SHA-256-128 (RFC 9145 4.2, RFC 4868): the code's first 16
// bytes.
const macSize = 16

// Key identifies and is a secret that two sites share.
type Key struct {
	// ID is sent along, 1 to 16 bytes.
	ID string
	// Secret has at least 32 bytes.
	Secret []byte
}

// Integrity adds the code of RFC 9145 to headers that leave a site, and checks and
// removes it from those that come in: the MAC#2 context header, which covers the
// whole header and the packet, without encryption. Since it is added by the last
// node of one site and removed by the first of the next, nobody on the way has to
// change what it covers. Headers of MD type 1 travel as MD type 2 with their
// context words in a header of Meridian's class, and are given back as they were.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-------------------------------+---------------+-+-------------+
//	|       Metadata Class 0        |   Type 0x03   |U|    Length   |  RFC 9145 5.2
//	+---------------+---------------+---------------+---------------+
//	|  Key Id Len   |       Key Identifier          ~
//	+---------------+-----------------------------------------------+
//	~  Timestamp: 8 bytes, seconds since 1970 (UTC) and fraction    ~
//	+---------------+-----------------------------------------------+
//	| Nonce Len = 0 |   Message Authentication Code: 16 bytes       ~
//	+---------------+-----------------------------------------------+
//
// The code is computed with its own bytes zero. Of the RFC's text on what comes twice
// this is stricter: a second code, or anything behind it, is refused, since only the
// other site's border writes it.
type Integrity struct {
	current *keyed
	keys    map[string]*keyed
	window  time.Duration
	// clear is a header without its code, as Check returns it.
	clear [nsh.MaxSize]byte
	sum   [sha256.Size]byte
}

type keyed struct {
	id  string
	mac hash.Hash
}

// DefaultWindow is how old, or how far ahead, a header's time may be (RFC 9145 7.4).
const DefaultWindow = 2 * time.Second

// contextWords holds the four words of an MD type 1 header under protection.
const contextWords = 0x7f

// Errors of Check.
var (
	ErrNoIntegrity = errors.New("header carries no code (RFC 9145)")
	ErrKey         = errors.New("header's code is by an unknown key")
	ErrCode        = errors.New("header's code is wrong")
	ErrStale       = errors.New("header's time is outside the window")
)

// NewIntegrity signs with the first key and accepts all of them, so that keys can
// be changed without a loss. window 0 is DefaultWindow.
func NewIntegrity(keys []Key, window time.Duration) (*Integrity, error) {
	if window == 0 {
		window = DefaultWindow
	}
	in := &Integrity{keys: make(map[string]*keyed), window: window}
	for i, k := range keys {
		if len(k.ID) < 1 || len(k.ID) > 16 {
			return nil, fmt.Errorf("key %d: id has %d bytes; use 1 to 16", i+1, len(k.ID))
		}
		if len(k.Secret) < sha256.Size {
			return nil, fmt.Errorf("key %q: secret has %d bytes; use at least %d", k.ID, len(k.Secret), sha256.Size)
		}
		if in.keys[k.ID] != nil {
			return nil, fmt.Errorf("key %q is there twice", k.ID)
		}
		in.keys[k.ID] = &keyed{k.ID, hmac.New(sha256.New, k.Secret)}
		if in.current == nil {
			in.current = in.keys[k.ID]
		}
	}
	if in.current == nil {
		return nil, errors.New("no key: name at least one")
	}
	return in, nil
}

// Room is how much longer a header becomes.
func (in *Integrity) Room() int {
	if in == nil {
		return 0
	}
	return 4 + (1+len(in.current.id)+8+1+macSize+3)&^3
}

// Protect adds the code to the header of n bytes at the beginning of b.
func (in *Integrity) Protect(b []byte, n int, payload []byte, now time.Time) (nsh.Header, error) {
	if in == nil {
		return nil, ErrNoIntegrity
	}
	h := nsh.Header(b[:n:n])
	var err error
	if h.MDType() == nsh.MD1 {
		var words [16]byte
		copy(words[:], h.Context())
		ttl, base := h.TTL(), [2]byte{h[0], h[2]}
		h = nsh.Put(b, nsh.MD2, h.Next(), h.SPI(), h.SI())
		// The unassigned bits stay (RFC 8300 2.2).
		h[0] = h[0]&0x0f | base[0]&0xf0
		h[2] = base[1]&0xf0 | nsh.MD2
		h.SetTTL(ttl)
		if words != [16]byte{} {
			if h, err = nsh.AppendContext(b, h, nsh.ContextHeader{Class: nsh.ClassMeridian, Type: contextWords, Value: words[:]}); err != nil {
				return nil, err
			}
		} else if h, err = nsh.AppendContext(b, h, nsh.ContextHeader{Class: nsh.ClassMeridian, Type: contextWords}); err != nil {
			return nil, err
		}
	}
	var value [1 + 16 + 8 + 1 + macSize]byte
	id := in.current.id
	value[0] = byte(len(id))
	at := 1 + copy(value[1:], id)
	binary.BigEndian.PutUint64(value[at:], stampOf(now))
	at += 8 + 1
	if h, err = nsh.AppendContext(b, h, nsh.ContextHeader{Class: nsh.ClassIETF, Type: nsh.TypeMAC2, Value: value[:at+macSize]}); err != nil {
		return nil, err
	}
	end := len(h) - pad(at+macSize)
	copy(h[end-macSize:end], in.code(in.current, h, payload))
	return h, nil
}

func pad(n int) int { return (4 - n%4) % 4 }

func (in *Integrity) code(k *keyed, h nsh.Header, payload []byte) []byte {
	k.mac.Reset()
	k.mac.Write(h)
	k.mac.Write(payload)
	return k.mac.Sum(in.sum[:0])[:macSize]
}

// Check verifies the code of a header and returns the header as it was before, of
// the same TTL. The result is valid until the next call.
func (in *Integrity) Check(h nsh.Header, payload []byte, now time.Time) (nsh.Header, error) {
	if in == nil || h.MDType() != nsh.MD2 {
		return nil, ErrNoIntegrity
	}
	var value, words []byte
	found, md1 := false, false
	out := in.clear[:nsh.BaseSize]
	copy(out, h)
	for rest := h.Context(); len(rest) > 0; {
		c, after, _, err := nsh.NextContext(rest)
		if err != nil {
			return nil, err
		}
		switch {
		case c.Class == nsh.ClassIETF && c.Type == nsh.TypeMAC2:
			if found || len(after) > 0 {
				return nil, ErrCode // One code, and nothing behind it.
			}
			value, found = c.Value, true
		case c.Class == nsh.ClassMeridian && c.Type == contextWords:
			words, md1 = c.Value, true
		default:
			out = append(out, rest[:len(rest)-len(after)]...)
		}
		rest = after
	}
	if !found {
		return nil, ErrNoIntegrity
	}
	if len(value) < 1 || len(value) != 1+int(value[0])+8+1+macSize {
		return nil, ErrCode
	}
	n := int(value[0])
	k := in.keys[string(value[1:1+n])]
	if k == nil {
		return nil, ErrKey
	}
	// The time is looked at before the code (7.5): it is the cheaper one.
	if age := now.Sub(timeOf(binary.BigEndian.Uint64(value[1+n:]))); age >= in.window || age <= -in.window {
		return nil, ErrStale
	}
	var got [macSize]byte
	mac := value[len(value)-macSize:]
	copy(got[:], mac)
	clear(mac)
	ok := value[1+n+8] == 0 && hmac.Equal(got[:], in.code(k, h, payload))
	copy(mac, got[:])
	if !ok {
		return nil, ErrCode
	}
	r := nsh.Header(out)
	if md1 {
		if len(out) != nsh.BaseSize || len(words) != 0 && len(words) != 16 {
			return nil, ErrCode
		}
		r = nsh.Header(in.clear[:nsh.MD1Size])
		clear(r[nsh.BaseSize:])
		copy(r[nsh.BaseSize:], words)
		r[2] = r[2]&0xf0 | nsh.MD1
	}
	r[1] = r[1]&0xc0 | byte(len(r)/4)
	return r, nil
}

// stampOf is a time as RFC 9145 6 has it: seconds since 1970 and their fraction in
// units of 2^-32. It wraps around in 2106.
func stampOf(t time.Time) uint64 {
	return uint64(uint32(t.Unix()))<<32 | uint64(t.Nanosecond())<<32/1e9
}

func timeOf(v uint64) time.Time {
	return time.Unix(int64(v>>32), int64(v&0xffffffff*1e9>>32))
}
