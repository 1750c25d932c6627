// Package mesh is Meridian's vocabulary: the kinds a user writes (Gateway,
// HTTPRoute, Site, MeshService, TrafficPolicy), the Snapshot a node serves from,
// and the soft state that sites exchange (Report, Weights).
//
// The kinds of gateway.networking.k8s.io/v1 keep the Gateway API's shapes and
// semantics in plain structs, so the same document is valid in a file, on the
// bus and in a cluster. The package is pure: no clock, no network, no files.
//
// Two ways of reading exist on purpose. People's documents are read strictly
// ([ParseYAML]: an unknown field is an error and every fault of a file is
// reported at once). Messages between our own processes are read tolerantly
// (unknown JSON fields are ignored) and carry [Compat], so that versions N-1 and
// N+1 can live in one mesh.
package mesh
