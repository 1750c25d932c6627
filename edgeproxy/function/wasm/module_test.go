package wasm

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/function"
	"github.com/meridian-mesh/meridian/edgeproxy/function/wasm/wasmtest"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

type arena struct{ b []byte }

func (a *arena) Grab(n int) []byte {
	if len(a.b)+n > cap(a.b) {
		a.b = make([]byte, 0, 64<<10)
	}
	a.b = a.b[:len(a.b)+n]
	return a.b[len(a.b)-n:]
}

var start = time.Now()

func clock() int64 { return int64(time.Since(start)) }

func newRequest(fields ...string) *function.Request {
	q := &function.Request{Method: []byte("GET"), Host: []byte("a.example"), Path: []byte("/x"), Memory: &arena{}, Contexts: new([function.MaxHops]uint32)}
	for _, f := range fields {
		k, v, _ := strings.Cut(f, ": ")
		q.Fields = append(q.Fields, stream.Field{Name: []byte(k), Value: []byte(v)})
	}
	return q
}

func texts(fields []stream.Field) string {
	var out []string
	for _, f := range fields {
		out = append(out, string(f.Name)+": "+string(f.Value))
	}
	return strings.Join(out, "|")
}

// load writes a module to a file and loads it.
func load(t testing.TB, data []byte, spec mesh.WasmFunction) (*Loader, *Module) {
	t.Helper()
	if spec.File == "" {
		spec.File = filepath.Join(t.TempDir(), "f.wasm")
	}
	if data != nil {
		if err := os.WriteFile(spec.File, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := &Loader{Log: slog.New(slog.DiscardHandler), Now: clock}
	f, err := l.Load("default/f", &spec, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(f) })
	return l, f.(*Module)
}

// long is a budget that a busy machine does not break.
func long() *mesh.Duration {
	d := mesh.Duration(10 * time.Second)
	return &d
}

func TestPasses(t *testing.T) {
	_, m := load(t, wasmtest.Assemble(wasmtest.Code(wasmtest.SetTier, wasmtest.Next), wasmtest.Call(wasmtest.SetHeader, 1, 62, 9, 71, 1)), mesh.WasmFunction{Budget: long()})
	q := newRequest("X-Tier: forged", "a: b")
	if v := m.Request(q); v != function.Passed || texts(q.Fields) != "a: b|x-tier: gold" || *q.Context() != 7 {
		t.Errorf("verdict %d, fields %s, context %d", v, texts(q.Fields), *q.Context())
	}
	q.Asked, q.Fields, q.Status = q.Fields, newRequest("c: d").Fields, 200
	if v := m.Response(q); v != function.Passed || texts(q.Fields) != "c: d|x-context: 7" {
		t.Errorf("response: verdict %d, fields %s", v, texts(q.Fields))
	}
}

func TestAnswers(t *testing.T) {
	_, m := load(t, wasmtest.Assemble(wasmtest.Code(wasmtest.Call(wasmtest.SetStatus, 403), wasmtest.Call(wasmtest.SetHeader, 1, 0, 6, 16, 4), wasmtest.Call(wasmtest.WriteBody, 1, 16, 4), wasmtest.Answer), nil), mesh.WasmFunction{Budget: long()})
	q := newRequest("a: b")
	v := m.Request(q)
	if v != function.Answered || q.Answer.Status != 403 || string(q.Answer.Body) != "gold" || texts(q.Answer.Fields) != "x-tier: gold" {
		t.Errorf("verdict %d, answer %d %q %s", v, q.Answer.Status, q.Answer.Body, texts(q.Answer.Fields))
	}
}

// TestFails: whatever a module does that it may not is a failed hop, the request is as it
// was, and the loop has another instance soon, three times.
func TestFails(t *testing.T) {
	short := mesh.Duration(time.Millisecond)
	for what, c := range map[string]struct{ request, response []byte }{
		"trap":                {wasmtest.Code(wasmtest.SetTier, wasmtest.Unreachable), nil},
		"overrun":             {wasmtest.Code(wasmtest.SetTier, wasmtest.Forever), nil},
		"a framing header":    {wasmtest.Code(wasmtest.SetTier, wasmtest.Call(wasmtest.SetHeader, 0, 32, 14, 16, 4), wasmtest.Next), nil},
		"a line break":        {wasmtest.Code(wasmtest.SetTier, wasmtest.Call(wasmtest.SetHeader, 0, 0, 6, 56, 3), wasmtest.Next), nil},
		"a pointer too far":   {wasmtest.Code(wasmtest.SetTier, wasmtest.Call(wasmtest.SetHeader, 0, 0, 6, 65535, 4), wasmtest.Next), nil},
		"the target":          {wasmtest.Code(wasmtest.SetTier, wasmtest.Call(wasmtest.SetURI, 0, 4), wasmtest.Next), nil},
		"the body":            {wasmtest.Code(wasmtest.SetTier, wasmtest.Call(wasmtest.ReadBody, 0, 0, 4), []byte{0x1a}, wasmtest.Next), nil},
		"a status of nothing": {wasmtest.Code(wasmtest.Call(wasmtest.SetStatus, 42), wasmtest.Answer), nil},
		"trailers":            {wasmtest.Code(wasmtest.Call(wasmtest.SetHeader, 2, 0, 6, 16, 4), wasmtest.Next), nil},
	} {
		t.Run(what, func(t *testing.T) {
			budget := long()
			if what == "overrun" {
				budget = &short
			}
			_, m := load(t, wasmtest.Assemble(c.request, c.response), mesh.WasmFunction{Budget: budget})
			for n := 1; n <= mostKills; n++ {
				q := newRequest("a: b")
				began := time.Now()
				if v := m.Request(q); v != function.Failed || texts(q.Fields) != "a: b" {
					t.Fatalf("verdict %d, fields %s", v, texts(q.Fields))
				}
				if took := time.Since(began); took > 5*time.Second {
					t.Fatalf("it took %v", took)
				}
				if n == mostKills {
					break
				}
				for end := time.Now().Add(20 * time.Second); m.loops[0].Load() == nil; time.Sleep(time.Millisecond) {
					if time.Now().After(end) {
						t.Fatalf("no new instance after %d kills", n)
					}
				}
			}
			time.Sleep(5 * time.Millisecond)
			if m.loops[0].Load() != nil || m.Request(newRequest()) != function.Failed {
				t.Error("it was killed three times and goes on")
			}
		})
	}
}

func TestMemoryIsBounded(t *testing.T) {
	_, m := load(t, wasmtest.Assemble(wasmtest.Growing, nil), mesh.WasmFunction{MemoryMiB: 1, Budget: long()})
	if v := m.Request(newRequest()); v != function.Passed {
		t.Errorf("verdict %d: it got 128 MiB", v)
	}
	_, m = load(t, wasmtest.Assemble(wasmtest.Growing, nil), mesh.WasmFunction{MemoryMiB: 256, Budget: long()})
	if v := m.Request(newRequest()); v != function.Failed {
		t.Errorf("verdict %d: the test sees no growth", v)
	}
}

func TestRefused(t *testing.T) {
	l := &Loader{Log: slog.New(slog.DiscardHandler), Now: clock}
	dir := t.TempDir()
	for what, data := range map[string][]byte{"invalid magic": []byte("no module"), "handle_request": []byte("\x00asm\x01\x00\x00\x00")} {
		path := filepath.Join(dir, "f.wasm")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Load("default/f", &mesh.WasmFunction{File: path}, 1); err == nil || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), path) {
			t.Errorf("want an error that names %q and the file: %v", what, err)
		}
	}
	if _, err := l.Load("default/f", &mesh.WasmFunction{File: filepath.Join(dir, "none")}, 1); err == nil {
		t.Error("a file that is not there is loaded")
	}
}

