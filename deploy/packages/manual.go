package main

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// command is a section of the generated reference: a heading and the command's help.
var command = regexp.MustCompile("(?ms)^#+ ([^\n]+)\n\n```text\n(.*?)^```$")

// manual makes a page for man(1) of a program's reference, which is its own help.
func manual(program string, section int, reference string, when time.Time) (string, error) {
	all := command.FindAllStringSubmatch(reference, -1)
	if len(all) == 0 || all[0][1] != program {
		return "", fmt.Errorf("docs/reference/cli/%s.md does not begin with the help of %s: run make docs", program, program)
	}
	what, _, _ := strings.Cut(all[0][2], "\n")
	what = strings.TrimPrefix(what, program+" ")
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s %d %s Meridian\n.SH NAME\n%s \\- %s\n", strings.ToUpper(program), section, when.Format(time.DateOnly), program, roff(what))
	for _, c := range all {
		fmt.Fprintf(&b, ".SH %s\n.nf\n", strings.ToUpper(c[1]))
		for line := range strings.Lines(c[2]) {
			b.WriteString(roff(line))
		}
		b.WriteString(".fi\n")
	}
	return b.String(), nil
}

// roff escapes a line: a backslash, a hyphen that is typed, a point that begins a request.
func roff(line string) string {
	line = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(line)
	if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
		line = `\&` + line
	}
	return line
}
