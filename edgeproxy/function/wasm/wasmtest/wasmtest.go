// Package wasmtest assembles small WebAssembly modules with the handler ABI of http-wasm,
// for tests: each does one thing, and none takes a compiler.
package wasmtest

import "bytes"

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

// constant pushes an i32, in 7 bits at a time, signed.
func constant(n int) []byte {
	b := []byte{0x41}
	for ; n >= 0x40; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// Call calls an imported function with constants.
func Call(f byte, args ...int) (b []byte) {
	for _, a := range args {
		b = append(b, constant(a)...)
	}
	return append(b, 0x10, f)
}

// Functions that assembled modules import, by their index. Their strings are offsets and
// lengths in the data that [Assemble] gives a module.
const (
	SetHeader = iota
	WriteBody
	SetStatus
	SetURI
	ReadBody
)

// Pieces of code, of which the last of a request's leaves an i64.
var (
	// Next has the request go on, with the context 7 for its response.
	Next = []byte{0x42, 0x81, 0x80, 0x80, 0x80, 0xf0, 0x00} // i64.const 7<<32|1
	// Answer has what the module wrote answer the request.
	Answer = []byte{0x42, 0x00}
	// Forever never ends, Unreachable traps.
	Forever     = []byte{0x03, 0x40, 0x0c, 0x00, 0x0b, 0x42, 0x01} // loop br 0 end
	Unreachable = []byte{0x00, 0x42, 0x01}
	// Growing asks for 2048 pages, traps where it gets them, and else goes on.
	Growing = Code([]byte{0x41, 0x80, 0x10, 0x40, 0x00, 0x41, 0x7f, 0x47, 0x04, 0x40, 0x00, 0x0b}, Next)
	// SetTier sets the request's x-tier to gold.
	SetTier = Call(SetHeader, 0, 0, 6, 16, 4)
)

// Assemble makes a module with the handler ABI; the code of handle_request leaves an
// i64, that of handle_response nothing. Parameter 0 of the latter is the context.
func Assemble(request, response []byte) []byte {
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

// Code joins pieces.
func Code(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
