package mesh

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"reflect"
	"slices"
	"strings"
)

// Sealer seals the snapshots of one origin, one after another. An object that was in
// the one before, the same pointer, is not encoded again: a change of one endpoint
// costs what the endpoint's service costs, and a copy of the bytes of the others. The
// zero value is ready; it is not for several goroutines.
type Sealer struct {
	known map[any][]byte // canonical encoding by pointer, of the last snapshot's objects
}

// Seal does what [Snapshot.Seal] does, and keeps the encoding with the snapshot for
// [EncodeSnapshot] and [Snapshot.Verify]: these do not notice changes, which a sealed
// snapshot must not see.
func (r *Sealer) Seal(s *Snapshot, key ed25519.PrivateKey) error {
	s.received, s.Hash, s.Signature = nil, "", ""
	s.Requires = s.Objects.Requires()
	objects, err := r.encode(&s.Objects)
	if err != nil {
		return fmt.Errorf("seal snapshot %s: %w", s.Generation, err)
	}
	wire, err := s.frame(objects)
	if err != nil {
		return fmt.Errorf("seal snapshot %s: %w", s.Generation, err)
	}
	sum := digestOf(wire)
	s.Hash = hex.EncodeToString(sum[:])
	if key != nil {
		s.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(key, sum[:]))
	}
	if wire, err = s.frame(objects); err != nil {
		return fmt.Errorf("seal snapshot %s: %w", s.Generation, err)
	}
	s.received = &received{wire: wire, sum: sum, kept: true}
	return nil
}

// frame is the canonical encoding of s with these objects in the place of its own.
func (s *Snapshot) frame(objects []byte) ([]byte, error) {
	f := *s
	f.Objects = Objects{}
	data, err := json.Marshal(&f)
	if err != nil {
		return nil, err
	}
	if data, err = canonical(data); err != nil {
		return nil, err
	}
	// Nothing that this version writes before it could hold the same.
	head, tail, ok := bytes.Cut(data, []byte(`"objects":{}`))
	if !ok {
		return nil, errors.New("a snapshot has no member objects")
	}
	wire := make([]byte, 0, len(data)+len(objects))
	wire = append(append(wire, head...), `"objects":`...)
	return append(append(wire, objects...), tail...), nil
}

// objectLists are the fields of Objects, by name.
func objectLists() []field {
	return slices.SortedFunc(slices.Values(fieldsOf(reflect.TypeFor[Objects]())), func(a, b field) int { return strings.Compare(a.name, b.name) })
}

func (r *Sealer) encode(o *Objects) ([]byte, error) {
	known := make(map[any][]byte, len(r.known))
	out := []byte{'{'}
	v := reflect.ValueOf(o).Elem()
	for _, f := range objectLists() {
		list := v.FieldByIndex(f.index)
		if list.Len() == 0 {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(append(out, '"'), f.name...), `":[`...)
		for i := range list.Len() {
			doc := list.Index(i).Interface()
			text, ok := r.known[doc]
			if !ok {
				data, err := json.Marshal(doc)
				if err != nil {
					return nil, err
				}
				if text, err = canonical(data); err != nil {
					return nil, fmt.Errorf("%s[%d]: %w", f.name, i, err)
				}
			}
			known[doc] = text
			if i > 0 {
				out = append(out, ',')
			}
			out = append(out, text...)
		}
		out = append(out, ']')
	}
	r.known = known
	return append(out, '}'), nil
}

// Same reports whether the objects are the same over the wire: positions in files, and
// whether a list is nil or empty, say nothing. What is the same pointer is not looked at.
func (o *Objects) Same(p *Objects) bool {
	a, b := reflect.ValueOf(o).Elem(), reflect.ValueOf(p).Elem()
	for _, f := range fieldsOf(a.Type()) {
		x, y := a.FieldByIndex(f.index), b.FieldByIndex(f.index)
		if x.Len() != y.Len() {
			return false
		}
		for i := range x.Len() {
			if x.Index(i).Pointer() == y.Index(i).Pointer() {
				continue
			}
			m, errM := json.Marshal(x.Index(i).Interface())
			n, errN := json.Marshal(y.Index(i).Interface())
			if errM != nil || errN != nil || !bytes.Equal(m, n) {
				return false
			}
		}
	}
	return true
}

// Decoder reads the snapshots of one source, one after another. An object whose
// encoding was in the one before is that object, the same pointer: what did not change
// is neither read again nor there twice. The zero value is ready; it is not for
// several goroutines.
type Decoder struct {
	seed  maphash.Seed
	parts map[uint64]part // of the last snapshot
}

type part struct {
	text []byte
	doc  any
}

