// Package report turns what a demo run recorded into figures: response times and
// errors by phase, and how the weights between sites moved. It is pure: records
// in, values and text out.
package report

import (
	"math"
	"slices"
	"time"
)

// Outcome is how a request ended.
type Outcome uint8

// Outcomes. Everything but OK is an error.
const (
	OK Outcome = iota
	// BadStatus: an answer other than 2xx.
	BadStatus
	// Timeout: no whole answer within the client's deadline.
	Timeout
	// Refused: no connection to the proxy.
	Refused
	// Broken: the connection ended or the answer made no sense.
	Broken
)

func (o Outcome) String() string {
	return [...]string{"ok", "status", "timeout", "refused", "broken"}[o]
}

// Nowhere is the Served site of a request that no known site answered.
const Nowhere = -1

// Request is what became of one request.
type Request struct {
	// At is when it was meant to be sent, from the run's start, and Latency the
	// time from then to the last byte of the answer or to the failure: a
	// generator or connection that is late makes it longer, never invisible.
	At, Latency time.Duration
	// Home is the site nearest to the user, Served the one that answered or Nowhere.
	Home, Served int
	Outcome      Outcome
	Status       int
}

// Stats are the figures of a set of requests. Times are in milliseconds.
type Stats struct {
	Requests int     `json:"requests"`
	Errors   int     `json:"errors"`
	MedianMS float64 `json:"median_ms"`
	MeanMS   float64 `json:"mean_ms"`
	P99MS    float64 `json:"p99_ms"`
	// AwayShare is the part of the answered requests that another site than
	// home served.
	AwayShare float64 `json:"away_share"`
}

// Summarize computes the figures of the requests that keep selects. A failed
// request counts with the deadline as its time, since its user never had an
// answer: failing fast must not look fast. The median and p99 are nearest ranks.
func Summarize(all []Request, deadline time.Duration, keep func(Request) bool) Stats {
	var s Stats
	var times []time.Duration
	var sum time.Duration
	answered, away := 0, 0
	for _, r := range all {
		if !keep(r) {
			continue
		}
		took := r.Latency
		if r.Outcome != OK {
			s.Errors++
			took = max(took, deadline)
		} else {
			answered++
			if r.Served != r.Home {
				away++
			}
		}
		times = append(times, took)
		sum += took
	}
	s.Requests = len(times)
	if s.Requests == 0 {
		return s
	}
	slices.Sort(times)
	s.MedianMS = ms(rank(times, 0.5))
	s.P99MS = ms(rank(times, 0.99))
	s.MeanMS = round(float64(sum) / float64(len(times)) / 1e6)
	if answered > 0 {
		s.AwayShare = math.Round(1e4*float64(away)/float64(answered)) / 1e4
	}
	return s
}

// rank is the nearest-rank quantile of sorted times.
func rank(sorted []time.Duration, q float64) time.Duration {
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[max(i, 0)]
}

func ms(d time.Duration) float64 { return round(float64(d) / 1e6) }

// round keeps microseconds: more digits than were measured would be invented.
func round(v float64) float64 { return math.Round(v*1e3) / 1e3 }

// Span is a part of a run, From included and To not.
type Span struct{ From, To time.Duration }

// Has says whether a request was meant to be sent within the span.
func (s Span) Has(r Request) bool { return r.At >= s.From && r.At < s.To }
