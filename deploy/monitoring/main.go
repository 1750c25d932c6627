// Command monitoring writes the Grafana dashboards in deploy/grafana. Its tests hold them
// and the rules in deploy/prometheus to the metrics that the programs have, by
// Prometheus's own parser, which is why it is a module of its own.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	out := flag.String("out", "../grafana", "`folder` to write to")
	flag.Parse()
	for _, d := range dashboards {
		body, err := d.render()
		if err == nil {
			err = os.WriteFile(filepath.Join(*out, d.file), body, 0o644)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "monitoring: %s: %v\n", d.file, err)
			os.Exit(1)
		}
	}
}

// Grafana's grid is this wide; graphs are this high.
const (
	gridWidth  = 24
	gridHeight = 8
)

type object = map[string]any

// render is the dashboard as Grafana imports it: the reader chooses data source and
// instances.
func (d dashboard) render() ([]byte, error) {
	source := object{"type": "prometheus", "uid": "${datasource}"}
	var panels []object
	for y, row := range d.rows {
		width := gridWidth / len(row)
		for x, p := range row {
			var targets []object
			for i, q := range p.queries {
				targets = append(targets, object{
					"refId": string(rune('A' + i)), "datasource": source, "expr": q.expr, "legendFormat": q.legend, "range": true, "editorMode": "code",
				})
			}
			custom := object{"lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "spanNulls": false}
			if p.stack {
				custom["stacking"] = object{"mode": "normal", "group": "A"}
			}
			panels = append(panels, object{
				"id": len(panels) + 1, "type": "timeseries", "title": p.title, "description": p.about, "datasource": source, "targets": targets,
				"gridPos":     object{"x": x * width, "y": y * gridHeight, "w": width, "h": gridHeight},
				"fieldConfig": object{"defaults": object{"unit": p.unit, "min": 0, "custom": custom}, "overrides": []object{}},
				"options": object{
					"legend":  object{"displayMode": "list", "placement": "bottom", "showLegend": true},
					"tooltip": object{"mode": "multi", "sort": "desc"},
				},
			})
		}
	}
	body, err := json.MarshalIndent(object{
		"uid": d.uid, "title": d.title, "tags": []string{"meridian"}, "schemaVersion": 39, "version": 1, "editable": true,
		"graphTooltip": 1, "refresh": "30s", "time": object{"from": "now-1h", "to": "now"}, "timezone": "browser",
		"annotations": object{"list": []object{}}, "panels": panels,
		"templating": object{"list": []object{
			{"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": object{}},
			{
				"name": "instance", "label": "Instance", "type": "query", "datasource": source, "refresh": 2, "multi": true, "includeAll": true, "allValue": ".*", "sort": 1,
				"query": object{"query": "label_values(" + d.of + ", instance)", "refId": "instance"}, "current": object{"text": "All", "value": "$__all"},
			},
		}},
		"links": []object{{"type": "dashboards", "title": "Meridian", "tags": []string{"meridian"}, "asDropdown": true, "includeVars": false, "keepTime": true}},
	}, "", "  ")
	return append(body, '\n'), err
}
