// Package bus is the way Meridian's processes talk to each other: subjects,
// typed publishing and subscribing, and the buckets of durable intent. It is the
// only package that imports nats.go, and it imports nothing of the controller or
// of the NATS server, so that a node links a client and nothing more.
//
// Two kinds of traffic share a connection and nothing else:
//
//   - Soft state ([mesh.Report], [mesh.NodeReport], [mesh.Weights]) travels as
//     plain messages. It is repeated twice a second and worthless when late, so
//     it is never stored, never buffered while the connection is down, and a slow
//     reader loses the oldest messages first (counted in [State]).
//   - Durable intent (configuration and [mesh.Snapshot]) lives in key-value
//     buckets with one writer each. A reader sees the current value whenever it
//     comes, and each that follows.
//
// Every name of a site or a node becomes one subject token by [Token].
package bus
