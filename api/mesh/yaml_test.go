package mesh

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// compareYAML prints JSON and has a YAML library read it again.
func compareYAML(t *testing.T, data []byte) {
	t.Helper()
	text, err := appendYAML(nil, json.RawMessage(data))
	if err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	back, err := yaml.YAMLToJSON(text)
	if err != nil {
		t.Fatalf("%s: %v\n%s", data, err, text)
	}
	var want, got any
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(back, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%s came back as %s\n%s", data, back, text)
	}
}

var yamlSeeds = []string{
	`{}`, `{"a":{},"b":[],"c":[[]],"d":[{}],"e":[[1,2],[{"x":[1]}]]}`, `{"a":[{"b":1,"c":{"d":[{"e":2,"f":"g"},3]}}],"h":null}`,
	`{"a":"yes","b":"No","c":"1","d":"0x1f","e":"1e5","f":"~","g":"null","h":"on","i":" x","j":"x ","k":"a: b","l":"#c","m":"- x","n":"","o":".inf","p":"2026-01-01","q":"=","r":"<<","s":"---","t":"y"}`,
	`{"one":"a\nb","two":"a\nb\n","three":"a\nb\n\n","four":"\na","five":" a\nb","six":"a\n\n  b \nc","seven":"a\tb\nc","eight":"a\r\nb","nine":"\n","ten":"a\n"}`,
	`{"l":["a\nb\n",{"k":"a\n\nb"}],"yes":1,"a b":2,"":3,"x: y":4}`,
	`{"u":"é日本\u0000\u007f\u0085\u2028\ufeff\ud83d\ude00\\\"","n":[-0.5,1e21,12345678901,true,false]}`,
}

func TestYAML(t *testing.T) {
	for _, s := range yamlSeeds {
		compareYAML(t, []byte(s))
	}
	text, err := appendYAML(nil, json.RawMessage(`{"spec":{"rules":[{"names":["a","1","10.0.0.1","10.0.0.1:80","1.2.3.4:"],"ports":[{"port":80}]},{}],"text":"one\ntwo"},"kind":"X"}`))
	const want = `kind: X
spec:
  rules:
  - names:
    - a
    - "1"
    - 10.0.0.1
    - 10.0.0.1:80
    - "1.2.3.4:"
    ports:
    - port: 80
  - {}
  text: |-
    one
    two
`
	if err != nil || string(text) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, text, want)
	}
}

func FuzzYAML(f *testing.F) {
	for _, s := range yamlSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		// A mapping whose keys the library takes, and numbers that it keeps, as those
		// of documents are.
		var v map[string]any
		if json.Unmarshal(data, &v) != nil || v == nil || strings.ContainsAny(string(data), "eE") && strings.ContainsAny(string(data), "0123456789") {
			return
		}
		again, err := json.Marshal(v)
		if err != nil {
			return
		}
		compareYAML(t, again)
	})
}
