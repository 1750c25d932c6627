package mesh

import (
	"bytes"
	"fmt"
	"slices"

	"sigs.k8s.io/yaml"
)

// ToYAML prints objects as the documents that [ParseYAML] reads: sites, gateways,
// routes, services, policies, each kind by namespace and name. The same objects
// give the same bytes.
func ToYAML(o *Objects) ([]byte, error) {
	var buf bytes.Buffer
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
			text, err := yaml.Marshal(d.doc)
			if err != nil {
				return nil, fmt.Errorf("print %s: %w", d.key, err)
			}
			if buf.Len() > 0 {
				buf.WriteString("---\n")
			}
			buf.Write(text)
		}
	}
	return buf.Bytes(), nil
}
