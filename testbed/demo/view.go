package demo

import (
	"fmt"
	"io"
	"sort"
	"strings"
	"time"
	"unicode/utf8"
)

// View shows what the demo does while it does it: a picture that is redrawn on a
// terminal, a line a second elsewhere. Its methods are called by one goroutine.
type View struct {
	out     io.Writer
	columns func() int // of the terminal; nil elsewhere
	color   bool

	drawn int // lines of the picture on the screen
}

// NewView writes to out. columns is the present width of the terminal that out
// is, nil when it is none; color says that colours are welcome there.
func NewView(out io.Writer, columns func() int, color bool) *View {
	return &View{out: out, columns: columns, color: columns != nil && color}
}

// every is how often a frame is worth making.
func (v *View) every() time.Duration {
	if v.columns != nil {
		return 250 * time.Millisecond
	}
	return time.Second
}

// step tells of one thing done.
func (v *View) step(format string, a ...any) {
	v.erase()
	v.write(fmt.Sprintf(format, a...) + "\n")
}

// frame is a moment of a run.
type frame struct {
	policy, phase string
	at, length    time.Duration
	sites         []siteFrame
}

// siteFrame is a site at that moment; rates and times are over the last second
// or so.
type siteFrame struct {
	name, role string
	// demand and capacity are in requests per second.
	demand, capacity float64
	meanMS           float64
	awayShare        float64
	errors           int
	inFlight         int
	shares           map[string]float64 // in force, its own too
	source           string             // who made them
	down             bool               // its controller was killed
}

// show draws a frame.
func (v *View) show(f frame) {
	if v.columns != nil {
		v.draw(f)
		return
	}
	v.line(f)
}

func (v *View) line(f frame) {
	if len(f.sites) == 0 {
		return
	}
	demand, away, errs, mean := 0.0, 0.0, 0, 0.0
	var hot siteFrame
	for _, s := range f.sites {
		demand += s.demand
		away += s.awayShare * s.demand
		mean += s.meanMS * s.demand
		errs += s.errors
		if s.role == "hot" {
			hot = s
		}
	}
	if demand > 0 {
		away /= demand
		mean /= demand
	}
	v.write(fmt.Sprintf("%-20s %5.1f/%.0f s %-8s %4.0f req/s, mean %6.0f ms, %3.0f %% away, %d errors; %s: %3.0f %% of its capacity wanted, %d in flight, %s\n",
		f.policy, f.at.Seconds(), f.length.Seconds(), f.phase, demand, mean, 100*away, errs,
		hot.name, 100*hot.demand/max(hot.capacity, 1), hot.inFlight, sharesText(hot)))
}

func (v *View) draw(f frame) {
	var b strings.Builder
	done := int(40 * min(f.at.Seconds()/max(f.length.Seconds(), 1e-9), 1))
	fmt.Fprintf(&b, "%s  %s%s  %.1f of %.0f s  %s\n", v.paint("1", f.policy), strings.Repeat("#", max(done, 0)), strings.Repeat(".", 40-max(done, 0)),
		f.at.Seconds(), f.length.Seconds(), v.paint("36", f.phase))
	fmt.Fprintf(&b, "%-14s %-5s %22s %10s %6s %7s %7s  %s\n", "users of", "", "demand of capacity", "mean", "away", "errors", "flying", "weights in force")
	for _, s := range f.sites {
		ratio := s.demand / max(s.capacity, 1)
		bar := fmt.Sprintf("%-12s", strings.Repeat("|", min(int(ratio*5+0.5), 12)))
		code := "32"
		switch {
		case ratio > 1:
			code = "31"
		case ratio > 0.8:
			code = "33"
		}
		errText := fmt.Sprintf("%7d", s.errors)
		if s.errors > 0 {
			errText = v.paint("31", errText)
		}
		down := ""
		if s.down {
			down = v.paint("31", " (controller killed)")
		}
		fmt.Fprintf(&b, "%-14.14s %-5s %s %4.0f/%-4.0f %8.0f ms %4.0f %% %s %7d  %s%s\n",
			s.name, s.role, v.paint(code, bar), s.demand, s.capacity, s.meanMS, 100*s.awayShare, errText, s.inFlight, sharesText(s), down)
	}
	v.erase()
	width := v.columns()
	for line := range strings.Lines(b.String()) {
		v.write(clip(strings.TrimSuffix(line, "\n"), width) + "\n")
		v.drawn++
	}
}

// clip cuts a line to what a terminal shows in one row, colours not counted: a
// line that wraps would put the next picture in the wrong place.
func clip(line string, width int) string {
	shown := 0
	for i := 0; i < len(line); {
		if line[i] == '\x1b' {
			if end := strings.IndexByte(line[i:], 'm'); end >= 0 {
				i += end + 1
				continue
			}
		}
		_, size := utf8.DecodeRuneInString(line[i:])
		if shown++; shown > width {
			reset := ""
			if strings.Contains(line[:i], "\x1b") {
				reset = "\x1b[0m"
			}
			return line[:i] + reset
		}
		i += size
	}
	return line
}

// erase takes the picture off the screen, so that what follows stands in its place.
func (v *View) erase() {
	if v.drawn > 0 {
		v.write(fmt.Sprintf("\x1b[%dA\x1b[J", v.drawn))
		v.drawn = 0
	}
}

func (v *View) paint(code, text string) string {
	if !v.color {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// write is best effort: a terminal that went away must not end the measurement.
func (v *View) write(s string) { _, _ = io.WriteString(v.out, s) }

// sharesText says where a site sends its users, the largest shares first.
func sharesText(s siteFrame) string {
	if s.shares == nil {
		return "weights not known"
	}
	type share struct {
		site string
		v    float64
	}
	var list []share
	for site, x := range s.shares {
		if x >= 0.005 && site != s.name {
			list = append(list, share{site, x})
		}
	}
	sort.Slice(list, func(i, j int) bool {
		if list[i].v != list[j].v {
			return list[i].v > list[j].v
		}
		return list[i].site < list[j].site
	})
	parts := []string{fmt.Sprintf("home %.0f %%", 100*s.shares[s.name])}
	for i, x := range list {
		if i == 4 {
			parts = append(parts, "...")
			break
		}
		parts = append(parts, fmt.Sprintf("%s %.0f %%", x.site, 100*x.v))
	}
	text := strings.Join(parts, ", ")
	if s.source != "" && s.source != "controller" {
		text += " (" + s.source + ")"
	}
	return text
}
