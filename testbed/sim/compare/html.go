package compare

import (
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"

	_ "embed" // the page
)

//go:embed page.html
var page string

// HTML writes one page that needs nothing else: tables, and as plots the mean
// delay over time, the distribution of delays, where the hot site's requests went,
// traffic between sites, the gap to the optimum, and the map over time.
func (r *Result) HTML(w io.Writer) error {
	t, err := template.New("page").Funcs(template.FuncMap{
		"lines": lines, "cdf": cdfPlot, "sent": sentPlot, "bars": gapPlot, "bytes": bytesPlot, "map": mapPlot,
		"pct":    func(x float64) string { return fmt.Sprintf("%.2f", 100*x) },
		"num":    func(x float64) string { return fmt.Sprintf("%.2f", x) },
		"settle": func(x float64) string { return map[bool]string{true: "never", false: fmt.Sprintf("%.0f", x)}[x < 0] },
		"ours":   ours,
	}).Parse(page)
	if err != nil {
		return err
	}
	return t.Execute(w, r)
}

const (
	plotW, plotH     = 640.0, 260.0
	left, bottom     = 52.0, 28.0
	top, right       = 10.0, 10.0
	plotColours      = 12
	maxPlottedSites  = 9
	milliPerMicro    = 1000
	mapSize          = 420.0
	leastMS, mostMS  = 1.0, 2000.0
	thousandsPerMega = 1e6
)

func colour(i int) string {
	return fmt.Sprintf("hsl(%d,%d%%,%d%%)", (i*137+210)%360, 65, 35+10*(i/plotColours%3))
}

// plot is an SVG being written.
type plot struct {
	strings.Builder
	x0, x1, y0, y1 float64
	logX, logY     bool
}

func newPlot(x0, x1, y0, y1 float64) *plot {
	p := &plot{x0: x0, x1: x1, y0: y0, y1: y1}
	fmt.Fprintf(p, `<svg viewBox="0 0 %g %g" role="img">`, plotW, plotH)
	return p
}

func (p *plot) at(x, y float64) (float64, float64) {
	part := func(v, lo, hi float64, log bool) float64 {
		if log {
			v, lo, hi = math.Log(math.Max(v, 1e-9)), math.Log(lo), math.Log(hi)
		}
		return math.Min(1, math.Max(0, (v-lo)/math.Max(hi-lo, 1e-12)))
	}
	return left + part(x, p.x0, p.x1, p.logX)*(plotW-left-right), plotH - bottom - part(y, p.y0, p.y1, p.logY)*(plotH-bottom-top)
}

func (p *plot) axes(xs, ys []float64, xName, yName string) {
	for _, x := range xs {
		px, _ := p.at(x, p.y0)
		fmt.Fprintf(p, `<path class="grid" d="M%.1f %g V%g"/><text x="%.1f" y="%g" text-anchor="middle">%g</text>`, px, top, plotH-bottom, px, plotH-bottom+13, x)
	}
	for _, y := range ys {
		_, py := p.at(p.x0, y)
		fmt.Fprintf(p, `<path class="grid" d="M%g %.1f H%g"/><text x="%g" y="%.1f" text-anchor="end">%g</text>`, left, py, plotW-right, left-4, py+3, y)
	}
	fmt.Fprintf(p, `<text x="%g" y="%g" text-anchor="end">%s</text><text x="12" y="%g" transform="rotate(-90 12 %g)" text-anchor="end">%s</text>`,
		plotW-right, plotH-2, template.HTMLEscapeString(xName), top, top, template.HTMLEscapeString(yName))
}

func (p *plot) line(i int, name string, xs, ys []float64) {
	fmt.Fprintf(p, `<polyline fill="none" stroke="%s" stroke-width="1.5" points="`, colour(i))
	for k := range xs {
		x, y := p.at(xs[k], ys[k])
		fmt.Fprintf(p, "%.1f,%.1f ", x, y)
	}
	fmt.Fprintf(p, `"><title>%s</title></polyline>`, template.HTMLEscapeString(name))
}

