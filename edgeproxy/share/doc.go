// Package share decides, request by request, whether a service is served at home
// or at which other site.
//
// A [Gate] is one service's plan (mesh.ServiceWeights) compiled for event loops:
// [Gate.Pick] costs tens of nanoseconds and allocates nothing. What happens to
// the requests sent away is kept in a [Live] per service and site, shared by the
// loops and by successive gates of a [Ledger]. [Node] is the proxy's 100 ms step
// around them: it turns counters and heard reports into the plan in force (the
// controller's, or its own standby plan when nobody renews the controller's), the
// report to the controller and the in-band reports to other sites.
//
// The package is pure: clock readings come in as nanoseconds of a monotonic clock
// with any origin above zero, random numbers as arguments. Node belongs to one
// goroutine; Gate, Live and Ledger may be used by many.
package share
