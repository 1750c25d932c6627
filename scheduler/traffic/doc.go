// Package traffic is what the mesh has seen of who talks to whom: bytes and
// requests per second between workloads, in both directions, and the delays
// between the nodes that they may run on.
//
// A [Meter] turns counts into two moving means, one over 5 minutes from which new
// pods are scored and one over 30 minutes from which moves are advised. A [Matrix]
// is a reading of it. It is bounded ([Matrix.Bound] keeps the heaviest edges of
// each workload and sums up the rest) and matrices of several reporters add up
// ([Merge]) to the same, in whatever order they come. [Delays] is the other half:
// milliseconds one way between nodes, from those between their sites.
//
// In a mesh each site's controller tells what its proxies saw (mesh.TrafficReport); a
// [Board] keeps what each site told last, and [Sum] and [Between] make of it the matrix
// and the delays of the whole mesh.
//
// Figures also come from other meshes: [Importer] reads the metrics of Istio,
// Linkerd and Cilium's Hubble in the Prometheus text format.
//
// Numbers that cannot be (NaN, negative, infinite) are refused with the name of
// what carries them. The package is pure; a Meter, a Board and an Importer belong to one
// goroutine, everything else is a value.
package traffic
