package upstream

import (
	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/limit"
)

// What a Gate's Pick returns besides the index of a remote.
const (
	// Home means this site.
	Home = -1
	// None means that no place is left to try.
	None = -2
	// Shed means that the request is refused: the line here is too long and no
	// other site may take it.
	Shed = -3
)

// Tried is a set of places: Home and remotes by index, of which it can hold the
// first 63. The zero value is none.
type Tried uint64

// With returns the set with one place more.
func (t Tried) With(i int) Tried { return t | 1<<uint(i+1) }

// Has reports whether a place is in the set.
func (t Tried) Has(i int) bool { return t&(1<<uint(i+1)) != 0 }

// Outcome is how an attempt at another site ended.
type Outcome uint8

// Outcomes.
const (
	// Answered: a response's head came, whatever its status.
	Answered Outcome = iota
	// Unreachable: not even a connection came about.
	Unreachable
	// Broken: it ended without a response.
	Broken
	// Cancelled: it was given up for a reason that says nothing of the site, such
	// as a client that went away.
	Cancelled
)

// Gate decides per request whether a service's request stays at home. Remotes
// are named by their index in the list given to [Sharing.Gate]. All methods are
// called from several event loops at once, must not block and must not allocate.
// Times are nanoseconds of one monotonic clock (see edgeproxy.Server.Now).
type Gate interface {
	// Pick returns Home, the index of a remote site, None, or Shed. class is the
	// request's priority class, 0 for none, homeInFlight counts the service's requests
	// at this site's endpoints, rnd is 64 fresh random bits, tried are the places where
	// this request failed already.
	Pick(class int, now int64, homeInFlight int, rnd uint64, tried Tried) int
	// Sent follows when an attempt at the remote begins, with connecting.
	Sent(remote int, now int64)
	// Done follows each Sent once: when the head of its response came, or when its
	// attempt ended without.
	Done(remote int, now int64, how Outcome)
	// Load hands over the meridian-load value of a response; value is borrowed.
	Load(remote int, value []byte, now int64)
}

// Report writes the in-band load report of a service (the value of meridian-load).
// Called from several event loops at once; must not block or allocate.
type Report interface {
	// AppendLoad appends what is said to the asking site, source, which is
	// borrowed; nothing where there is nothing to say.
	AppendLoad(dst, source []byte, inFlight int) []byte
}

// Sharing supplies what cooperation between sites needs, service by service. It
// is called while a view is built, never per request. A nil Gate means home
// first and remotes only where home has no endpoint; a nil Report sends none.
type Sharing interface {
	Gate(service mesh.ServiceKey, remotes []string) Gate
	Report(service mesh.ServiceKey) Report
	// Meter counts what goes over the link to a site: always the same one for a site,
	// nil where nobody asks.
	Meter(site string) *limit.Meter
}
