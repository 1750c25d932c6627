// Package otlp tells a collector of traces what the proxies of a site saw: a request that
// ended becomes a span, by OpenTelemetry's semantic conventions for HTTP servers, and
// spans go out over OTLP/HTTP in JSON, in batches from a bounded queue.
//
// Proxies pass traceparent and x-request-id on as they are, so nothing in a request says
// which proxy passed it before. It need not: all that see one request agree on its IDs,
// since they are hashes of what they all see. The proxy where it came in is the child of
// its caller, another site's proxy the child of that one.
package otlp
