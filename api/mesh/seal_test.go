package mesh

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
)

var testKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

func sealed(t testing.TB, key ed25519.PrivateKey) *Snapshot {
	t.Helper()
	s := &Snapshot{Generation: Generation{3, 14}, Origin: "melbourne", Site: "melbourne", Objects: *mustParse(t, smallest)}
	if err := s.Seal(key); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSealVerify(t *testing.T) {
	pub := testKey.Public().(ed25519.PublicKey)
	s := sealed(t, testKey)
	data, err := EncodeSnapshot(s)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeSnapshot(data)
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]*Snapshot{"sealed": s, "decoded": got} {
		if err := x.Verify(pub); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := x.Verify(nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if again, _ := EncodeSnapshot(got); !bytes.Equal(again, data) {
		t.Errorf("encoding changed\n%s\n%s", data, again)
	}

	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize)).Public().(ed25519.PublicKey)
	if err := got.Verify(other); !errors.Is(err, ErrTampered) {
		t.Errorf("foreign key: %v", err)
	}
	if err := sealed(t, nil).Verify(pub); !errors.Is(err, ErrTampered) {
		t.Errorf("unsigned: %v", err)
	}
	if err := sealed(t, nil).Verify(nil); err != nil {
		t.Errorf("unsigned, no key: %v", err)
	}
	got.Objects.Services[0].Spec.Endpoints[0].Address = "127.0.0.1:6666"
	if err := got.Verify(nil); !errors.Is(err, ErrTampered) {
		t.Errorf("changed after decoding: %v", err)
	}
	s.Generation.Counter++
	if err := s.Verify(nil); !errors.Is(err, ErrTampered) {
		t.Errorf("changed after sealing: %v", err)
	}
	if _, err := EncodeSnapshot(&Snapshot{}); err == nil {
		t.Error("encoded without seal")
	}
}

// What changes the bytes on the way must not verify, however a JSON reader may
// take it.
func TestTamperedBytes(t *testing.T) {
	data, err := EncodeSnapshot(sealed(t, testKey))
	if err != nil {
		t.Fatal(err)
	}
	evil := `"objects":{"sites":[{"metadata":{"name":"evil"}}]}`
	for name, text := range map[string]string{
		"value":             strings.Replace(string(data), "127.0.0.1:9001", "127.0.0.1:6666", 1),
		"repeated key":      strings.TrimSuffix(string(data), "}") + "," + evil + "}",
		"other case":        strings.TrimSuffix(string(data), "}") + "," + strings.Replace(evil, "objects", "Objects", 1) + "}",
		"added unknown key": strings.TrimSuffix(string(data), "}") + `,"futureField":1}`,
	} {
		s, err := DecodeSnapshot([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := s.Verify(nil); !errors.Is(err, ErrTampered) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A JSON reader that merges repeated keys would serve what the hash does not cover.
	s, err := DecodeSnapshot([]byte("{" + evil + "," + strings.TrimPrefix(string(data), "{")))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(nil); err != nil || len(s.Objects.Sites) != 0 {
		t.Errorf("Verify %v, sites %+v: hash and struct are not of the same content", err, s.Objects.Sites)
	}
}

// A snapshot of the next version has fields this one cannot hold; it is served,
// verified and passed on whole.
func TestNewerSnapshot(t *testing.T) {
	var m map[string]any
	data, err := EncodeSnapshot(sealed(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	m["futureField"] = map[string]any{"x": 1.5, "<": "&"}
	m["objects"].(map[string]any)["futureKinds"] = []any{map[string]any{"metadata": map[string]any{"name": "c"}}}
	newer, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	content, err := canonical(newer, "hash", "signature")
	if err != nil {
		t.Fatal(err)
	}
	m["hash"] = hexSHA256(content)
	if newer, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	s, err := DecodeSnapshot(newer)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(nil); err != nil {
		t.Error(err)
	}
	if again, err := EncodeSnapshot(s); err != nil || !bytes.Contains(again, []byte("futureKinds")) {
		t.Errorf("passed on without the fields of the newer version: %s, %v", again, err)
	}
	if err := Validate(&s.Objects); err != nil {
		t.Error(err)
	}

	m["minReader"] = Version + 1
	newer, _ = json.Marshal(m)
	if _, err := DecodeSnapshot(newer); err == nil || !strings.Contains(err.Error(), "upgrade") {
		t.Errorf("minReader above this build: %v", err)
	}
	m["minReader"], m["requires"] = Version, []string{"time-travel"}
	newer, _ = json.Marshal(m)
	if _, err := DecodeSnapshot(newer); err == nil || !strings.Contains(err.Error(), "time-travel") {
		t.Errorf("unknown feature: %v", err)
	}
}

func TestDecodeSnapshotRefuses(t *testing.T) {
	for _, text := range []string{"", "null", "[]", "{", `{"generation":"x"}`, `{} {}`, `{"objects":{"gateways":[null]}}`, `{"objects":{"services":[{"spec":{"endpoints":[{"capacity":{"serviceTime":"-1s"}}]}}]}}`} {
		if s, err := DecodeSnapshot([]byte(text)); err == nil {
			t.Errorf("%q read as %+v", text, s)
		}
	}
	if _, err := DecodeSnapshot(make([]byte, MaxSnapshotBytes+1)); err == nil {
		t.Error("too many bytes were read")
	}
}

func TestSoftMessages(t *testing.T) {
	w := &Weights{Site: "a", Epoch: 1, Seq: 2, Services: []ServiceWeights{{Service: "default/echo", HomeLimit: 4, HomeWeight: .7,
		Remotes: []RemoteWeight{{Site: "b", Weight: .3, LiveMS: []float64{1, 2}}}}}}
	data, err := EncodeWeights(w)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeWeights(data)
	if err != nil || got.Services[0].Remotes[0].LiveMS[1] != 2 || got.Seq != 2 {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []float64{math.NaN(), math.Inf(1), -1} {
		w.Services[0].Remotes[0].LiveMS[1] = bad
		if _, err := EncodeWeights(w); err == nil || !strings.Contains(err.Error(), "services[0].remotes[0].liveMs[1]") {
			t.Errorf("%v: %v", bad, err)
		}
	}
	for _, text := range []string{
		`{}`, `{"site":"a","services":[{"homeLimit":-1}]}`, `{"site":"a","services":[{"homeWeight":1e999}]}`,
		`{"site":"a","services":[{"remotes":[{"weight":-0.1}]}]}`, `{"site":"a","minReader":99}`, `{"site":"a"} x`, `null`,
	} {
		if w, err := DecodeWeights([]byte(text)); err == nil {
			t.Errorf("%s read as %+v", text, w)
		}
	}
	if _, err := DecodeReport([]byte(`{"site":"a","services":[{"from":{"b":-3}}]}`)); err == nil || !strings.Contains(err.Error(), "services[0].from[b]") {
		t.Errorf("got %v", err)
	}
	if r, err := DecodeNodeReport([]byte(`{"site":"a","future":{},"services":[{"service":"default/echo","demand":5}],"refused":{"counter":3}}`)); err != nil || r.Services[0].Demand != 5 || r.Services[0].Service != "default/echo" {
		t.Errorf("got %+v, %v", r, err)
	}
}

func hexSHA256(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
