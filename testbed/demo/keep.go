package demo

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"

	"github.com/meridian-mesh/meridian/testbed/report"
)

// keepRecords writes what a run's figures were computed from as CSV files beside
// the logs, for whoever wants to compute others.
func (d *demo) keepRecords(policy string, requests []report.Request, weights []report.Weights) error {
	name := func(site int) string {
		if site == report.Nowhere {
			return ""
		}
		return d.scenario.Sites[site].Name
	}
	if err := writeLines(filepath.Join(d.dir, "requests-"+policy+".csv"), func(w *bufio.Writer) {
		fmt.Fprintln(w, "at_s,home,served,latency_ms,outcome,status")
		for _, r := range requests {
			fmt.Fprintf(w, "%.6f,%s,%s,%.3f,%s,%d\n", r.At.Seconds(), name(r.Home), name(r.Served), r.Latency.Seconds()*1e3, r.Outcome, r.Status)
		}
	}); err != nil {
		return err
	}
	return writeLines(filepath.Join(d.dir, "weights-"+policy+".csv"), func(w *bufio.Writer) {
		fmt.Fprint(w, "at_s,from")
		for i := range d.scenario.Sites {
			fmt.Fprint(w, ",", name(i))
		}
		fmt.Fprintln(w)
		for _, o := range weights {
			fmt.Fprintf(w, "%.3f,%s", o.At.Seconds(), name(o.Site))
			for _, v := range o.Shares {
				fmt.Fprintf(w, ",%.4f", v)
			}
			fmt.Fprintln(w)
		}
	})
}

// writeLines writes a file; the writer keeps its first error until it is flushed.
func writeLines(path string, fill func(*bufio.Writer)) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	fill(w)
	if err := w.Flush(); err != nil {
		_ = f.Close() // the first error says more
		return err
	}
	return f.Close()
}
