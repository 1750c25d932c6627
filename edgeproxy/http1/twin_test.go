package http1

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// The twin decodes a whole connection by cutting strings, one rule of the package
// comment after the other. It writes what tracer writes, a refusal as "!".

const tokenClass = "[!#$%&'*+.^_`|~0-9A-Za-z-]"

var (
	twinRequestLine = regexp.MustCompile("^(" + tokenClass + "{1,32}) ([!$-;=?-~]+) HTTP/1[.]([01])$")
	twinStatusLine  = regexp.MustCompile("^HTTP/1[.]([01]) ([1-5][0-9][0-9])(?: (?s:.*))?$")
	twinName        = regexp.MustCompile("^" + tokenClass + "+$")
	twinHost        = regexp.MustCompile(`^(?:[-._~0-9A-Za-z]+|\[[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f.:]*\])(?::([0-9]{1,5}))?$`)
	twinAbsolute    = regexp.MustCompile(`^((?i:https?))://([^/?]*)(.*)$`)
	twinDecimal     = regexp.MustCompile("^[0-9]{1,19}$")
	twinSize        = regexp.MustCompile(`^([0-9A-Fa-f]{1,16})([ \t]*;(?s:.*))?$`)
)

type twinField struct{ name, value string }

func twinText(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

func twinFields(lines []string, trailer bool) ([]twinField, bool) {
	var fields []twinField
	for _, l := range lines {
		name, value, found := strings.Cut(l, ":")
		if !found || !twinName.MatchString(name) || !twinText(value) {
			return nil, false
		}
		if n := strings.ToLower(name); !trailer && (n == "content_length" || n == "transfer_encoding") {
			return nil, false
		}
		fields = append(fields, twinField{name, strings.Trim(value, " \t")})
	}
	return fields, len(fields) <= 100
}

func values(fields []twinField, name string) (v []string) {
	for _, f := range fields {
		if strings.EqualFold(f.name, name) && len(f.name) == len(name) {
			v = append(v, f.value)
		}
	}
	return v
}

func twinList(values []string) (members []string) {
	for _, v := range values {
		parts := strings.Split(v, ",")
		if parts[len(parts)-1] == "" {
			parts = parts[:len(parts)-1] // what follows the last comma is no member
		}
		for _, m := range parts {
			members = append(members, strings.ToLower(strings.Trim(m, " \t")))
		}
	}
	return members
}

func bareLF(s string) bool {
	return strings.Contains(strings.ReplaceAll(s, "\r\n", ""), "\n")
}

// twinHead cuts a head of at most max bytes off.
func twinHead(in string, max int) (lines []string, rest string, complete, ok bool) {
	at := strings.Index(in, "\r\n\r\n")
	if at < 0 {
		return nil, in, false, !bareLF(in) && len(in) <= max && strings.Count(in, "\n") <= 101
	}
	if bareLF(in[:at]) || at+4 > max {
		return nil, in, true, false
	}
	return strings.Split(in[:at], "\r\n"), in[at+4:], true, true
}

// message is the framing that both directions share.
type twinMessage struct {
	fields  []twinField // all
	old     bool
	length  int64 // -1 when absent
	chunked bool
	options []string
}

func twinFraming(lines []string, old bool) (m twinMessage, ok bool) {
	m = twinMessage{old: old, length: -1}
	if m.fields, ok = twinFields(lines, false); !ok {
		return m, false
	}
	lengths, codings := values(m.fields, "Content-Length"), values(m.fields, "Transfer-Encoding")
	if len(lengths) > 1 || len(codings) > 1 || len(lengths)+len(codings) > 1 || len(values(m.fields, "Host")) > 1 {
		return m, false
	}
	if len(lengths) == 1 {
		n, err := strconv.ParseInt(lengths[0], 10, 64)
		if err != nil || !twinDecimal.MatchString(lengths[0]) {
			return m, false
		}
		m.length = n
	}
	if len(codings) == 1 {
		if !strings.EqualFold(codings[0], "chunked") || len(codings[0]) != 7 || old {
			return m, false
		}
		m.chunked = true
	}
	for _, e := range values(m.fields, "Expect") {
		if strings.ToLower(e) != "100-continue" {
			return m, false
		}
	}
	m.options = twinList(values(m.fields, "Connection"))
	return m, len(m.options) <= maxOptions
}

func (m *twinMessage) closes() bool {
	return slices.Contains(m.options, "close") || m.old && !slices.Contains(m.options, "keep-alive")
}

// shown is the text of the fields a Message has.
func (m *twinMessage) shown() string {
	var out []string
	hidden := []string{"host", "content-length", "transfer-encoding", "connection", "keep-alive", "te",
		"trailer", "upgrade", "expect", "http2-settings", "proxy-connection", "content_length", "transfer_encoding"}
	for _, f := range m.fields {
		n := strings.ToLower(f.name)
		named := slices.Contains(m.options, n) && n != "close" && n != "keep-alive" && n != "upgrade"
		if !slices.Contains(hidden, n) && !named {
			out = append(out, f.name+"="+f.value)
		}
	}
	return "{" + strings.Join(out, ", ") + "}"
}

func lengthText(n int64) string {
	switch {
	case n < 0:
		return " unknown"
	case n > 0:
		return fmt.Sprintf(" %d", n)
	}
	return ""
}

// twinBody decodes a body and returns its events and what follows; done is false
// when the connection ends in it or it is refused.
func twinBody(in string, chunked bool, length int64) (events []string, rest string, done bool) {
	if !chunked {
		n := max(length, 0)
		got := in[:min(int64(len(in)), n)]
		if got != "" {
			events = append(events, "data "+got)
		}
		if int64(len(in)) < n {
			return append(events, "truncated"), "", false
		}
		return append(events, "end"), in[n:], true
	}
	data := ""
	give := func(last ...string) []string {
		if data != "" {
			events = append(events, "data "+data)
		}
		return append(events, last...)
	}
	cut := func(left string) ([]string, string, bool) {
		if left != "" {
			return give("truncated", fmt.Sprintf("left %d", len(left))), "", false
		}
		return give("truncated"), "", false
	}
	extensions := 0
	for {
		line, rest, found := strings.Cut(in, "\n")
		switch {
		case len(line) >= maxChunkLine:
			return give("!"), "", false
		case !found:
			return cut(in)
		case !strings.HasSuffix(line, "\r"):
			return give("!"), "", false
		}
		m := twinSize.FindStringSubmatch(strings.TrimSuffix(line, "\r"))
		if m == nil || !twinText(m[2]) {
			return give("!"), "", false
		}
		size, err := strconv.ParseInt(m[1], 16, 64)
		if extensions += len(m[2]); err != nil || extensions > maxExtensions {
			return give("!"), "", false
		}
		in = rest
		if size == 0 {
			break
		}
		got := in[:min(int64(len(in)), size)]
		data += got
		switch in = in[len(got):]; {
		case int64(len(got)) < size:
			return cut("")
		case !strings.HasPrefix(in, "\r\n") && !strings.HasPrefix("\r\n", in):
			return give("!"), "", false
		case len(in) < 2:
			return cut(in)
		}
		in = in[2:]
	}
	// The section is a list of lines up to the empty one.
	at, lines := 0, []string(nil)
	for {
		line, _, found := strings.Cut(in[at:], "\n")
		switch {
		case at+len(line) > 8191 && (found || at+len(line) > 8192):
			return give("!"), "", false
		case !found:
			return cut(in)
		case !strings.HasSuffix(line, "\r"):
			return give("!"), "", false
		}
		at += len(line) + 1
		if line == "\r" {
			break
		}
		if lines = append(lines, strings.TrimSuffix(line, "\r")); len(lines) > 100 {
			return give("!"), "", false
		}
	}
	fields, ok := twinFields(lines, true)
	if !ok {
		return give("!"), "", false
	}
	m := twinMessage{}
	for _, f := range fields {
		n := strings.ToLower(f.name)
		if (stream.Field{Name: []byte(n)}).MayTrail() {
			m.fields = append(m.fields, f)
		}
	}
	if t := m.shown(); t != "{}" {
		return give("trailers "+t, "end"), in[at:], true
	}
	return give("end"), in[at:], true
}

func twinValidHost(h string) bool {
	m := twinHost.FindStringSubmatch(h)
	if m == nil || len(h) > 261 {
		return false
	}
	port, _ := strconv.Atoi(m[1])
	return port <= 65535
}

// twinTarget returns "scheme://authority path" as headText writes it.
func twinTarget(method, t, host string) (string, bool) {
	switch a := twinAbsolute.FindStringSubmatch(t); {
	case method == "CONNECT":
		return t + " ", twinValidHost(t) && regexp.MustCompile(":[0-9]+$").MatchString(t)
	case t[0] == '/', t == "*" && method == "OPTIONS":
		return host + " " + t, true
	case a != nil:
		path := a[3]
		if path == "" && method == "OPTIONS" {
			path = "*"
		} else if !strings.HasPrefix(path, "/") {
			path = "/" + path
		}
		return a[1] + "://" + a[2] + " " + path, twinValidHost(a[2])
	}
	return "", false
}

func twinRequests(in string) string {
	var events []string
	refuse := func() string { return strings.Join(append(events, "!"), "; ") }
	left := func(s string) string {
		if s != "" {
			events = append(events, fmt.Sprintf("left %d", len(s)))
		}
		return strings.Join(events, "; ")
	}
	for {
		if in == "\r" {
			return left(in)
		}
		if in = strings.TrimPrefix(in, "\r\n"); in == "" {
			return left(in)
		}
		first, _, _ := strings.Cut(in, "\n")
		if len(first) >= 8192+32+12 || !twinName.MatchString(in[:1]) {
			return refuse()
		}
		lines, rest, complete, ok := twinHead(in, 65536)
		if !ok {
			return refuse()
		}
		if !complete {
			return left(in)
		}
		line := twinRequestLine.FindStringSubmatch(lines[0])
		if line == nil || len(line[2]) > 8192 {
			return refuse()
		}
		m, ok := twinFraming(lines[1:], line[3] == "0")
		if !ok {
			return refuse()
		}
		hosts := values(m.fields, "Host")
		if len(hosts) == 0 && !m.old || len(hosts) == 1 && !twinValidHost(hosts[0]) {
			return refuse()
		}
		target, ok := twinTarget(line[1], line[2], strings.Join(hosts, ""))
		if !ok {
			return refuse()
		}
		length := max(m.length, 0)
		if m.chunked {
			length = -1
		}
		text := line[1] + " " + target + " " + m.shown() + lengthText(length)
		if len(values(m.fields, "Expect")) > 0 && length != 0 && !m.old {
			text += " expect"
		}
		if slices.Contains(twinList(values(m.fields, "TE")), "trailers") {
			text += " te"
		}
		if !m.old && slices.Contains(m.options, "upgrade") {
			var offers []string
			for _, u := range strings.Split(strings.Join(values(m.fields, "Upgrade"), ","), ",") {
				if u = strings.Trim(u, " \t"); u != "" {
					offers = append(offers, u)
				}
			}
			if len(offers) == 1 && strings.ToLower(offers[0]) != "h2c" {
				text += " upgrade=" + offers[0]
			}
		}
		body, rest, done := twinBody(rest, m.chunked, length)
		if events = append(append(events, text), body...); !done {
			return strings.Join(events, "; ")
		}
		if m.closes() || line[1] == "CONNECT" {
			events = append(events, "close")
			return left(rest)
		}
		in = rest
	}
}

func twinResponse(method, in string) string {
	var events []string
	refuse := func() string { return strings.Join(append(events, "!"), "; ") }
	for interim := 0; ; {
		lines, rest, complete, ok := twinHead(in, 65536)
		if strings.HasPrefix(in, "\r\n") && !strings.Contains(in, "\r\n\r\n") {
			complete = false
		}
		if !ok {
			return refuse()
		}
		if !complete {
			events = append(events, "truncated")
			if in != "" {
				events = append(events, fmt.Sprintf("left %d", len(in)))
			}
			return strings.Join(events, "; ")
		}
		line := twinStatusLine.FindStringSubmatch(lines[0])
		if line == nil || !twinText(lines[0]) {
			return refuse()
		}
		status, _ := strconv.Atoi(line[2])
		m, ok := twinFraming(lines[1:], line[1] == "0")
		if !ok || (status < 200 || status == 204) && (m.chunked || m.length > 0) {
			return refuse()
		}
		text := line[2] + " " + m.shown()
		if status < 200 {
			if interim++; status == 101 || interim > 16 {
				return refuse()
			}
			events = append(events, text+" nobody")
			in = rest
			continue
		}
		switch {
		case status == 204:
			events = append(events, text+" nobody", "end")
		case status == 304 || method == "HEAD":
			events = append(events, text+lengthText(m.length)+" nobody", "end")
		case !m.chunked && m.length < 0:
			events = append(events, text+" unknown")
			if rest != "" {
				events = append(events, "data "+rest)
			}
			return strings.Join(append(events, "end", "close"), "; ")
		default:
			var body []string
			body, rest, ok = twinBody(rest, m.chunked, m.length)
			if events = append(append(events, text+lengthText(m.length)), body...); !ok {
				return strings.Join(events, "; ")
			}
		}
		if m.closes() {
			events = append(events, "close")
		}
		if rest != "" {
			return refuse()
		}
		return strings.Join(events, "; ")
	}
}

// blunt takes the reason off a refusal: the order of checks is no promise.
func blunt(trace string) string {
	if i := strings.LastIndex(trace, "!4"); i >= 0 && (i == 0 || strings.HasSuffix(trace[:i], "; ")) {
		return trace[:i+1]
	}
	if i := strings.LastIndex(trace, "!5"); i >= 0 && (i == 0 || strings.HasSuffix(trace[:i], "; ")) {
		return trace[:i+1]
	}
	return trace
}

func compareRequests(t testing.TB, in string, cut int) {
	t.Helper()
	got := traceRequests(t, pieces(in))
	if want := twinRequests(in); blunt(got) != want {
		t.Fatalf("input %q\ngot  %s\ntwin %s", clip(in), clip(got), clip(want))
	}
	if split := traceRequests(t, pieces(in, cut)); split != got {
		t.Fatalf("input %q\nwhole    %s\ncut at %d %s", clip(in), clip(got), cut, clip(split))
	}
}

func compareResponse(t testing.TB, method, in string, cut int) {
	t.Helper()
	got := traceResponse(t, method, pieces(in))
	if want := twinResponse(method, in); blunt(got) != want {
		t.Fatalf("%s, input %q\ngot  %s\ntwin %s", method, clip(in), clip(got), clip(want))
	}
	if split := traceResponse(t, method, pieces(in, cut)); split != got {
		t.Fatalf("%s, input %q\nwhole    %s\ncut at %d %s", method, clip(in), clip(got), cut, clip(split))
	}
}

// mutate makes a message that may be wrong from one of the rows.
func mutate(rnd *rand.Rand, rows []row) string {
	in := rows[rnd.IntN(len(rows))].in
	if len(in) > 2000 {
		in = in[:rnd.IntN(2000)]
	}
	b := []byte(in)
	spice := []string{"\r\n", "\n", "\r", " ", "\t", ":", ",", ";", "0", "5", "\x00", "\x7f", "\x80", "chunked", "Host: b\r\n",
		"Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n", "Content_Length: 3\r\n", "Connection: close\r\n", "Connection: x\r\n", "/", "HTTP/1.0", "X: 1\r\n", "[::1]", "\r\n\r\n"}
	for range rnd.IntN(4) {
		at := rnd.IntN(len(b) + 1)
		switch rnd.IntN(5) {
		case 0:
			b = slices.Insert(b, at, []byte(spice[rnd.IntN(len(spice))])...)
		case 1:
			if at < len(b) {
				b[at] = byte(rnd.Uint32())
			}
		case 2:
			b = slices.Delete(b, at, min(len(b), at+1+rnd.IntN(4)))
		case 3:
			end := min(len(b), at+rnd.IntN(40))
			b = slices.Insert(b, rnd.IntN(len(b)+1), slices.Clone(b[at:end])...)
		case 4: // swallow or double a line
			lines := strings.SplitAfter(string(b), "\n")
			k := rnd.IntN(len(lines))
			if rnd.IntN(2) == 0 {
				lines = slices.Delete(lines, k, k+1)
			} else {
				lines = slices.Insert(lines, k, lines[rnd.IntN(len(lines))])
			}
			b = []byte(strings.Join(lines, ""))
		}
	}
	return string(b)
}

func TestTwins(t *testing.T) {
	for _, r := range requestRows() {
		compareRequests(t, r.in, len(r.in)/2)
	}
	for _, r := range responses {
		method, in := splitMethod(r.in)
		compareResponse(t, method, in, len(in)/2)
	}
	rnd := rand.New(rand.NewPCG(11, 12))
	rows := requestRows()
	for range 15000 {
		in := mutate(rnd, rows)
		compareRequests(t, in, rnd.IntN(len(in)+1))
	}
	for range 15000 {
		method, in := splitMethod(mutate(rnd, responses))
		if method != "HEAD" {
			method = "GET"
		}
		compareResponse(t, method, in, rnd.IntN(len(in)+1))
	}
}
