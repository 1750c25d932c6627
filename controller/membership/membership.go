// Package membership says what may be believed of a peer, from the age of what
// was last heard of it. It is pure: ages come in, a verdict goes out.
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
// those for a site's own nodes, which are a hop away and report as often.
var (
	Sites = Limits{Suspect: 1600 * time.Millisecond, Dead: 5 * time.Second}
	Nodes = Limits{Suspect: 1200 * time.Millisecond, Dead: 3 * time.Second}
)

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
