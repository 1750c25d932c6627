// Package natsd runs the NATS server inside a site controller and is the only
// importer of nats-server.
//
// The hub's server listens for leaf connections; every other site's server is a
// leaf of it, with its own JetStream domain, so that the site's own buckets work
// while the hub is away. Nodes of the site connect on loopback.
//
// Who may connect, for now: the hub makes a private CA, a server certificate and
// one secret that all leaves share ([Authority]); a site's nodes share a token.
// The node token may only do what a node does: see [nodePermissions]. One account
// holds the whole mesh, so a site that has the leaf secret can speak to the hub
// with the hub's own rights, its configuration included. What has to replace this is one NKey per site, signed
// into the mesh's account with that site's subjects and nothing else, so that one
// site's secret is worthless for another and can be withdrawn; the shape of this
// package (an [Authority] made by the hub, files handed to the leaf) stays.
package natsd
