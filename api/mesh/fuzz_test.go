package mesh

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// What ParseYAML takes must be valid, print, and come back the same; what it
// refuses must be explained at a place in the file.
func FuzzParseYAML(f *testing.F) {
	f.Add([]byte(valid))
	for _, pattern := range []string{"testdata/faults/*.yaml", "../../examples/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := ParseYAML("fuzz.yaml", data)
		if err != nil {
			var fs *Faults
			if !errors.As(err, &fs) || len(fs.List) == 0 || o != nil {
				t.Fatalf("error %v of type %T, objects %v", err, err, o)
			}
			for _, x := range fs.List {
				if x.Message == "" || x.File != "fuzz.yaml" || x.Line < 1 || x.Line > bytes.Count(data, []byte("\n"))+bytes.Count(data, []byte("\r"))+2 {
					t.Fatalf("fault %+v in %q", x, data)
				}
			}
			return
		}
		if err := Validate(o); err != nil {
			t.Fatalf("Validate refuses what ParseYAML took: %v", err)
		}
		Check(o)
		text, err := ToYAML(o)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseYAML("again.yaml", text)
		if err != nil {
			t.Fatalf("own output refused: %v\n%s", err, text)
		}
		if again, err := ToYAML(back); err != nil || !bytes.Equal(again, text) {
			t.Fatalf("printed differently the second time: %v\n%s\n%s", err, text, again)
		}
	})
}

// Any snapshot that can be read can be sealed, sent and verified, and verifies
// as it is only when its hash fits.
func FuzzDecodeSnapshot(f *testing.F) {
	data, err := EncodeSnapshot(sealed(f, testKey))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"generation":{"incarnation":1,"counter":18446744073709551615},"objects":{"sites":[{"spec":{"location":{"type":"Point","coordinates":[1,2,3]}}}]},"x":[1e400,{"y":null}]}`))
	f.Add([]byte(`{"objects":{"gateways":[null]},"hash":"x"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		compareDecoded(t, data)
		s, err := DecodeSnapshot(data)
		if err != nil {
			return
		}
		if s.Verify(nil) == nil {
			again, err := EncodeSnapshot(s)
			if err != nil {
				t.Fatal(err)
			}
			if s, err = DecodeSnapshot(again); err != nil || s.Verify(nil) != nil {
				t.Fatalf("a good snapshot did not survive: %v", err)
			}
		}
		_ = Validate(&s.Objects)
		if err := s.Seal(testKey); err != nil {
			t.Fatal(err)
		}
		wire, err := EncodeSnapshot(s)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeSnapshot(wire)
		if err != nil {
			t.Fatalf("%v\n%s", err, wire)
		}
		if err := back.Verify(testKey.Public().(ed25519.PublicKey)); err != nil {
			t.Fatal(err)
		}
	})
}
