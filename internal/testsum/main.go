// Command testsum reads the output of `go test -json` on standard input and
// prints what a person wants of it: every package's line, the output of what
// failed, every skip with its reason, and a truthful count as the last line.
//
// It exits 1 when anything failed, when nothing ran and, with -no-skips, when a
// test was skipped: in CI a skip is a promise that nobody kept.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	noSkips := flag.Bool("no-skips", false, "fail when a test was skipped")
	allow := flag.String("allow", "", "with -no-skips: let skips pass whose reason contains this `text`")
	flag.Parse()
	sum, err := summarise(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(2)
	}
	if !sum.print(os.Stdout, *noSkips, *allow) {
		os.Exit(1)
	}
}
