package loadheader

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

func TestOwn(t *testing.T) {
	for _, c := range []struct {
		inFlight int
		service  time.Duration
		text     string
	}{
		{3, 10250 * time.Microsecond, "1;n=3;t=10.250"},
		{0, 0, "1;n=0"},
		{-1, time.Microsecond, "1;n=0;t=0.001"},
	} {
		text := Append([]byte("x"), c.inFlight, c.service)[1:]
		if string(text) != c.text {
			t.Errorf("wrote %q, want %q", text, c.text)
		}
		r, ok := ParseOwn(text)
		if !ok || r.InFlight != float64(max(c.inFlight, 0)) || r.Service != c.service {
			t.Errorf("%q is read as %+v %v", text, r, ok)
		}
	}
	for text, want := range map[string]string{
		"1;n=2;x=y;t=1":      "2 0 1ms",
		"1; n=2 ; t=1e3":     "2 0 1s",
		"1;n=2.5":            "2.5 0 0s",
		"1;t=3":              "no",
		"1":                  "no",
		"":                   "no",
		"2;n=1":              "no",
		"1;n=":               "no",
		"1;n=-1":             "no",
		"1;n=1e7":            "no",
		"1;n=inf":            "no",
		"1;n=nan":            "no",
		"1;n=0x10":           "no",
		"1;n=1_0":            "no",
		"1;n=3;t=-1":         "no",
		"1;n=3;t=1000000001": "no",
	} {
		r, ok := ParseOwn([]byte(text))
		if got := said(r, ok); got != want {
			t.Errorf("%q is read as %s, want %s", text, got, want)
		}
	}
}

func said(r Report, ok bool) string {
	if !ok {
		return "no"
	}
	return fmt.Sprint(r.InFlight, r.Utilization, r.Service)
}

func TestORCA(t *testing.T) {
	for text, want := range map[string]string{
		"TEXT cpu_utilization=0.3,mem_utilization=0.8,rps_fractional=10.0,eps=1":            "0 0.3 0s",
		"TEXT application_utilization=1.2, cpu_utilization=0.3":                             "0 1.2 0s",
		"TEXT cpu_utilization=0.3,application_utilization=0":                                "0 0.3 0s",
		"TEXT named_metrics.in_flight=4,named_metrics.service_time_ms=2.5":                  "4 0 2.5ms",
		"TEXT named_metrics.kv_cache_utilization=0.4,named_metrics.in_flight=1":             "1 0 0s",
		"TEXT in_flight=4,cpu_utilization=.5":                                               "0 0.5 0s",
		"TEXT mem_utilization=0.8":                                                          "no",
		"TEXT":                                                                              "no",
		"TEXT cpu_utilization=x":                                                            "no",
		"TEXT cpu_utilization=-1":                                                           "no",
		"text cpu_utilization=1":                                                            "no",
		"BIN CgA=":                                                                          "no",
		`JSON {"cpu_utilization": 0.3, "mem_utilization": 0.8, "rps": 100}`:                 "0 0.3 0s",
		`JSON {"cpuUtilization":1e-1,"applicationUtilization":0.9}`:                         "0 0.9 0s",
		`JSON {"named_metrics": {"in_flight": 7, "service_time_ms": 12, "x": [1,{"y":2}]}}`: "7 0 12ms",
		`JSON {"namedMetrics":{"in_flight":1},"utilization":{"in_flight":9},"a":null}`:      "1 0 0s",
		`JSON {"in_flight":9}`:                                                              "no",
		`JSON {}`:                                                                           "no",
		`JSON {"cpu_utilization": 0.3`:                                                      "no",
		`JSON {"cpu_utilization": 0.3} x`:                                                   "no",
		`JSON {"cpu_utilization": "0.3"}`:                                                   "no",
		`JSON {"cpu_utilization": 01}`:                                                      "no",
		`JSON {"cpu_utilization": -0.1}`:                                                    "no",
		`JSON [[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]`:                                              "no",
	} {
		r, ok := ParseORCA([]byte(text))
		if got := said(r, ok); got != want {
			t.Errorf("%q is read as %s, want %s", text, got, want)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	own, text := []byte("1;n=3;t=10.25"), []byte("TEXT cpu_utilization=0.3,named_metrics.in_flight=4")
	js := []byte(`JSON {"cpu_utilization": 0.3, "named_metrics": {"in_flight": 7, "service_time_ms": 12}}`)
	dst := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(1000, func() {
		ParseOwn(own)
		ParseORCA(text)
		ParseORCA(js)
		dst = Append(dst[:0], 3, time.Millisecond)
	}); n != 0 {
		t.Errorf("reading and writing allocate %v times", n)
	}
}

// FuzzJSON holds the scanner against encoding/json: what it takes is JSON, and it
// reads the same numbers.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{
		`{"cpu_utilization": 0.3, "named_metrics": {"in_flight": 7, "a\u0041": "x\"y"}}`, `{"a":[1,-2.5e+3,true,null,{"b":{}}]}`,
		`{"applicationUtilization":1}`, `{`, `{"a":1,}`, `{"named_metrics":3,"cpu_utilization":1e999}`, `{"\x":1}`, `[]`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, ok := ParseORCA(append([]byte("JSON "), text...))
		if !ok {
			return
		}
		var twin map[string]json.RawMessage
		if err := json.Unmarshal(text, &twin); err != nil {
			t.Fatalf("%q is taken, though %v", text, err)
		}
		if r.InFlight < 0 || r.Utilization < 0 || r.Service < 0 || r.InFlight > maxNumber || r.Utilization > maxNumber {
			t.Fatalf("%q is read as %+v", text, r)
		}
		var numbers struct {
			CPU         *float64 `json:"cpu_utilization"`
			Application *float64 `json:"application_utilization"`
			CPU2        *float64 `json:"cpuUtilization"`
			App2        *float64 `json:"applicationUtilization"`
			Named       *struct {
				InFlight *float64 `json:"in_flight"`
			} `json:"named_metrics"`
			Named2 *struct {
				InFlight *float64 `json:"in_flight"`
			} `json:"namedMetrics"`
		}
		if json.Unmarshal(text, &numbers) != nil {
			return
		}
		if r.HasUtilization && numbers.CPU == nil && numbers.Application == nil && numbers.CPU2 == nil && numbers.App2 == nil {
			t.Fatalf("%q: utilization out of nothing: %+v", text, r)
		}
		if r.HasInFlight && numbers.Named == nil && numbers.Named2 == nil {
			t.Fatalf("%q: requests in flight out of nothing: %+v", text, r)
		}
	})
}

// FuzzOwn holds what is taken to its bounds.
func FuzzOwn(f *testing.F) {
	f.Add([]byte("1;n=3;t=10.25"))
	f.Add([]byte("1;n=3;n=4;;=;t="))
	f.Fuzz(func(t *testing.T, text []byte) {
		if r, ok := ParseOwn(text); ok && (!r.HasInFlight || r.InFlight < 0 || r.InFlight > maxNumber || r.Service < 0) {
			t.Fatalf("%q is read as %+v", text, r)
		}
	})
}
