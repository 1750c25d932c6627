package mesh

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of a tap at one node.
const (
	// MaxTaps is how many taps may be on at one node.
	MaxTaps = 7
	// MaxTapRate is the most requests a second that one tap is shown of one node.
	MaxTapRate = 1000
	// DefaultTapRate is that where nothing is said.
	DefaultTapRate = 100
	// TapLease is how long a tap goes on that nobody asks for its requests.
	TapLease = 5 * time.Second
)

// FlaggedAny stands for any response flag in a [TapFilter].
const FlaggedAny = "any"

// TapFilter selects requests as they end. What is empty selects all.
type TapFilter struct {
	// Host is the request's host, without a port and in any case.
	Host string `json:"host,omitempty"`
	// PathPrefix is the beginning of the path as the client sent it.
	PathPrefix string `json:"pathPrefix,omitempty"`
	Method     string `json:"method,omitempty"`
	// Status is a status (503), a class (5xx), or 0 where no response was sent.
	Status string `json:"status,omitempty"`
	// Flags are response flags (UF, UT), one of which the request has, or
	// [FlaggedAny].
	Flags []string `json:"flags,omitempty"`
	// MinMS is the least duration, in ms.
	MinMS   float64    `json:"minMs,omitempty"`
	Service ServiceKey `json:"service,omitempty"`
	// ID is the request's x-request-id.
	ID string `json:"id,omitempty"`
}

// Statuses returns the lowest and the highest status that the filter selects.
func (f *TapFilter) Statuses() (from, to int, err error) {
	if f.Status == "" {
		return 0, 999, nil
	}
	if class, ok := strings.CutSuffix(f.Status, "xx"); ok && len(class) == 1 && class >= "1" && class <= "5" {
		from = 100 * int(class[0]-'0')
		return from, from + 99, nil
	}
	n, err := strconv.Atoi(f.Status)
	if err != nil || n != 0 && (n < 100 || n > 599) {
		return 0, 0, fmt.Errorf("status %q: want a status such as 503, a class such as 5xx, or 0 where no response was sent", f.Status)
	}
	return n, n, nil
}

// Check says what of the filter no request can be.
func (f *TapFilter) Check() error {
	var err []error
	if _, _, e := f.Statuses(); e != nil {
		err = append(err, e)
	}
	if f.PathPrefix != "" && !strings.HasPrefix(f.PathPrefix, "/") {
		err = append(err, fmt.Errorf("path %q: it begins with /", f.PathPrefix))
	}
	if f.MinMS < 0 {
		err = append(err, fmt.Errorf("duration %g ms: it is at least 0", f.MinMS))
	}
	if strings.ContainsAny(f.Host, "/ ") {
		err = append(err, fmt.Errorf("host %q: want a host name, without scheme and path", f.Host))
	}
	for _, flag := range f.Flags {
		if flag == "" || flag != FlaggedAny && strings.Trim(flag, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
			err = append(err, fmt.Errorf("flag %q: want letters as the access log writes them (UF, UT), or %s", flag, FlaggedAny))
		}
	}
	if f.Service != "" {
		if ns, name, ok := strings.Cut(string(f.Service), "/"); !ok || ns == "" || name == "" {
			err = append(err, fmt.Errorf("service %q: want namespace/name", f.Service))
		}
	}
	return errors.Join(err...)
}

// TapQuery asks one node for the requests of a tap since the last query: the first
// query of a session turns the tap on, and it goes off when nobody has asked for
// [TapLease] or with End.
type TapQuery struct {
	// Session names the tap: whoever asks chooses a name that nobody else has.
	Session string    `json:"session"`
	Filter  TapFilter `json:"filter"`
	// PerSecond is the most requests a second; more are counted only.
	PerSecond int `json:"perSecond,omitempty"`
	// After is the last [TapAnswer.Seq] that arrived: what is later comes (again).
	After uint64 `json:"after,omitempty"`
	End   bool   `json:"end,omitempty"`
}

// Check says what is wrong with the query and fills in the default.
func (q *TapQuery) Check() error {
	if q.PerSecond == 0 {
		q.PerSecond = DefaultTapRate
	}
	switch {
	case q.Session == "" || len(q.Session) > 64:
		return errors.New("a tap's session has a name of 1 to 64 bytes")
	case q.PerSecond < 1 || q.PerSecond > MaxTapRate:
		return fmt.Errorf("%d requests a second: want 1 to %d", q.PerSecond, MaxTapRate)
	}
	return q.Filter.Check()
}

