// Package sim runs a mesh of sites in virtual time: requests as discrete events,
// sites as queues of c slots, links as delays. What decides where a request goes
// is a [Policy]; testbed/sim/policy has the product's own decision code and the
// rules it is compared with.
//
// A run is deterministic by its seed, and every policy sees the same arrivals and
// the same work: they are drawn from streams of their own, one for each site. The
// loop allocates nothing per event, so a city of 125 sites runs many times faster
// than real time.
//
// A site is first come, first served. A request from i to j takes half a round
// trip, waits, is worked on, and takes half a round trip back. What has waited past
// its deadline is dropped when its turn comes; what is answered later than that
// counts as an error that took exactly the deadline, and so does a request that a
// cut link swallowed. Not modelled: processors shared by slots, retries, messages
// lost at random, several services, clock skew.
//
// The package is pure. A [Mesh] belongs to one goroutine.
package sim
