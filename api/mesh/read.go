package mesh

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// entry is one key of a mapping.
type entry struct{ key, value *yaml.Node }

func follow(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

// expand counts nodes that are read through an alias, against [maxAliasNodes].
func (r *reader) expand(n *yaml.Node, p *path, nodes int) bool {
	before := r.aliases
	if r.aliases += nodes; r.aliases <= maxAliasNodes {
		return true
	}
	if before <= maxAliasNodes {
		r.fault(n, p, fmt.Sprintf("aliases expand to more than %d values", maxAliasNodes), "write fewer of them")
	}
	return false
}

// entries lists a mapping's keys with merge keys (<<) expanded, an own key before
// a merged one. With report set, repeated and unusable keys are faults.
func (r *reader) entries(n *yaml.Node, p *path, report bool) []entry {
	c := collector{r: r, p: p, report: report, index: map[string]int{}}
	c.collect(n, 0)
	return c.es
}

// collector gathers the keys of one mapping.
type collector struct {
	r      *reader
	p      *path
	report bool
	es     []entry
	index  map[string]int // key -> place in es
}

func (c *collector) fault(at *yaml.Node, message, hint string) {
	if c.report {
		c.r.fault(at, c.p, message, hint)
	}
}

func (c *collector) collect(n *yaml.Node, depth int) {
	if n = follow(n); n.Kind != yaml.MappingNode {
		return
	}
	if depth > 0 && !c.r.expand(n, c.p, 1+len(n.Content)/2) {
		return
	}
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode:
			c.fault(key, "a key must be a string, have "+describe(key), "")
			continue
		case key.ShortTag() == "!!merge":
			merges = append(merges, follow(value))
			continue
		case key.ShortTag() != "!!str":
			c.fault(key, "a key must be a string, have "+describe(key), "quote it: "+strconv.Quote(key.Value))
			continue
		case bool11(key):
			c.fault(key, key.Value+meansBool, "quote it: "+strconv.Quote(key.Value))
			continue
		}
		first, twice := c.index[key.Value]
		if !twice {
			c.index[key.Value] = len(c.es)
			c.es = append(c.es, entry{key, value})
		} else if depth == 0 {
			c.fault(key, fmt.Sprintf("key %q is there twice", key.Value), fmt.Sprintf("first on line %d", c.r.line+c.es[first].key.Line))
		}
	}
	for _, m := range merges {
		if depth >= 8 {
			c.fault(m, "merge keys are nested too deep", "")
			return
		}
		from := []*yaml.Node{m}
		if m.Kind == yaml.SequenceNode {
			from = m.Content
		}
		for _, f := range from {
			if f = follow(f); f.Kind != yaml.MappingNode {
				c.fault(f, "a merge key (<<) takes an object or a list of objects, have "+describe(f), "")
				continue
			}
			c.collect(f, depth+1)
		}
	}
}

// read sets v from n by v's type and the rule of the field that holds it, and
// reports whether it could. Rules of the value are checked here, where its
// position is known.
func (r *reader) read(n *yaml.Node, v reflect.Value, ru *rule, p *path) bool {
	if n.Kind == yaml.AliasNode {
		n = follow(n)
		r.inAlias++
		defer func() { r.inAlias-- }()
	}
	if r.inAlias > 0 && !r.expand(n, p, 1) {
		return false
	}
	if isNull(n) {
		r.fault(n, p, "is empty", "")
		return false
	}
	switch v.Interface().(type) {
	case Location:
		var g geoPoint
		if !r.read(n, reflect.ValueOf(&g).Elem(), ru, p) || len(g.Coordinates) < 2 {
			return false
		}
		v.Set(reflect.ValueOf(Location{Lon: g.Coordinates[0], Lat: g.Coordinates[1]}))
		return true
	case Duration:
		return r.readDuration(n, v, ru, p)
	}
	switch v.Kind() {
	case reflect.Pointer:
		e := reflect.New(v.Type().Elem())
		if !r.read(n, e.Elem(), ru, p) {
			return false
		}
		v.Set(e)
		return true
	case reflect.Struct:
		return r.readStruct(n, v, p)
	case reflect.Slice:
		return r.readList(n, v, ru, p)
	case reflect.Map:
		return r.readMap(n, v, ru, p)
	}
	return r.readScalar(n, v, ru, p)
}