func (p *plot) done() template.HTML {
	p.WriteString("</svg>")
	return template.HTML(p.String()) //nolint:gosec // numbers, and names escaped above
}

func (c *Cell) label() string {
	if uses(c.Policy) {
		return fmt.Sprintf("%s, delay %g", c.Policy, c.Delay)
	}
	return c.Policy
}

func ticks(lo, hi float64) []float64 {
	step := math.Pow(10, math.Floor(math.Log10(math.Max(hi-lo, 1e-9))))
	for (hi-lo)/step < 4 {
		step /= 2
	}
	var out []float64
	for x := math.Ceil(lo/step) * step; x <= hi+1e-9; x += step {
		out = append(out, math.Round(x*1000)/1000)
	}
	return out
}

func legend(cells []Cell) string {
	var b strings.Builder
	b.WriteString(`<p class="legend">`)
	for i := range cells {
		fmt.Fprintf(&b, `<span style="color:%s">&#9632; %s</span> `, colour(i), template.HTMLEscapeString(cells[i].label()))
	}
	b.WriteString("</p>")
	return b.String()
}

// lines is the mean delay of requests born in each second.
func lines(s *Scenario) template.HTML {
	if len(s.Cells) == 0 {
		return ""
	}
	n := float64(len(s.Cells[0].PerSecondMS))
	p := newPlot(0, n, leastMS, mostMS)
	p.logY = true
	p.axes(ticks(0, n), []float64{1, 3, 10, 30, 100, 300, 1000}, "seconds", "mean ms")
	for i := range s.Cells {
		xs := make([]float64, len(s.Cells[i].PerSecondMS))
		for k := range xs {
			xs[k] = float64(k) + 0.5
		}
		p.line(i, s.Cells[i].label(), xs, s.Cells[i].PerSecondMS)
	}
	return p.done() + template.HTML(legend(s.Cells)) //nolint:gosec // escaped there
}

func cdfPlot(s *Scenario) template.HTML {
	p := newPlot(leastMS, mostMS, 0, 1)
	p.logX = true
	p.axes([]float64{1, 3, 10, 30, 100, 300, 1000}, []float64{0, .25, .5, .75, .9, 1}, "ms", "part of requests")
	for i := range s.Cells {
		c := &s.Cells[i]
		if len(c.CDF) == 0 {
			continue
		}
		total := float64(c.CDF[len(c.CDF)-1][1])
		var xs, ys []float64
		for _, q := range c.CDF {
			xs, ys = append(xs, float64(q[0])/milliPerMicro), append(ys, float64(q[1])/total)
		}
		p.line(i, c.label(), xs, ys)
	}
	return p.done()
}

// sentPlot is where the hot site's requests went, of the first of our policies.
func sentPlot(s *Scenario) template.HTML {
	i := slices.IndexFunc(s.Cells, func(c Cell) bool { return ours(c.Policy) && len(c.SentPerS) > 0 })
	if i < 0 {
		return ""
	}
	rows := s.Cells[i].SentPerS
	total := make([]float64, len(s.Sites))
	for _, row := range rows {
		for j, x := range row {
			total[j] += float64(x)
		}
	}
	order := make([]int, len(total))
	for j := range order {
		order[j] = j
	}
	slices.SortStableFunc(order, func(a, b int) int { return int(math.Copysign(1, total[b]-total[a])) })
	p := newPlot(0, float64(len(rows)), 0, 1)
	p.axes(ticks(0, float64(len(rows))), []float64{0, .25, .5, .75, 1}, "seconds", "part of requests of "+s.Hot)
	names := ""
	for k, j := range order[:min(maxPlottedSites, len(order))] {
		var xs, ys []float64
		for t, row := range rows {
			sum := 0.0
			for _, x := range row {
				sum += float64(x)
			}
			xs, ys = append(xs, float64(t)+0.5), append(ys, float64(row[j])/math.Max(1, sum))
		}
		p.line(k, s.Sites[j].Name, xs, ys)
		names += fmt.Sprintf(`<span style="color:%s">&#9632; %s</span> `, colour(k), template.HTMLEscapeString(s.Sites[j].Name))
	}
	return p.done() + template.HTML(`<p class="legend">`+names+"</p>") //nolint:gosec // escaped
}

