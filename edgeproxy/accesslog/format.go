package accesslog

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// FormatJSON names the format of one JSON object per line.
const FormatJSON = "json"

// Format says what a line holds. Make one with [Parse].
type Format struct {
	json bool
	// parts are the pieces of a line in order, for JSON its members.
	parts []part
	// request and response name the header fields that a line needs, in lower case.
	request, response []string
}

// part is literal text or an operator; of JSON, literal is the member's name.
type part struct {
	literal string
	op      operator
	// fields index Format.request or .response: the first that is there is shown.
	fields []int
	layout string // START_TIME; empty is the default
	limit  int    // bytes shown at most; 0 is all
}

type operator uint8

const (
	opLiteral operator = iota
	opStartTime
	opMethod
	opPath
	opAuthority
	opProtocol
	opResponseCode
	opResponseFlags
	opBytesReceived
	opBytesSent
	opDuration
	opResponseDuration
	opUpstreamHost
	opUpstreamCluster
	opUpstreamSite
	opAttempts
	opRouteName
	opClient
	opClientAddress
	opPeer
	opPeerAddress
	opResponseCodeDetails
	opGateway
	opRequestField
	opResponseField
	opSite
	opNode
	opIdentity
)

// operators are named as Envoy names them, with those it lacks at the end.
var operators = map[string]operator{
	"START_TIME":                             opStartTime,
	"PROTOCOL":                               opProtocol,
	"RESPONSE_CODE":                          opResponseCode,
	"RESPONSE_FLAGS":                         opResponseFlags,
	"BYTES_RECEIVED":                         opBytesReceived,
	"BYTES_SENT":                             opBytesSent,
	"DURATION":                               opDuration,
	"RESPONSE_DURATION":                      opResponseDuration,
	"UPSTREAM_HOST":                          opUpstreamHost,
	"UPSTREAM_CLUSTER":                       opUpstreamCluster,
	"UPSTREAM_REQUEST_ATTEMPT_COUNT":         opAttempts,
	"ROUTE_NAME":                             opRouteName,
	"DOWNSTREAM_REMOTE_ADDRESS":              opClient,
	"DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": opClientAddress,
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS":       opPeer,
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": opPeerAddress,
	"DOWNSTREAM_PEER_URI_SAN":                       opIdentity,
	"RESPONSE_CODE_DETAILS":                         opResponseCodeDetails,
	"REQ":                                           opRequestField,
	"RESP":                                          opResponseField,
	"METHOD":                                        opMethod,
	"PATH":                                          opPath,
	"AUTHORITY":                                     opAuthority,
	"GATEWAY":                                       opGateway,
	"SITE":                                          opSite,
	"NODE":                                          opNode,
	"UPSTREAM_SITE":                                 opUpstreamSite,
}

// pseudo are the request fields that are not header fields.
var pseudo = map[string]operator{":method": opMethod, ":path": opPath, ":authority": opAuthority}

var operatorSyntax = regexp.MustCompile(`^([A-Z_]+)(?:\(([^()]*)\))?(?::([0-9]+))?$`)

// members are the fields of a JSON line, named as other meshes name them.
var members = [][2]string{
	{"start_time", "START_TIME"},
	{"method", "METHOD"},
	{"authority", "AUTHORITY"},
	{"path", "PATH"},
	{"protocol", "PROTOCOL"},
	{"response_code", "RESPONSE_CODE"},
	{"response_flags", "RESPONSE_FLAGS"},
	{"response_code_details", "RESPONSE_CODE_DETAILS"},
	{"bytes_received", "BYTES_RECEIVED"},
	{"bytes_sent", "BYTES_SENT"},
	{"duration", "DURATION"},
	{"response_duration", "RESPONSE_DURATION"},
	{"downstream_remote_address", "DOWNSTREAM_REMOTE_ADDRESS"},
	{"downstream_direct_remote_address", "DOWNSTREAM_DIRECT_REMOTE_ADDRESS"},
	{"downstream_peer_uri_san", "DOWNSTREAM_PEER_URI_SAN"},
	{"upstream_host", "UPSTREAM_HOST"},
	{"upstream_cluster", "UPSTREAM_CLUSTER"},
	{"upstream_site", "UPSTREAM_SITE"},
	{"upstream_attempts", "UPSTREAM_REQUEST_ATTEMPT_COUNT"},
	{"route_name", "ROUTE_NAME"},
	{"gateway", "GATEWAY"},
	{"site", "SITE"},
	{"node", "NODE"},
	{"request_id", "REQ(X-REQUEST-ID)"},
	{"user_agent", "REQ(USER-AGENT)"},
	{"x_forwarded_for", "REQ(X-FORWARDED-FOR)"},
}

