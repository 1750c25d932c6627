package mesh

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// byMap is canonical as encoding/json does it: slow, and right by construction.
func byMap(data []byte, without ...string) ([]byte, bool) {
	if !json.Valid(data) {
		return nil, false
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var m map[string]any
	if err := dec.Decode(&m); err != nil || m == nil {
		return nil, false
	}
	for _, k := range without {
		delete(m, k)
	}
	out, err := json.Marshal(m)
	return out, err == nil
}

func compareCanonical(t *testing.T, data []byte) {
	t.Helper()
	for _, without := range [][]string{nil, {"hash", "signature"}, {"a"}} {
		want, ok := byMap(data, without...)
		got, err := canonical(data, without...)
		if errors.Is(err, errTooDeep) {
			return
		}
		if ok != (err == nil) {
			t.Fatalf("%q without %q: error %v, encoding/json takes it: %v", data, without, err, ok)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%q without %q:\n%s\nwant\n%s", data, without, got, want)
		}
		if err != nil {
			continue
		}
		if again, err := canonical(got, without...); err != nil || !bytes.Equal(again, got) {
			t.Fatalf("%q: not stable: %s, %v", data, again, err)
		}
	}
}

var canonicalSeeds = []string{
	`{}`, ` { } `, `{"a":1}`, `{"b":1,"a":2}`, `{"b":1,"a":2,"b":3,"hash":"x","aa":[]}`, `{"a":{"a":1},"a":{"b":2}}`,
	"{ \"z\" : [ 1 , -0 , 1e5 , 1.50 , true , false , null ] ,\n\t\"y\" : { \"q\" : { } , \"p\" : [ ] } }",
	`{"\u0061":"\u003c&>","b":"\n\t\"\\\/","\u00e9":"é","é":1,"` + "\xff" + `":"` + "\xfe\xc3" + `","` + "\u2028" + `":"\u2028"}`,
	`{"hash":1}`, `{"hash":1,"signature":2}`, `{"a":1,"hash":1,"b":2}`, `{"signature":1,"b":2,"a":3}`, `{"":0,"A":1,"a":2}`,
	`null`, `[]`, `1`, `"x"`, ``, `{`, `{"a":1}x`, `{"a":1}{"b":2}`, `{"a":01}`, `{"a":"` + "\x01" + `"}`, `{"a":"\ud800"}`, `{"a":"\ud83d\ude00"}`,
	`{"a":12345678901234567890.000000000000000000001}`,
}

func TestCanonical(t *testing.T) {
	for _, s := range canonicalSeeds {
		compareCanonical(t, []byte(s))
	}
	deep := func(n int) []byte { return []byte(strings.Repeat(`{"b":[`, n) + "1" + strings.Repeat(`],"a":0}`, n)) }
	compareCanonical(t, deep(maxDepth/2-1))
	if _, err := canonical(deep(maxDepth/2 - 1)); err != nil {
		t.Errorf("%d levels: %v", maxDepth-2, err)
	}
	for _, n := range []int{maxDepth, 1e5} {
		if _, err := canonical(deep(n)); err == nil {
			t.Errorf("%d levels are taken", 2*n)
		}
	}
	data, err := json.Marshal(sealed(t, testKey))
	if err != nil {
		t.Fatal(err)
	}
	compareCanonical(t, data)
}

func FuzzCanonical(f *testing.F) {
	for _, s := range canonicalSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) { compareCanonical(t, data) })
}
