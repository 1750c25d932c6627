package function

import (
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// longestHost is the longest name of DNS.
const longestHost = 255

// tagger names requests by their host.
type tagger struct {
	name  []byte
	lower []string
	exact map[string][]byte
	wild  map[string][]byte // by the name without its asterisk: ".example.com"
	other []byte
}

func newTagger(spec *mesh.HostTagger) *tagger {
	t := &tagger{
		name: []byte(spec.Header), lower: []string{strings.ToLower(spec.Header)},
		exact: map[string][]byte{}, wild: map[string][]byte{}, other: []byte(spec.Default),
	}
	for _, tag := range spec.Tags {
		for _, h := range tag.Hosts {
			if rest, wild := strings.CutPrefix(strings.ToLower(h), "*"); wild {
				t.wild[rest] = []byte(tag.Name)
			} else {
				t.exact[rest] = []byte(tag.Name)
			}
		}
	}
	return t
}

func (t *tagger) Request(q *Request) Verdict {
	q.drop(t.lower)
	if tag := t.tag(q.Host); len(tag) > 0 {
		q.Fields = append(q.Fields, stream.Field{Name: t.name, Value: tag})
	}
	return Passed
}

// tag is the name of a host, that of its longest domain where it has none itself.
func (t *tagger) tag(host []byte) []byte {
	var buf [longestHost]byte
	name := canonical(host, buf[:0])
	if tag, ok := t.exact[string(name)]; ok {
		return tag
	}
	for i, c := range name {
		if c != '.' || i == 0 {
			continue
		}
		if tag, ok := t.wild[string(name[i:])]; ok {
			return tag
		}
	}
	return t.other
}

// canonical is a host in lower case, without port and last dot.
func canonical(host, buf []byte) []byte {
	for i, c := range host {
		if c == ':' && (len(host) == 0 || host[0] != '[') {
			host = host[:i]
			break
		}
	}
	if n := len(host); n > 0 && host[n-1] == '.' {
		host = host[:n-1]
	}
	if len(host) > longestHost {
		return nil
	}
	for _, c := range host {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		buf = append(buf, c)
	}
	return buf
}
