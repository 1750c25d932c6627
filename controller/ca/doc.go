// Package ca issues identities. It is pure: the time is an argument, and what has to
// be kept is a value that the caller keeps (0600).
//
// A mesh has an [Authority] at its hub, whose newest root signs one [Issuer] for each
// site. The issuer is the site's own: its key never leaves the site, and it signs
// the leaves of the site's nodes and workloads, hub or no hub, from certificate
// requests whose keys stay where they were made. What binds an issuer to its site is
// the ID in its certificate; see package spiffe.
//
// Leaves live for a day and issuers for thirty, and each is renewed at half of its
// life, give or take a tenth ([RenewAt]). A site without its hub so goes on for fifteen
// days at least. A root is replaced at once and leaves slowly: the new one is signed
// by the old one too, and that signature goes along with every chain, so that a site
// which has not heard of the new root believes all the same; the old root stays in the
// bundle until all that it signed has ended.
package ca
