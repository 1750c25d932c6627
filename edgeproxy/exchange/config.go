package exchange

// Config is what an exchange is allowed.
type Config struct {
	// Retries is how many attempts may follow a failed one.
	Retries int
	// Idempotent says that the request may be sent twice (RFC 9110 9.2.2).
	Idempotent bool
	// MaxReplay is how many bytes of request body are kept for a retry.
	MaxReplay int
	// ClientCredit is the client's credit for response body at the start.
	ClientCredit int
	// Tunnel says that the request asks for a tunnel and has no body: what the client
	// sends before a backend has agreed, be it an end, is kept and given no credit.
	Tunnel bool
	// CountStale has an attempt for a connection that the other side had closed count
	// as one of Retries.
	CountStale bool
	// Lost overrides the status of the answer for [UpstreamReset]; 0 does not.
	Lost int
}