func (r *reader) readStruct(n *yaml.Node, v reflect.Value, p *path) bool {
	if n.Kind != yaml.MappingNode {
		r.fault(n, p, "want an object, have "+describe(n), "")
		return false
	}
	fields := fieldsOf(v.Type())
	typ := v.Type().Name()
	given := map[string]*yaml.Node{}
	ok := true
	for _, e := range r.entries(n, p, true) {
		name := e.key.Value
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
		if i < 0 {
			ok = false
			r.unknownField(e.key, typ, fields, p)
			continue
		}
		if isNull(e.value) && !fields[i].required {
			continue // an empty optional field is an absent one, as in Kubernetes
		}
		given[name] = e.value
		if !r.read(e.value, v.FieldByIndex(fields[i].index), &fields[i].rule, p.field(name)) {
			ok = false
		}
	}
	for _, f := range fields {
		if f.required && given[f.name] == nil {
			ok = false
			r.fault(n, p, "is missing required field "+f.name, f.rule.hint)
		}
	}
	if rel := relations[v.Type()]; rel != nil && ok {
		rel(v, func(sub, message, hint string) {
			at := n
			name, index, _ := strings.Cut(sub, "[")
			if given[name] != nil {
				at = given[name]
				if i, err := strconv.Atoi(strings.TrimSuffix(index, "]")); err == nil && i < len(at.Content) {
					at = at.Content[i]
				}
			}
			r.fault(at, below(p, sub), message, hint)
		})
	}
	return ok
}

func (r *reader) unknownField(key *yaml.Node, typ string, fields []field, p *path) {
	name := key.Value
	at := p.field(name)
	switch {
	case slices.Contains(unserved[typ], name):
		r.fault(key, at, name+" is not served by this version", "remove it")
	case slices.Contains(clusterFields, name) && (p == nil || typ == "ObjectMeta"):
		r.fault(key, at, name+" is written by a cluster and has no meaning in a file", "remove it")
	default:
		names := fieldNames(fields)
		hint := "known fields: " + strings.Join(names, ", ")
		if near := nearest(name, append(names, unserved[typ]...)); near != "" {
			hint = "did you mean " + near + "?"
		}
		r.fault(key, p, fmt.Sprintf("unknown field %q", name), hint)
	}
}

func (r *reader) readList(n *yaml.Node, v reflect.Value, ru *rule, p *path) bool {
	if n.Kind != yaml.SequenceNode {
		hint := ""
		if n.Kind == yaml.MappingNode {
			hint = "start the item with -"
		}
		r.fault(n, p, "want a list, have "+describe(n), hint)
		return false
	}
	ok := true
	if m := ru.items(len(n.Content)); m != "" {
		ok = false
		r.fault(n, p, m, ru.hint)
	}
	if ru.maxItems > 0 && len(n.Content) > ru.maxItems {
		return false
	}
	list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		if !r.read(item, list.Index(i), ru, p.item(i)) {
			ok = false
			if r.aliases > maxAliasNodes {
				return false
			}
		}
	}
	for i, first := range ru.twins(list) {
		ok = false
		r.fault(n.Content[i], p.item(i), "repeats "+p.item(first).String(), fmt.Sprintf("first on line %d", r.line+n.Content[first].Line))
	}
	v.Set(list)
	return ok
}

func (r *reader) readMap(n *yaml.Node, v reflect.Value, ru *rule, p *path) bool {
	if n.Kind != yaml.MappingNode {
		r.fault(n, p, "want an object, have "+describe(n), "")
		return false
	}
	ok := true
	m := reflect.MakeMap(v.Type())
	for _, e := range r.entries(n, p, true) {
		key := e.key.Value
		if ru.keys != nil {
			if msg, hint := ru.keys(key); msg != "" {
				ok = false
				r.fault(e.key, p, msg, hint)
			}
		}
		val := reflect.New(v.Type().Elem()).Elem()
		if !r.read(e.value, val, ru, p.key(key)) {
			ok = false
			continue
		}
		m.SetMapIndex(reflect.ValueOf(key), val)
	}
	v.Set(m)
	return ok
}

