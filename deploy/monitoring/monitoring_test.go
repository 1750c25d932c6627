package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

var promql = parser.NewParser(parser.Options{})

// family is a metric as docs/reference/metrics.md has it: verify-generate holds that page
// to the sources.
type family struct{ program, kind string }

// reference returns all metrics by name.
func reference(t *testing.T) map[string][]family {
	t.Helper()
	page, err := os.ReadFile("../../docs/reference/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]family{}
	program := ""
	row := regexp.MustCompile("^\\| `([a-z_]+)` \\| ([a-z]+) \\|")
	for line := range strings.Lines(string(page)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "## "); ok {
			program = name
		}
		if m := row.FindStringSubmatch(line); m != nil {
			out[m[1]] = append(out[m[1]], family{program, m[2]})
		}
	}
	if len(out) < 50 {
		t.Fatalf("the reference has %d metrics only: is it still a table?", len(out))
	}
	return out
}

// tags are of JSON, which has names of its own.
var tags = regexp.MustCompile("`json:[^`]*`")

// exporters are where each program writes its metrics.
var exporters = map[string]string{"edgeproxy": "edgeproxy/admin", "sitecontroller": "controller", "chainagent": "chaining/agent"}

// written returns the source text that writes a program's metrics: a label that is not a
// string in it does not exist.
func written(t *testing.T, program string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("../..", exporters[program], "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v, %v", program, files, err)
	}
	var all strings.Builder
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(tags.ReplaceAll(text, nil))
	}
	return all.String()
}

// judge holds one expression to the metrics that exist.
type judge struct {
	metrics map[string][]family
	sources map[string]string
}

func newJudge(t *testing.T) *judge {
	j := &judge{reference(t), map[string]string{}}
	for program := range exporters {
		j.sources[program] = written(t, program)
	}
	return j
}

// grafana's variables, as Prometheus gets them.
var variables = strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*")

// faults returns what is wrong with an expression, and the labels of its result where an
// aggregation says them.
func (j *judge) faults(expression string) (faults, by []string) {
	e, err := promql.ParseExpr(variables.Replace(expression))
	if err != nil {
		return []string{err.Error()}, nil
	}
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	parser.Inspect(e, func(n parser.Node, path []parser.Node) error {
		v, ok := n.(*parser.VectorSelector)
		if !ok || v.Name == "up" { // Prometheus's own
			return nil
		}
		name, kind := v.Name, ""
		for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
			base, cut := strings.CutSuffix(v.Name, suffix)
			if !cut || len(j.metrics[base]) == 0 {
				continue
			}
			kind = j.metrics[base][0].kind
			if suffix != "" && kind != "histogram" && (kind != "summary" || suffix == "_bucket") {
				kind = ""
				continue
			}
			name = base
			break
		}
		if kind == "" {
			fault("no program has the metric %s", v.Name)
			return nil
		}
		rated := slices.ContainsFunc(path, func(n parser.Node) bool {
			c, ok := n.(*parser.Call)
			return ok && slices.Contains([]string{"rate", "increase", "irate"}, c.Func.Name)
		})
		switch counts := kind != "gauge"; {
		case counts && !rated:
			fault("%s counts since the start of the process: take its rate or increase", v.Name)
		case !counts && rated:
			fault("%s is a gauge and has no rate", v.Name)
		}
		used := []string{}
		for _, m := range v.LabelMatchers {
			if m.Name != labels.MetricName {
				used = append(used, m.Name)
			}
		}
		for _, n := range path {
			if a, ok := n.(*parser.AggregateExpr); ok {
				used = append(used, a.Grouping...)
			}
		}
		for _, l := range used {
			if !j.has(name, l) {
				fault("%s has no label %s", v.Name, l)
			}
		}
		return nil
	})
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		if a, ok := n.(*parser.AggregateExpr); ok && by == nil {
			by = append([]string{}, a.Grouping...)
		}
		return nil
	})
	return faults, by
}

// has reports whether a metric can have the label: from the scrape, or written beside it.
func (j *judge) has(metric, label string) bool {
	switch label {
	case "instance", "job":
		return true
	case "le":
		return j.metrics[metric][0].kind == "histogram"
	}
	label = strings.TrimPrefix(label, "exported_") // a label of ours that the scrape has too
	for _, f := range j.metrics[metric] {
		if src := j.sources[f.program]; strings.Contains(src, `"`+label+`"`) || strings.Contains(src, label+"=%q") || strings.Contains(src, label+`=\"%d\"`) {
			return true
		}
	}
	return false
}

func TestJudge(t *testing.T) {
	j := newJudge(t)
	for _, tt := range []struct{ expr, want string }{
		{`rate(meridian_requests_total[5m])`, ""},
		{`sum by (service) (rate(meridian_requests_total{class="5xx"}[$__rate_interval]))`, ""},
		{`histogram_quantile(0.9, sum by (le) (rate(meridian_request_duration_seconds_bucket[5m])))`, ""},
		{`up == 0`, ""},
		{`rate(meridian_requests_total[5m]`, "unclosed"},
		{`rate(meridian_request_total[5m])`, "no program has the metric meridian_request_total"},
		{`rate(meridian_requests_total_count[5m])`, "no program has the metric"},
		{`meridian_requests_total`, "take its rate"},
		{`rate(meridian_connections[5m])`, "is a gauge"},
		{`meridian_connections{flavour="x"}`, "has no label flavour"},
		{`sum by (spi) (meridian_connections)`, "has no label spi"},
		{`sum by (le) (meridian_connections)`, "has no label le"},
	} {
		got, _ := j.faults(tt.expr)
		if tt.want == "" && len(got) > 0 || tt.want != "" && !strings.Contains(strings.Join(got, "\n"), tt.want) {
			t.Errorf("%s: %q, want %q", tt.expr, got, tt.want)
		}
	}
}

