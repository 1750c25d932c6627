// Package natsd runs the NATS server inside a site controller and is the only
// importer of nats-server.
//
// The hub's server listens for leaf connections; every other site's server is a
// leaf of it, with its own JetStream domain, so that the site's own buckets work
// while the hub is away. Nodes of the site connect on loopback.
//
// Who may connect: a site's nodes share a token and may only do what a node does
// ([nodePermissions]); the controller has its own. A site proves itself to the hub
// with its own NKey, which the hub's registry knows (package join), and has the
// rights of that one site on the link ([sitePermissions]): its secret is worthless
// for another, and can be withdrawn ([Server.Disconnect]). The hub proves itself by a
// certificate of its private CA ([Authority]).
package natsd
