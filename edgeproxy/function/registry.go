package function

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Registry makes chains of documents. What a function keeps (its buckets) and what a
// hop counted stay across reloads in which its document does not change. Its methods
// are for one goroutine at a time.
type Registry struct {
	loops     int
	modules   Modules
	stale     []Function
	functions map[string]*instance
	counters  map[hopKey]*Counters
}

// Modules makes functions of WebAssembly modules, with files that this room must not
// read itself.
type Modules interface {
	Load(key string, spec *mesh.WasmFunction, loops int) (Function, error)
	// Changed reports whether there is another file than the function was made of,
	// which was not refused.
	Changed(f Function) bool
	// Refuse notes that what Changed has seen cannot be served.
	Refuse(f Function, why error)
	// Close ends a function that no view has any more.
	Close(f Function)
}

// instance is a function and what it was made of.
type instance struct {
	Function
	spec *mesh.NetworkFunctionSpec
	site mesh.Location
}

type hopKey struct {
	chain, function string
	hop             int
}

// NewRegistry makes a registry for a number of loops; modules may be nil.
func NewRegistry(loops int, modules Modules) *Registry {
	return &Registry{loops: loops, modules: modules, functions: map[string]*instance{}, counters: map[hopKey]*Counters{}}
}

// Chains makes the chains of requests of the documents, by namespace/name. site is the
// proxy's own. A chain that cannot be served is there and says why.
func (r *Registry) Chains(o *mesh.Objects, site string) map[string]*Chain {
	chains := map[string]*Chain{}
	var at *mesh.Location
	for _, s := range o.Sites {
		if s.Metadata.Name == site {
			at = &s.Spec.Location
		}
	}
	documents := map[string]*mesh.NetworkFunction{}
	for _, f := range o.NetworkFunctions {
		documents[f.Metadata.Namespace+"/"+f.Metadata.Name] = f
	}
	used, counted := map[string]*instance{}, map[hopKey]*Counters{}
	for _, s := range o.ServiceChains {
		if !s.Spec.ForRequests() {
			continue
		}
		c := &Chain{Key: s.Metadata.Namespace + "/" + s.Metadata.Name, Open: s.Spec.Failure == mesh.FailOpen}
		c.SPI = spiOf(c.Key, s.Spec.Functions)
		for i, name := range s.Spec.Functions {
			key := s.Metadata.Namespace + "/" + name
			f, err := r.function(key, documents[key], at)
			if err != nil {
				c.Broken = cmp.Or(c.Broken, err.Error())
				continue
			}
			used[key] = f
			counters := r.count(hopKey{c.Key, key, i})
			counted[hopKey{c.Key, key, i}] = counters
			h := Hop{Function: f.Function, Name: name, Kind: kindOf(f.spec), Open: f.spec.Failure == mesh.FailOpen, Counters: counters}
			h.Responds, _ = f.Function.(Responder)
			h.si = strconv.AppendInt(nil, int64(SI(i)), 10)
			if e, ok := f.Function.(*External); ok {
				h.External = e.at(c.Key, c.SPI, i)
			}
			c.responds = c.responds || h.Responds != nil
			c.Hops = append(c.Hops, h)
		}
		c.spi = strconv.AppendUint(nil, uint64(c.SPI), 10)
		chains[c.Key] = c
	}
	for key, in := range r.functions {
		if used[key] != in {
			r.stale = append(r.stale, in.Function)
		}
	}
	r.functions, r.counters = used, counted
	return chains
}

// Close ends all functions; none may be asked any more.
func (r *Registry) Close() {
	r.Chains(&mesh.Objects{}, "")
	r.Retain()
}

// Changed reports whether a function's file is another one than before.
func (r *Registry) Changed() bool {
	for _, in := range r.functions {
		if r.modules != nil && r.changed(in) {
			return true
		}
	}
	return false
}

// Retain ends what the last chains no longer have, once they are in force.
func (r *Registry) Retain() {
	if r.modules != nil {
		for _, f := range r.stale {
			r.modules.Close(f)
		}
	}
	r.stale = nil
}

// function finds what a document says, anew where it says something else than before.
func (r *Registry) function(key string, f *mesh.NetworkFunction, site *mesh.Location) (*instance, error) {
	switch {
	case f == nil:
		return nil, fmt.Errorf("there is no NetworkFunction %s", key)
	case !f.Spec.ForRequests():
		return nil, fmt.Errorf("NetworkFunction %s is of packets, and the chain is of requests", key)
	}
	var at mesh.Location
	if site != nil {
		at = *site
	}
	if was := r.functions[key]; was != nil && reflect.DeepEqual(was.spec, &f.Spec) && was.site == at && !r.changed(was) {
		return was, nil
	}
	made, err := r.make(key, f, site)
	if err != nil {
		if was := r.functions[key]; was != nil && reflect.DeepEqual(was.spec, &f.Spec) && f.Spec.Wasm != nil {
			r.modules.Refuse(was.Function, err)
			return was, nil // the last good one goes on
		}
		return nil, fmt.Errorf("NetworkFunction %s: %w", key, err)
	}
	if was := r.functions[key]; was != nil {
		r.stale = append(r.stale, was.Function)
	}
	in := &instance{made, &f.Spec, at}
	r.functions[key] = in // for the other chains of these documents
	return in, nil
}

func (r *Registry) changed(in *instance) bool {
	return in.spec.Wasm != nil && r.modules.Changed(in.Function)
}

func (r *Registry) make(key string, f *mesh.NetworkFunction, site *mesh.Location) (Function, error) {
	if f.Spec.External != nil {
		return newExternal(f.Metadata.Namespace, f.Spec.External), nil
	}
	if f.Spec.Wasm == nil {
		return native(f.Spec.Native, site)
	}
	if r.modules == nil {
		return nil, fmt.Errorf("this build runs no WebAssembly modules")
	}
	return r.modules.Load(key, f.Spec.Wasm, r.loops)
}

func native(n *mesh.NativeFunction, site *mesh.Location) (Function, error) {
	switch {
	case n.Headers != nil:
		return newHeaders(n.Headers, site)
	case n.Policer != nil:
		return newPolicer(n.Policer), nil
	case n.Tagger != nil:
		return newTagger(n.Tagger), nil
	}
	return nil, fmt.Errorf("native names no function")
}

// kindOf is the kind of a function in one word.
func kindOf(s *mesh.NetworkFunctionSpec) string {
	switch {
	case s.External != nil:
		return "external"
	case s.Wasm != nil:
		return "wasm"
	case s.Native.Headers != nil:
		return "headers"
	case s.Native.Policer != nil:
		return "policer"
	}
	return "tagger"
}

func (r *Registry) count(k hopKey) *Counters {
	if c := r.counters[k]; c != nil {
		return c
	}
	return &Counters{Chain: k.chain, Function: k.function, Hop: k.hop, Cells: make([]Cell, r.loops)}
}

// Sorted are chains in the order of their names.
func Sorted(chains map[string]*Chain) []*Chain {
	return slices.SortedFunc(maps.Values(chains), func(a, b *Chain) int { return cmp.Compare(a.Key, b.Key) })
}

// spiOf names a path by its content, as the agents name those of packets: the same
// everywhere, and another one where the functions are others.
func spiOf(key string, functions []string) uint32 {
	const most = 1<<23 - 1
	h := fnv.New32a()
	_, _ = h.Write([]byte(key + " " + strings.Join(functions, " "))) // a hash never fails
	return max(1, (h.Sum32()^h.Sum32()>>23)&most)
}
