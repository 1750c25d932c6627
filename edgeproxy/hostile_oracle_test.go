package edgeproxy

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// The oracle cuts strings by RFC 9110 and 9112 and shares nothing with the codec:
// what it takes, every server takes as the same messages.

var (
	wireRequest = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+ (/[!-~]*|[*]) HTTP/1[.]1$")
	wireStatus  = regexp.MustCompile(`^HTTP/1[.]1 ([1-5][0-9][0-9]) [\t -~]*$`)
	wireField   = regexp.MustCompile("^([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([\t -~\u0080-\u00ff]*)$")
	wireNumber  = regexp.MustCompile(`^[0-9]{1,18}$`)
	wireSize    = regexp.MustCompile(`^[0-9A-Fa-f]{1,15}$`)
)

type wireMessage struct {
	start, body string
	fields      map[string][]string
	trailers    map[string][]string
	complete    bool
}

func (m *wireMessage) one(name string) string { return strings.Join(m.fields[name], " AND ") }

// lines cuts a section off up to and with its empty line.
func wireLines(in string) (lines []string, rest string, whole bool) {
	section, rest, whole := strings.Cut(in, "\r\n\r\n")
	if strings.HasPrefix(in, "\r\n") {
		return nil, in[2:], true
	}
	return strings.Split(section, "\r\n"), rest, whole
}

func wireFields(lines []string) (map[string][]string, error) {
	fields := map[string][]string{}
	for _, l := range lines {
		p := matchBytes(wireField, l)
		if p == nil {
			return nil, fmt.Errorf("field line %.80q", l)
		}
		name := strings.ToLower(p[1])
		fields[name] = append(fields[name], p[2])
	}
	return fields, nil
}

// matchBytes matches octets, not runes: each becomes the rune of its number.
func matchBytes(re *regexp.Regexp, s string) []string {
	r := make([]rune, len(s))
	for i := range len(s) {
		r[i] = rune(s[i])
	}
	return re.FindStringSubmatch(string(r))
}

// wireRead takes one message off in. noBody says that a response has none by its
// request; toEnd that its body may end with the connection.
func wireRead(in string, request, noBody, closed bool) (m *wireMessage, rest string, err error) {
	m = &wireMessage{}
	lines, rest, whole := wireLines(in)
	if !whole {
		return m, "", nil
	}
	if len(lines) == 0 {
		return m, "", fmt.Errorf("no start line")
	}
	m.start = lines[0]
	re := wireStatus
	if request {
		re = wireRequest
	}
	if !re.MatchString(m.start) {
		return m, "", fmt.Errorf("start line %.80q", m.start)
	}
	if m.fields, err = wireFields(lines[1:]); err != nil {
		return m, "", err
	}
	length, coding := m.fields["content-length"], m.fields["transfer-encoding"]
	switch {
	case len(length)+len(coding) > 1:
		return m, "", fmt.Errorf("lengths %q, codings %q", length, coding)
	case len(coding) == 1 && coding[0] != "chunked":
		return m, "", fmt.Errorf("coding %q", coding)
	case len(length) == 1 && !wireNumber.MatchString(length[0]):
		return m, "", fmt.Errorf("length %q", length)
	case noBody:
		m.complete = true
	case len(coding) == 1:
		return wireChunks(m, rest)
	case len(length) == 1:
		n, _ := strconv.Atoi(length[0])
		if len(rest) < n {
			return m, "", nil
		}
		m.body, rest, m.complete = rest[:n], rest[n:], true
	case request:
		m.complete = true
	default:
		m.body, rest, m.complete = rest, "", closed
	}
	return m, rest, nil
}

func wireChunks(m *wireMessage, rest string) (*wireMessage, string, error) {
	for {
		line, after, whole := strings.Cut(rest, "\r\n")
		if !whole {
			return m, "", nil
		}
		if !wireSize.MatchString(line) {
			return m, "", fmt.Errorf("chunk size %.40q", line)
		}
		n, _ := strconv.ParseInt(line, 16, 64)
		if n == 0 {
			lines, after, whole := wireLines(after)
			var err error
			m.trailers, err = wireFields(lines)
			if m.complete = whole && err == nil; !m.complete {
				return m, "", err
			}
			return m, after, nil
		}
		if int64(len(after)) < n+2 {
			return m, "", nil
		}
		if after[n:n+2] != "\r\n" {
			return m, "", fmt.Errorf("chunk of %d followed by %.20q", n, after[n:])
		}
		m.body += after[:n]
		rest = after[n+2:]
	}
}