// TestReload: a changed file comes into force, a broken one does not and is said once.
func TestReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.wasm")
	write := func(data []byte, age time.Duration) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	write(wasmtest.Assemble(wasmtest.Next, nil), 3*time.Hour)
	l := &Loader{Log: slog.New(slog.DiscardHandler), Now: clock}
	r := function.NewRegistry(1, l)
	o, err := mesh.ParseYAML("f.yaml", fmt.Appendf(nil, `
apiVersion: mesh.meridian.dev/v1alpha1
kind: NetworkFunction
metadata: {name: f}
spec: {wasm: {file: %q}}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: ServiceChain
metadata: {name: c}
spec: {functions: [f]}
`, path))
	if err != nil {
		t.Fatal(err)
	}
	ask := func() string {
		t.Helper()
		c := r.Chains(o, "")["default/c"]
		r.Retain()
		if c.Broken != "" {
			return c.Broken
		}
		q := newRequest("a: b")
		c.Request(q, 0, false)
		return texts(q.Fields)
	}
	if got := ask(); got != "a: b" || r.Changed() {
		t.Fatalf("at first %q, changed %v", got, r.Changed())
	}
	write(wasmtest.Assemble(wasmtest.Code(wasmtest.SetTier, wasmtest.Next), nil), 2*time.Hour)
	if !r.Changed() {
		t.Error("a change is not seen")
	}
	if got := ask(); got != "a: b|x-tier: gold" {
		t.Errorf("the new file says %q", got)
	}
	write([]byte("broken"), time.Hour)
	if got := ask(); got != "a: b|x-tier: gold" || r.Changed() {
		t.Errorf("with a broken file %q, tried again: %v", got, r.Changed())
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := ask(); got != "a: b|x-tier: gold" || r.Changed() {
		t.Errorf("without the file %q", got)
	}
	o.ServiceChains = nil
	r.Chains(o, "")
	r.Retain()
}

// BenchmarkGuest is the module of examples/wasm, in Go: it reads two headers and sets
// two, with its budget on.
func BenchmarkGuest(b *testing.B) {
	path := filepath.Join(b.TempDir(), "function.wasm")
	build := exec.Command("go", "build", "-trimpath", "-buildmode=c-shared", "-o", path, "../../../examples/wasm")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	budget := mesh.Duration(5 * time.Millisecond)
	_, m := load(b, nil, mesh.WasmFunction{File: path, Config: "bad, worse", Budget: &budget})
	q := newRequest("x-customer: worse")
	if v := m.Request(q); v != function.Answered || q.Answer.Status != 403 || string(q.Answer.Body) != "customer worse is blocked\n" || texts(q.Answer.Fields) != "x-why: blocked" {
		b.Fatalf("verdict %d, answer %d %q %s", v, q.Answer.Status, q.Answer.Body, texts(q.Answer.Fields))
	}
	var fields []string
	for i := range 18 {
		fields = append(fields, fmt.Sprintf("X-Field-%02d: value of field number %d", i, i))
	}
	q = newRequest(append(fields, "x-customer: gold-7", "user-agent: curl/8")...)
	all := append([]stream.Field(nil), q.Fields...)
	memory := q.Memory.(*arena)
	b.ReportAllocs()
	for b.Loop() {
		memory.b = memory.b[:0]
		q.Fields = append(q.Fields[:0], all...)
		if v := m.Request(q); v != function.Passed {
			b.Fatalf("verdict %d after %d kills", v, m.kills.Load())
		}
	}
	if got := texts(q.Fields[len(all):]); got != "x-tier: gold|x-client: curl/8" {
		b.Fatal(got)
	}
}
