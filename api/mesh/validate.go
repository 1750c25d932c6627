package mesh

import (
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"
)

// All yields every object with its key, kind by kind in the order of the fields
// of Objects, as pointers (*Gateway, *HTTPRoute, ...).
func (o *Objects) All() iter.Seq2[Key, any] {
	return func(yield func(Key, any) bool) {
		v := reflect.ValueOf(o).Elem()
		for _, f := range fieldsOf(v.Type()) {
			list := v.FieldByIndex(f.index)
			for i := range list.Len() {
				p := list.Index(i)
				if !yield(keyOf(p.Elem()), p.Interface()) {
					return
				}
			}
		}
	}
}

// null returns the place of an object that is not there.
func (o *Objects) null() *path {
	v := reflect.ValueOf(o).Elem()
	for _, f := range fieldsOf(v.Type()) {
		for i := range v.FieldByIndex(f.index).Len() {
			if v.FieldByIndex(f.index).Index(i).IsNil() {
				return (*path)(nil).field(f.name).item(i)
			}
		}
	}
	return nil
}

// Len counts the objects.
func (o *Objects) Len() int {
	n := 0
	for range o.All() {
		n++
	}
	return n
}

// keyOf names a document struct. Its kind is the Go type's name, so that objects
// built in Go without TypeMeta have one too.
func keyOf(doc reflect.Value) Key {
	m := doc.FieldByName("Metadata").Interface().(ObjectMeta)
	return Key{Kind: doc.Type().Name(), Namespace: m.Namespace, Name: m.Name}
}

// Default fills in what absent fields mean: types, namespaces, the group and kind of
// references, weights, path matches, protocols and policies. [ParseYAML] has
// done it already; objects from elsewhere need it before they are used.
// It changes the objects in place and may be called again.
func Default(o *Objects) {
	for _, doc := range o.All() {
		v := reflect.ValueOf(doc).Elem()
		meta := v.FieldByName("TypeMeta")
		if m := meta.Interface().(TypeMeta); meta.IsZero() || slices.Contains(older[m.Kind], m.APIVersion) {
			meta.Set(reflect.ValueOf(typeMetaOf(v.Type().Name())))
		}
		setDefaults(v)
		switch r := doc.(type) {
		case *HTTPRoute:
			defaultRoute(r)
		case *GRPCRoute:
			defaultGRPCRoute(r)
		case *TCPRoute:
			defaultRefs(r.Metadata.Namespace, r.Spec.ParentRefs, r.Spec.Rules)
		case *TLSRoute:
			defaultRefs(r.Metadata.Namespace, r.Spec.ParentRefs, r.Spec.Rules)
		case *UDPRoute:
			defaultRefs(r.Metadata.Namespace, r.Spec.ParentRefs, r.Spec.Rules)
		}
	}
}

func defaultRoute(r *HTTPRoute) {
	for i := range r.Spec.ParentRefs {
		if p := &r.Spec.ParentRefs[i]; p.Namespace == "" {
			p.Namespace = r.Metadata.Namespace
		}
	}
	for i := range r.Spec.Rules {
		rule := &r.Spec.Rules[i]
		for j := range rule.Matches {
			if rule.Matches[j].Path == nil {
				rule.Matches[j].Path = &PathMatch{Type: PathPrefix, Value: "/"}
			}
		}
		mirrors(rule.Filters, r.Metadata.Namespace)
		for j := range rule.BackendRefs {
			b := &rule.BackendRefs[j]
			if b.Namespace == "" {
				b.Namespace = r.Metadata.Namespace
			}
			mirrors(b.Filters, r.Metadata.Namespace)
		}
	}
}

func mirrors(filters []HTTPRouteFilter, namespace string) {
	for i := range filters {
		if m := filters[i].RequestMirror; m != nil && m.BackendRef.Namespace == "" {
			m.BackendRef.Namespace = namespace
		}
	}
}

func setDefaults(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			setDefaults(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			setDefaults(v.Index(i))
		}
	case reflect.Struct:
		for _, f := range fieldsOf(v.Type()) {
			fv := v.FieldByIndex(f.index)
			if f.rule.def != nil && fv.IsZero() {
				if f.typ.Kind() == reflect.Pointer {
					fv.Set(reflect.New(f.typ.Elem()))
					fv = fv.Elem()
				}
				fv.Set(reflect.ValueOf(f.rule.def).Convert(fv.Type()))
			}
			setDefaults(fv)
		}
	}
}

