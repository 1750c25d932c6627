package mesh

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// format is the syntax of a string field. check decides; pattern is the same
// language as far as a regular expression of JSON Schema can say it, and never
// refuses what check takes.
type format struct {
	pattern string
	check   func(string) (message, hint string)
}

const (
	dnsLabel   = `[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?`
	pathBytes  = `([-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})`
	srvName    = `_[A-Za-z0-9-]{1,62}\._[A-Za-z0-9-]{1,62}\.[A-Za-z0-9.-]+`
	origin     = `^(\*|https?://(\*|(\*\.)?([-a-zA-Z0-9]+\.)*[-a-zA-Z0-9]+)(:[0-9]{1,5})?)$`
	fieldValue = `^[!-~]([\t -~]*[!-~])?$`
	// goDuration is what time.ParseDuration takes, without a sign.
	goDuration = `(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)`
	// gepDuration is GEP-2257, which is what the Gateway API's durations are.
	gepDuration = `([0-9]{1,5}(h|m|s|ms)){1,4}`
)

var (
	reLabel     = regexp.MustCompile(`^` + dnsLabel + `$`)
	reSubdomain = regexp.MustCompile(`^` + dnsLabel + `(\.` + dnsLabel + `)*$`)
	rePath      = regexp.MustCompile(`^/` + pathBytes + `*$`)
	reToken     = regexp.MustCompile("^[-!#$%&'*+.^_`|~0-9A-Za-z]+$")
	reSRVName   = lazyRegexp(srvName)
	reGEP2257   = regexp.MustCompile(`^` + gepDuration + `$`)
	reLabelText = regexp.MustCompile(`^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$`)
)

var (
	formatLabel     = format{`^` + dnsLabel + `$`, checkLabel}
	formatSubdomain = format{`^` + dnsLabel + `(\.` + dnsLabel + `)*$`, checkSubdomain}
	formatHostname  = format{`^(\*\.)?` + dnsLabel + `(\.` + dnsLabel + `)*$`, checkHostname}
	formatIP        = format{`^[0-9A-Fa-f:.]+(%.+)?$`, checkIP}
	formatAddress   = format{`^(([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+(%.+)?\]):[0-9]{1,5}|` + srvName + `)$`, checkAddress}
	formatInterface = format{`^[-A-Za-z0-9_.@]{1,15}$`, checkLength(1, 15)}
	formatPortRange = format{`^[0-9]{1,5}(-[0-9]{1,5})?$`, checkPortRange}
	formatSD        = format{`^[0-9A-Fa-f]{6}$`, checkSD}
	formatSlice     = format{`^[0-9]{1,3}(-[0-9A-Fa-f]{6})?$`, checkSlice}
	formatMAC       = format{`^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$`, checkMAC}
	formatCIDR      = format{`^[0-9A-Fa-f:.]+/[0-9]{1,3}$`, checkCIDR}
	formatAbsolute  = format{`^/`, checkAbsolute}
	formatHostPort  = format{`^([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+(%.+)?\]):[0-9]{1,5}$`, checkHostPort}
	formatDomain    = format{`^` + trustDomain + `$`, checkTrustDomain}
	formatSPIFFE    = format{`^` + spiffeID + `$`, checkSPIFFE}
	formatSerial    = format{`^` + serialNumber + `$`, checkSerial}
	formatRoot      = format{`^\s*-----BEGIN CERTIFICATE-----`, checkRoot}
	formatCgroup    = format{`^/`, checkControlGroup}
	formatPath      = format{`^/` + pathBytes + `*$`, checkPath}
	formatHeader    = format{"^[-!#$%&'*+.^_`|~0-9A-Za-z]+$", checkHeader}
	formatLabelText = format{`^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$`, checkLabelText}
	formatVia       = format{"^[-!#$%&'*+.^_`|~0-9A-Za-z]{1,64}$", checkVia}
	formatGEP2257   = format{`^` + gepDuration + `$`, checkGEP2257}

	formatMethod          = format{"^[-!#$%&'*+.^_`|~0-9A-Z]{1,64}$", checkMethod}
	formatIdentityPattern = format{`^[a-z]+://[!-~]+$`, checkIdentityPattern}

	formatPrecise      = format{`^` + dnsLabel + `(\.` + dnsLabel + `)*$`, checkPrecise}
	formatPrefix       = format{`^(/` + pathBytes + `*)?$`, checkPrefix}
	formatField        = format{"^[-!#$%&'*+.^_`|~0-9A-Za-z]+$", checkField}
	formatRequestField = format{"^[-!#$%&'*+.^_`|~0-9A-Za-z]+$", checkRequestField}
	formatFieldValue   = format{fieldValue, checkFieldValue}
	formatMatchValue   = format{`^.+$`, checkLength(1, 4096)}
	formatQueryValue   = format{`^.+$`, checkLength(1, 1024)}
	formatBody         = format{``, checkLength(0, 64<<10)}
	formatOrigin       = format{origin, checkOrigin}
	formatDayTime      = format{`^` + dayTime + `$`, checkDayTime}
)

