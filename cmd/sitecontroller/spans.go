package main

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"strings"

	"github.com/meridian-mesh/meridian/controller"
	"github.com/meridian-mesh/meridian/controller/otlp"
)

// The environment of OpenTelemetry's exporters, as far as it is followed.
const (
	envEndpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"
	envHeaders  = "OTEL_EXPORTER_OTLP_HEADERS"
	envProtocol = "OTEL_EXPORTER_OTLP_PROTOCOL"
)

// spanFlags say where spans go.
type spanFlags struct {
	url    string
	sample float64
}

func (s *spanFlags) flags(fs *flag.FlagSet) {
	fs.StringVar(&s.url, "otlp", "", "`address` of a collector of traces, http(s)://host:port, which is sent a span for each request of the site's proxies, over OTLP/HTTP (default "+envEndpoint+"; headers are those of "+envHeaders+")")
	fs.Float64Var(&s.sample, "otlp-sample", 1, "`part` of requests that become spans, over 0 to 1, where no caller decided by traceparent")
}

// config is what flags and environment say together.
func (s *spanFlags) config(getenv func(string) string) (controller.Spans, error) {
	out := controller.Spans{Sample: s.sample}
	if math.IsNaN(s.sample) || s.sample <= 0 || s.sample > 1 {
		return out, fmt.Errorf("--otlp-sample %g: want over 0, up to 1", s.sample)
	}
	where, address := "--otlp", s.url
	if address == "" {
		if address = getenv(envEndpoint); address == "" {
			if s.sample != 1 {
				return out, errors.New("--otlp-sample is for --otlp, or " + envEndpoint)
			}
			return out, nil
		}
		where = envEndpoint
		if p := getenv(envProtocol); p != "" && !strings.HasPrefix(p, "http/") {
			return out, fmt.Errorf("%s=%s: only OTLP over HTTP is spoken: name the collector's HTTP address with --otlp", envProtocol, p)
		}
	}
	var err error
	if out.Endpoint, err = otlp.TracesURL(address); err != nil {
		return out, fmt.Errorf("%s: %w", where, err)
	}
	if out.Headers, err = otlp.ParseHeaders(getenv(envHeaders)); err != nil {
		return out, fmt.Errorf("%s: %w", envHeaders, err)
	}
	return out, nil
}
