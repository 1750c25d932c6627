package wasm

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/function"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// Kinds of headers.
const (
	ofRequest  = 0
	ofResponse = 1
)

const (
	// mostBody bounds an answer of a module's own.
	mostBody = 64 << 10
	// mostFields and mostBytes bound what a module leaves of a head, as those of
	// clients are.
	mostFields = 100
	mostBytes  = 64 << 10
)

// host is a function that modules import; it panics with an error, which ends the call.
type host struct {
	name            string
	params, results []api.ValueType
	run             func(in *instance, mem api.Memory, stack []uint64)
}

var (
	i32 = api.ValueTypeI32
	i64 = api.ValueTypeI64
)

func types(n int) []api.ValueType {
	out := make([]api.ValueType, n)
	for i := range out {
		out[i] = i32
	}
	return out
}

var hosts = []host{
	{"enable_features", types(1), types(1), func(_ *instance, _ api.Memory, s []uint64) { s[0] = 0 }}, // none is here
	{"get_config", types(2), types(1), func(in *instance, mem api.Memory, s []uint64) { s[0] = give(mem, s[0], s[1], []byte(in.m.spec.Config)) }},
	{"log", types(3), nil, func(in *instance, mem api.Memory, s []uint64) { in.say(s[0], take(mem, s[1], s[2])) }},
	{"log_enabled", types(1), types(1), func(_ *instance, _ api.Memory, s []uint64) { s[0] = logs(s[0]) }},
	{"get_method", types(2), types(1), func(in *instance, mem api.Memory, s []uint64) { s[0] = give(mem, s[0], s[1], in.of().Method) }},
	{"set_method", types(2), nil, func(*instance, api.Memory, []uint64) { refuse("set_method: routes have judged the method") }},
	{"get_uri", types(2), types(1), func(in *instance, mem api.Memory, s []uint64) { s[0] = give(mem, s[0], s[1], in.of().Path) }},
	{"set_uri", types(2), nil, func(*instance, api.Memory, []uint64) {
		refuse("set_uri: routes have judged the target; use a URLRewrite filter")
	}},
	{"get_protocol_version", types(2), types(1), func(_ *instance, mem api.Memory, s []uint64) { s[0] = give(mem, s[0], s[1], protocol) }},
	{"get_source_addr", types(2), types(1), func(in *instance, mem api.Memory, s []uint64) { s[0] = give(mem, s[0], s[1], in.of().Address) }},
	{"get_header_names", types(3), []api.ValueType{i64}, func(in *instance, mem api.Memory, s []uint64) { s[0] = in.names(mem, s[0], s[1], s[2]) }},
	{"get_header_values", types(5), []api.ValueType{i64}, func(in *instance, mem api.Memory, s []uint64) {
		s[0] = in.values(mem, s[0], take(mem, s[1], s[2]), s[3], s[4])
	}},
	{"set_header_value", types(5), nil, func(in *instance, mem api.Memory, s []uint64) {
		in.set(s[0], take(mem, s[1], s[2]), take(mem, s[3], s[4]), true)
	}},
	{"add_header_value", types(5), nil, func(in *instance, mem api.Memory, s []uint64) {
		in.set(s[0], take(mem, s[1], s[2]), take(mem, s[3], s[4]), false)
	}},
	{"remove_header", types(3), nil, func(in *instance, mem api.Memory, s []uint64) { in.remove(s[0], take(mem, s[1], s[2])) }},
	{"read_body", types(3), []api.ValueType{i64}, func(*instance, api.Memory, []uint64) { refuse("read_body: bodies pass by modules") }},
	{"write_body", types(3), nil, func(in *instance, mem api.Memory, s []uint64) { in.write(s[0], take(mem, s[1], s[2])) }},
	{"get_status_code", nil, types(1), func(in *instance, _ api.Memory, s []uint64) { s[0] = uint64(in.of().Status) }},
	{"set_status_code", types(1), nil, func(in *instance, _ api.Memory, s []uint64) { in.setStatus(s[0]) }},
}

var protocol = []byte("HTTP/1.1")

// hostModule gives a runtime what modules import as http_handler.
func hostModule(ctx context.Context, r wazero.Runtime) error {
	b := r.NewHostModuleBuilder("http_handler")
	for _, h := range hosts {
		run := h.run
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, mod api.Module, stack []uint64) {
			in, _ := ctx.Value(instanceKey{}).(*instance)
			run(in, mod.Memory(), stack)
		}), h.params, h.results).Export(h.name)
	}
	_, err := b.Instantiate(ctx)
	return err
}

// refuse ends the call of a module.
func refuse(what string) { panic(errors.New(what)) }

// of is the request of the call under way.
func (in *instance) of() *function.Request {
	if in.q == nil {
		refuse("there is no request outside of handle_request and handle_response")
	}
	return in.q
}

