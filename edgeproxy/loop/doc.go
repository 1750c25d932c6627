// Package loop is the event loop under the data path: epoll on a locked OS
// thread, non-blocking sockets by raw system calls, buffers outside the Go heap,
// a timing wheel, and posting between loops. A loop shares nothing with another:
// what it owns (connections, buffers, timers) only its own goroutine touches, and
// the only doors from outside are [Loop.Post] and the counters that are atomic.
//
// Why raw system calls: an ordinary one hands the processor back to the Go
// scheduler on the way in, and with no idle processor left sysmon takes it away,
// which costs more than the call. A loop therefore blocks raw for a short while,
// where the next event is likely to be near, and only then the ordinary way. It
// needs one processor more than there are loops to be GOMAXPROCS.
package loop
