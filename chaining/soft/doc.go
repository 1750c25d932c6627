// Package soft forwards chains in userspace, by the same [path.Table] as the BPF
// programs of chaining/datapath.
//
// [Forwarder.Forward] is the core: a frame and the port it came in on give a
// verdict and the frame that goes out. It has no I/O and no clock, and says byte
// for byte what BPF has to do: it is the oracle of chaining/datapath's tests, and
// where they differ one of both is wrong. [Forwarder] belongs to one goroutine.
package soft
