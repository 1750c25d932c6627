// Package join is how a site becomes part of a mesh.
//
// The hub makes a [Token] for one site: where to ask, the SHA-256 of the hub's CA
// certificate, and a key that works once. The new site makes an NKey, asks over
// TLS, takes only a hub whose chain holds the CA of that hash, and hands its
// public key over ([Join]); the hub notes it in its [Registry] and from then on
// lets that key in as that site, with that site's subjects and nothing else. The
// seed never leaves the site, and the token is worth nothing once it was used.
//
// What the site got it keeps in its data folder ([SiteFile]), so that a
// controller needs to be told the folder and nothing more.
package join
