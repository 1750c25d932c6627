package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
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
	Idle      []idleRow `json:"idle,omitempty"`

	SecureIdle []secureIdleRow `json:"tls_idle,omitempty"`
	Burst      []burstRow      `json:"burst,omitempty"`
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

// bar is what the ratio to a peer may be at most, 0 where there is none.
func (r row) bar() float64 {
	haproxy := strings.HasPrefix(r.Peer, "haproxy-")
	switch {
	case r.Peer == otherBuild, r.Peer == bareSplice, r.Peer == bareRelay:
		return 0
	case r.Mode == modeTLS && haproxy:
		return 0.75
	case r.Mode == modeMutual && haproxy:
		return 0.8
	case r.Mode == modeHandshake && haproxy, r.Mode == modeGRPC && haproxy:
		return 1.05
	case r.Mode == modeHTTP2 && haproxy:
		return 0.7
	case r.Mode == modeTLS, r.Mode == modeMutual, r.Mode == modeHandshake, r.Mode == modeHTTP2, r.Mode == modeGRPC:
		return 0
	case r.Mode == modeUDP:
		return 0.83 // 1.2 times the datagrams of the same CPU
	case r.Mode == modeTCP && haproxy, r.Mode != modeTCP && !haproxy:
		return 1
	case r.Mode == modeTCP:
		return 0.6
	}
	return 0.85
}

// missed says which bars are missed, or not known to be met.
func (r result) missed() (missed []string) {
	for _, row := range r.Rows {
		switch bar := row.bar(); {
		case bar == 0:
		case row.Ratio.Median > bar:
			missed = append(missed, fmt.Sprintf("%s, %s: ratio %.2f, the bar is %.2f", row.Mode, row.Peer, row.Ratio.Median, bar))
		case !row.Ratio.established():
			missed = append(missed, fmt.Sprintf("%s, %s: ratio %.2f is not established", row.Mode, row.Peer, row.Ratio.Median))
		}
	}
	if len(r.Idle) > 0 {
		missed = append(missed, missedIdle(r.Idle)...)
	}
	if len(r.SecureIdle) > 0 {
		missed = append(missed, missedSecureIdle(r.SecureIdle)...)
	}
	if len(r.Burst) > 0 && r.Burst[0].more(r.Burst[0].Once) > barBurst {
		missed = append(missed, fmt.Sprintf("burst: p99 rises by %.1f ms, the bar is %.1f ms", r.Burst[0].more(r.Burst[0].Once)/1000, barBurst/1000.0))
	}
	return missed
}

// table is one of the tables of a result; mark names the place of a document in
// which it stands.
type table struct {
	mark, caption string
	headings      []string
	rows          [][]string
}

func (r row) pair(format string, f func(sample) float64) string {
	return fmt.Sprintf(format+" / "+format, over(r.Ours, f), over(r.Theirs, f))
}

// ratio is what rows of all modes have in common.
func (r row) ratio() []string {
	verdict, bar := "yes", "-"
	if !r.Ratio.established() {
		verdict = "no"
	}
	if b := r.bar(); b > 0 {
		bar = fmt.Sprintf("%.2f", b)
	}
	return []string{
		fmt.Sprintf("%.2f", r.Ratio.Median), bar,
		fmt.Sprintf("%.2f-%.2f", r.Ratio.Min, r.Ratio.Max),
		fmt.Sprintf("%d of %d", r.Ratio.Near, r.Ratio.Pairs), verdict,
	}
}

var ratioHeadings = []string{"ratio", "bar", "min-max", "near", "established"}