// Validate checks objects that did not come through [ParseYAML] (from a cluster,
// from a snapshot, built in Go) against the same rules; the error is *[Faults]
// without positions. Objects must have gone through [Default].
func Validate(o *Objects) error {
	var fs Faults
	seen := map[Key]bool{}
	for key, doc := range o.All() {
		add := func(p *path, message, hint string) {
			fs.add(Fault{Object: key.String(), Path: p.String(), Message: message, Hint: hint})
		}
		if seen[key] {
			add(nil, "is there twice", "")
		}
		seen[key] = true
		if m := reflect.ValueOf(doc).Elem().FieldByName("TypeMeta").Interface().(TypeMeta); m != typeMetaOf(key.Kind) {
			add(nil, fmt.Sprintf("says it is a %s of %s", m.Kind, m.APIVersion), "")
		}
		validate(reflect.ValueOf(doc).Elem(), &rule{}, nil, add)
		checkObjectName(key, add)
	}
	return fs.err()
}

func checkObjectName(key Key, add func(p *path, message, hint string)) {
	for _, kind := range labelNamed {
		if key.Kind == kind && key.Name != "" && !checkFails(checkSubdomain(key.Name)) {
			if m, h := checkLabel(key.Name); m != "" {
				add((*path)(nil).field("metadata").field("name"), m, h)
			}
		}
	}
}

// validate walks a Go value. r is the rule of the field that holds it.
func validate(v reflect.Value, r *rule, p *path, add func(*path, string, string)) {
	if l, ok := v.Interface().(Location); ok {
		v = reflect.ValueOf(geoPoint{Type: "Point", Coordinates: []float64{l.Lon, l.Lat}})
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			validate(v.Elem(), r, p, add)
		}
	case reflect.Struct:
		for _, f := range fieldsOf(v.Type()) {
			fv := v.FieldByIndex(f.index)
			switch {
			case f.typ.Kind() == reflect.String && fv.Len() == 0:
				if f.required {
					add(p.field(f.name), "is missing", f.rule.hint)
				}
			case fv.IsZero() && !f.required:
			default:
				validate(fv, &f.rule, p.field(f.name), add)
			}
		}
		if rel := relations[v.Type()]; rel != nil {
			rel(v, func(sub, message, hint string) { add(below(p, sub), message, hint) })
		}
	case reflect.Slice:
		if m := r.items(v.Len()); m != "" {
			add(p, m, r.hint)
		}
		for i := range v.Len() {
			validate(v.Index(i), r, p.item(i), add)
		}
		for i, first := range r.twins(v) {
			add(p.item(i), "repeats "+p.item(first).String(), "")
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			if m, h := r.entry(it.Key().String(), it.Value()); m != "" {
				add(p.key(it.Key().String()), m, h)
			}
		}
	default:
		if m, h := r.scalar(v); m != "" {
			add(p, m, h)
		}
	}
}

func below(p *path, sub string) *path {
	if sub == "" {
		return p
	}
	return p.field(sub)
}

// items checks the length of a list.
func (r *rule) items(n int) string {
	switch {
	case n < r.minItems && n == 0:
		return "is empty"
	case n < r.minItems:
		return fmt.Sprintf("has %d items, at least %d are needed", n, r.minItems)
	case r.maxItems > 0 && n > r.maxItems:
		return fmt.Sprintf("has %d items, at most %d are allowed", n, r.maxItems)
	}
	return ""
}

// twins yields each item that repeats an earlier one, with the index of that one.
func (r *rule) twins(list reflect.Value) iter.Seq2[int, int] {
	return func(yield func(int, int) bool) {
		if r.unique == "" {
			return
		}
		seen := make(map[string]int, list.Len())
		for i := range list.Len() {
			key := r.identity(list.Index(i))
			first, twice := seen[key]
			if strings.Trim(key, "|") == "" {
				continue // reported as missing
			}
			if !twice {
				seen[key] = i
			} else if !yield(i, first) {
				return
			}
		}
	}
}

// identity prints the fields by which items of a list must differ.
func (r *rule) identity(item reflect.Value) string {
	if r.unique == "." {
		return item.String()
	}
	var id []string
	for _, f := range fieldsOf(item.Type()) {
		if slices.Contains(strings.Split(r.unique, ","), f.name) {
			id = append(id, fmt.Sprint(item.FieldByIndex(f.index).Interface()))
		}
	}
	return strings.Join(id, "|")
}

// entry checks one entry of a map.
func (r *rule) entry(key string, v reflect.Value) (message, hint string) {
	if r.keys != nil {
		if m, h := r.keys(key); m != "" {
			return m, h
		}
	}
	return r.scalar(v)
}
