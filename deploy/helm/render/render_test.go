package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"sigs.k8s.io/yaml"
)

func load(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.LoadDir("../meridian")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestFolders: deploy/kustomize is what the chart says.
func TestFolders(t *testing.T) {
	want, err := folders("..")
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range want {
		got, err := os.ReadFile(filepath.Join("../../kustomize", name))
		if err != nil || !bytes.Equal(got, body) {
			t.Errorf("deploy/kustomize/%s is not what the chart renders (%v): go run -C deploy/helm/render .", name, err)
		}
	}
	there, err := filepath.Glob("../../kustomize/*/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range there {
		name, err := filepath.Rel("../../kustomize", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := want[name]; !ok && filepath.Dir(name) != "namespace" {
			t.Errorf("deploy/kustomize/%s is of no values", name)
		}
	}
}

// TestLint is `helm lint` with the least values.
func TestLint(t *testing.T) {
	for _, m := range lint.All("../meridian", map[string]any{"site": map[string]any{"name": "edge"}}, namespace, true).Messages {
		if m.Severity >= support.WarningSev {
			t.Errorf("%s", m)
		}
	}
}

// TestCRDs: the chart brings all kinds of the mesh.
func TestCRDs(t *testing.T) {
	files, err := filepath.Glob("../../crds/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	if got := len(load(t).CRDObjects()); got != len(files) {
		t.Errorf("the chart has %d CRDs, deploy/crds %d", got, len(files))
	}
}

func TestRefused(t *testing.T) {
	c := load(t)
	for _, tt := range []struct{ values, want string }{
		{`{}`, "site.name is missing"},
		{`{site: {name: "North Pole"}}`, "site.name"},
		{`{site: {name: a}, sites: {}}`, "sites"},
		{`{site: {name: a}, gateway: {replicas: 0}}`, "gateway.replicas"},
		{`{site: {name: a}, gateway: {enabled: "yes"}}`, "gateway.enabled"},
		{`{site: {name: a}, gateway: {service: {ports: [{name: admin, port: 15000}]}}}`, "gateway.service.ports.0.port"},
		{`{site: {name: a}, sitecontroller: {join: {urls: ["nats://hub:1"]}}}`, "sitecontroller.join.urls.0"},
		{`{site: {name: a}, sitecontroller: {join: {urls: ["tls://hub:1"]}}}`, "join.secretName is missing"},
		{`{site: {name: a}, sitecontroller: {hub: {enabled: true}, join: {urls: ["tls://hub:1"]}}}`, "a site is the hub or joins one"},
		{`{site: {name: a}, sitecontroller: {enabled: false}}`, "edgeproxy and gateway need sitecontroller.enabled"},
		{`{site: {name: a}, chainagent: {enabled: true, namespace: meridian}}`, "must not be the release's"},
		{`{sitecontroller: {enabled: false}, edgeproxy: {daemonSet: {enabled: false}}, scheduler: {enabled: true}}`, "scheduler.traffic is nats"},
		{`{sitecontroller: {enabled: false}, edgeproxy: {daemonSet: {enabled: false}}, scheduler: {enabled: true, traffic: istio}}`, "scheduler.prometheus is missing"},
	} {
		values, err := chartutil.ReadValues([]byte(tt.values))
		if err != nil {
			t.Fatal(err)
		}
		_, err = render(c, values)
		if err == nil || !strings.Contains(pointer.ReplaceAllString(err.Error(), "$1."), tt.want) {
			t.Errorf("%s: %v, want %q", tt.values, err, tt.want)
		}
	}
}

// pointer is how schema faults write a path: /gateway/replicas.
var pointer = regexp.MustCompile(`([a-z0-9])/`)

// TestValuesHaveSchema: every value of values.yaml is in the schema, and the other way
// round.
func TestValuesHaveSchema(t *testing.T) {
	c := load(t)
	var schema map[string]any
	if err := yaml.Unmarshal(c.Schema, &schema); err != nil {
		t.Fatal(err)
	}
	var compare func(path string, schema map[string]any, values map[string]any)
	compare = func(path string, schema map[string]any, values map[string]any) {
		properties, ok := schema["properties"].(map[string]any)
		if !ok {
			return // a free object
		}
		if schema["additionalProperties"] != false {
			t.Errorf("%s takes names that mean nothing", path)
		}
		for name, p := range properties {
			v, there := values[name]
			if !there && !slices.Contains([]string{"global", "claims", "limits"}, name) {
				t.Errorf("%s.%s is in the schema and has no default", path, name)
			}
			if v, ok := v.(map[string]any); ok {
				compare(path+"."+name, p.(map[string]any), v)
			}
		}
	}
	compare("values", schema, c.Values)
}
