package upstream

import "github.com/meridian-mesh/meridian/api/mesh"

// Home is what a Gate's Pick returns for "serve it at this site".
const Home = -1

// Gate decides per request whether a service's request stays at home. Remotes
// are named by their index in the list given to [Sharing.Gate]. All methods are
// called from several event loops at once, must not block and must not allocate.
// Times are nanoseconds of one monotonic clock (see edgeproxy.Server.Now).
type Gate interface {
	// Pick returns Home or the index of a remote site. homeInFlight counts the
	// service's requests at this site's endpoints, rnd is 64 fresh random bits.
	Pick(now int64, homeInFlight int, rnd uint64) int
	// Sent follows when an attempt was sent to the remote.
	Sent(remote int, now int64)
	// Done follows each Sent when its attempt ended; ok means an answer came.
	Done(remote int, now int64, ok bool)
	// Load hands over the meridian-load value of a response; value is borrowed.
	Load(remote int, value []byte, now int64)
}

// Report writes the in-band load report of a service (the value of meridian-load).
// Called from several event loops at once; must not block or allocate.
type Report interface {
	AppendLoad(dst []byte, inFlight int) []byte
}

// Sharing supplies what cooperation between sites needs, service by service. It
// is called while a view is built, never per request. A nil Gate means home
// first and remotes only where home has no endpoint; a nil Report sends none.
type Sharing interface {
	Gate(service mesh.ServiceKey, remotes []string) Gate
	Report(service mesh.ServiceKey) Report
}
