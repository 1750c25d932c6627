package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// event is one line of `go test -json` (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // of build output
	Test       string
	Output     string
}

// unit is a test, or with an empty name the package around it.
type unit struct{ pkg, test string }

func (u unit) String() string {
	if u.test == "" {
		return u.pkg
	}
	return u.pkg + " " + u.test
}

// summary counts tests and subtests. A package that failed without a failed test
// (build, panic, timeout, TestMain) counts as one failure.
type summary struct {
	passed  int
	failed  []unit
	skipped []unit
	reasons map[unit]string
}

// summarise reads events from r and writes, as they come, package lines and the
// output of failures to w. Lines that are not events pass through.
func summarise(r io.Reader, w io.Writer) (*summary, error) {
	s := &summary{reasons: map[unit]string{}}
	output := map[unit]*strings.Builder{}
	failedIn := map[string]bool{}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if line[0] != '{' || json.Unmarshal(line, &e) != nil {
				if _, err := w.Write(line); err != nil {
					return nil, err
				}
			} else if err := s.add(e, output, failedIn, w); err != nil {
				return nil, err
			}
		}
		if err == io.EOF {
			return s, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func (s *summary) add(e event, output map[unit]*strings.Builder, failedIn map[string]bool, w io.Writer) error {
	u := unit{e.Package, e.Test}
	var text string
	switch e.Action {
	case "build-output":
		text = e.Output
	case "output":
		if output[u] == nil {
			output[u] = &strings.Builder{}
		}
		output[u].WriteString(e.Output)
		if u.test == "" && isPackageLine(e.Output) {
			text = e.Output
		}
	case "pass":
		if u.test != "" {
			s.passed++
		}
		delete(output, u)
	case "skip":
		if u.test != "" { // a package without tests is no skip
			s.skipped = append(s.skipped, u)
			s.reasons[u] = reason(output[u])
		}
		delete(output, u)
	case "fail":
		if u.test != "" || !failedIn[u.pkg] {
			s.failed = append(s.failed, u)
		}
		failedIn[u.pkg] = true
		if b := output[u]; b != nil {
			text = b.String()
		}
		delete(output, u)
	}
	_, err := io.WriteString(w, text)
	return err
}

// isPackageLine recognises the lines that go test closes a good package with;
// those of bad ones come with the package's failure.
func isPackageLine(line string) bool {
	return strings.HasPrefix(line, "ok  \t") || strings.HasPrefix(line, "?   \t")
}

// reason is what a skipped test said, without the go command's framing.
func reason(b *strings.Builder) string {
	if b == nil {
		return "no reason given"
	}
	var said []string
	for line := range strings.Lines(b.String()) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			said = append(said, line)
		}
	}
	if len(said) == 0 {
		return "no reason given"
	}
	return strings.Join(said, " ")
}

// print writes the closing lines and reports whether the run is good. With
// noSkips a skip makes it bad, unless allow is not empty and within its reason.
func (s *summary) print(w io.Writer, noSkips bool, allow string) bool {
	good := len(s.failed) == 0
	refused := 0
	for _, u := range s.skipped {
		fmt.Fprintf(w, "skipped: %s: %s\n", u, s.reasons[u])
		if noSkips && (allow == "" || !strings.Contains(s.reasons[u], allow)) {
			refused++
		}
	}
	if len(s.skipped) > 0 {
		fmt.Fprintf(w, "%d skipped\n", len(s.skipped))
	}
	for _, u := range s.failed {
		fmt.Fprintf(w, "failed: %s\n", u)
	}
	if refused > 0 {
		fmt.Fprintln(w, "a skipped test fails this run: provide what it misses")
		good = false
	}
	if s.passed == 0 && good {
		fmt.Fprintln(w, "no test ran")
		good = false
	}
	fmt.Fprintf(w, "%d passed, %d failed\n", s.passed, len(s.failed))
	return good
}
