package mesh

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// field is one JSON field of a struct.
type field struct {
	name     string
	index    []int
	typ      reflect.Type
	required bool
	rule     rule
}

// fieldsOf lists a struct's JSON fields in order, embedded structs flattened as
// encoding/json does.
func fieldsOf(t reflect.Type) []field {
	if f, ok := fieldCache.Load(t); ok {
		return f.([]field)
	}
	var fs []field
	for i := range t.NumField() {
		sf := t.Field(i)
		tag, opts, _ := strings.Cut(sf.Tag.Get("json"), ",")
		switch {
		case sf.Anonymous && tag == "":
			for _, f := range fieldsOf(sf.Type) {
				f.index = append([]int{i}, f.index...)
				fs = append(fs, f)
			}
		case !sf.IsExported() || tag == "-":
		default:
			fs = append(fs, field{tag, []int{i}, sf.Type, !strings.Contains(opts, "omitempty"), rules[t.Name()+"."+tag]})
		}
	}
	fieldCache.Store(t, fs)
	return fs
}

var fieldCache sync.Map // reflect.Type -> []field

func fieldNames(fs []field) []string {
	names := make([]string, len(fs))
	for i, f := range fs {
		names[i] = f.name
	}
	return names
}

// scalar checks one string, number or Duration (not a pointer) against the rule.
func (r *rule) scalar(v reflect.Value) (message, hint string) {
	switch {
	case v.Type() == reflect.TypeFor[Duration]():
		d := Duration(v.Int())
		if d < 0 {
			return fmt.Sprintf("%v is negative", d.D()), ""
		}
		if r.span != nil {
			return r.span.check(d.D().Seconds()), ""
		}
	case v.Kind() == reflect.String:
		return r.text(v.String())
	case v.CanInt() && r.span != nil:
		return r.span.check(float64(v.Int())), ""
	case v.CanFloat():
		s := r.span
		if s == nil {
			s = &span{lo: math.Inf(-1), hi: math.Inf(1)}
		}
		return s.check(v.Float()), ""
	}
	return "", ""
}

func (r *rule) text(s string) (message, hint string) {
	switch {
	case slices.Contains(r.unserved, s):
		return fmt.Sprintf("%s is not served by this version", s), "use " + strings.Join(r.enum, " or ")
	case len(r.enum) > 0 && !slices.Contains(r.enum, s):
		if near := nearest(s, r.enum); near != "" {
			hint = "did you mean " + near + "?"
		}
		if len(r.enum) == 1 {
			return fmt.Sprintf("%q is not %s", s, r.enum[0]), hint
		}
		return fmt.Sprintf("%q is not one of %s", s, strings.Join(r.enum, ", ")), hint
	case len(r.enum) == 0 && r.format != nil:
		return r.format.check(s)
	}
	return "", ""
}