func (r *reader) readDuration(n *yaml.Node, v reflect.Value, ru *rule, p *path) bool {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		hint := "such as 500ms, 10s or 1h30m"
		if n.Kind == yaml.ScalarNode && strings.Trim(n.Value, "0123456789") == "" {
			hint = "with its unit, as in " + n.Value + "s or " + n.Value + "ms"
		}
		r.fault(n, p, "want a duration, have "+describe(n), hint)
		return false
	}
	if ru.format != nil {
		if m, h := ru.format.check(n.Value); m != "" {
			r.fault(n, p, m, h)
			return false
		}
	}
	var d Duration
	if err := d.UnmarshalText([]byte(n.Value)); err != nil {
		r.fault(n, p, err.Error(), "")
		return false
	}
	v.SetInt(int64(d))
	return r.checked(n, v, ru, p)
}

// A whole number in decimal. YAML reads 010 as eight, 1_000 as a thousand and
// 0x10 as sixteen; a person who writes those in a port or weight is asked.
var reWhole = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)

// Words that Kubernetes' reader, which is one of YAML 1.1, takes for booleans. A
// document must mean the same in a file and in a cluster.
var reBool11 = regexp.MustCompile(`^(y|Y|yes|Yes|YES|n|N|no|No|NO|on|On|ON|off|Off|OFF)$`)

const meansBool = " is a boolean in YAML 1.1, and so in a cluster"

func bool11(n *yaml.Node) bool { return n.Style == 0 && reBool11.MatchString(n.Value) }

func (r *reader) readScalar(n *yaml.Node, v reflect.Value, ru *rule, p *path) bool {
	tag := ""
	if n.Kind == yaml.ScalarNode {
		tag = n.ShortTag()
	}
	wrong := func(want, hint string) bool {
		r.fault(n, p, "want "+want+", have "+describe(n), hint)
		return false
	}
	switch {
	case v.Kind() == reflect.String:
		if tag != "!!str" {
			hint := ""
			if n.Kind == yaml.ScalarNode {
				hint = "quote it: " + strconv.Quote(n.Value)
			}
			return wrong("a string", hint)
		}
		if bool11(n) {
			r.fault(n, p, n.Value+meansBool, "quote it: "+strconv.Quote(n.Value))
			return false
		}
		v.SetString(n.Value)
	case v.Kind() == reflect.Bool:
		if tag != "!!bool" {
			hint := "true or false"
			if tag == "!!str" && (n.Value == "true" || n.Value == "false") {
				hint = "remove the quotes"
			}
			return wrong("a boolean", hint)
		}
		v.SetBool(n.Value == "true" || n.Value == "True" || n.Value == "TRUE")
	case v.CanInt():
		if tag == "!!str" && reWhole.MatchString(n.Value) {
			return wrong("a whole number", "remove the quotes")
		}
		if tag != "!!int" && tag != "!!float" {
			return wrong("a whole number", "")
		}
		i, err := strconv.ParseInt(n.Value, 10, 0)
		if !reWhole.MatchString(n.Value) || err != nil {
			return wrong("a whole number", "in decimal digits only")
		}
		v.SetInt(i)
	case v.CanFloat():
		f, err := strconv.ParseFloat(n.Value, 64)
		if tag == "!!str" && err == nil {
			return wrong("a number", "remove the quotes")
		}
		if tag != "!!int" && tag != "!!float" {
			return wrong("a number", "")
		}
		if err != nil || strings.ContainsAny(n.Value, "xX_") {
			return wrong("a number", "finite, in decimal digits")
		}
		v.SetFloat(f)
	default:
		panic("api/mesh: no reader for " + v.Type().String())
	}
	return r.checked(n, v, ru, p)
}

func (r *reader) checked(n *yaml.Node, v reflect.Value, ru *rule, p *path) bool {
	if m, h := ru.scalar(v); m != "" {
		r.fault(n, p, m, h)
		return false
	}
	return true
}
