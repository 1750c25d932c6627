package mesh

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// many are n services and a route.
func many(t testing.TB, n int) *Objects {
	t.Helper()
	text := smallest
	for i := range n {
		text += fmt.Sprintf("\n---\napiVersion: mesh.meridian.dev/v1alpha1\nkind: MeshService\nmetadata: {name: s%d, annotations: {note: \"a<b>&\\u2028\"}}\nspec:\n  ports: [{port: 80}]\n  endpoints: [{address: \"10.0.0.%d:80\"}]\n", i, i+1)
	}
	return mustParse(t, text)
}

// A Sealer writes what Seal writes, whatever was sealed before, and encodes again
// only what changed.
func TestSealerIsSeal(t *testing.T) {
	var r Sealer
	pub := testKey.Public().(ed25519.PublicKey)
	o := many(t, 5)
	for step := range 5 {
		switch step {
		case 1:
			changed := *o.Services[2]
			changed.Spec.Endpoints = []Endpoint{{Address: "10.9.9.9:80"}}
			o.Services[2] = &changed
		case 2:
			o.Services = o.Services[1:]
		case 3:
			o.HTTPRoutes = nil
		case 4:
			*o = Objects{}
		}
		for _, key := range []ed25519.PrivateKey{nil, testKey} {
			want := &Snapshot{Generation: Generation{3, uint64(step)}, Origin: `m"<&`, Site: "s", Objects: *o}
			got := &Snapshot{Generation: Generation{3, uint64(step)}, Origin: `m"<&`, Site: "s", Objects: *o}
			if err := errors.Join(want.Seal(key), r.Seal(got, key)); err != nil {
				t.Fatal(err)
			}
			a, errA := EncodeSnapshot(want)
			b, errB := EncodeSnapshot(got)
			if errA != nil || errB != nil || !bytes.Equal(a, b) {
				t.Fatalf("step %d: %v %v\n%s\nwant\n%s", step, errA, errB, b, a)
			}
			if key != nil {
				if err := got.Verify(pub); err != nil {
					t.Error(err)
				}
			}
			if len(r.known) != o.Len() {
				t.Errorf("step %d: %d encodings are kept of %d objects", step, len(r.known), o.Len())
			}
		}
	}
}

// What did not change is the same object in the next snapshot.
func TestDecoderKeepsWhatIsTheSame(t *testing.T) {
	var d Decoder
	o := many(t, 5)
	send := func() *Snapshot {
		t.Helper()
		s := &Snapshot{Origin: "m", Site: "m", Objects: *o}
		if err := s.Seal(testKey); err != nil {
			t.Fatal(err)
		}
		data, err := EncodeSnapshot(s)
		if err != nil {
			t.Fatal(err)
		}
		got, err := d.Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		if err := got.Verify(testKey.Public().(ed25519.PublicKey)); err != nil {
			t.Fatal(err)
		}
		want, err := DecodeSnapshot(data)
		if err != nil || !reflect.DeepEqual(got.Objects, want.Objects) {
			t.Fatalf("%v: read %+v, want %+v", err, got.Objects, want.Objects)
		}
		if again, err := EncodeSnapshot(got); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%v: passed on as\n%s\nwant\n%s", err, again, data)
		}
		return got
	}
	first := send()
	changed := *o.Services[2]
	changed.Spec.Endpoints = []Endpoint{{Address: "10.9.9.9:80"}}
	o.Services[2] = &changed
	o.Services = o.Services[1:]
	second := send()
	for i, s := range second.Objects.Services {
		if same := s == first.Objects.Services[i+1]; same != (i != 1) {
			t.Errorf("service %d: the same object: %v", i, same)
		}
	}
	if second.Objects.HTTPRoutes[0] != first.Objects.HTTPRoutes[0] {
		t.Error("a route that did not change was read again")
	}
	if len(d.parts) != second.Objects.Len() {
		t.Errorf("%d objects are kept, the snapshot has %d", len(d.parts), second.Objects.Len())
	}
}

// compareDecoded has a Decoder that knows another snapshot read data.
func compareDecoded(t *testing.T, data []byte) {
	t.Helper()
	known, err := EncodeSnapshot(sealed(t, testKey))
	if err != nil {
		t.Fatal(err)
	}
	var d Decoder
	if _, err := d.Decode(known); err != nil {
		t.Fatal(err)
	}
	want, errWant := DecodeSnapshot(data)
	got, err := d.Decode(data)
	if fmt.Sprint(err) != fmt.Sprint(errWant) {
		t.Fatalf("%q: %v, want %v", data, err, errWant)
	}
	if err != nil {
		return
	}
	if fmt.Sprint(got.Verify(nil)) != fmt.Sprint(want.Verify(nil)) {
		t.Fatalf("%q: %v, want %v", data, got.Verify(nil), want.Verify(nil))
	}
	got.received, want.received = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%q: read as %+v, want %+v", data, got, want)
	}
}

func TestDecoderIsDecodeSnapshot(t *testing.T) {
	data, err := EncodeSnapshot(sealed(t, testKey))
	if err != nil {
		t.Fatal(err)
	}
	end := strings.TrimSuffix(string(data), "}")
	for _, text := range []string{
		string(data), " " + strings.Replace(string(data), "127.0.0.1:9001", "127.0.0.1:6666", 1), end + `,"future":{"objects":{},"x":[1.50,{}]}}`, `{"aaa":{"objects":{}},` + string(data[1:]),
		end + `,"Objects":{"sites":[{"metadata":{"name":"evil"}}]}}`, `{"objects":{"sites":[{"metadata":{"name":"evil"}}]},` + string(data[1:]),
		strings.Replace(string(data), `"services"`, `"Services"`, 1), strings.Replace(string(data), `"services"`, `"newKinds"`, 1), strings.Replace(string(data), `"services"`, `"serv\u0069ces"`, 1),
		"", "null", "[]", "{", "{}", `{"generation":"x"}`, `{} {}`, `{"objects":null}`, `{"objects":[]}`, `{"objects":{"gateways":[null]}}`, `{"objects":{"gateways":null}}`, `{"objects":{"gateways":[]}}`,
		`{"objects":{"services":[{"spec":{"endpoints":[{"capacity":{"serviceTime":"-1s"}}]}}]}}`, `{"objects":{"services":[1]}}`, `{"minReader":1000}`, `{"requires":["time-travel"]}`, `{"hash":7}`,
	} {
		compareDecoded(t, []byte(text))
	}
	if _, err := new(Decoder).Decode(make([]byte, MaxSnapshotBytes+1)); err == nil {
		t.Error("too many bytes were read")
	}
}
