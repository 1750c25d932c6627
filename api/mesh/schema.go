package mesh

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
)

//go:generate go run ../../internal/schemagen -out ../../docs/reference/schema -crds ../../deploy/crds

// Kinds lists the kinds of documents that this version reads, in the order of
// [ToYAML].
func Kinds() []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.typ.Name()
	}
	return names
}

// Schema returns a JSON Schema (draft 2020-12) of one document of any of the
// kinds, or of all kinds when none is named. It is made from the Go types and
// the rules that [ParseYAML] applies. It cannot say all of them: that items of a
// list differ in one field, that one duration is at most another, the finer
// syntax of addresses and paths. It never refuses a document with values that
// ParseYAML takes, except optional fields written as null.
func Schema(only ...string) ([]byte, error) {
	if len(only) == 0 {
		only = Kinds()
	}
	s := schemaWriter{defs: map[string]any{}}
	var branches []any
	for _, name := range only {
		t := reflect.Type(nil)
		for _, k := range kinds {
			if k.typ.Name() == name {
				t = k.typ
			}
		}
		if t == nil {
			return nil, fmt.Errorf("no schema of unknown kind %q, have %s", name, strings.Join(Kinds(), ", "))
		}
		s.document(t)
		branches = append(branches, map[string]any{
			"if":   map[string]any{"properties": map[string]any{"kind": map[string]any{"const": name}}},
			"then": map[string]any{"$ref": "#/$defs/" + name},
		})
	}
	root := map[string]any{
		"$schema":    "https://json-schema.org/draft/2020-12/schema",
		"title":      "Meridian " + strings.Join(only, ", "),
		"type":       "object",
		"required":   []string{"apiVersion", "kind"},
		"properties": map[string]any{"kind": map[string]any{"enum": only}},
		"allOf":      branches,
		"$defs":      s.defs,
	}
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("print schema: %w", err)
	}
	return append(out, '\n'), nil
}

// between says of a struct what its fields alone cannot: the relations that JSON
// Schema can express.
var between = map[string]map[string]any{
	"Export": {"dependentSchemas": map[string]any{"sites": map[string]any{
		"anyOf": []any{
			map[string]any{"properties": map[string]any{"sites": map[string]any{"maxItems": 0}}},
			map[string]any{"properties": map[string]any{"scope": map[string]any{"const": ScopeMesh}}, "required": []string{"scope"}},
		}}}},
	"ClientPosition": {"dependentRequired": map[string]any{"latitudeHeader": []string{"longitudeHeader"}, "longitudeHeader": []string{"latitudeHeader"}}},
	"PathMatch": {
		"if":   map[string]any{"properties": map[string]any{"type": map[string]any{"const": MatchRegularExpression}}, "required": []string{"type"}},
		"else": map[string]any{"properties": map[string]any{"value": map[string]any{"pattern": formatPath.pattern}}},
	},
	"HTTPRouteFilter": oneOfField("type", filterFields),
	"PathModifier":    oneOfField("type", pathModifierFields),
	"RequestRedirect": {"properties": map[string]any{"statusCode": map[string]any{"enum": redirectCodes}}},
	"RequestMirror":   {"not": map[string]any{"required": []string{"percent", "fraction"}}},
	"geoPoint": {"properties": map[string]any{"coordinates": map[string]any{"prefixItems": []any{
		map[string]any{"minimum": -180, "maximum": 180}, map[string]any{"minimum": -90, "maximum": 90},
	}}}},
}

// oneOfField says that the discriminator's value names the one field that is
// there besides it.
func oneOfField(discriminator string, fields []union) map[string]any {
	var cases []any
	for _, f := range fields {
		absent := map[string]any{}
		for _, other := range fields {
			if other != f {
				absent[other.field] = false
			}
		}
		absent[discriminator] = map[string]any{"const": f.value}
		cases = append(cases, map[string]any{"properties": absent, "required": []string{discriminator, f.field}})
	}
	return map[string]any{"oneOf": cases}
}

type schemaWriter struct{ defs map[string]any }

func (s *schemaWriter) document(t reflect.Type) {
	def := s.object(t)
	props := def["properties"].(map[string]any)
	m := typeMetaOf(t.Name())
	props["apiVersion"] = map[string]any{"const": m.APIVersion}
	if also := older[m.Kind]; len(also) > 0 {
		props["apiVersion"] = map[string]any{"enum": append([]string{m.APIVersion}, also...)}
	}
	props["kind"] = map[string]any{"const": m.Kind}
	for _, kind := range labelNamed {
		if kind == m.Kind {
			props["metadata"] = map[string]any{"allOf": []any{props["metadata"],
				map[string]any{"properties": map[string]any{"name": map[string]any{"pattern": formatLabel.pattern}}}}}
		}
	}
	s.defs[t.Name()] = def
}

func (s *schemaWriter) object(t reflect.Type) map[string]any {
	props := map[string]any{}
	required := []string{}
	for _, f := range fieldsOf(t) {
		props[f.name] = s.value(f.typ, &f.rule)
		if f.required {
			required = append(required, f.name)
		}
	}
	def := map[string]any{"type": "object", "additionalProperties": false, "properties": props}
	if len(required) > 0 {
		def["required"] = required
	}
	if x := between[t.Name()]; x != nil {
		def["allOf"] = []any{x}
	}
	return def
}

// value describes a field of type t under its rule.
func (s *schemaWriter) value(t reflect.Type, r *rule) map[string]any {
	v := s.typed(t, r)
	if r.doc != "" {
		v["description"] = r.doc
	}
	if r.def != nil {
		v["default"] = r.def
	}
	return v
}

func (s *schemaWriter) typed(t reflect.Type, r *rule) map[string]any {
	switch t {
	case reflect.TypeFor[Location]():
		t = reflect.TypeFor[geoPoint]()
	case reflect.TypeFor[Duration]():
		v := map[string]any{"type": "string", "pattern": `^\+?` + goDuration + `$`}
		if r.format != nil {
			v["pattern"] = r.format.pattern
		}
		if r.span != nil && r.span.open {
			v["not"] = map[string]any{"pattern": `^\+?[0.hmnuµμs]+$`}
		}
		return v
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.typed(t.Elem(), r)
	case reflect.Struct:
		if s.defs[t.Name()] == nil {
			s.defs[t.Name()] = s.object(t)
		}
		return map[string]any{"$ref": "#/$defs/" + t.Name()}
	case reflect.Slice:
		v := map[string]any{"type": "array", "items": s.typed(t.Elem(), r)}
		if r.minItems > 0 {
			v["minItems"] = r.minItems
		}
		if r.maxItems > 0 {
			v["maxItems"] = r.maxItems
		}
		if r.unique == "." {
			v["uniqueItems"] = true
		}
		return v
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": s.typed(t.Elem(), r)}
	case reflect.String:
		v := map[string]any{"type": "string"}
		if len(r.enum) > 0 {
			v["enum"] = r.enum
		} else if r.format != nil && r.format.pattern != "" {
			v["pattern"] = r.format.pattern
		}
		return v
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int:
		return r.span.schema(map[string]any{"type": "integer"})
	case reflect.Float64:
		return r.span.schema(map[string]any{"type": "number"})
	}
	panic("api/mesh: no schema for " + t.String())
}

func (s *span) schema(v map[string]any) map[string]any {
	if s == nil {
		return v
	}
	if s.open {
		v["exclusiveMinimum"] = s.lo
	} else {
		v["minimum"] = s.lo
	}
	if !math.IsInf(s.hi, 1) {
		v["maximum"] = s.hi
	}
	return v
}
