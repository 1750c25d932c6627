package traffic

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// maxLine bounds a line of metrics text.
const maxLine = 64 << 10

// sample is one line of the Prometheus text format: a series and its value.
type sample struct {
	name   string
	labels map[string]string
	value  float64
}

// readSamples calls each for every sample of r whose name wanted says yes to. The
// labels belong to the callee only until it returns.
func readSamples(r io.Reader, wanted func(name string) bool, each func(sample) error) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 4096), maxLine)
	labels := map[string]string{}
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		end := strings.IndexAny(line, "{ \t")
		if end <= 0 {
			return fmt.Errorf("line %d: %.60q is not a metric: want name{labels} value", n, line)
		}
		s := sample{name: line[:end], labels: labels}
		if !wanted(s.name) {
			continue
		}
		clear(labels)
		rest, err := parseLabels(line[end:], labels)
		if err != nil {
			return fmt.Errorf("line %d (%s): %w", n, s.name, err)
		}
		fields := strings.Fields(rest)
		if len(fields) == 0 || len(fields) > 2 {
			return fmt.Errorf("line %d (%s): want a value and at most a timestamp after the labels, found %.60q", n, s.name, rest)
		}
		if s.value, err = strconv.ParseFloat(fields[0], 64); err != nil {
			return fmt.Errorf("line %d (%s): %.60q is not a number", n, s.name, fields[0])
		}
		if err := each(s); err != nil {
			return fmt.Errorf("line %d (%s): %w", n, s.name, err)
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("read metrics: %w", err)
	}
	return nil
}

// parseLabels reads {a="b",c="d"} into labels and returns what follows.
func parseLabels(s string, labels map[string]string) (string, error) {
	if s == "" || s[0] != '{' {
		return s, nil
	}
	s = s[1:]
	for {
		s = strings.TrimLeft(s, " \t,")
		if strings.HasPrefix(s, "}") {
			return s[1:], nil
		}
		eq := strings.IndexByte(s, '=')
		if eq <= 0 {
			return "", fmt.Errorf("%.40q is not label=\"value\"", s)
		}
		name := strings.TrimSpace(s[:eq])
		s = strings.TrimLeft(s[eq+1:], " \t")
		if s == "" || s[0] != '"' {
			return "", fmt.Errorf("label %s: the value is not quoted", name)
		}
		var b strings.Builder
		i := 1
		for ; i < len(s) && s[i] != '"'; i++ {
			if s[i] != '\\' {
				b.WriteByte(s[i])
				continue
			}
			i++
			if i == len(s) {
				break
			}
			switch s[i] {
			case 'n':
				b.WriteByte('\n')
			default: // \\ and \"
				b.WriteByte(s[i])
			}
		}
		if i >= len(s) {
			return "", fmt.Errorf("label %s: the value does not end", name)
		}
		labels[name] = b.String()
		s = s[i+1:]
	}
}

// WritePrometheus writes m in the Prometheus text format: recent rates of every
// edge as gauges, and what is in no edge.
func (m *Matrix) WritePrometheus(w io.Writer) error {
	b := bufio.NewWriter(w)
	edges := func(name, help string, of func(Edge) float64) {
		fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name)
		for _, e := range m.Edges {
			fmt.Fprintf(b, "%s{%s,%s} %s\n", name, ends("source", e.From), ends("destination", e.To), number(of(e)))
		}
	}
	edges("meridian_traffic_requests_per_second", "Requests of one workload to another, mean over 5 minutes.",
		func(e Edge) float64 { return e.Recent.RequestsPerS })
	edges("meridian_traffic_request_bytes_per_second", "Bytes from the caller to what it calls, mean over 5 minutes.",
		func(e Edge) float64 { return e.Recent.RequestBytesPerS })
	edges("meridian_traffic_response_bytes_per_second", "Bytes back to the caller, mean over 5 minutes.",
		func(e Edge) float64 { return e.Recent.ResponseBytesPerS })
	edges("meridian_traffic_across_sites_bytes_per_second", "Bytes both ways that went to another site than the caller's, mean over 30 minutes.",
		func(e Edge) float64 { return e.Across.BytesPerS() })
	const rest = "meridian_traffic_rest_bytes_per_second"
	fmt.Fprintf(b, "# HELP %s Bytes of a workload that no pair tells of, mean over 5 minutes.\n# TYPE %s gauge\n", rest, rest)
	for _, r := range m.Rest {
		fmt.Fprintf(b, "%s{%s,direction=\"out\"} %s\n", rest, ends("workload", r.Workload), number(r.Out.BytesPerS()))
		fmt.Fprintf(b, "%s{%s,direction=\"in\"} %s\n", rest, ends("workload", r.Workload), number(r.In.BytesPerS()))
	}
	return b.Flush()
}

var escapeLabel = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func ends(side string, w mesh.Workload) string {
	return fmt.Sprintf(`%s_cluster="%s",%s_namespace="%s",%s="%s"`, side, escapeLabel.Replace(w.Cluster), side, escapeLabel.Replace(w.Namespace), side, escapeLabel.Replace(w.Name))
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
