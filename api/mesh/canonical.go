package mesh

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// maxDepth bounds how deep a snapshot is nested, which bounds how often its bytes are
// moved: an object whose keys have to be sorted is copied once more.
const maxDepth = 200

var errTooDeep = fmt.Errorf("more than %d levels of objects and lists", maxDepth)

// canonical rewrites a JSON object with sorted keys, no white space and numbers
// as they were written, without the named members. The same object gives the
// same bytes whichever version wrote it, with fields this one does not know. Of a
// repeated key the last counts.
//
// It goes from bytes to bytes: by way of a map it took two thirds of the time from a
// change of one endpoint to its being served.
func canonical(data []byte, without ...string) ([]byte, error) {
	if !json.Valid(data) {
		return nil, cmp.Or(json.Unmarshal(data, new(any)), errors.New("not JSON"))
	}
	c := canonicalizer{in: data, out: make([]byte, 0, len(data))}
	if c.space() != '{' {
		return nil, errors.New("want an object")
	}
	if err := c.object(without); err != nil {
		return nil, err
	}
	return c.out, nil
}

// canonicalizer copies one value of in, which is valid JSON, to out.
type canonicalizer struct {
	in  []byte
	at  int
	out []byte
	// members are those of the objects that are open, of the innermost last.
	members []member
	spare   []byte
	depth   int
}

// member is one of an object, from out[begin] on.
type member struct {
	key        []byte
	begin, end int
}

// space skips white space and returns what follows.
func (c *canonicalizer) space() byte {
	for c.in[c.at] == ' ' || c.in[c.at] == '\n' || c.in[c.at] == '\t' || c.in[c.at] == '\r' {
		c.at++
	}
	return c.in[c.at]
}

func (c *canonicalizer) value() error {
	if c.depth++; c.depth > maxDepth {
		return errTooDeep
	}
	defer func() { c.depth-- }()
	switch c.space() {
	case '{':
		return c.object(nil)
	case '[':
		return c.array()
	case '"':
		_, err := c.text()
		return err
	}
	begin := c.at
	for c.at < len(c.in) && bytes.IndexByte([]byte(",]} \n\t\r"), c.in[c.at]) < 0 {
		c.at++
	}
	c.out = append(c.out, c.in[begin:c.at]...)
	return nil
}

func (c *canonicalizer) array() error {
	c.at++
	c.out = append(c.out, '[')
	for first := true; c.space() != ']'; first = false {
		if !first {
			c.at++ // the comma
			c.out = append(c.out, ',')
		}
		if err := c.value(); err != nil {
			return err
		}
	}
	c.at++
	c.out = append(c.out, ']')
	return nil
}

func (c *canonicalizer) object(without []string) error {
	c.at++
	open, body := len(c.members), len(c.out)+1
	c.out = append(c.out, '{')
	sorted := true
	for first := true; c.space() != '}'; first = false {
		if !first {
			c.at++
			c.space()
		}
		if len(c.members) > open {
			c.out = append(c.out, ',')
		}
		m := member{begin: len(c.out)}
		var err error
		if m.key, err = c.text(); err != nil {
			return err
		}
		c.space()
		c.at++
		c.out = append(c.out, ':')
		if err := c.value(); err != nil {
			return err
		}
		m.end = len(c.out)
		if slices.Contains(without, string(m.key)) {
			c.out = c.out[:m.begin-min(1, len(c.members)-open)]
			continue
		}
		sorted = sorted && (len(c.members) == open || bytes.Compare(c.members[len(c.members)-1].key, m.key) < 0)
		c.members = append(c.members, m)
	}
	c.at++
	if !sorted {
		c.sort(body, c.members[open:])
	}
	c.members = c.members[:open]
	c.out = append(c.out, '}')
	return nil
}

// sort brings the members of the object that out ends with in order.
func (c *canonicalizer) sort(body int, members []member) {
	slices.SortStableFunc(members, func(a, b member) int { return bytes.Compare(a.key, b.key) })
	c.spare = append(c.spare[:0], c.out[body:]...)
	c.out = c.out[:body]
	for i, m := range members {
		if i+1 < len(members) && bytes.Equal(m.key, members[i+1].key) {
			continue
		}
		if len(c.out) > body {
			c.out = append(c.out, ',')
		}
		c.out = append(c.out, c.spare[m.begin-body:m.end-body]...)
	}
}

// text copies a string in the form that encoding/json writes, and returns what it
// says.
func (c *canonicalizer) text() ([]byte, error) {
	begin := c.at
	plain := true
	for c.at++; c.in[c.at] != '"'; c.at++ {
		switch b := c.in[c.at]; {
		case b == '\\':
			c.at++
			plain = false
		case b >= 0x80 || b == '<' || b == '>' || b == '&':
			plain = false
		}
	}
	c.at++
	whole := c.in[begin:c.at]
	if plain {
		c.out = append(c.out, whole...)
		return whole[1 : len(whole)-1], nil
	}
	var s string
	if err := json.Unmarshal(whole, &s); err != nil {
		return nil, err
	}
	written, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	c.out = append(c.out, written...)
	return []byte(s), nil
}