// Decode does what [DecodeSnapshot] does. The snapshot and its objects must not be
// changed.
func (d *Decoder) Decode(data []byte) (*Snapshot, error) {
	if len(data) > MaxSnapshotBytes {
		return DecodeSnapshot(data) // says so
	}
	wire, err := canonical(data)
	if err != nil {
		return DecodeSnapshot(data)
	}
	s, parts, ok := d.read(wire)
	if !ok {
		return DecodeSnapshot(data)
	}
	if err := s.Compat.Check(); err != nil {
		return nil, fmt.Errorf("decode snapshot %s of %q: %w", s.Generation, s.Origin, err)
	}
	d.parts = parts
	s.received = &received{wire: wire, sum: digestOf(wire), kept: true}
	return s, nil
}

// read reads canonical JSON; false for what is better left to encoding/json, with its
// errors and its tolerance in names.
func (d *Decoder) read(wire []byte) (*Snapshot, map[uint64]part, bool) {
	if d.parts == nil {
		d.seed = maphash.MakeSeed()
	}
	s := new(Snapshot)
	head := []byte{'{'}
	var lists []jsonMember
	for _, m := range membersOf(wire) {
		if m.is("objects") {
			if m.value[0] != '{' {
				return nil, nil, false
			}
			lists = membersOf(m.value)
			continue
		}
		if bytes.EqualFold(m.key, []byte("objects")) {
			return nil, nil, false
		}
		if len(head) > 1 {
			head = append(head, ',')
		}
		head = append(head, m.raw...)
	}
	if json.Unmarshal(append(head, '}'), s) != nil {
		return nil, nil, false
	}
	parts := make(map[uint64]part, len(d.parts))
	v := reflect.ValueOf(&s.Objects).Elem()
	fields := objectLists()
	for _, m := range lists {
		i := slices.IndexFunc(fields, func(f field) bool { return strings.EqualFold(f.name, string(m.key)) })
		if i < 0 {
			continue // of a newer version
		}
		if !m.is(fields[i].name) || m.value[0] != '[' {
			return nil, nil, false
		}
		texts := itemsOf(m.value)
		typ := fields[i].typ
		list := reflect.MakeSlice(typ, 0, len(texts))
		for _, text := range texts {
			p, ok := d.item(typ.Elem(), text)
			if !ok {
				return nil, nil, false
			}
			parts[maphash.Bytes(d.seed, text)] = p
			list = reflect.Append(list, reflect.ValueOf(p.doc))
		}
		v.FieldByIndex(fields[i].index).Set(list)
	}
	return s, parts, true
}

func (d *Decoder) item(typ reflect.Type, text []byte) (part, bool) {
	if p, ok := d.parts[maphash.Bytes(d.seed, text)]; ok && bytes.Equal(p.text, text) && reflect.TypeOf(p.doc) == typ {
		return part{text, p.doc}, true
	}
	doc := reflect.New(typ.Elem()).Interface()
	if text[0] != '{' || json.Unmarshal(text, doc) != nil {
		return part{}, false
	}
	return part{text, doc}, true
}

// digestOf is the SHA-256 of a canonical snapshot without hash and signature.
func digestOf(wire []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write([]byte{'{'})
	first := true
	for _, m := range membersOf(wire) {
		if m.is("hash") || m.is("signature") {
			continue
		}
		if !first {
			h.Write([]byte{','})
		}
		first = false
		h.Write(m.raw)
	}
	h.Write([]byte{'}'})
	h.Sum(sum[:0])
	return sum
}

// jsonMember is a member of an object in canonical JSON: all of it, its key without quotes,
// as it is written, and its value.
type jsonMember struct{ raw, key, value []byte }

func (m *jsonMember) is(name string) bool { return string(m.key) == name }

// membersOf finds the members of an object in canonical JSON.
func membersOf(object []byte) []jsonMember {
	var list []jsonMember
	for at := 1; object[at] != '}'; {
		if object[at] == ',' {
			at++
		}
		colon := skip(object, at)
		end := skip(object, colon+1)
		list = append(list, jsonMember{raw: object[at:end], key: object[at+1 : colon-1], value: object[colon+1 : end]})
		at = end
	}
	return list
}

// itemsOf finds the items of a list in canonical JSON.
func itemsOf(list []byte) [][]byte {
	var items [][]byte
	for at := 1; list[at] != ']'; {
		if list[at] == ',' {
			at++
		}
		end := skip(list, at)
		items = append(items, list[at:end])
		at = end
	}
	return items
}

// skip returns where the value ends that begins at a place of canonical JSON.
func skip(data []byte, at int) int {
	for depth := 0; ; {
		switch data[at] {
		case '"':
			for at++; data[at] != '"'; at++ {
				if data[at] == '\\' {
					at++
				}
			}
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		at++
		if depth == 0 && (at == len(data) || data[at] == ',' || data[at] == ':' || data[at] == '}' || data[at] == ']') {
			return at
		}
	}
}