// gullible is the path as the most obliging server reads it: everything is
// decoded, every slash separates, parameters are cut off.
func gullible(target string) string {
	path, _, _ := strings.Cut(target, "?")
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] == '%' && i+2 < len(path) {
			if v, err := strconv.ParseUint(path[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(v))
				i += 2
				continue
			}
		}
		b.WriteByte(path[i])
	}
	var out []string
	for _, e := range strings.Split(strings.ReplaceAll(b.String(), `\`, "/"), "/") {
		switch e, _, _ = strings.Cut(e, ";"); e {
		case "", ".":
		case "..":
			out = out[:max(0, len(out)-1)]
		default:
			out = append(out, e)
		}
	}
	return "/" + strings.Join(out, "/")
}

// hopByHop may not reach the next hop but as what the proxy says itself.
var hopByHop = []string{"http2-settings", "keep-alive", "proxy-connection", "transfer_encoding", "content_length", "x-evil"}

var notInTrailers = []string{"host", "content-length", "transfer-encoding", "authorization", "cookie", "set-cookie", "x-forwarded-for", "x-evil"}

func unsafeFields(m *wireMessage) error {
	for _, n := range hopByHop {
		if v := m.fields[n]; v != nil {
			return fmt.Errorf("field %s: %q", n, v)
		}
	}
	for _, n := range notInTrailers {
		if v := m.trailers[n]; v != nil {
			return fmt.Errorf("trailer %s: %q", n, v)
		}
	}
	// One protocol may be switched to, by a client that asked for it in due form.
	u := m.fields["upgrade"]
	c := m.one("connection")
	if asked := c == "Upgrade"; len(u) > 1 || asked != (len(u) == 1) || asked && u[0] != "websocket" {
		return fmt.Errorf("connection %q, upgrade %q", c, u)
	}
	switch c {
	case "", "close", "TE", "TE, close", "keep-alive", "Upgrade":
	default:
		return fmt.Errorf("connection %q", c)
	}
	return nil
}

// unsafeRequest says why a request must not have reached a backend.
func unsafeRequest(m *wireMessage) error {
	target := strings.Split(m.start, " ")[1]
	path := gullible(target)
	last := m.one("x-forwarded-for")
	last = last[strings.LastIndexByte(last, ' ')+1:]
	switch {
	case strings.Contains(path, "smuggled"):
		return fmt.Errorf("smuggled: %q", m.start)
	case path == "/admin" || strings.HasPrefix(path, "/admin/"):
		return fmt.Errorf("path %q gets past the rule for /admin", target)
	case len(m.fields["host"]) != 1 || strings.Contains(m.one("host"), "evil"):
		return fmt.Errorf("host %q", m.fields["host"])
	case len(m.fields["x-forwarded-for"]) != 1 || last != "127.0.0.1":
		return fmt.Errorf("x-forwarded-for %q", m.fields["x-forwarded-for"])
	case m.one("x-forwarded-proto") != "http":
		return fmt.Errorf("x-forwarded-proto %q", m.fields["x-forwarded-proto"])
	case m.one("x-forwarded-host") != m.one("host") || m.fields["forwarded"] != nil:
		return fmt.Errorf("x-forwarded-host %q, forwarded %q", m.fields["x-forwarded-host"], m.fields["forwarded"])
	case !wireNumber.MatchString(m.one("x-forwarded-port")) || m.one("x-forwarded-port") == "66":
		return fmt.Errorf("x-forwarded-port %q", m.fields["x-forwarded-port"])
	}
	return unsafeFields(m)
}

// judgeRequests reads all that one connection to a backend carried; it returns
// how many complete requests there were.
func judgeRequests(wire string) (complete int, err error) {
	for wire != "" {
		m, rest, err := wireRead(wire, true, false, true)
		if err != nil {
			return complete, err
		}
		if m.start != "" {
			if err := unsafeRequest(m); err != nil {
				return complete, err
			}
		}
		if !m.complete {
			return complete, nil
		}
		complete++
		wire = rest
	}
	return complete, nil
}

// judgeResponses reads all that a client was sent in answer to methods, of a
// connection that has been closed.
func judgeResponses(wire string, methods ...string) (final []*wireMessage, err error) {
	for wire != "" {
		if len(final) == len(methods) {
			return final, fmt.Errorf("more than was asked for: %.80q", wire)
		}
		code := 0
		if len(wire) > 12 {
			code, _ = strconv.Atoi(wire[9:12])
		}
		noBody := methods[len(final)] == "HEAD" || code < 200 || code == 204 || code == 304
		m, rest, err := wireRead(wire, false, noBody, true)
		if err == nil && m.start != "" {
			err = unsafeFields(m)
		}
		if err != nil {
			return final, err
		}
		if code == 101 {
			return final, fmt.Errorf("switched: %q", m.start)
		}
		if code >= 200 {
			final = append(final, m)
		}
		wire = rest
	}
	return final, nil
}
