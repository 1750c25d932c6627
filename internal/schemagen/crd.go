package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/meridian-mesh/meridian/api/kube"
	"github.com/meridian-mesh/meridian/api/mesh"
)

// crds writes a CustomResourceDefinition of each of the mesh's own kinds.
func crds(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	_, version, _ := strings.Cut(mesh.MeshAPIVersion, "/")
	for _, k := range kube.OwnKinds {
		spec, err := structural(k.Kind)
		if err != nil {
			return err
		}
		scope := "Namespaced"
		if k.Cluster {
			scope = "Cluster"
		}
		condition := object{"type": "object", "properties": object{
			"type": object{"type": "string"}, "status": object{"type": "string", "enum": []string{"True", "False", "Unknown"}},
			"observedGeneration": object{"type": "integer", "format": "int64"}, "lastTransitionTime": object{"type": "string", "format": "date-time"},
			"reason": object{"type": "string"}, "message": object{"type": "string"},
		}, "required": []string{"type", "status", "lastTransitionTime", "reason", "message"}}
		crd := object{
			"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
			"metadata": object{"name": k.Plural + "." + mesh.MeshGroup},
			"spec": object{
				"group": mesh.MeshGroup, "scope": scope,
				"names": object{"kind": k.Kind, "listKind": k.Kind + "List", "plural": k.Plural, "singular": strings.ToLower(k.Kind), "categories": []string{"meridian"}},
				"versions": []object{{
					"name": version, "served": true, "storage": true,
					"subresources": object{"status": object{}},
					"additionalPrinterColumns": []object{
						{"name": "Accepted", "type": "string", "jsonPath": `.status.conditions[?(@.type=="Accepted")].status`},
						{"name": "Reason", "type": "string", "priority": 1, "jsonPath": `.status.conditions[?(@.type=="Accepted")].message`},
						{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
					},
					"schema": object{"openAPIV3Schema": object{
						"type": "object", "required": []string{"spec"},
						"properties": object{
							"apiVersion": object{"type": "string"}, "kind": object{"type": "string"}, "metadata": object{"type": "object"},
							"spec": spec,
							"status": object{"type": "object", "properties": object{"conditions": object{
								"type": "array", "items": condition, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": []string{"type"},
							}}},
						},
					}},
				}},
			},
		}
		text, err := yaml.Marshal(crd)
		if err != nil {
			return err
		}
		head := "# Generated from api/mesh by internal/schemagen.\n"
		if err := os.WriteFile(filepath.Join(dir, k.Plural+".yaml"), append([]byte(head), text...), 0o644); err != nil {
			return err
		}
	}
	return nil
}

type object = map[string]any

// structural is the schema of a kind's spec in the part of JSON Schema that Kubernetes
// takes: without references, and with [validations] for what relates one field to
// another. The controller checks the rest, and says so in the object's status.
func structural(kind string) (object, error) {
	text, err := mesh.Schema(kind)
	if err != nil {
		return nil, err
	}
	var s struct {
		Defs map[string]object `json:"$defs"`
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, err
	}
	properties, ok := s.Defs[kind]["properties"].(object)
	if !ok {
		return nil, fmt.Errorf("the schema of %s has no properties", kind)
	}
	spec, ok := properties["spec"].(object)
	if !ok {
		return nil, fmt.Errorf("the schema of %s has no spec", kind)
	}
	return reduce(spec, s.Defs), nil
}

// kept are the words of JSON Schema that mean the same to Kubernetes.
var kept = []string{"type", "description", "default", "enum", "pattern", "minimum", "maximum", "minItems", "maxItems", "required"}

func reduce(v object, defs map[string]object) object {
	out := object{}
	if ref, ok := v["$ref"].(string); ok {
		name := strings.TrimPrefix(ref, "#/$defs/")
		out = reduce(defs[name], defs)
		if rules := validations[name]; rules != nil {
			out["x-kubernetes-validations"] = rules
		}
	}
	for _, word := range kept {
		if x, ok := v[word]; ok {
			out[word] = x
		}
	}
	if items, ok := v["items"].(object); ok {
		out["items"] = reduce(items, defs)
	}
	if properties, ok := v["properties"].(object); ok {
		to := object{}
		for name, p := range properties {
			if q, ok := p.(object); ok {
				to[name] = reduce(q, defs)
			}
		}
		out["properties"] = to
	} else if each, ok := v["additionalProperties"].(object); ok {
		out["additionalProperties"] = reduce(each, defs)
	}
	return out
}