func checkLabel(s string) (string, string) {
	if !reLabel.MatchString(s) {
		return fmt.Sprintf("%q is not a name", s), "lower-case letters, digits and -, a letter or digit at both ends, at most 63 (RFC 1123 label)"
	}
	return "", ""
}

func checkSubdomain(s string) (string, string) {
	if len(s) > 253 || !reSubdomain.MatchString(s) {
		return fmt.Sprintf("%q is not a name", s), "lower-case letters, digits, - and ., a letter or digit at both ends, at most 253 (RFC 1123 subdomain)"
	}
	return "", ""
}

func checkHostname(s string) (string, string) {
	if _, err := netip.ParseAddr(s); err == nil {
		return fmt.Sprintf("%q is an IP address, not a hostname", s), "leave hostnames out to match every host"
	}
	host := strings.TrimPrefix(s, "*.")
	if len(s) > 253 || !reSubdomain.MatchString(host) {
		hint := "such as shop.example.com or *.example.com"
		switch {
		case strings.Contains(s, ":"):
			hint = "without scheme and port"
		case s == "*":
			hint = "leave hostnames out to match every host"
		case s != strings.ToLower(s):
			hint = "write it in lower case"
		}
		return fmt.Sprintf("%q is not a hostname", s), hint
	}
	return "", ""
}

func checkIP(s string) (string, string) {
	if _, err := netip.ParseAddr(s); err != nil {
		return fmt.Sprintf("%q is not an IP address", s), "such as 127.0.0.1 or ::1, without port or brackets"
	}
	return "", ""
}

func checkVia(s string) (string, string) {
	if !viaName().MatchString(s) {
		return fmt.Sprintf("%q is not a pseudonym", s), "up to 64 letters, digits and !#$%&'*+-.^_`|~, such as edge-7"
	}
	return "", ""
}

var viaName = lazyRegexp("[-!#$%&'*+.^_`|~0-9A-Za-z]{1,64}")

func checkCIDR(s string) (string, string) {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return fmt.Sprintf("%q is not a network", s), "such as 10.0.0.0/8 or 2001:db8::/32; one address is 10.0.0.7/32"
	case p != p.Masked():
		return fmt.Sprintf("%q has bits beyond its prefix", s), "write " + p.Masked().String()
	}
	return "", ""
}

func checkAddress(s string) (string, string) {
	if strings.HasPrefix(s, "_") {
		return checkSRVName(s)
	}
	ap, err := netip.ParseAddrPort(s)
	switch {
	case err != nil:
		hint := "such as 10.0.0.7:8080, [2001:db8::7]:8080 or echo.example.com:8080"
		if _, aerr := netip.ParseAddr(s); aerr == nil {
			hint = "add the port"
			if strings.Contains(s, ":") {
				hint = "add brackets and the port, as in [" + s + "]:8080"
			}
		} else if m, h := checkHostPort(s); m == "" {
			return "", ""
		} else if h != "" && strings.Contains(s, ":") {
			return m, h
		}
		return fmt.Sprintf("%q is not ip:port or name:port", s), hint
	case ap.Port() == 0:
		return fmt.Sprintf("%q has port 0", s), "1 to 65535"
	case ap.Addr().IsUnspecified() || ap.Addr().IsMulticast():
		return fmt.Sprintf("%q cannot be connected to", s), "write the address of the process"
	}
	return "", ""
}

func checkSRVName(s string) (string, string) {
	labels := strings.SplitN(strings.TrimSuffix(s, "."), ".", 3)
	if len(s) > 253 || !reSRVName().MatchString(s) || !reSubdomain.MatchString(strings.ToLower(labels[2])) {
		return fmt.Sprintf("%q is not the name of SRV records", s), "such as _http._tcp.echo.example.com, without a port"
	}
	return "", ""
}

func checkHostPort(s string) (string, string) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return fmt.Sprintf("%q is not host:port", s), "add the port"
	}
	host, port := s[:i], s[i+1:]
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' || port[0] == '+' {
		return fmt.Sprintf("%q has no valid port", s), "1 to 65535 after the last colon"
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		if a, err := netip.ParseAddr(host[1 : len(host)-1]); err == nil && a.Is6() {
			return "", ""
		}
		return fmt.Sprintf("%q has no IPv6 address in its brackets", s), "such as [2001:db8::7]:8080"
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
		return fmt.Sprintf("%q lacks brackets", s), "write [" + host + "]:" + port
	}
	if len(host) > 253 || !reSubdomain.MatchString(strings.ToLower(host)) {
		return fmt.Sprintf("%q is not host:port", s), "such as edge.example.com:15443 or 10.0.0.7:15443"
	}
	// A host of digits and dots only is an address or a mistake, never a DNS name.
	if strings.Trim(host, "0123456789.") == "" {
		if _, err := netip.ParseAddr(host); err != nil {
			return fmt.Sprintf("%q has no valid IP address", s), "such as 10.0.0.7:15443"
		}
	}
	return "", ""
}

