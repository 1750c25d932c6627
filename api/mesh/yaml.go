package mesh

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
)

// appendYAML appends a document's JSON as YAML blocks, with the keys of each mapping
// sorted. A configuration of a thousand services is printed whenever one of their
// endpoints changes; by way of a YAML library's nodes that took half a second.
func appendYAML(dst []byte, doc any) ([]byte, error) {
	data, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	if data, err = canonical(data); err != nil {
		return nil, err
	}
	p := yamlPrinter{in: data, out: dst}
	if err := p.value("\n", "\n", true); err != nil {
		return nil, err
	}
	return append(p.out, '\n'), nil
}

// yamlPrinter prints JSON that [canonical] has written.
type yamlPrinter struct {
	in  []byte
	at  int
	out []byte
}

// value prints the next value: entries of a mapping each in a line that begins with
// indent, a line break and spaces, those of a list with items. The first entry stands
// in the line that has begun, behind the "- " of a list.
func (p *yamlPrinter) value(indent, items string, begun bool) error {
	first := p.in[p.at]
	if first == '{' && p.in[p.at+1] != '}' {
		return p.mapping(indent, begun)
	}
	if first == '[' && p.in[p.at+1] != ']' {
		return p.list(items, begun)
	}
	if !begun {
		p.out = append(p.out, ' ')
	}
	switch first {
	case '{', '[':
		p.out = append(p.out, p.in[p.at:p.at+2]...)
		p.at += 2
		return nil
	case '"':
		s, err := p.string()
		if err == nil {
			p.text(indent, s)
		}
		return err
	}
	n := bytes.IndexAny(p.in[p.at:], ",]}") // canonical JSON is an object: something follows
	p.out = append(p.out, p.in[p.at:p.at+n]...)
	p.at += n
	return nil
}

func (p *yamlPrinter) mapping(indent string, begun bool) error {
	for p.in[p.at] != '}' {
		p.at++ // { or ,
		if !begun {
			p.out = append(p.out, indent...)
		}
		begun = false
		key, err := p.string()
		if err != nil {
			return err
		}
		p.scalar(key)
		p.at++
		p.out = append(p.out, ':')
		if err := p.value(indent+"  ", indent, false); err != nil {
			return err
		}
	}
	p.at++
	return nil
}

func (p *yamlPrinter) list(indent string, begun bool) error {
	for p.in[p.at] != ']' {
		p.at++ // [ or ,
		if !begun {
			p.out = append(p.out, indent...)
		}
		begun = false
		p.out = append(p.out, "- "...)
		if err := p.value(indent+"  ", indent+"  ", true); err != nil {
			return err
		}
	}
	p.at++
	return nil
}

// string reads a string.
func (p *yamlPrinter) string() (s string, err error) {
	begin := p.at
	for p.at++; p.in[p.at] != '"'; p.at++ {
		if p.in[p.at] == '\\' {
			p.at++
		}
	}
	p.at++
	whole := p.in[begin:p.at]
	if bytes.IndexByte(whole, '\\') < 0 {
		return string(whole[1 : len(whole)-1]), nil
	}
	err = json.Unmarshal(whole, &s)
	return s, err
}

// text prints a string, in lines where it has some and nothing gets lost by that.
func (p *yamlPrinter) text(indent, s string) {
	body, whole := strings.CutSuffix(s, "\n")
	odd := func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }
	if !strings.Contains(body, "\n") || strings.HasSuffix(body, "\n") || body[0] == ' ' || body[0] == '\n' || strings.ContainsFunc(body, odd) {
		p.scalar(s)
		return
	}
	p.out = append(p.out, '|')
	if !whole {
		p.out = append(p.out, '-')
	}
	for line := range strings.SplitSeq(body, "\n") {
		if line == "" {
			p.out = append(p.out, '\n')
			continue
		}
		p.out = append(append(p.out, indent...), line...)
	}
}

// scalar prints a string in one line, without quotes where no reader of YAML 1.1 or
// 1.2 takes it for anything else.
func (p *yamlPrinter) scalar(s string) {
	if isPlain(s) {
		p.out = append(p.out, s...)
		return
	}
	p.out = append(p.out, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			p.out = append(p.out, '\\', byte(r))
		case r == '\n':
			p.out = append(p.out, `\n`...)
		case r == '\t':
			p.out = append(p.out, `\t`...)
		case unicode.IsPrint(r):
			p.out = append(p.out, string(r)...)
		case r < 0x10000:
			p.out = fmt.Appendf(p.out, `\u%04X`, r)
		default:
			p.out = fmt.Appendf(p.out, `\U%08X`, r)
		}
	}
	p.out = append(p.out, '"')
}

func isPlain(s string) bool {
	if s == "" {
		return false
	}
	if s[0] >= '0' && s[0] <= '9' { // an address is no number
		with, err := netip.ParseAddrPort(s)
		bare, bareErr := netip.ParseAddr(s)
		return err == nil && with.Addr().Is4() || bareErr == nil && bare.Is4()
	}
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '/'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '.' && c != '-' && c != '_') {
			return false
		}
	}
	switch strings.ToLower(s) {
	case "null", "true", "false", "yes", "no", "on", "off", "y", "n":
		return false
	}
	return true
}
