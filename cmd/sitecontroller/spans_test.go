package main

import (
	"strings"
	"testing"
)

func TestSpanFlags(t *testing.T) {
	env := map[string]string{}
	getenv := func(name string) string { return env[name] }
	if got, err := (&spanFlags{sample: 1}).config(getenv); err != nil || got.Endpoint != "" {
		t.Errorf("off by default: %+v, %v", got, err)
	}
	env[envEndpoint], env[envHeaders] = "http://env:4318", "key=a%20b"
	if got, err := (&spanFlags{sample: 0.5}).config(getenv); err != nil || got.Endpoint != "http://env:4318/v1/traces" || got.Headers["key"] != "a b" || got.Sample != 0.5 {
		t.Errorf("by the environment: %+v, %v", got, err)
	}
	env[envProtocol] = "grpc"
	if _, err := (&spanFlags{sample: 1}).config(getenv); err == nil || !strings.Contains(err.Error(), "OTEL_EXPORTER_OTLP_PROTOCOL=grpc: only OTLP over HTTP") {
		t.Errorf("gRPC of the environment: %v", err)
	}
	if got, err := (&spanFlags{sample: 1, url: "https://flag"}).config(getenv); err != nil || got.Endpoint != "https://flag/v1/traces" {
		t.Errorf("the flag comes first: %+v, %v", got, err)
	}
	for _, w := range []struct {
		f    spanFlags
		want string
	}{
		{spanFlags{url: "collector:4317", sample: 1}, "--otlp: address of a collector"},
		{spanFlags{url: "http://c", sample: 0}, "--otlp-sample 0: want over 0, up to 1"},
		{spanFlags{url: "http://c", sample: 1.5}, "--otlp-sample 1.5"},
	} {
		if _, err := w.f.config(getenv); err == nil || !strings.Contains(err.Error(), w.want) {
			t.Errorf("%+v: %v", w.f, err)
		}
	}
	env[envHeaders] = "key"
	if _, err := (&spanFlags{url: "http://c", sample: 1}).config(getenv); err == nil || !strings.Contains(err.Error(), "OTEL_EXPORTER_OTLP_HEADERS: header 1: want name=value") {
		t.Errorf("headers: %v", err)
	}
	clear(env)
	if _, err := (&spanFlags{sample: 0.5}).config(getenv); err == nil || !strings.Contains(err.Error(), "--otlp-sample is for --otlp") {
		t.Errorf("a part of nothing: %v", err)
	}
}
