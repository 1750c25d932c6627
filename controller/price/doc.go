// Package price is the one currency of the mesh: milliseconds of marginal delay.
//
// A site that works on c requests at once, s milliseconds each, is taken as an
// M/M/c queue (Erlang C). [Queue] gives what one more request per second costs
// everybody there ([Queue.MarginalMS]) and the inverse; [Admission] gives what
// admitting one request costs when n are in flight (the relative values of the
// same queue), so that the mean of the second over the queue's states is the
// first. [Rate] and [ServiceTime] estimate the queue's inputs from counters.
//
// Times are milliseconds and rates are per second, and the names say so. Clock
// readings are nanoseconds of a monotonic clock with any origin. The package is
// pure. A Queue and an Admission are immutable; [Curves] may be shared by
// goroutines; the estimators belong to one goroutine each.
package price
