// Package spiffe says who is who in a mesh: SPIFFE IDs as Meridian writes them, and
// the judgement of a certificate chain. It is pure; the time is an argument.
//
// An ID is spiffe://DOMAIN/site/SITE/ns/NAMESPACE/sa/ACCOUNT. Each site has an issuer
// of its own whose certificate carries spiffe://DOMAIN/site/SITE, and [Bundle.Verify]
// believes a leaf only where the two sites are one: who steals a site's key can be
// that site and no other. Path building and name constraints are crypto/x509's.
package spiffe
