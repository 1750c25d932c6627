package accesslog

import (
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"
)

// absent stands in text for what a request has not.
const absent = '-'

// line appends a record's line; now is the wall time at clock on the loops' clock.
func (l *Log) line(b []byte, e *record, now time.Time, clock int64) []byte {
	if l.format.json {
		b = append(b, '{')
	}
	for i := range l.format.parts {
		p := &l.format.parts[i]
		if !l.format.json {
			if p.op == opLiteral {
				b = append(b, p.literal...)
			} else {
				b = l.value(b, p, e, now, clock)
			}
			continue
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, p.literal...)
		b = append(b, '"', ':')
		b = l.value(b, p, e, now, clock)
	}
	if l.format.json {
		b = append(b, '}')
	}
	return append(b, '\n')
}

func (l *Log) value(b []byte, p *part, e *record, now time.Time, clock int64) []byte {
	switch p.op {
	case opStartTime:
		return l.startTime(b, p, now.Add(time.Duration(e.start-clock)))
	case opMethod:
		return l.text(b, p, e.method)
	case opPath:
		return l.text(b, p, e.path)
	case opAuthority:
		return l.text(b, p, e.authority)
	case opProtocol:
		return l.text(b, p, e.protocol)
	case opResponseCode:
		return strconv.AppendInt(b, int64(e.status), 10)
	case opResponseFlags:
		return l.text(b, p, e.flag)
	case opBytesReceived:
		return strconv.AppendInt(b, e.received, 10)
	case opBytesSent:
		return strconv.AppendInt(b, e.sent, 10)
	case opDuration:
		return strconv.AppendInt(b, e.duration/1e6, 10)
	case opResponseDuration:
		if e.firstByte < 0 {
			return l.text(b, p, nil)
		}
		return strconv.AppendInt(b, e.firstByte/1e6, 10)
	case opUpstreamHost:
		return l.address(b, p, e.upstream, true)
	case opUpstreamCluster:
		return l.text(b, p, e.service)
	case opUpstreamSite:
		return l.text(b, p, e.site)
	case opAttempts:
		return strconv.AppendInt(b, int64(e.attempts), 10)
	case opRouteName:
		return l.text(b, p, e.route)
	case opClient:
		return l.address(b, p, e.client, true)
	case opClientAddress:
		return l.address(b, p, e.client, false)
	case opPeer:
		return l.address(b, p, e.peer, true)
	case opPeerAddress:
		return l.address(b, p, e.peer, false)
	case opIdentity:
		return l.text(b, p, e.identity)
	case opResponseCodeDetails:
		return l.text(b, p, e.details)
	case opGateway:
		return l.text(b, p, e.gateway)
	case opSite:
		return l.text(b, p, l.site)
	case opNode:
		return l.text(b, p, l.node)
	case opRequestField:
		return l.text(b, p, first(e.request[:], p.fields))
	case opResponseField:
		return l.text(b, p, first(e.response[:], p.fields))
	}
	return b
}

func first(values [][]byte, which []int) []byte {
	for _, i := range which {
		if len(values[i]) > 0 {
			return values[i]
		}
	}
	return nil
}

func (l *Log) startTime(b []byte, p *part, t time.Time) []byte {
	t = t.UTC()
	if p.layout == layoutUnix {
		return strconv.AppendInt(b, t.Unix(), 10)
	}
	layout := p.layout
	if layout == "" {
		layout = layoutDefault
	}
	if !l.format.json {
		return t.AppendFormat(b, layout)
	}
	return append(t.AppendFormat(append(b, '"'), layout), '"')
}

func (l *Log) address(b []byte, p *part, a netip.AddrPort, port bool) []byte {
	switch {
	case !a.IsValid():
		return l.text(b, p, nil)
	case port:
		l.small = a.AppendTo(l.small[:0])
	default:
		l.small = a.Addr().AppendTo(l.small[:0])
	}
	return l.text(b, p, l.small)
}

// text appends what came from outside so that it can neither end its line nor
// pose as another member.
func (l *Log) text(b []byte, p *part, v []byte) []byte {
	if p.limit > 0 {
		v = v[:min(p.limit, len(v))]
	}
	if l.format.json {
		if len(v) == 0 {
			return append(b, "null"...)
		}
		return append(appendJSON(append(b, '"'), v), '"')
	}
	if len(v) == 0 {
		return append(b, absent)
	}
	return appendPlain(b, v)
}

const hexDigits = "0123456789abcdef"

// appendJSON escapes by RFC 8259 7; a byte that is no UTF-8 becomes U+FFFD, since
// a reader would refuse the line.
func appendJSON(b, v []byte) []byte {
	for i := 0; i < len(v); {
		c := v[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20 || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, n := utf8.DecodeRune(v[i:])
			// U+2028 and U+2029 end lines for some readers.
			if r == '\u2028' || r == '\u2029' {
				b = append(b, '\\', 'u', '2', '0', '2', hexDigits[r&15])
			} else {
				b = utf8.AppendRune(b, r)
			}
			i += n
			continue
		}
		i++
	}
	return b
}

// appendPlain writes \xHH for a quote, a backslash and what is not printable ASCII.
func appendPlain(b, v []byte) []byte {
	for _, c := range v {
		if c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			b = append(b, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
		} else {
			b = append(b, c)
		}
	}
	return b
}
