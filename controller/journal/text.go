package journal

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strconv"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// A journal as text has a first line that says where each owner stands, and a line for
// each change. Each line begins with the CRC-32C of the rest, so that one that was torn
// or damaged is not believed; more lines can be appended.

// line is what one of them holds.
type line struct {
	Head   map[string]stand `json:"head,omitempty"`
	Change *Change          `json:"change,omitempty"`
}

// stand is a book without its changes.
type stand struct {
	Floor uint64   `json:"floor"`
	High  uint64   `json:"high"`
	Live  []marked `json:"live"`
}

// marked is an object and its revision.
type marked struct {
	Key      mesh.Key `json:"key"`
	Revision uint64   `json:"revision"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encode(l line) ([]byte, error) {
	data, err := json.Marshal(l)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	out := fmt.Appendf(nil, "%08x ", crc32.Checksum(data, castagnoli))
	return append(append(out, data...), '\n'), nil
}

// Line is a change as a line to append to a text.
func Line(c Change) ([]byte, error) { return encode(line{Change: &c}) }

// Text is the whole journal, empty where it knows no owner.
func (j *Journal) Text() ([]byte, error) {
	if len(j.owners) == 0 {
		return nil, nil
	}
	head := map[string]stand{}
	for owner, b := range j.owners {
		s := stand{Floor: b.floor, High: b.high, Live: []marked{}}
		keys := slices.SortedFunc(maps.Keys(b.live), compareKeys)
		for _, key := range keys {
			s.Live = append(s.Live, marked{key, b.live[key]})
		}
		head[owner] = s
	}
	text, err := encode(line{Head: head})
	if err != nil {
		return nil, err
	}
	var all []Change
	for _, b := range j.owners {
		all = append(all, b.changes...)
	}
	// By owner and in their order: of several owners nobody needs more.
	slices.SortStableFunc(all, func(x, y Change) int { return cmp.Compare(x.Owner, y.Owner) })
	for _, c := range all {
		l, err := Line(c)
		if err != nil {
			return nil, err
		}
		text = append(text, l...)
	}
	return text, nil
}

// Parse reads a text. A last line that is torn, as a crash leaves it, is dropped;
// any other damage is an error that names the line.
func Parse(text []byte) (*Journal, error) {
	j := New()
	for n := 1; len(text) > 0; n++ {
		raw, rest, whole := bytes.Cut(text, []byte("\n"))
		l, err := decode(raw)
		switch {
		case err != nil && n > 1 && !whole:
			return j, nil
		case err != nil:
			return nil, fmt.Errorf("line %d: %w", n, err)
		case (n == 1) != (l.Head != nil) || (n > 1) != (l.Change != nil):
			return nil, fmt.Errorf("line %d: want where owners stand in the first line, and a change in each other", n)
		}
		for owner, s := range l.Head {
			b := &book{floor: s.Floor, high: s.High, live: map[mesh.Key]uint64{}}
			for _, m := range s.Live {
				b.live[m.Key] = m.Revision
			}
			j.owners[owner] = b
		}
		if c := l.Change; c != nil {
			if !j.Knows(c.Owner) {
				return nil, fmt.Errorf("line %d: a change of %q, of whom the first line says nothing", n, c.Owner)
			}
			j.Note(*c)
		}
		text = rest
	}
	return j, nil
}

func decode(raw []byte) (l line, err error) {
	sum, data, _ := bytes.Cut(raw, []byte(" "))
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if err != nil || uint32(want) != crc32.Checksum(data, castagnoli) {
		return l, fmt.Errorf("its checksum does not fit")
	}
	return l, json.Unmarshal(data, &l)
}
