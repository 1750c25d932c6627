// Package resolve follows DNS names: it asks when a record's time to live is over,
// keeps the last good answer while DNS fails, and says when an answer changed.
//
// The standard library's resolver tells no time to live, so there is a small one
// here: A, AAAA and SRV over UDP, over TCP where an answer is too long (RFC 1035,
// RFC 2782, RFC 6891), with the servers, search list and hosts file of the system.
package resolve
