// Package source brings the configuration a node serves from: documents in a
// file or folder ([Files]), or snapshots that the site's controller sends over
// the bus ([Bus]).
//
// Both keep one promise, held by [Keeper]: what cannot be served changes
// nothing. A broken file or a snapshot that fails its hash, its signature, its
// version or the proxy's own build is refused with its reason, the last good one
// serves on, and [State] shows both. A source never takes a node back to a lower
// generation of the same origin, and keeps the last good snapshot on disk
// ([Store]) so that a node starts when nobody answers.
package source
