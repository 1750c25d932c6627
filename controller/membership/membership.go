// Package membership says what may be believed of a peer, from the age of what
// was last heard of it and from how regularly it was heard before. It is pure:
// ages come in, a verdict goes out.
package membership

import "time"

// Status of a peer.
type Status string

const (
	// Alive was heard of within [Limits.Suspect].
	Alive Status = "alive"
	// Suspect missed some reports; it may be slow, or the way to it.
	Suspect Status = "suspect"
	// Dead missed so many that nothing should be planned with it.
	Dead Status = "dead"
	// Unknown: not heard of, and the silence may be our own.
	Unknown Status = "unknown"
)

// Limits are ages of the last report at which a peer is no longer believed.
type Limits struct{ Suspect, Dead time.Duration }

// Sites are the limits for sites, whose reports come every 500 ms, and Nodes
// those for a site's own nodes, which are a hop away and report as often. They
// hold for a peer that is heard as regularly as it sends; see [Limits.For].
var (
	Sites = Limits{Suspect: 1600 * time.Millisecond, Dead: 5 * time.Second}
	Nodes = Limits{Suspect: 1200 * time.Millisecond, Dead: 3 * time.Second}
)

const (
	// missed is how many mean gaps, and deviations how many mean deviations from
	// it, of silence are still nothing unusual.
	missed, deviations = 3, 4
	// patience bounds how far an irregular peer's limits may grow: a way that
	// loses nearly everything must not make a dead site look alive for minutes.
	patience = 4
	// practice is how many gaps must be known before they say anything.
	practice = 8
)

// Rhythm is how regularly a peer is heard: the mean gap between two of its
// reports and the mean deviation from that, smoothed as RFC 6298 (section 2)
// smooths round trips. Jitter and loss on the way both show in it, because a
// silence is judged by gaps as they were heard, not as they were sent. The zero
// value knows nothing.
type Rhythm struct {
	n         int
	mean, dev time.Duration
}

// Beat takes in the gap between two reports. One so long that the peer was given
// up within it is an outage and says nothing of the rhythm: l are the limits
// that held.
func (r *Rhythm) Beat(gap time.Duration, l Limits) {
	if gap <= 0 || gap > l.Dead {
		return
	}
	if r.n == 0 {
		r.mean, r.dev = gap, gap/4
	} else {
		r.dev += ((gap - r.mean).Abs() - r.dev) / 4
		r.mean += (gap - r.mean) / 8
	}
	r.n++
}

// For returns the limits for a peer with that rhythm: never shorter than l, and
// longer for one that is heard irregularly, by at most the factor 4. Dead keeps
// its proportion to Suspect.
func (l Limits) For(r Rhythm) Limits {
	if r.n < practice {
		return l
	}
	suspect := min(max(l.Suspect, missed*r.mean+deviations*r.dev), patience*l.Suspect)
	return Limits{suspect, time.Duration(float64(l.Dead) * float64(suspect) / float64(l.Suspect))}
}

// Judge returns a peer's status. heard tells whether anything ever came, age how
// long ago the last did, and reachable whether this side could have heard: while
// it could not, silence says nothing of the peer.
func (l Limits) Judge(heard bool, age time.Duration, reachable bool) Status {
	switch {
	case heard && age <= l.Suspect:
		return Alive
	case !heard || !reachable:
		return Unknown
	case age <= l.Dead:
		return Suspect
	default:
		return Dead
	}
}
