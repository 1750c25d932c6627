package stream

// notTrailers are the ordinary fields that decide about routing, authentication,
// caching or the content before it is read, and so may not come after it (RFC
// 9110 6.5.1).
var notTrailers = []string{
	"authorization", "proxy-authorization", "proxy-authenticate", "www-authenticate",
	"authentication-info", "proxy-authentication-info", "cookie", "set-cookie",
	"content-encoding", "content-type", "content-range", "content-language", "content-location",
	"cache-control", "age", "date", "expires", "pragma", "vary", "warning", "location", "retry-after",
	"range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range",
	"max-forwards", "origin", "forwarded", "via", "x-request-id", "x-real-ip", "traceparent", "tracestate",
}

// MayTrail reports whether a field may stand among trailers. The fields that a
// message does not show are the codec's to refuse.
func (f Field) MayTrail() bool {
	for _, n := range notTrailers {
		if f.Is(n) {
			return false
		}
	}
	const forwarded = "x-forwarded-"
	return len(f.Name) < len(forwarded) || !(Field{Name: f.Name[:len(forwarded)]}).Is(forwarded)
}
