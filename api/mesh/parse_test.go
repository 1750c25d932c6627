package mesh

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the expected errors in testdata")

// Each testdata/faults/*.yaml has beside it the errors that it must give, line by line.
func TestFaults(t *testing.T) {
	files, err := filepath.Glob("testdata/faults/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			o, err := ParseYAML(filepath.Base(file), data)
			if err == nil || o != nil {
				t.Fatalf("read without error: %+v", o)
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".errors"
			got := err.Error() + "\n"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

const smallest = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: ingress}
spec:
  gatewayClassName: meridian
  addresses: [{type: IPAddress, value: 127.0.0.1}]
  listeners: [{name: http, port: 8080, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: all}
spec:
  parentRefs: [{name: ingress}]
  rules:
  - backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: echo, port: 80}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: echo}
spec:
  ports: [{name: http, port: 80, protocol: http}]
  endpoints: [{address: "127.0.0.1:9001"}, {address: "[::1]:9002"}]
`

func mustParse(t testing.TB, text string) *Objects {
	t.Helper()
	o, err := ParseYAML("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestParseSmallest(t *testing.T) {
	o := mustParse(t, smallest)
	one := 1
	want := &Objects{
		Gateways: []*Gateway{{
			TypeMeta: TypeMeta{GatewayAPIVersion, KindGateway},
			Metadata: ObjectMeta{Name: "ingress", Namespace: "default"},
			Spec: GatewaySpec{GatewayClassName: "meridian",
				Addresses: []GatewayAddress{{Type: "IPAddress", Value: "127.0.0.1"}},
				Listeners: []Listener{{Name: "http", Port: 8080, Protocol: "HTTP"}}},
		}},
		HTTPRoutes: []*HTTPRoute{{
			TypeMeta: TypeMeta{GatewayAPIVersion, KindHTTPRoute},
			Metadata: ObjectMeta{Name: "all", Namespace: "default"},
			Spec: HTTPRouteSpec{
				ParentRefs: []ParentRef{{Group: GatewayGroup, Kind: "Gateway", Namespace: "default", Name: "ingress"}},
				Rules: []HTTPRouteRule{{BackendRefs: []BackendRef{{Group: MeshGroup, Kind: "MeshService", Namespace: "default",
					Name: "echo", Port: 80, Weight: &one}}}}},
		}},
		Services: []*MeshService{{
			TypeMeta: TypeMeta{MeshAPIVersion, KindMeshService},
			Metadata: ObjectMeta{Name: "echo", Namespace: "default"},
			Spec: MeshServiceSpec{Ports: []ServicePort{{Name: "http", Port: 80, Protocol: "http"}},
				Endpoints: []Endpoint{{Address: "127.0.0.1:9001", Weight: &one}, {Address: "[::1]:9002", Weight: &one}}},
		}},
		Positions: map[Key]Position{
			{"Gateway", "default", "ingress"}:  {"test.yaml", 2, 1},
			{"HTTPRoute", "default", "all"}:    {"test.yaml", 10, 1},
			{"MeshService", "default", "echo"}: {"test.yaml", 18, 1},
		},
	}
	if !reflect.DeepEqual(o, want) {
		t.Errorf("got %+v\nwant %+v", o, want)
	}
	if err := Validate(o); err != nil {
		t.Errorf("Validate refuses what ParseYAML took: %v", err)
	}
}

func TestParseAcrossFiles(t *testing.T) {
	_, err := ParseSources([]Source{{"a.yaml", []byte(smallest)}, {"b.yaml", []byte("# empty\n---\n")}, {"c.yaml", []byte(smallest)}})
	var f *Faults
	if !errors.As(err, &f) || len(f.List) != 3 {
		t.Fatalf("got %v", err)
	}
	if got, want := f.List[0].String(), "c.yaml:2:1: Gateway/default/ingress is there twice (first at a.yaml:2:1)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAnchorsAndMergeKeys(t *testing.T) {
	o := mustParse(t, `
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: echo}
spec:
  ports: [{port: 80}]
  endpoints:
  - &base {address: "10.0.0.1:80", capacity: &cap {concurrency: 4, serviceTime: 20ms}}
  - <<: *base
    address: 10.0.0.2:80
  - {address: "10.0.0.3:80", capacity: *cap, weight: 0}
