package admin

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var (
	sampleLine = regexp.MustCompile(`^([a-z_:][a-z0-9_:]*)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)$`)
	labelPair  = regexp.MustCompile(`([a-z_]+)="((?:[^"\\\n]|\\["\\n])*)"`)
)

// labelsAllowed are all labels there may be: each is bounded by configuration or
// by code, never by what clients send.
var labelsAllowed = []string{"id", "peer_site", "service", "site", "endpoint", "class", "flag", "reason", "source", "version", "revision", "goversion", "le", "loop", "from", "address", "limit", "side", "kind", "certificate", "priority", "chain", "si", "function", "outcome"}

// lint returns what is wrong with an exposition, by the text format 0.0.4 and
// the naming practice of Prometheus.
func lint(text string) (faults []string) {
	bad := func(format string, a ...any) { faults = append(faults, fmt.Sprintf(format, a...)) }
	kinds, helps := map[string]string{}, map[string]bool{}
	series := map[string]bool{}
	family := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch f := strings.SplitN(line, " ", 4); {
		case strings.HasPrefix(line, "# HELP "):
			family = f[2]
			if helps[family] || len(f) < 4 || !strings.HasSuffix(f[3], ".") {
				bad("HELP of %s is there twice, empty or no sentence", family)
			}
			helps[family] = true
			continue
		case strings.HasPrefix(line, "# TYPE "):
			kinds[f[2]] = f[3]
			if f[2] != family {
				bad("TYPE of %s does not follow its HELP", f[2])
			}
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil {
			bad("not a sample: %q", line)
			continue
		}
		name := m[1]
		if kinds[family] == histogram {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				name = strings.TrimSuffix(name, suffix)
			}
		}
		if name != family {
			bad("sample %s is not below its family %s", m[1], family)
		}
		if _, err := strconv.ParseFloat(m[3], 64); err != nil {
			bad("value of %q: %v", line, err)
		}
		if key := m[1] + m[2]; series[key] {
			bad("series twice: %s", line)
		} else {
			series[key] = true
		}
		for _, l := range labelPair.FindAllStringSubmatch(m[2], -1) {
			if !slices.Contains(labelsAllowed, l[1]) {
				bad("label %s of %s is not known to be bounded", l[1], name)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		if !strings.HasPrefix(name, "meridian_") && !strings.HasPrefix(name, "process_") && !strings.HasPrefix(name, "go_") {
			bad("%s: want the prefix meridian_", name)
		}
		if total := strings.HasSuffix(name, "_total"); total != (kinds[name] == counter) {
			bad("%s is a %s: counters and only they end in _total", name, kinds[name])
		}
		for _, unit := range []string{"_ms", "_millis", "_milliseconds", "_us", "_kb", "_percent"} {
			if strings.Contains(name+"_", unit+"_") {
				bad("%s: want base units (seconds, bytes, ratio)", name)
			}
		}
	}
	return faults
}

func TestMetrics(t *testing.T) {
	status, text := get(t, node(), "/metrics")
	if status != 200 {
		t.Fatalf("status %d: %s", status, text)
	}
	for _, f := range lint(text) {
		t.Error(f)
	}
	for _, want := range []string{
		`meridian_build_info{version="1.2.3",revision="",goversion="go1"} 1`,
		`meridian_config_last_reload_successful 1`,
		`meridian_config_generation_counter 3`,
		`meridian_controller_connected 1`,
		`meridian_requests_total{service="default/echo",class="2xx",flag=""} 8`,
		`meridian_tls_handshakes_total{side="server",kind="full"} 5`,
		`meridian_tls_handshake_failures_total{side="server",reason="not_tls"} 3`,
		`meridian_identity_not_after_seconds{id="spiffe://mesh.example/site/north/ns/meridian/sa/n1"} 2e+09`,
		`meridian_identity_not_after_seconds{id="spiffe://mesh.example/site/north/ns/shop/sa/web"} 1.9e+09`,
		`meridian_peer_requests_total{service="default/echo",peer_site="south"} 12`,
		`meridian_tls_certificate_not_after_seconds{certificate="Certificate/default/shop"} 2e+09`,
		`meridian_tls_certificate_problem{certificate="Certificate/default/late"} 1`,
		`meridian_requests_total{service="",class="0",flag="NR\"\\\n"} 1`,
		`meridian_request_duration_seconds_bucket{service="default/echo",le="0.001"} 5`,
		`meridian_request_duration_seconds_bucket{service="default/echo",le="+Inf"} 8`,
		`meridian_request_duration_seconds_sum{service="default/echo"} 0.08`,
		`meridian_tcp_connections{service="default/db"} 2`,
		`meridian_tcp_connections_total{service="default/db",flag="UF"} 3`,
		`meridian_tcp_connections_total{service="",flag="NR"} 1`,
		`meridian_tcp_bytes_total{service="default/db",from="client"} 10`,
		`meridian_tcp_bytes_total{service="default/db",from="backend"} 20`,
		`meridian_tunnels 4`,
		`meridian_listener_connections_refused_total{address="127.0.0.1:5432",limit="proxy"} 6`,
		`meridian_upstream_requests_total{service="default/echo",site="south",endpoint="10.0.0.1:15443"} 4`,
		`meridian_share_ratio{service="default/echo",site="south"} 0.3`,
		`meridian_remote_price_seconds{service="default/echo",site="south"} 0.0125`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	for _, name := range []string{"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"} {
		m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(text)
		if m == nil {
			t.Errorf("no %s", name)
			continue
		}
		if v, err := strconv.ParseFloat(m[1], 64); err != nil || v < 0 || v == 0 && name != "process_cpu_seconds_total" {
			t.Errorf("%s is %s", name, m[1])
		}
	}
}

// The linter above guards the names, so it must be able to fail.
func TestLint_fails(t *testing.T) {
	for _, bad := range []string{
		"# HELP meridian_x_total Things.\n# TYPE meridian_x_total gauge\nmeridian_x_total 1\n",
		"# HELP meridian_x Things.\n# TYPE meridian_x counter\nmeridian_x 1\n",
		"# HELP meridian_x_ms Time.\n# TYPE meridian_x_ms gauge\nmeridian_x_ms 1\n",
		"# HELP x Things.\n# TYPE x gauge\nx 1\n",
		"# HELP meridian_x Things.\n# TYPE meridian_x gauge\nmeridian_x{path=\"/a\"} 1\n",
		"# HELP meridian_x Things.\n# TYPE meridian_x gauge\nmeridian_x 1\nmeridian_x 2\n",
		"# HELP meridian_x Things.\n# TYPE meridian_x gauge\nmeridian_y 1\n",
		"# HELP meridian_x Things.\n# TYPE meridian_x gauge\nmeridian_x{site=\"a\"b\"} 1\n",
	} {
		if lint(bad) == nil {
			t.Errorf("passes:\n%s", bad)
		}
	}
}