var placeholder = regexp.MustCompile(`\{\{ *(?:\$labels\.)?([a-z_]+) *\}\}`)

// TestRules: what `promtool check rules` checks, and that the metrics exist.
func TestRules(t *testing.T) {
	j := newJudge(t)
	files, err := filepath.Glob("../prometheus/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	seen := map[string]bool{}
	for _, file := range files {
		groups, errs := rulefmt.ParseFile(file, false, model.UTF8Validation, promql, slog.Default())
		for _, err := range errs {
			t.Errorf("%s: %v", file, err)
		}
		if groups == nil {
			continue
		}
		for _, g := range groups.Groups {
			for _, r := range g.Rules {
				faults, by := j.faults(r.Expr)
				for _, f := range faults {
					t.Errorf("%s: %s: %s", file, r.Alert, f)
				}
				if seen[r.Alert] {
					t.Errorf("%s: two alerts %s", file, r.Alert)
				}
				seen[r.Alert] = true
				if !slices.Contains([]string{"critical", "warning"}, r.Labels["severity"]) || r.Annotations["summary"] == "" || r.Annotations["action"] == "" {
					t.Errorf("%s: %s: want a severity, critical or warning, a summary and an action", file, r.Alert)
				}
				for _, m := range placeholder.FindAllStringSubmatch(r.Annotations["summary"], -1) {
					if by != nil && !slices.Contains(by, m[1]) {
						t.Errorf("%s: %s: the summary says %s, which the aggregation drops", file, r.Alert, m[1])
					}
				}
			}
		}
	}
}

// TestDashboards: each is what the generator writes, and every query is of metrics and
// labels that exist.
func TestDashboards(t *testing.T) {
	j := newJudge(t)
	titles := map[string]bool{}
	for _, d := range dashboards {
		body, err := d.render()
		if err != nil {
			t.Fatal(err)
		}
		committed, err := os.ReadFile(filepath.Join("../grafana", d.file))
		if err != nil || !bytes.Equal(body, committed) {
			t.Errorf("deploy/grafana/%s is not what the generator writes (%v): go run -C deploy/monitoring .", d.file, err)
		}
		if _, ok := j.metrics[d.of]; !ok {
			t.Errorf("%s: the choice of instances is by %s, which no program has", d.file, d.of)
		}
		for _, row := range d.rows {
			if gridWidth%len(row) != 0 {
				t.Errorf("%s: %d panels do not fill a row of %d", d.file, len(row), gridWidth)
			}
			for _, p := range row {
				if p.title == "" || p.about == "" || p.unit == "" || len(p.queries) == 0 || titles[d.file+p.title] {
					t.Errorf("%s: %q wants a title of its own, a description, a unit and queries", d.file, p.title)
				}
				titles[d.file+p.title] = true
				for _, q := range p.queries {
					faults, by := j.faults(q.expr)
					for _, f := range faults {
						t.Errorf("%s: %s: %s", d.file, p.title, f)
					}
					if !strings.Contains(q.expr, sel) {
						t.Errorf("%s: %s: %s is not of the instances that the reader chose", d.file, p.title, q.expr)
					}
					for _, m := range placeholder.FindAllStringSubmatch(q.legend, -1) {
						if !slices.Contains(by, m[1]) {
							t.Errorf("%s: %s: the legend says %s, the query groups by %s", d.file, p.title, m[1], by)
						}
					}
				}
			}
		}
	}
	files, err := filepath.Glob("../grafana/*.json")
	if err != nil || len(files) != len(dashboards) {
		t.Errorf("deploy/grafana has %d files for %d dashboards (%v)", len(files), len(dashboards), err)
	}
}

// TestModel: what Grafana's import needs to be there and to be unique.
func TestModel(t *testing.T) {
	uids := map[string]bool{}
	for _, d := range dashboards {
		body, err := d.render()
		if err != nil {
			t.Fatal(err)
		}
		var m struct {
			UID, Title    string
			SchemaVersion int
			Panels        []struct {
				ID      int
				GridPos struct{ X, Y, W, H int }
			}
		}
		if err := json.Unmarshal(body, &m); err != nil {
			t.Fatal(err)
		}
		if m.UID == "" || len(m.UID) > 40 || uids[m.UID] || m.Title == "" || m.SchemaVersion < 36 {
			t.Errorf("%s: uid %q, title %q, schema %d", d.file, m.UID, m.Title, m.SchemaVersion)
		}
		uids[m.UID] = true
		taken := map[[2]int]int{}
		for i, p := range m.Panels {
			if p.ID != i+1 {
				t.Errorf("%s: panel %d has id %d", d.file, i, p.ID)
			}
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
					if other, twice := taken[[2]int{x, y}]; twice || x >= gridWidth {
						t.Fatalf("%s: panels %d and %d overlap, or one is too wide", d.file, other, p.ID)
					}
					taken[[2]int{x, y}] = p.ID
				}
			}
		}
	}
}
