package tap

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

const (
	// explainRate is how many explanations are made in a second, and shareFor how old
	// one may be that another request of the same rule, service and outcome shares.
	explainRate = 20
	shareFor    = 500 * time.Millisecond
	// maxExplanation bounds one in bytes: those of a service with hundreds of
	// endpoints are not kept.
	maxExplanation = 16 << 10
)

// kept are the latest requests that failed or took long, in a circle.
type kept struct {
	now     func() int64
	explain func(*mesh.EndedRequest) (*mesh.Explanation, error)
	// Of the reader: explanations made in this second, and those that may be shared.
	second int64
	made   int
	shared map[outcome]shared

	mu   sync.Mutex
	list []failure
	next int // where the oldest is once the list is full
}

type failure struct {
	request     mesh.EndedRequest
	explanation json.RawMessage
	after       int64 // from the request's end to the explanation, in ns
	unexplained string
}

// outcome is what requests have in common that one explanation is for.
type outcome struct {
	rule, gateway, host, path string
	service                   mesh.ServiceKey
}

type shared struct {
	at          int64
	explanation json.RawMessage
	unexplained string
}

func newKept(c Config) *kept {
	return &kept{now: c.Now, explain: c.Explain, shared: map[outcome]shared{}}
}

// add keeps a request that was over at end. The reader's goroutine alone calls it.
func (k *kept) add(e mesh.EndedRequest, end int64) {
	s := k.explained(&e)
	f := failure{request: e, explanation: s.explanation, after: s.at - end, unexplained: s.unexplained}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.list) < maxKept {
		k.list = append(k.list, f)
		return
	}
	k.list[k.next] = f
	k.next = (k.next + 1) % maxKept
}

func (k *kept) explained(e *mesh.EndedRequest) shared {
	if e.Method == "" {
		return shared{at: k.now(), unexplained: "it is no request of HTTP, or its head never came whole"}
	}
	now := k.now()
	of := outcome{rule: e.Rule, gateway: e.Gateway, service: e.Service}
	if e.Service == "" { // by host and path then
		of.host, of.path = e.Authority, e.Path
	}
	if s, ok := k.shared[of]; ok && now-s.at < int64(shareFor) {
		return s
	}
	if second := now / int64(time.Second); second != k.second {
		k.second, k.made = second, 0
		clear(k.shared)
	}
	if k.made++; k.made > explainRate {
		return shared{at: now, unexplained: fmt.Sprintf("over %d requests of this second were explained before it", explainRate)}
	}
	s := shared{at: now}
	x, err := k.explain(e)
	if err == nil {
		s.explanation, err = json.Marshal(x)
	}
	switch {
	case err != nil:
		s.explanation, s.unexplained = nil, err.Error()
	case len(s.explanation) > maxExplanation:
		s.unexplained = fmt.Sprintf("with %d bytes its explanation is over the %d that are kept: the service has many endpoints", len(s.explanation), maxExplanation)
		s.explanation = nil
	}
	k.shared[of] = s
	return s
}

// find answers a query: the latest come first.
func (k *kept) find(q *mesh.FailedQuery) (*mesh.FailedAnswer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := &mesh.FailedAnswer{Requests: []mesh.FailedRequest{}, Kept: len(k.list), SlowMS: float64(Slow) / 1e6}
	size := 0
	for i := range k.list {
		f := &k.list[(k.next+len(k.list)-1-i)%len(k.list)]
		if out.Since == nil || f.request.Time.Before(*out.Since) {
			out.Since = &f.request.Time
		}
		if len(out.Requests) == q.Most || size > maxAnswer || !selects(q, &f.request) {
			continue
		}
		r := mesh.FailedRequest{EndedRequest: f.request, Unexplained: f.unexplained}
		size += sizeOf(&f.request) + len(f.explanation)
		if f.explanation != nil && q.ID != "" { // of many only the facts are asked for
			r.Explanation, r.ExplainedMS = new(mesh.Explanation), float64(f.after)/1e6
			if err := json.Unmarshal(f.explanation, r.Explanation); err != nil {
				return nil, fmt.Errorf("explanation of request %s: %w", f.request.ID, err)
			}
		}
		out.Requests = append(out.Requests, r)
	}
	return out, nil
}

// selects is [session.matches] for a request in words.
func selects(q *mesh.FailedQuery, e *mesh.EndedRequest) bool {
	f := &q.Filter
	from, to, _ := f.Statuses() // they have been checked
	host := e.Authority
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return (q.ID == "" || q.ID == e.ID) && (f.ID == "" || f.ID == e.ID) &&
		e.Status >= from && e.Status <= to && e.DurationMS >= f.MinMS && f.HasFlag(e.Flag) &&
		(f.Method == "" || f.Method == e.Method) && (f.Service == "" || f.Service == e.Service) &&
		strings.HasPrefix(e.Path, f.PathPrefix) && (f.Host == "" || strings.EqualFold(f.Host, host))
}
