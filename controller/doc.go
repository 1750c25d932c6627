// Package controller runs one site: its NATS server, its world, the snapshots
// and weights of its nodes, its reports to other sites, and the API that the CLI
// speaks to.
//
// One goroutine ([Server.loop]) owns the world and decides; everything that
// waits (disk, bus, HTTP) is outside and talks to it by channels. Configuration
// comes in as events of the buckets, is compiled into a [mesh.Snapshot] when
// something really changed, recorded on disk, and only then published. Soft state
// never touches the disk: every 100 ms each shared service is planned anew and
// the weights go out when they moved, and at least every 500 ms together with the
// site's report.
//
// A site that is cut off from its hub goes on with all of this, with its mirror
// of the hub's configuration and with what its nodes hear in band.
package controller
