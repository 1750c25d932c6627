// Package hostiletest is a table of raw HTTP/1.1 messages, hostile ones and odd but
// valid ones, which tests send through a whole proxy and fuzz targets start from.
//
// A line of the table is a class, a verdict, a name and the message, the last two
// as Go strings. In a message ${x*9} stands for x nine times, ${G} and ${P} for the
// head of a GET and of a POST without its empty line, ${C} for the whole head of a
// chunked POST, ${S} for a request that must never be seen as one, ${R} for the
// status line of a 200 response.
package hostiletest

import (
	_ "embed"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Verdict is what must become of a message.
type Verdict string

// Verdicts.
const (
	Valid Verdict = "valid" // arrives whole
	Bad   Verdict = "bad"   // never arrives as a complete message
	Tame  Verdict = "tame"  // arrives without what makes it hostile, or not at all
)

// Message is one row of the table.
type Message struct {
	Class, Name string
	Verdict     Verdict
	Raw         string
}

//go:embed requests.txt
var requests string

//go:embed responses.txt
var responses string

// Requests are what clients send. It panics when the table is malformed.
func Requests() []Message { return read("requests.txt", requests) }

// Responses are what a backend answers a GET with, as Requests.
func Responses() []Message { return read("responses.txt", responses) }

var (
	repeat = regexp.MustCompile(`(?s)\$\{([^{}]*?)\*([0-9]+)\}`)
	macros = strings.NewReplacer(
		"${G}", "GET / HTTP/1.1\r\nHost: a\r\n",
		"${P}", "POST / HTTP/1.1\r\nHost: a\r\n",
		"${C}", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
		"${S}", "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
		"${R}", "HTTP/1.1 200 OK\r\n",
	)
)

func read(file, text string) []Message {
	var out []Message
	for i, line := range strings.Split(text, "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		m, err := parse(line)
		if err != nil {
			panic(fmt.Sprintf("%s:%d: %v", file, i+1, err))
		}
		out = append(out, m)
	}
	return out
}

func parse(line string) (Message, error) {
	class, rest, _ := strings.Cut(line, " ")
	verdict, rest, _ := strings.Cut(rest, " ")
	m := Message{Class: class, Verdict: Verdict(verdict)}
	if m.Verdict != Valid && m.Verdict != Bad && m.Verdict != Tame {
		return m, fmt.Errorf("verdict %q", verdict)
	}
	for _, to := range []*string{&m.Name, &m.Raw} {
		q, err := strconv.QuotedPrefix(rest)
		if err != nil {
			return m, fmt.Errorf("string expected at %.20q: %w", rest, err)
		}
		if *to, err = strconv.Unquote(q); err != nil {
			return m, err
		}
		rest = strings.TrimPrefix(rest[len(q):], " ")
	}
	if rest != "" {
		return m, fmt.Errorf("more than a message: %.20q", rest)
	}
	m.Raw = repeat.ReplaceAllStringFunc(m.Raw, func(s string) string {
		p := repeat.FindStringSubmatch(s)
		n, _ := strconv.Atoi(p[2]) // digits by the expression
		return strings.Repeat(p[1], n)
	})
	m.Raw = macros.Replace(m.Raw)
	return m, nil
}
