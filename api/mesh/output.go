package mesh

import (
	"fmt"
	"slices"
)

// ToYAML prints objects as the documents that [ParseYAML] reads: sites, gateways,
// routes, services, policies, each kind by namespace and name. The same objects
// give the same bytes.
func ToYAML(o *Objects) ([]byte, error) {
	var out []byte
	for _, k := range kinds {
		type document struct {
			key Key
			doc any
		}
		var docs []document
		for key, doc := range o.All() {
			if key.Kind == k.typ.Name() {
				docs = append(docs, document{key, doc})
			}
		}
		slices.SortStableFunc(docs, func(a, b document) int {
			return byName(ObjectMeta{Namespace: a.key.Namespace, Name: a.key.Name}, ObjectMeta{Namespace: b.key.Namespace, Name: b.key.Name})
		})
		for _, d := range docs {
			if len(out) > 0 {
				out = append(out, "---\n"...)
			}
			var err error
			if out, err = appendYAML(out, d.doc); err != nil {
				return nil, fmt.Errorf("print %s: %w", d.key, err)
			}
		}
	}
	return out, nil
}