// tables are those that the result has anything for, medians throughout.
func (r result) tables() (all []table) {
	paired := fmt.Sprintf("Medians of %d paired rounds of %g s", r.Rounds, r.Duration)
	requests := table{mark: "peers", caption: paired + fmt.Sprintf(", load from %q; ours / theirs.", r.Generator),
		headings: slices.Concat([]string{"mode", "peer", "CPU us/request"}, ratioHeadings, []string{"requests/s", "p50 us", "p99 us", "RSS MB", "PSS MB"})}
	streams := table{mark: "peers-tcp", caption: paired + ", one connection; ours / theirs.",
		headings: slices.Concat([]string{"peer", "CPU s/GB"}, ratioHeadings, []string{"GB/s", "RSS MB"})}
	datagrams := table{mark: "peers-udp", caption: paired + ", 200 bytes there and back; ours / theirs.",
		headings: slices.Concat([]string{"peer", "CPU us/round"}, ratioHeadings, []string{"rounds/s", "RSS MB"})}
	http2 := table{mark: "peers-http2", caption: paired + ", load from h2load; ours / theirs.",
		headings: slices.Concat([]string{"peer", "CPU us/request"}, ratioHeadings, []string{"requests/s", "mean us", "RSS MB"})}
	calls := table{mark: "peers-grpc", caption: paired + ", load from h2load; ours / theirs.", headings: http2.headings}
	idle := table{mark: "peers-idle", caption: "The most of five looks, a second apart; MB, in brackets what is no page of a file.",
		headings: []string{"proxy", "RSS at rest", "PSS", "with 10,000 idle connections", "more", "after they closed"}}
	rss := func(s sample) float64 { return s.RSS }
	for _, row := range r.Rows {
		if row.Mode == modeTCP {
			streams.rows = append(streams.rows, slices.Concat(
				[]string{row.Peer, row.pair("%.3f", func(s sample) float64 { return s.CPU })}, row.ratio(),
				[]string{row.pair("%.2f", func(s sample) float64 { return s.Rate }), row.pair("%.1f", rss)}))
			continue
		}
		if row.Mode == modeHTTP2 || row.Mode == modeGRPC {
			to := &http2
			if row.Mode == modeGRPC {
				to = &calls
			}
			to.rows = append(to.rows, slices.Concat(
				[]string{row.Peer, row.pair("%.1f", func(s sample) float64 { return s.CPU })}, row.ratio(),
				[]string{row.pair("%.0f", func(s sample) float64 { return s.Rate }), row.pair("%.0f", func(s sample) float64 { return s.P50 }), row.pair("%.1f", rss)}))
			continue
		}
		if row.Mode == modeUDP {
			datagrams.rows = append(datagrams.rows, slices.Concat(
				[]string{row.Peer, row.pair("%.2f", func(s sample) float64 { return s.CPU })}, row.ratio(),
				[]string{row.pair("%.0f", func(s sample) float64 { return s.Rate }), row.pair("%.1f", rss)}))
			continue
		}
		requests.rows = append(requests.rows, slices.Concat(
			[]string{row.Mode, row.Peer, row.pair("%.1f", func(s sample) float64 { return s.CPU })}, row.ratio(),
			[]string{
				row.pair("%.0f", func(s sample) float64 { return s.Rate }),
				row.pair("%.0f", func(s sample) float64 { return s.P50 }),
				row.pair("%.0f", func(s sample) float64 { return s.P99 }),
				row.pair("%.1f", rss), row.pair("%.1f", func(s sample) float64 { return s.PSS }),
			}))
	}
	for _, row := range r.Idle {
		m := func(bytes int64) string { return fmt.Sprintf("%.1f", float64(bytes)/mb) }
		both := func(f footprint) string { return m(f.RSS) + " (" + m(f.Anon) + ")" }
		idle.rows = append(idle.rows, []string{row.Name, both(row.Rest), m(row.Rest.PSS), both(row.Held), m(row.Held.RSS - row.Rest.RSS), both(row.After)})
	}
	for _, t := range []table{requests, streams, datagrams, http2, calls, idle, secureIdleTable(r.SecureIdle), burstTable(r.Burst, paired)} {
		if len(t.rows) > 0 {
			all = append(all, t)
		}
	}
	return all
}

func (r result) writeTable(w io.Writer) error {
	fmt.Fprintf(w, "%s\n%s\n", r.Machine, strings.Join(r.Versions, "; "))
	for _, t := range r.tables() {
		fmt.Fprintf(w, "\n%s\n\n", t.caption)
		out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(out, strings.Join(t.headings, "\t"))
		for _, row := range t.rows {
			fmt.Fprintln(out, strings.Join(row, "\t"))
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func (r result) writeMarkdown(w io.Writer, t table) {
	fmt.Fprintf(w, "Measured %s on %s. %s. %s\n\n", r.Date.Format(time.DateOnly), r.Machine, strings.Join(r.Versions, "; "), t.caption)
	fmt.Fprintf(w, "| %s |\n|%s\n", strings.Join(t.headings, " | "), strings.Repeat(" --- |", len(t.headings)))
	for _, row := range t.rows {
		fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
	}
}

// updateMarkdown replaces what stands between the markers of a file, a pair for
// each table that the result has.
func (r result) updateMarkdown(name string) error {
	body, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	for _, t := range r.tables() {
		begin, end := "<!-- "+t.mark+":begin -->\n", "<!-- "+t.mark+":end -->"
		before, rest, ok := bytes.Cut(body, []byte(begin))
		_, after, ok2 := bytes.Cut(rest, []byte(end))
		if !ok || !ok2 {
			return fmt.Errorf("%s: no lines %q and %q to write between", name, strings.TrimSpace(begin), end)
		}
		var out bytes.Buffer
		out.Write(before)
		out.WriteString(begin)
		r.writeMarkdown(&out, t)
		out.WriteString(end)
		out.Write(after)
		body = out.Bytes()
	}
	return os.WriteFile(name, body, 0o644)
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
