package mesh

import (
	"bytes"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxDocumentBytes bounds one YAML input; more than this is not configuration.
const MaxDocumentBytes = 8 << 20

// maxAliasNodes bounds what aliases may expand to in one input, so that a small
// file cannot become a large mesh.
const maxAliasNodes = 100_000

// Source is one named YAML input.
type Source struct {
	Name string
	Data []byte
}

// kinds are the documents this version reads, in the order of [ToYAML].
var kinds = []struct {
	apiVersion string
	typ        reflect.Type
}{
	{MeshAPIVersion, reflect.TypeFor[Site]()},
	{GatewayAPIVersion, reflect.TypeFor[Gateway]()},
	{GatewayAPIVersion, reflect.TypeFor[HTTPRoute]()},
	{GatewayAPIVersion, reflect.TypeFor[GRPCRoute]()},
	{GatewayAPIVersion, reflect.TypeFor[TCPRoute]()},
	{GatewayAPIVersion, reflect.TypeFor[TLSRoute]()},
	{GatewayAPIVersion, reflect.TypeFor[UDPRoute]()},
	{MeshAPIVersion, reflect.TypeFor[MeshService]()},
	{MeshAPIVersion, reflect.TypeFor[TrafficPolicy]()},
	{MeshAPIVersion, reflect.TypeFor[LocalResponse]()},
	{MeshAPIVersion, reflect.TypeFor[Certificate]()},
	{MeshAPIVersion, reflect.TypeFor[TrustBundle]()},
	{GatewayAPIVersion, reflect.TypeFor[ReferenceGrant]()},
	{MeshAPIVersion, reflect.TypeFor[GeoFence]()},
	{MeshAPIVersion, reflect.TypeFor[AuthorizationPolicy]()},
	{MeshAPIVersion, reflect.TypeFor[PeerAuthentication]()},
	{MeshAPIVersion, reflect.TypeFor[Caller]()},
	{MeshAPIVersion, reflect.TypeFor[NetworkFunction]()},
	{MeshAPIVersion, reflect.TypeFor[ServiceChain]()},
	{MeshAPIVersion, reflect.TypeFor[ChainNode]()},
	{MeshAPIVersion, reflect.TypeFor[AfSfcRequirement]()},
}

// unservedKinds are defined by the two API groups and refused by name.
var unservedKinds = []string{"GatewayClass", "BackendTLSPolicy",
	"ListenerSet"}

// older are further versions of the Gateway API in which kinds of the same shape
// are read; [Default] turns them into the present one.
var older = map[string][]string{
	KindTCPRoute:       {GatewayGroup + "/v1alpha2"},
	KindTLSRoute:       {GatewayGroup + "/v1alpha2", GatewayGroup + "/v1alpha3"},
	KindUDPRoute:       {GatewayGroup + "/v1alpha2"},
	KindReferenceGrant: {GatewayGroup + "/v1beta1", GatewayGroup + "/v1alpha2"},
}

func typeMetaOf(kind string) TypeMeta {
	for _, k := range kinds {
		if k.typ.Name() == kind {
			return TypeMeta{k.apiVersion, kind}
		}
	}
	return TypeMeta{Kind: kind}
}

// ParseYAML reads the documents of one YAML input strictly and returns them with
// defaults filled in. The error is *[Faults]: every fault of the input, with its
// position. name stands for the input in messages. References between objects
// are not resolved here, see [Check].
func ParseYAML(name string, data []byte) (*Objects, error) {
	return ParseSources([]Source{{name, data}})
}

// ParseSources reads several inputs as one set of objects, as a folder of files
// is read: an object that stands in two of them is a fault.
func ParseSources(sources []Source) (*Objects, error) {
	r := reader{objects: &Objects{Positions: map[Key]Position{}}}
	for _, s := range sources {
		r.source(s)
	}
	if err := r.faults.err(); err != nil {
		return nil, err
	}
	Default(r.objects)
	return r.objects, nil
}

// reader turns YAML nodes into objects. It goes on after a fault, so that a
// person sees all of them at once.
type reader struct {
	objects *Objects
	faults  Faults

	file    string
	line    int    // lines before the part in hand
	object  string // what is being read, for Fault.Object
	aliases int    // nodes read through an alias so far
	inAlias int
}

func (r *reader) source(s Source) {
	r.file, r.line, r.object, r.aliases = s.Name, 0, "", 0
	if len(s.Data) > MaxDocumentBytes {
		r.faults.add(Fault{File: r.file, Message: fmt.Sprintf("has %d bytes, at most %d are read", len(s.Data), MaxDocumentBytes), Hint: "split it"})
		return
	}
	for part, lines := range parts(s.Data) {
		r.part(part)
		r.line += lines
	}
}

// parts cuts an input before each "---" line, which YAML allows nowhere else, so
// that a syntax error in one document does not hide the faults of the next.
// Directives stay with the document they precede.
func parts(data []byte) func(yield func(part []byte, lines int) bool) {
	return func(yield func([]byte, int) bool) {
		start, lines, content := 0, 0, false
		for pos := 0; pos < len(data); {
			line := data[pos:]
			if i := bytes.IndexByte(line, '\n'); i >= 0 {
				line = line[:i+1]
			}
			text := bytes.TrimRight(line, " \t\r\n")
			switch {
			case bytes.HasPrefix(text, []byte("---")) && (len(text) == 3 || text[3] == ' ' || text[3] == '\t'):
				if content {
					if !yield(data[start:pos], lines) {
						return
					}
					start, lines = pos, 0
				}
				content = true
			case string(text) == "...":
				content = false
			case len(text) > 0 && text[0] != '#' && text[0] != '%':
				content = true
			}
			pos += len(line)
			lines++
		}
		yield(data[start:], lines)
	}
}

func (r *reader) part(data []byte) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var n yaml.Node
		err := dec.Decode(&n)
		if err == io.EOF {
			return
		}
		if err != nil {
			r.syntax(data, err)
			return
		}
		if n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
			r.document(n.Content[0])
		}
	}
}

