package traffic

import (
	"reflect"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

func TestReadCSV(t *testing.T) {
	m, err := ReadCSV(strings.NewReader("from,to,requestBytesPerS,responseBytesPerS,requestsPerS\n# a comment\nb/x, a/y, 1, 2, 3\nb/x,a/y,10,20,30\nc/n/z,b/x,5,0,0\n"))
	if err != nil {
		t.Fatal(err)
	}
	x, y, z := mesh.Workload{Namespace: "b", Name: "x"}, mesh.Workload{Namespace: "a", Name: "y"}, mesh.Workload{Cluster: "c", Namespace: "n", Name: "z"}
	sum := Rates{RequestsPerS: 33, RequestBytesPerS: 11, ResponseBytesPerS: 22}
	five := Rates{RequestBytesPerS: 5}
	want := []Edge{{From: x, To: y, Recent: sum, Steady: sum}, {From: z, To: x, Recent: five, Steady: five}}
	if !reflect.DeepEqual(m.Edges, want) {
		t.Errorf("read %+v, want %+v", m.Edges, want)
	}
	if m, err = ReadCSV(strings.NewReader("from,to,requestBytesPerS,responseBytesPerS\nb/x,a/y,1,2\n")); err != nil || m.Edges[0].Steady != (Rates{RequestBytesPerS: 1, ResponseBytesPerS: 2}) {
		t.Errorf("without requests: %+v, %v", m, err)
	}
	const head = "from,to,requestBytesPerS,responseBytesPerS,requestsPerS\n"
	for text, want := range map[string]string{
		"":                          "it is empty",
		"from,to,bytes,more\n":      "line 1: the columns are from,to,bytes,more",
		"from,to\n":                 "line 1",
		head + "b/x,a/y,1,2\n":      "wrong number of fields",
		head + "x,a/y,1,2,3\n":      `line 2: from: "x" is no workload`,
		head + "b/x,a//y,1,2,3\n":   `to: "a//y"`,
		head + "b/x,a/y,1,2,x\n":    `requestsPerS: "x" is not a number`,
		head + "b/x,a/y,-1,2,3\n":   "-1",
		head + "b/x,a/y,NaN,2,3\n":  "NaN",
		head + "b/x,a/y,1e20,2,3\n": "1e+20",
	} {
		if _, err := ReadCSV(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
