package mesh

import "errors"

// TraceQuery has a proxy send one request to one of its own listeners, as a client on
// its machine would.
type TraceQuery struct {
	ExplainQuery
	// ID is the request's x-request-id, by which proxies on its way are asked.
	ID string `json:"id"`
}

// Check says what is wrong with the query and fills in the defaults.
func (q *TraceQuery) Check() error {
	if q.Service != "" || q.Host == "" {
		return errors.New("a request that is sent has a host: it goes to a listener, not to a service")
	}
	if q.Protocol != "" || q.Port != 0 {
		return errors.New("a request that is sent is one of HTTP: leave protocol and port out")
	}
	if len(q.ID) < 16 {
		return errors.New("a request that is sent has an ID of 16 bytes or more")
	}
	return q.ExplainQuery.Check()
}

// Traced is what the client saw of a request that was sent for a [TraceQuery].
type Traced struct {
	Site string `json:"site,omitempty"`
	Node string `json:"node,omitempty"`
	// Listener took it, namespace/gateway/listener, at Address.
	Listener string `json:"listener"`
	Address  string `json:"address"`
	// Status is the response's; 0 where Failed says why there was none.
	Status int    `json:"status"`
	Failed string `json:"failed,omitempty"`
	// TookMS is from before the connection to the last byte of the response.
	TookMS float64 `json:"tookMs"`
}
