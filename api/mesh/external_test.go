package mesh

import (
	"fmt"
	"strings"
	"testing"
)

func TestExternalFunctionFaults(t *testing.T) {
	for spec, want := range map[string]string{
		"{external: {}}": "is missing required field service",
		"{external: {service: {name: a}, headers: [content-length]}}":                    "content-length",
		"{external: {service: {name: a}, maxBody: 32769}}":                               "maxBody",
		"{external: {service: {name: a}, timeout: 11s}}":                                 "timeout",
		"{external: {service: {name: a}, pathPrefix: check}}":                            "pathPrefix",
		"{external: {service: {name: a}}, wasm: {file: /f}}":                             "is there beside native or wasm",
		"{external: {service: {name: a}}, instances: [{name: i, node: edge, left: l0}]}": "instances: is of functions of packets",
	} {
		_, err := ParseYAML("f.yaml", fmt.Appendf(nil, "apiVersion: mesh.meridian.dev/v1alpha1\nkind: NetworkFunction\nmetadata: {name: f}\nspec: %s\n", spec))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", spec, err, want)
		}
	}
}

// TestExternalFunctionCheck: the service has to be there, in the function's namespace,
// with a port for HTTP.
func TestExternalFunctionCheck(t *testing.T) {
	for service, want := range map[string]string{
		"{name: echo}":            "",
		"{name: echo, port: 80}":  "",
		"{name: echo, port: 81}":  "spec.external.service.port",
		"{name: other, port: 80}": "there is no MeshService default/other",
	} {
		found := Check(mustParse(t, smallest+"\n---\napiVersion: mesh.meridian.dev/v1alpha1\nkind: NetworkFunction\nmetadata: {name: f}\nspec: {external: {service: "+service+"}}\n"))
		got := fmt.Sprint(found)
		if want == "" && len(found) > 0 || !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %q", service, got, want)
		}
	}
}