var reYAMLLine = regexp.MustCompile(`^line (\d+): `)

// maxBisect bounds the input whose syntax error is located exactly, which takes
// some twenty readings of it.
const maxBisect = 1 << 20

// syntax reports a YAML error at the line where reading failed. The library
// names the line where the construct began, or none; the shortest beginning of
// the text that fails in the same way ends with the line at fault.
func (r *reader) syntax(data []byte, err error) {
	message, hint := strings.TrimPrefix(err.Error(), "yaml: "), ""
	if len(data) > maxBisect {
		line := 1
		if m := reYAMLLine.FindStringSubmatch(message); m != nil {
			line, _ = strconv.Atoi(m[1])
		}
		r.faults.add(Fault{File: r.file, Line: r.line + line, Column: 1, Message: "not YAML, from about here on: " + reYAMLLine.ReplaceAllString(message, "")})
		return
	}
	ends := []int{}
	for i, c := range data {
		if c == '\n' || i == len(data)-1 {
			ends = append(ends, i+1)
		}
	}
	k, _ := slices.BinarySearchFunc(ends, 0, func(end, _ int) int {
		dec := yaml.NewDecoder(bytes.NewReader(data[:end]))
		for {
			var n yaml.Node
			switch e := dec.Decode(&n); {
			case e == nil:
			case e.Error() == err.Error():
				return 0
			default:
				return -1
			}
		}
	})
	message = reYAMLLine.ReplaceAllString(message, "")
	if strings.Contains(message, "cannot start any token") && k < len(ends) {
		if line := data[:ends[k]]; bytes.HasPrefix(bytes.TrimLeft(line[bytes.LastIndexByte(line[:len(line)-1], '\n')+1:], " "), []byte("\t")) {
			hint = "indent with spaces, not with tabs"
		}
	}
	r.faults.add(Fault{File: r.file, Line: r.line + k + 1, Column: 1, Message: "not YAML: " + message, Hint: hint})
}

func (r *reader) fault(n *yaml.Node, p *path, message, hint string) {
	r.faults.add(Fault{File: r.file, Line: r.line + n.Line, Column: n.Column, Object: r.object, Path: p.String(), Message: message, Hint: hint})
}