`)
	es := o.Services[0].Spec.Endpoints
	if len(es) != 3 || es[1].Address != "10.0.0.2:80" || es[1].Capacity == nil || es[1].Capacity.Concurrency != 4 || es[2].Capacity.ServiceTime.D().Milliseconds() != 20 {
		t.Errorf("got %+v", es)
	}
	if *es[2].Weight != 0 || *es[1].Weight != 1 {
		t.Errorf("weights %d, %d: want 0 kept and 1 by default", *es[2].Weight, *es[1].Weight)
	}
}

func named(n int) string {
	list := ""
	for i := range n {
		list += fmt.Sprintf("{name: a%d, value: b},", i)
	}
	return list
}

func TestAliasBombs(t *testing.T) {
	const limit = "aliases expand to more than"
	for name, tc := range map[string]struct{ spec, want string }{
		"a list of many aliases to many values": {"  rules:\n  - &r {matches: [" + strings.Repeat("{path: {value: /}, headers: &h ["+
			named(16)+"], queryParams: *h},", 64) + "]}\n" + strings.Repeat("  - *r\n", 15), limit},
		"merge keys that multiply at each level": {"  a: &a {x: 1}\n  b: &b {<<: [" + strings.Repeat("*a,", 100) + "]}\n  c: &c {<<: [" + strings.Repeat("*b,", 100) +
			"]}\n  d: &d {<<: [" + strings.Repeat("*c,", 100) + "]}\n  <<: [" + strings.Repeat("*d,", 100) + "]\n", limit},
		"a value that holds itself":    {"  rules: &r\n  - backendRefs: *r\n", "spec.rules[0].backendRefs[0]"},
		"a mapping merged into itself": {"  rules:\n  - &r\n    <<: *r\n", "nested too deep"},
	} {
		_, err := ParseYAML("bomb.yaml", []byte("apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: bomb}\nspec:\n"+tc.spec))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %.300v, want %s", name, err, tc.want)
		}
	}
}

func TestTooLarge(t *testing.T) {
	_, err := ParseYAML("big.yaml", bytes.Repeat([]byte("# comment\n"), MaxDocumentBytes/10+1))
	if err == nil || !strings.Contains(err.Error(), "big.yaml: has 8388") {
		t.Errorf("got %v", err)
	}
}

func TestManyFaultsAreBounded(t *testing.T) {
	_, err := ParseYAML("many.yaml", []byte("kind: Gateway\n"+strings.Repeat("---\nkind: Nothing\n", 5000)))
	var f *Faults
	if !errors.As(err, &f) || len(f.List) != maxFaults || f.More == 0 {
		t.Fatalf("got %d faults", len(f.List))
	}
}

// Every rule must name a field that exists, and every field of the kinds must be
// readable.
func TestRulesFitTypes(t *testing.T) {
	known := map[string]bool{}
	types := map[string]bool{}
	var walk func(reflect.Type)
	walk = func(t reflect.Type) {
		switch {
		case t == reflect.TypeFor[Location]():
			walk(reflect.TypeFor[geoPoint]())
		case t.Kind() == reflect.Pointer, t.Kind() == reflect.Slice, t.Kind() == reflect.Map:
			walk(t.Elem())
		case t.Kind() == reflect.Struct && !types[t.Name()]:
			types[t.Name()] = true
			for _, f := range fieldsOf(t) {
				known[t.Name()+"."+f.name] = true
				walk(f.typ)
			}
		}
	}
	for _, k := range kinds {
		walk(k.typ)
	}
	for key := range rules {
		if !known[key] {
			t.Errorf("rule for %s, which no type has", key)
		}
	}
	for typ, names := range unserved {
		if !types[typ] {
			t.Errorf("unserved fields of %s, which does not exist", typ)
		}
		for _, n := range names {
			if known[typ+"."+n] {
				t.Errorf("%s.%s is both served and unserved", typ, n)
			}
		}
	}
}
