// Package plan decides how one site shares one service's requests with others.
//
// A [Planner] turns what a site knows (its own demand and capacity, and reports
// of other sites of various ages) into a mesh.ServiceWeights every 100 ms: a
// home limit and, for each other site, a share, a limit and prices. The proxy's
// gate applies them per request. A [Board] keeps the freshest report of each
// site; [Fade] mixes two plans while one takes over from another. A site
// controller uses all three, and so does a proxy whose controller is gone.
//
// The rule: own demand is water-filled over 1.3 round trips plus the marginal
// delay of each site at the others' load (controller/price), damped by the age
// of what is known. Equal marginal cost at every site is the optimum of total
// delay, so sites that decide alone still agree. A plain damped price rule (move
// a fraction per tick from the dearest to the cheapest) swings at any step size
// once reports are late; it was measured and must not come back.
//
// The package is pure. Clock readings are nanoseconds of a monotonic clock with
// any origin. Planner and Board belong to one goroutine each.
package plan
