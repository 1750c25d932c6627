package exchange

// Flag says why an exchange ended as it did, in the letters of Envoy's response flags.
type Flag uint8

// Flags.
const (
	OK                 Flag = iota
	NoRoute                 // no route, or no such service
	NoCluster               // the route names a backend that does not exist
	NoHealthy               // the service has no endpoint to send to
	ConnectFailure          // the connection could not be made in time
	UpstreamReset           // the connection ended before the response did
	UpstreamProtocol        // the response breaks the protocol
	UpstreamTimeout         // the backend took too long
	Overload                // a limit of this proxy was reached
	ClientDisconnected      // the client went away
	ClientProtocol          // the request breaks the protocol or a limit
	ClientTimeout           // the request took too long to arrive
	IdleTimeout             // a tunnel or connection carried nothing for too long
	Loop                    // the request has been here before
	SlowBody                // the request's body came too slowly
	SlowReader              // the client took its response too slowly
	Shed                    // full here, and no other site may take it
	RateLimited             // a policer refused the request
	FunctionFailed          // a function of a chain could not do its work
	Denied                  // a policy refused it
	Flags                   // their number
)

var flagText = [Flags]struct {
	code   string
	status int
	text   string
}{
	OK:                 {"", 200, ""},
	NoRoute:            {"NR", 404, "no route matches this request"},
	NoCluster:          {"NC", 500, "the route names something that does not exist"},
	NoHealthy:          {"UH", 503, "the service has no endpoint that can take this request"},
	ConnectFailure:     {"UF", 503, "the backend could not be reached"},
	UpstreamReset:      {"UC", 502, "the backend ended the connection before its response"},
	UpstreamProtocol:   {"UPE", 502, "the backend's response is not valid"},
	UpstreamTimeout:    {"UT", 504, "the backend did not answer in time"},
	Overload:           {"UO", 503, "this proxy is at a limit"},
	ClientDisconnected: {"DC", 0, ""},
	ClientProtocol:     {"DPE", 400, "the request is not valid"},
	ClientTimeout:      {"DT", 408, "the request did not arrive in time"},
	Loop:               {"LD", 508, "the request goes round in a loop"},
	SlowBody:           {"SB", 408, "the request's body came too slowly"},
	SlowReader:         {"SR", 0, ""},
	IdleTimeout:        {"SI", 408, "the connection carried nothing for too long"},
	Shed:               {"SH", 503, "the service is full here, and no other site can take this request"},
	RateLimited:        {"RL", 429, "too many requests"},
	Denied:             {"AD", 403, "access denied"},
	FunctionFailed:     {"FF", 503, "a function that this request has to pass does not work"},
}

var details = [Flags]string{
	OK:                 "via_upstream",
	NoRoute:            "route_not_found",
	NoCluster:          "backend_not_found",
	NoHealthy:          "no_healthy_upstream",
	ConnectFailure:     "upstream_connection_failure",
	UpstreamReset:      "upstream_reset_before_response_started",
	UpstreamProtocol:   "upstream_protocol_error",
	UpstreamTimeout:    "upstream_response_timeout",
	Overload:           "overload",
	ClientDisconnected: "downstream_remote_disconnect",
	ClientProtocol:     "request_invalid",
	ClientTimeout:      "request_header_timeout",
	Loop:               "request_loop",
	SlowBody:           "request_body_too_slow",
	SlowReader:         "response_read_too_slowly",
	IdleTimeout:        "idle_timeout",
	Shed:               "shed",
	RateLimited:        "rate_limited",
	FunctionFailed:     "function_failed",
	Denied:             "rbac_access_denied",
}

// Details is the flag as a reason in the words of Envoy's response code details,
// where it has one. The cause of a response that has begun and is cut off is
// another one, see DetailsOf.
func (f Flag) Details() string { return details[f] }

// DetailsOf is Details of an exchange, with begun that the client has had a head.
func DetailsOf(f Flag, begun bool) string {
	if begun && f == UpstreamReset {
		return "upstream_reset_after_response_started"
	}
	return f.Details()
}

// String is the flag's letters, empty for OK.
func (f Flag) String() string { return flagText[f].code }

// Status is the status of the local reply for it.
func (f Flag) Status() int { return flagText[f].status }

// Text is the reply's sentence.
func (f Flag) Text() string { return flagText[f].text }