// document reads one document into the list of its kind.
func (r *reader) document(n *yaml.Node) {
	r.object = ""
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		r.fault(n, nil, "want an object with apiVersion and kind, have "+describe(n), "")
		return
	}
	var m TypeMeta
	var name, namespace string
	var kindNode *yaml.Node
	for _, e := range r.entries(n, nil, false) {
		switch e.key.Value {
		case "apiVersion":
			m.APIVersion = e.value.Value
		case "kind":
			m.Kind, kindNode = e.value.Value, e.value
		case "metadata":
			for _, f := range r.entries(e.value, nil, false) {
				switch f.key.Value {
				case "name":
					name = f.value.Value
				case "namespace":
					namespace = f.value.Value
				}
			}
		}
	}
	if m.Kind != "" {
		key := Key{m.Kind, namespace, name}
		if namespace == "" {
			key.Namespace = DefaultNamespace
		}
		r.object = key.String()
	}
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.typ.Name()
		if names[i] != m.Kind {
			continue
		}
		if m.APIVersion != k.apiVersion && m.APIVersion != "" && !slices.Contains(older[m.Kind], m.APIVersion) {
			for _, e := range r.entries(n, nil, false) {
				if e.key.Value == "apiVersion" {
					r.fault(e.value, (*path)(nil).field("apiVersion"), fmt.Sprintf("%s %q is not served", m.Kind, m.APIVersion), "write "+k.apiVersion)
				}
			}
		}
		r.add(n, k.typ)
		return
	}
	switch {
	case kindNode == nil:
		r.fault(n, nil, "is missing required field kind", "one of "+strings.Join(names, ", "))
	case slices.Contains(unservedKinds, m.Kind):
		r.fault(kindNode, (*path)(nil).field("kind"), m.Kind+" is not served by this version", "")
	case m.Kind == "List":
		r.fault(kindNode, (*path)(nil).field("kind"), "a List is not read", "write its items as documents between --- lines")
	default:
		hint := "one of " + strings.Join(names, ", ")
		if near := nearest(m.Kind, names); near != "" {
			hint = "did you mean " + near + "?"
		}
		r.fault(kindNode, (*path)(nil).field("kind"), fmt.Sprintf("unknown kind %q", m.Kind), hint)
	}
}

func (r *reader) add(n *yaml.Node, t reflect.Type) {
	doc := reflect.New(t)
	ok := r.read(n, doc.Elem(), &rule{}, nil)
	key := keyOf(doc.Elem())
	if key.Namespace == "" {
		key.Namespace = DefaultNamespace
	}
	checkObjectName(key, func(p *path, message, hint string) { r.fault(r.find(n, "metadata", "name"), p, message, hint) })
	at := Position{r.file, r.line + n.Line, n.Column}
	if key.Name != "" {
		if first, twice := r.objects.Positions[key]; twice {
			r.fault(n, nil, key.String()+" is there twice", "first at "+first.String())
			return
		}
		r.objects.Positions[key] = at
	}
	if !ok {
		return
	}
	lists := reflect.ValueOf(r.objects).Elem()
	for i := range lists.NumField() {
		if l := lists.Field(i); l.Type() == reflect.SliceOf(doc.Type()) {
			l.Set(reflect.Append(l, doc))
		}
	}
}

// find returns the node at the keys, or the nearest one above it.
func (r *reader) find(n *yaml.Node, keys ...string) *yaml.Node {
	for _, k := range keys {
		for _, e := range r.entries(n, nil, false) {
			if e.key.Value == k {
				n = e.value
				break
			}
		}
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// describe says what a node is in the words of a person who writes YAML.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "an object"
	case yaml.SequenceNode:
		return "a list"
	}
	value := n.Value
	if len(value) > 40 {
		value = value[:40] + "..."
	}
	switch n.ShortTag() {
	case "!!str":
		return "the string " + strconv.Quote(value)
	case "!!int", "!!float":
		return "the number " + value
	case "!!bool":
		return "the boolean " + value
	case "!!timestamp":
		return "the date " + value
	case "!!null":
		return "nothing"
	}
	return "a value of type " + n.ShortTag()
}
