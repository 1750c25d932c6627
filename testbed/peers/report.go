package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// result is all that a run of this program found.
type result struct {
	Date      time.Time `json:"date"`
	Machine   string    `json:"machine"`
	Versions  []string  `json:"versions"`
	Rounds    int       `json:"rounds"`
	Duration  float64   `json:"duration_s"`
	Generator string    `json:"generator"`
	Rows      []row     `json:"rows"`
}

func (r result) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// over is the median of one figure over samples.
func over(s []sample, f func(sample) float64) float64 {
	v := make([]float64, len(s))
	for i := range s {
		v[i] = f(s[i])
	}
	return median(v)
}

// cells is a row of the table, medians throughout.
func (r row) cells() []string {
	pair := func(format string, f func(sample) float64) string {
		return fmt.Sprintf(format+" / "+format, over(r.Ours, f), over(r.Theirs, f))
	}
	verdict := "yes"
	if !r.Ratio.established() {
		verdict = "no"
	}
	return []string{
		r.Mode, r.Peer,
		pair("%.1f", func(s sample) float64 { return s.CPU }),
		fmt.Sprintf("%.2f", r.Ratio.Median),
		fmt.Sprintf("%.2f-%.2f", r.Ratio.Min, r.Ratio.Max),
		fmt.Sprintf("%d of %d", r.Ratio.Near, r.Ratio.Pairs),
		verdict,
		pair("%.0f", func(s sample) float64 { return s.Rate }),
		pair("%.0f", func(s sample) float64 { return s.P50 }),
		pair("%.0f", func(s sample) float64 { return s.P99 }),
		pair("%.1f", func(s sample) float64 { return s.RSS }),
		pair("%.1f", func(s sample) float64 { return s.PSS }),
	}
}

var headings = []string{"mode", "peer", "CPU us/request", "ratio", "min-max", "near", "established", "requests/s", "p50 us", "p99 us", "RSS MB", "PSS MB"}

func (r result) writeTable(w io.Writer) error {
	fmt.Fprintf(w, "%s\n%s\nours / theirs, medians of %d paired rounds of %gs\n\n", r.Machine, strings.Join(r.Versions, "; "), r.Rounds, r.Duration)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(headings, "\t"))
	for _, row := range r.Rows {
		fmt.Fprintln(t, strings.Join(row.cells(), "\t"))
	}
	return t.Flush()
}

func (r result) writeMarkdown(w io.Writer) {
	fmt.Fprintf(w, "Measured %s on %s. %s. Medians of %d paired rounds of %g s, load from %q; ours / theirs.\n\n",
		r.Date.Format(time.DateOnly), r.Machine, strings.Join(r.Versions, "; "), r.Rounds, r.Duration, r.Generator)
	fmt.Fprintf(w, "| %s |\n|%s\n", strings.Join(headings, " | "), strings.Repeat(" --- |", len(headings)))
	for _, row := range r.Rows {
		fmt.Fprintf(w, "| %s |\n", strings.Join(row.cells(), " | "))
	}
}

// Markers between which updateMarkdown writes.
const (
	markBegin = "<!-- peers:begin -->\n"
	markEnd   = "<!-- peers:end -->"
)

// updateMarkdown replaces what stands between the markers of a file.
func (r result) updateMarkdown(name string) error {
	body, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(body, []byte(markBegin))
	_, after, ok2 := bytes.Cut(rest, []byte(markEnd))
	if !ok || !ok2 {
		return fmt.Errorf("%s: no lines %q and %q to write between", name, strings.TrimSpace(markBegin), markEnd)
	}
	var out bytes.Buffer
	out.Write(before)
	out.WriteString(markBegin)
	r.writeMarkdown(&out)
	out.WriteString(markEnd)
	out.Write(after)
	return os.WriteFile(name, out.Bytes(), 0o644)
}

// describeMachine names the processor, its number, memory and the kernel.
func describeMachine() string {
	model := runtime.GOARCH
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	var si unix.Sysinfo_t
	var un unix.Utsname
	memory, kernel := "unknown memory", "unknown"
	if unix.Sysinfo(&si) == nil {
		memory = fmt.Sprintf("%.0f GiB", float64(si.Totalram)*float64(si.Unit)/(1<<30))
	}
	if unix.Uname(&un) == nil {
		kernel = unix.ByteSliceToString(un.Release[:])
	}
	return fmt.Sprintf("%d CPUs of %s, %s, Linux %s", runtime.NumCPU(), model, memory, kernel)
}