// TapAnswer is what a tap has seen at one node.
type TapAnswer struct {
	Site string `json:"site,omitempty"`
	Node string `json:"node,omitempty"`
	// Seq is that of the last request here, for [TapQuery.After].
	Seq      uint64         `json:"seq"`
	Requests []EndedRequest `json:"requests"`
	// Dropped counts requests that the filter selected but that were over the rate
	// or found no room, since the tap is on.
	Dropped uint64 `json:"dropped,omitempty"`
	// More says that more wait than an answer holds.
	More bool `json:"more,omitempty"`
}

// EndedRequest is a request, TCP connection or UDP session that is over, as one
// proxy saw it. Texts from outside are cut to a bound and may hold any bytes.
type EndedRequest struct {
	Time time.Time `json:"time"` // when it began
	Site string    `json:"site,omitempty"`
	Node string    `json:"node,omitempty"`
	ID   string    `json:"id,omitempty"` // its x-request-id

	Protocol  string `json:"protocol"`
	Method    string `json:"method,omitempty"`
	Authority string `json:"authority,omitempty"`
	Path      string `json:"path,omitempty"`
	UserAgent string `json:"userAgent,omitempty"`

	// Status is 0 where no response was sent. Flag and Details say why it is as it is,
	// in the words of the access log.
	Status  int    `json:"status"`
	Flag    string `json:"flag,omitempty"`
	Details string `json:"details,omitempty"`

	// Client is who asked, Peer who is at the other end of the connection, and
	// Identity whose certificate it is.
	Client   string `json:"client,omitempty"`
	Peer     string `json:"peer,omitempty"`
	Identity string `json:"identity,omitempty"`

	Gateway string     `json:"gateway,omitempty"` // namespace/name
	Rule    string     `json:"rule,omitempty"`    // namespace/route/rule
	Service ServiceKey `json:"service,omitempty"`
	// ToSite is the other site that it was sent to last, empty at home, and Endpoint
	// the address there: of another site that of its gateway.
	ToSite   string `json:"toSite,omitempty"`
	Endpoint string `json:"endpoint,omitempty"`
	Attempts int    `json:"attempts"`

	// Received and Sent are bytes of bodies.
	Received int64 `json:"received"`
	Sent     int64 `json:"sent"`
	// DurationMS is to the last byte of the response, FirstByteMS to its first, nil
	// where there was none.
	DurationMS  float64  `json:"durationMs"`
	FirstByteMS *float64 `json:"firstByteMs,omitempty"`
}

// FailedQuery asks a node for the requests that it keeps: those that failed or took
// long.
type FailedQuery struct {
	// ID is an x-request-id; empty asks for the latest.
	ID string `json:"id,omitempty"`
	// Filter selects among the latest.
	Filter TapFilter `json:"filter,omitzero"`
	// Most bounds the answer; 0 is [DefaultFailed].
	Most int `json:"most,omitempty"`
}

// Bounds of a [FailedQuery].
const (
	DefaultFailed = 20
	MaxFailed     = 100
)

// Check says what is wrong with the query and fills in the default.
func (q *FailedQuery) Check() error {
	if q.Most == 0 {
		q.Most = DefaultFailed
	}
	if q.Most < 1 || q.Most > MaxFailed {
		return fmt.Errorf("%d requests: want 1 to %d", q.Most, MaxFailed)
	}
	if len(q.ID) > 512 {
		return errors.New("a request ID of over 512 bytes is never kept")
	}
	return q.Filter.Check()
}

// FailedAnswer is what a node keeps of requests that failed or took long.
type FailedAnswer struct {
	Site string `json:"site,omitempty"`
	Node string `json:"node,omitempty"`
	// Requests are those that were asked for, the latest first.
	Requests []FailedRequest `json:"requests"`
	// Kept is how many there are in all, the oldest from Since. NotKept counts those
	// that came too fast to be kept.
	Kept    int        `json:"kept"`
	Since   *time.Time `json:"since,omitempty"`
	NotKept uint64     `json:"notKept,omitempty"`
	// SlowMS is from how many ms on a request is kept that did not fail.
	SlowMS float64 `json:"slowMs"`
}

// FailedRequest is a request that failed or took long, with how things stood when it
// ended.
type FailedRequest struct {
	EndedRequest
	// Explanation is where such a request would have gone just after this one ended:
	// policies, sites and endpoints with what speaks for and against each.
	Explanation *Explanation `json:"explanation,omitempty"`
	// ExplainedMS is how long after the request's end that was looked at; it is
	// negative where an explanation of a moment before was taken.
	ExplainedMS float64 `json:"explainedMs,omitempty"`
	// Unexplained says why there is none.
	Unexplained string `json:"unexplained,omitempty"`
}

// HasFlag reports whether a filter's flags select one.
func (f *TapFilter) HasFlag(flag string) bool {
	if len(f.Flags) == 0 {
		return true
	}
	return flag != "" && (slices.Contains(f.Flags, flag) || slices.Contains(f.Flags, FlaggedAny))
}
