package admin

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

func healthz(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, []byte("ok\n")) }

// Marks of a line of /readyz?verbose. A warning is for people: it does not take
// the node out of service, because the last good configuration serves.
const (
	markOK   = "[+]"
	markWarn = "[!]"
	markFail = "[-]"
)

type check struct{ mark, name, detail string }

func (n Node) readyz(w http.ResponseWriter, r *http.Request) {
	checks := n.checks(time.Now())
	status := http.StatusOK
	var b strings.Builder
	_, verbose := r.URL.Query()["verbose"]
	for _, c := range checks {
		if c.mark == markFail {
			status = http.StatusServiceUnavailable
		}
		if verbose || c.mark == markFail {
			fmt.Fprintf(&b, "%s %s: %s\n", c.mark, c.name, c.detail)
		}
	}
	if status == http.StatusOK {
		b.WriteString("ready\n")
	} else {
		b.WriteString("not ready\n")
	}
	writeText(w, status, []byte(b.String()))
}

func (n Node) checks(now time.Time) []check {
	var checks []check
	add := func(mark, name, format string, a ...any) {
		checks = append(checks, check{mark, name, fmt.Sprintf(format, a...)})
	}
	c := n.Config()
	switch {
	case c.Snapshot == nil:
		add(markFail, "config", "nothing to serve yet from %s", c.Source)
	case c.Restored:
		add(markWarn, "config", "generation %s of %s from the last good copy on disk, for %s", c.Snapshot.Generation, c.Snapshot.Origin, age(now, c.AppliedAt))
	default:
		add(markOK, "config", "generation %s of %s for %s", c.Snapshot.Generation, c.Snapshot.Origin, age(now, c.AppliedAt))
	}
	if c.Refused != nil {
		what := "newer configuration"
		if c.Refused.Generation != nil {
			what = "generation " + c.Refused.Generation.String()
		}
		for _, f := range c.Refused.Faults {
			add(markWarn, "config", "%s refused %s ago: %s", what, age(now, c.Refused.At), f)
		}
	}
	if c.Unsaved != "" {
		add(markWarn, "config", "not saved: %s", c.Unsaved)
	}
	if c.Link != nil {
		mark, what := markOK, "connected"
		if !c.Link.Connected {
			mark, what = markWarn, "not connected"
		}
		add(mark, "controller", "%s since %s (%s)", what, c.Link.Since.UTC().Format(time.RFC3339), age(now, c.Link.Since))
	}
	for _, p := range n.Proxy.Problems() {
		add(markWarn, "config", "cannot be served: %s", p)
	}
	for _, l := range n.Proxy.Listeners() {
		add(markOK, "listener", "%s/%s (%s) on %s", l.Gateway, l.Name, l.Protocol, l.Addr)
	}
	if n.Draining() {
		add(markFail, "drain", "the node is stopping")
	}
	return checks
}

// age is how long ago t was, rounded for people.
func age(now, t time.Time) time.Duration {
	d := now.Sub(t)
	switch {
	case d > time.Minute:
		return d.Round(time.Second)
	case d > time.Second:
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Millisecond)
}