// take borrows bytes of a module's memory.
func take(mem api.Memory, at, n uint64) []byte {
	b, ok := mem.Read(uint32(at), uint32(n))
	if !ok {
		refuse("a pointer leads out of the module's memory")
	}
	return b
}

// give writes b where it fits, and returns its length.
func give(mem api.Memory, at, limit uint64, b []byte) uint64 {
	if len(b) > 0 && uint64(len(b)) <= uint64(uint32(limit)) && !mem.Write(uint32(at), b) {
		refuse("a pointer leads out of the module's memory")
	}
	return uint64(len(b))
}

// giveAll writes values, each with a NUL behind it, where they fit, and returns their
// number and length.
func giveAll(mem api.Memory, at, limit uint64, b []byte, n int) uint64 {
	return uint64(n)<<32 | give(mem, at, limit, b)
}

// logs tells which levels are logged: those of warnings and errors, since others are
// for each request.
func logs(level uint64) uint64 {
	if l := int32(level); l == 1 || l == 2 {
		return 1
	}
	return 0
}

func (in *instance) say(level uint64, text []byte) {
	if logs(level) == 1 && in.q == nil { // while it begins; a line per request is none of the loop's
		in.m.loader.Log.Warn("a WebAssembly function says", "function", in.m.key, "text", string(text))
	}
}

// fields are those of the head that a kind means.
func (in *instance) fields(kind uint64) *[]stream.Field {
	q := in.of()
	switch {
	case uint32(kind) == ofRequest && in.answer || uint32(kind) == ofResponse && !in.answer:
		return &q.Fields
	case uint32(kind) == ofRequest:
		return &q.Asked
	case uint32(kind) == ofResponse:
		return &q.Answer.Fields
	}
	refuse("trailers pass by modules")
	return nil
}

func (in *instance) names(mem api.Memory, kind, at, limit uint64) uint64 {
	in.asks = in.asks[:0]
	n := 0
	list := *in.fields(kind)
next:
	for i := range list {
		for k := range i {
			if bytes.EqualFold(list[k].Name, list[i].Name) {
				continue next
			}
		}
		for _, c := range list[i].Name {
			if 'A' <= c && c <= 'Z' {
				c |= 0x20
			}
			in.asks = append(in.asks, c)
		}
		in.asks = append(in.asks, 0)
		n++
	}
	return giveAll(mem, at, limit, in.asks, n)
}

func (in *instance) values(mem api.Memory, kind uint64, name []byte, at, limit uint64) uint64 {
	in.asks = in.asks[:0]
	n := 0
	list := *in.fields(kind)
	for i := range list {
		if bytes.EqualFold(list[i].Name, name) {
			in.asks = append(append(in.asks, list[i].Value...), 0)
			n++
		}
	}
	if n == 0 && uint32(kind) == ofRequest && bytes.EqualFold(name, hostName) {
		in.asks = append(append(in.asks, in.q.Host...), 0)
		n++
	}
	return giveAll(mem, at, limit, in.asks, n)
}

var hostName = []byte("host")

// editable refuses fields that are the proxy's own to write, and those of a request that
// is over.
func (in *instance) editable(kind uint64, name []byte) *[]stream.Field {
	list := in.fields(kind)
	if uint32(kind) == ofRequest && !in.answer {
		refuse("the request has gone on: its header cannot change")
	}
	if !mesh.EditableField(name) {
		refuse(fmt.Sprintf("header %q is none that a function may change", name))
	}
	return list
}

func (in *instance) set(kind uint64, name, value []byte, replace bool) {
	list := in.editable(kind, name)
	for _, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			refuse(fmt.Sprintf("the value of header %q has control characters", name))
		}
	}
	if replace {
		drop(list, name)
	}
	q := in.q
	size := len(name) + len(value)
	for i := range *list {
		size += len((*list)[i].Name) + len((*list)[i].Value)
	}
	if len(*list) >= mostFields || size > mostBytes {
		refuse("the head becomes too large")
	}
	*list = append(*list, stream.Field{Name: q.Keep(name), Value: q.Keep(value)})
}

func (in *instance) remove(kind uint64, name []byte) { drop(in.editable(kind, name), name) }

func drop(list *[]stream.Field, name []byte) {
	kept := (*list)[:0]
	for _, f := range *list {
		if !bytes.EqualFold(f.Name, name) {
			kept = append(kept, f)
		}
	}
	*list = kept
}

func (in *instance) write(kind uint64, b []byte) {
	switch {
	case uint32(kind) != ofResponse || !in.answer:
		refuse("write_body: only an answer of the module's own has a body to write")
	case len(in.body)+len(b) > mostBody:
		refuse("write_body: an answer has at most 64 KiB")
	}
	in.body = append(in.body, b...)
}

func (in *instance) setStatus(status uint64) {
	if !in.answer {
		refuse("set_status_code: the response has its status")
	}
	if status < 200 || status > 599 {
		refuse(fmt.Sprintf("set_status_code: %d is no status of a response", status))
	}
	in.status = int(status)
}
