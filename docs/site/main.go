// Command site renders the repository's documentation to a folder of static pages, and
// fails when a link in it leads nowhere: a page, file or folder that is not there, or a
// heading that its page has not got.
//
//	go run -C docs/site . -out ../../bin/docs
//
// Pages are the README, ARCHITECTURE and CONTRIBUTING files and every Markdown file
// below docs. What they link to in the repository besides pages (examples, manifests)
// is copied, folders as lists of their files, so that the result needs no server, no
// script and nothing from elsewhere.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
)

func main() {
	root := flag.String("root", "../..", "`folder` of the repository")
	out := flag.String("out", "../../bin/docs", "`folder` to write to; it is replaced")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "site: unknown argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	n, err := build(*root, *out)
	if err != nil {
		fmt.Fprintf(os.Stderr, "site: %v\n", err)
		if dead := (deadLinks)(nil); errors.As(err, &dead) {
			fmt.Fprintf(os.Stderr, "%d dead links\n", len(dead))
		}
		os.Exit(1)
	}
	fmt.Printf("%d pages in %s\n", n, *out)
}