// horizontal draws a bar for each cell.
func horizontal(s *Scenario, name string, most float64, value func(*Cell) float64) template.HTML {
	var b strings.Builder
	const row = 17.0
	h := row*float64(len(s.Cells)) + 30
	fmt.Fprintf(&b, `<svg viewBox="0 0 %g %g" role="img">`, plotW, h)
	for i := range s.Cells {
		c := &s.Cells[i]
		v := value(c)
		width := math.Min(v/most, 1) * (plotW - 300)
		y := row * float64(i)
		fmt.Fprintf(&b, `<text x="210" y="%.1f" text-anchor="end">%s</text><rect x="215" y="%.1f" width="%.1f" height="12" fill="%s"/><text x="%.1f" y="%.1f">%.3g</text>`,
			y+12, template.HTMLEscapeString(c.label()), y+2, width, colour(i), 220+width, y+12, v)
	}
	fmt.Fprintf(&b, `<text x="215" y="%.1f">%s</text></svg>`, h-8, template.HTMLEscapeString(name))
	return template.HTML(b.String()) //nolint:gosec // numbers, and names escaped above
}

func gapPlot(s *Scenario) template.HTML {
	return horizontal(s, "mean delay over the optimum's (bars end at 3)", 3, func(c *Cell) float64 { return c.Ratio })
}

func bytesPlot(s *Scenario) template.HTML {
	most := 1e-9
	rate := func(c *Cell) float64 {
		sum := 0.0
		for _, a := range c.AwayPerS {
			sum += a
		}
		return sum * c.bytes / thousandsPerMega / math.Max(1, float64(len(c.AwayPerS)))
	}
	for i := range s.Cells {
		most = math.Max(most, rate(&s.Cells[i]))
	}
	return horizontal(s, "MB/s between sites", most, rate)
}

// mapPlot is a drawing of the sites that a slider moves through time.
func mapPlot(s *Scenario) template.HTML {
	i := slices.IndexFunc(s.Cells, func(c Cell) bool { return ours(c.Policy) && len(c.BusyPercent) > 0 })
	if i < 0 {
		return ""
	}
	lon0, lon1, lat0, lat1 := math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	for _, p := range s.Sites {
		lon0, lon1, lat0, lat1 = math.Min(lon0, p.Lon), math.Max(lon1, p.Lon), math.Min(lat0, p.Lat), math.Max(lat1, p.Lat)
	}
	span := math.Max(math.Max((lon1-lon0)*math.Cos(lat0*math.Pi/180), lat1-lat0), 1e-6)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="map" viewBox="0 0 %g %g" role="img">`, mapSize, mapSize)
	for _, p := range s.Sites {
		x := 20 + (p.Lon-lon0)*math.Cos(lat0*math.Pi/180)/span*(mapSize-40)
		y := mapSize - 20 - (p.Lat-lat0)/span*(mapSize-40)
		fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="%.1f"><title>%s</title></circle>`, x, y, 4+2*math.Sqrt(float64(p.Slots)), template.HTMLEscapeString(p.Name))
	}
	data, err := json.Marshal(s.Cells[i].BusyPercent)
	if err != nil {
		return ""
	}
	fmt.Fprintf(&b, `</svg><p><input type="range" min="0" max="%d" value="0"> second <output>0</output>, %s; green idle, red full, dark red queueing</p><script type="application/json">%s</script>`,
		len(s.Cells[i].BusyPercent)-1, template.HTMLEscapeString(s.Cells[i].label()), data)
	return template.HTML(b.String()) //nolint:gosec // numbers, and names escaped above
}