func checkPath(s string) (string, string) {
	switch {
	case s == "" || s[0] != '/':
		return fmt.Sprintf("path %q does not start with /", s), ""
	case len(s) > 1024:
		return fmt.Sprintf("path is %d bytes long", len(s)), "at most 1024"
	case strings.ContainsAny(s, "?#"):
		return fmt.Sprintf("path %q has a query or fragment", s), "a match compares the path only"
	case !rePath.MatchString(s):
		return fmt.Sprintf("path %q has bytes that a URL path cannot have", s), "percent-encode them"
	case strings.Contains(strings.ToLower(s), "%2f"):
		return fmt.Sprintf("path %q has an encoded slash", s), ""
	case strings.Contains(s, "//"), strings.Contains(s+"/", "/./"), strings.Contains(s+"/", "/../"):
		return fmt.Sprintf("path %q is not normalised", s), "requests are matched without //, /./ and /../, so it would never match"
	}
	return "", ""
}

func checkHeader(s string) (string, string) {
	if !reToken.MatchString(s) || len(s) > 256 {
		return fmt.Sprintf("%q is not a header name", s), "letters, digits and - (RFC 9110 token)"
	}
	return "", ""
}

func checkLabelText(s string) (string, string) {
	if !reLabelText.MatchString(s) {
		return fmt.Sprintf("%q is not a label value", s), "letters, digits, -, _ and ., a letter or digit at both ends, at most 63"
	}
	return "", ""
}

// checkLabelKey is a label or annotation key: an optional DNS prefix and a name.
func checkLabelKey(s string) (string, string) {
	prefix, name, slash := strings.Cut(s, "/")
	if !slash {
		prefix, name = "", s
	}
	if (slash && checkFails(checkSubdomain(prefix))) || name == "" || !reLabelText.MatchString(name) {
		return fmt.Sprintf("%q is not a key", s), "a name such as app, or example.com/app"
	}
	return "", ""
}

func checkFails(message, _ string) bool { return message != "" }

func checkGEP2257(s string) (string, string) {
	if !reGEP2257.MatchString(s) {
		if _, err := time.ParseDuration(s); err == nil {
			return fmt.Sprintf("%q is not a duration of the Gateway API", s), "whole numbers of h, m, s and ms, such as 1s500ms (GEP-2257)"
		}
		return fmt.Sprintf("%q is not a duration", s), "such as 500ms, 10s or 1h30m"
	}
	return "", ""
}

func checkPrecise(s string) (string, string) {
	if strings.HasPrefix(s, "*") {
		return fmt.Sprintf("%q is a wildcard", s), "write one host, such as shop.example.com"
	}
	return checkHostname(s)
}

func checkPrefix(s string) (string, string) {
	if s == "" {
		return "", ""
	}
	return checkPath(s)
}

// framed are fields that belong to one connection or to the framing of a message.
// The proxy writes its own, so a filter or match of them would be without effect.
var framed = []string{"connection", "proxy-connection", "keep-alive", "te", "trailer", "transfer-encoding", "transfer_encoding",
	"upgrade", "content-length", "content_length", "host", "expect", "http2-settings"}

func checkField(s string) (string, string) {
	lower := strings.ToLower(s)
	switch {
	case lower == "host":
		return "Host is not a field that can be edited", "use a URLRewrite filter with hostname"
	case slices.Contains(framed, lower):
		return fmt.Sprintf("%s is the proxy's own to write", s), ""
	case strings.HasPrefix(lower, "meridian-"):
		return fmt.Sprintf("%s is reserved: proxies speak to each other in meridian- fields", s), ""
	}
	return checkHeader(s)
}

// EditableField reports whether functions and filters may change a field of the name:
// it is a token, and not the proxies' own to write.
func EditableField(name []byte) bool { return !checkFails(checkField(string(name))) }

func checkRequestField(s string) (string, string) {
	if strings.EqualFold(s, "host") {
		return "Host is not matched as a header", "use hostnames of the route"
	}
	return checkField(s)
}

var reFieldValue = regexp.MustCompile(fieldValue)

func checkFieldValue(s string) (string, string) {
	switch {
	case len(s) > 4096:
		return fmt.Sprintf("is %d bytes long", len(s)), "at most 4096"
	case !reFieldValue.MatchString(s):
		return fmt.Sprintf("%q is not a header value", s), "visible ASCII, with spaces and tabs between"
	}
	return "", ""
}

func checkLength(least, most int) func(string) (string, string) {
	return func(s string) (string, string) {
		switch {
		case len(s) < least:
			return "is empty", ""
		case len(s) > most:
			return fmt.Sprintf("is %d bytes long", len(s)), fmt.Sprintf("at most %d", most)
		}
		return "", ""
	}
}

var reOrigin = regexp.MustCompile(origin)

func checkOrigin(s string) (string, string) {
	if len(s) > 253 || !reOrigin.MatchString(s) {
		return fmt.Sprintf("%q is not an origin", s), "such as https://shop.example.com, https://*.example.com or *"
	}
	if i := strings.LastIndexByte(s, ':'); i > len("https") {
		if n, err := strconv.Atoi(s[i+1:]); err != nil || n < 1 || n > 65535 {
			return fmt.Sprintf("%q has no valid port", s), "1 to 65535"
		}
	}
	return "", ""
}