// Parse reads a format: [FormatJSON], or text with operators as Envoy writes them:
//
//	%OP%  %OP(ARGUMENT)%  %OP(ARGUMENT):MAXIMUM%  %%
//
// REQ(X?Y) and RESP(X?Y) show header X, or Y where there is no X. The operators
// are START_TIME (with a layout of strftime letters: Y m d H M S, s, 3f 6f 9f),
// PROTOCOL, RESPONSE_CODE, RESPONSE_FLAGS, RESPONSE_CODE_DETAILS, BYTES_RECEIVED and BYTES_SENT (of
// bodies), DURATION and RESPONSE_DURATION (ms, to the last and the first byte of
// the response), UPSTREAM_HOST, UPSTREAM_CLUSTER, UPSTREAM_REQUEST_ATTEMPT_COUNT,
// ROUTE_NAME, DOWNSTREAM_REMOTE_ADDRESS (the client, as trusted proxies tell) and
// DOWNSTREAM_DIRECT_REMOTE_ADDRESS (who is connected), both also _WITHOUT_PORT,
// REQ, RESP, METHOD, PATH, AUTHORITY, GATEWAY, SITE, NODE and UPSTREAM_SITE.
func Parse(text string) (*Format, error) {
	f := &Format{}
	if text == FormatJSON {
		f.json = true
		for _, m := range members {
			p, err := f.operator(m[1])
			if err != nil {
				return nil, err
			}
			p.literal = m[0]
			f.parts = append(f.parts, p)
		}
		return f, nil
	}
	if !strings.Contains(text, "%") {
		return nil, fmt.Errorf("%q: want %s or text with operators such as %%RESPONSE_CODE%%", text, FormatJSON)
	}
	for rest := text; rest != ""; {
		literal, after, found := strings.Cut(rest, "%")
		if literal != "" {
			f.parts = append(f.parts, part{literal: literal})
		}
		if !found {
			break
		}
		if strings.HasPrefix(after, "%") {
			f.parts = append(f.parts, part{literal: "%"})
			rest = after[1:]
			continue
		}
		end := operatorEnd(after)
		if end < 0 {
			return nil, fmt.Errorf("column %d: %%%s has no closing %%; a literal one is %%%%", len(text)-len(after), after)
		}
		p, err := f.operator(after[:end])
		if err != nil {
			return nil, fmt.Errorf("column %d: %%%s%%: %w", len(text)-len(after), after[:end], err)
		}
		f.parts = append(f.parts, p)
		rest = after[end+1:]
	}
	return f, nil
}

// operatorEnd finds the closing percent sign: one in parentheses is an argument's.
func operatorEnd(s string) int {
	depth := 0
	for i := range len(s) {
		switch s[i] {
		case '(':
			depth++
		case ')':
			depth--
		case '%':
			if depth <= 0 {
				return i
			}
		}
	}
	return -1
}

func (f *Format) operator(text string) (part, error) {
	m := operatorSyntax.FindStringSubmatch(text)
	if m == nil {
		return part{}, errors.New("want OPERATOR, OPERATOR(argument) or OPERATOR(argument):length")
	}
	name, argument := m[1], m[2]
	op, ok := operators[name]
	if !ok {
		return part{}, fmt.Errorf("no such operator; there are %s", strings.Join(operatorNames(), ", "))
	}
	p := part{op: op}
	if m[3] != "" {
		n, err := strconv.Atoi(m[3])
		if err != nil || n == 0 {
			return part{}, fmt.Errorf("length %s: want a number of bytes over 0", m[3])
		}
		p.limit = n
	}
	switch op {
	case opStartTime:
		if argument != "" {
			return p, p.setLayout(argument)
		}
	case opRequestField, opResponseField:
		return p, f.setFields(&p, argument)
	default:
		if argument != "" {
			return part{}, errors.New("takes no argument")
		}
	}
	return p, nil
}

func (f *Format) setFields(p *part, argument string) error {
	first, second, _ := strings.Cut(argument, "?")
	for _, name := range []string{first, second} {
		name = strings.ToLower(strings.TrimSpace(name))
		op, isPseudo := pseudo[name]
		switch {
		case name == "" && len(p.fields) > 0:
		case name == "":
			return errors.New("names no header")
		case isPseudo && p.op == opRequestField && len(p.fields) == 0:
			p.op = op
			return nil
		case isPseudo && p.op == opRequestField:
			// The usual %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%: the path here is the client's.
			p.op, p.fields = op, nil
			return nil
		case strings.HasPrefix(name, ":"):
			return fmt.Errorf("%s: want :METHOD, :PATH, :AUTHORITY or a header, of a request", name)
		default:
			names := &f.request
			if p.op == opResponseField {
				names = &f.response
			}
			i := slices.Index(*names, name)
			if i < 0 {
				i = len(*names)
				*names = append(*names, name)
			}
			p.fields = append(p.fields, i)
		}
	}
	if len(f.request) > maxFields || len(f.response) > maxFields {
		return fmt.Errorf("over %d headers", maxFields)
	}
	return nil
}

// setLayout turns strftime's letters into a layout of package time.
func (p *part) setLayout(strftime string) error {
	var out strings.Builder
	for s := strftime; s != ""; {
		if s[0] != '%' {
			out.WriteByte(s[0])
			s = s[1:]
			continue
		}
		found := false
		for _, l := range layouts {
			if after, ok := strings.CutPrefix(s, l[0]); ok {
				out.WriteString(l[1])
				s, found = after, true
				break
			}
		}
		if !found {
			return fmt.Errorf("layout %q: there are %%Y %%m %%d %%H %%M %%S %%F %%T %%b %%z, %%3f %%6f %%9f after a dot, and %%s alone", strftime)
		}
	}
	p.layout = out.String()
	if strings.Contains(p.layout, layoutUnix) && p.layout != layoutUnix {
		return fmt.Errorf("layout %q: %%s stands alone", strftime)
	}
	return nil
}

// layoutUnix is for seconds since 1970, which package time has no layout for.
const layoutUnix = "\x00"

const layoutDefault = "2006-01-02T15:04:05.000Z07:00"

var layouts = [][2]string{
	{"%Y", "2006"}, {"%m", "01"}, {"%d", "02"}, {"%H", "15"}, {"%M", "04"}, {"%S", "05"}, {"%b", "Jan"},
	{"%F", time.DateOnly}, {"%T", time.TimeOnly}, {"%z", "-0700"},
	{"%3f", "000"}, {"%6f", "000000"}, {"%9f", "000000000"}, {"%s", layoutUnix}, {"%%", "%"},
}

func operatorNames() []string {
	var names []string
	for name := range operators {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
