package wasm

import (
	"bytes"
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
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// section is one of a module's; vector prefixes items with their number.
func section(id byte, content []byte) []byte {
	return append(append([]byte{id}, leb(len(content))...), content...)
}

func vector(items ...[]byte) []byte {
	return append(leb(len(items)), bytes.Join(items, nil)...)
}

func leb(n int) (b []byte) {
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

func name(s string) []byte { return append(leb(len(s)), s...) }

// Instructions.
func constant(n int) []byte { // of 7 bits at a time, signed
	b := []byte{0x41}
	for ; n >= 0x40; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

func call(f byte, args ...int) (b []byte) {
	for _, a := range args {
		b = append(b, constant(a)...)
	}
	return append(b, 0x10, f)
}

// Functions that assembled modules import, by their index.
const (
	setHeader = iota
	writeBody
	setStatus
	setURI
	readBody
)

// next returns 1 with the context 7: go on. answer returns 0.
var (
	next        = []byte{0x42, 0x81, 0x80, 0x80, 0x80, 0xf0, 0x00} // i64.const 7<<32|1
	answer      = []byte{0x42, 0x00}
	forever     = []byte{0x03, 0x40, 0x0c, 0x00, 0x0b, 0x42, 0x01}       // loop br 0 end
	unreachable = []byte{0x00, 0x42, 0x01}                               //
	growing     = append(append([]byte{}, 0x41, 0x80, 0x10, 0x40, 0x00), // memory.grow 2048 pages
		append([]byte{0x41, 0x7f, 0x47, 0x04, 0x40, 0x00, 0x0b}, next...)...) // trap where it worked
	// setTier sets x-tier to gold (of the data below); setName to what of the data is at n.
	setTier = call(setHeader, 0, 0, 6, 16, 4)
)

// assemble makes a module with the handler ABI; the code of handle_request leaves an
// i64, that of handle_response nothing. Parameter 0 of the latter is the context.
func assemble(request, response []byte) []byte {
	const i32, i64 = 0x7f, 0x7e
	types := [][]byte{
		{0x60, 5, i32, i32, i32, i32, i32, 0}, {0x60, 3, i32, i32, i32, 0}, {0x60, 1, i32, 0}, {0x60, 2, i32, i32, 0},
		{0x60, 3, i32, i32, i32, 1, i64}, {0x60, 0, 1, i64},
	}
	var imports [][]byte
	for i, n := range []string{"set_header_value", "write_body", "set_status_code", "set_uri", "read_body"} {
		imports = append(imports, append(append(append([]byte{}, name("http_handler")...), name(n)...), 0, byte(i)))
	}
	body := func(code []byte) []byte {
		b := append(append([]byte{0}, code...), 0x0b)
		return append(leb(len(b)), b...)
	}
	data := []byte("x-tier..........gold............content-length..host....a\nb...x-context7")
	out := []byte("\x00asm\x01\x00\x00\x00")
	out = append(out, section(1, vector(types...))...)
	out = append(out, section(2, vector(imports...))...)
	out = append(out, section(3, vector([]byte{5}, []byte{3}))...)
	out = append(out, section(5, vector([]byte{0, 1}))...)
	out = append(out, section(7, vector(append(name("memory"), 2, 0), append(name("handle_request"), 0, 5), append(name("handle_response"), 0, 6)))...)
	out = append(out, section(10, vector(body(request), body(response)))...)
	return append(out, section(11, vector(append(append([]byte{0, 0x41, 0, 0x0b}, leb(len(data))...), data...)))...)
}

func code(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

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
	_, m := load(t, assemble(code(setTier, next), call(setHeader, 1, 62, 9, 71, 1)), mesh.WasmFunction{Budget: long()})
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
	_, m := load(t, assemble(code(call(setStatus, 403), call(setHeader, 1, 0, 6, 16, 4), call(writeBody, 1, 16, 4), answer), nil), mesh.WasmFunction{Budget: long()})
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
		"trap":                {code(setTier, unreachable), nil},
		"overrun":             {code(setTier, forever), nil},
		"a framing header":    {code(setTier, call(setHeader, 0, 32, 14, 16, 4), next), nil},
		"a line break":        {code(setTier, call(setHeader, 0, 0, 6, 56, 3), next), nil},
		"a pointer too far":   {code(setTier, call(setHeader, 0, 0, 6, 65535, 4), next), nil},
		"the target":          {code(setTier, call(setURI, 0, 4), next), nil},
		"the body":            {code(setTier, call(readBody, 0, 0, 4), []byte{0x1a}, next), nil},
		"a status of nothing": {code(call(setStatus, 42), answer), nil},
		"trailers":            {code(call(setHeader, 2, 0, 6, 16, 4), next), nil},
	} {
		t.Run(what, func(t *testing.T) {
			budget := long()
			if what == "overrun" {
				budget = &short
			}
			_, m := load(t, assemble(c.request, c.response), mesh.WasmFunction{Budget: budget})
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
	_, m := load(t, assemble(growing, nil), mesh.WasmFunction{MemoryMiB: 1, Budget: long()})
	if v := m.Request(newRequest()); v != function.Passed {
		t.Errorf("verdict %d: it got 128 MiB", v)
	}
	_, m = load(t, assemble(growing, nil), mesh.WasmFunction{MemoryMiB: 256, Budget: long()})
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
	write(assemble(next, nil), 3*time.Hour)
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
		c.Request(q, false)
		return texts(q.Fields)
	}
	if got := ask(); got != "a: b" || r.Changed() {
		t.Fatalf("at first %q, changed %v", got, r.Changed())
	}
	write(assemble(code(setTier, next), nil), 2*time.Hour)
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
