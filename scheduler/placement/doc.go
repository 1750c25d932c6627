// Package placement says where workloads should run, by what they say to each
// other and how far apart nodes are.
//
// The cost of an assignment is the traffic of every pair of replicas times the
// delay that it crosses, forward and back each with its own direction's delay:
// bytes per second times seconds, so it is the bytes that are on the wire between
// nodes at any moment (Little's law). A pair of services shares its traffic out
// over their replicas, evenly or by the shares given. Nodes have a capacity, and
// what is over it counts before any traffic.
//
// [NodeCosts] prices every node for one pod, which is what a scheduler's score
// needs. [Assign] places all units at once: greedily by stress, then by single moves
// and swaps of two, downhill and in a short annealing that a seed decides. [Advise] says what of a
// running assignment is worth moving, in an order that never overfills a node.
//
// The package is pure and deterministic: the same problem and seed give the same
// answer. A Problem is not changed by any function and may be shared.
package placement
