// Package flow names flows: the 5-tuple of a packet, the same bytes and the same
// hash in Go and in BPF, so that both choose alike.
//
// The package is pure and nothing in it allocates.
package flow
