// Package world is all that a site controller knows: the objects of the
// configuration and who owns each, what every site reports of its load, what the
// own nodes report, and how far other sites are. It is pure: events come in with
// their time, and what follows from them is asked for.
//
// Objects have one owner, the hub or a site. Reports are soft: a report of one
// reporter replaces its older ones, and of several reporters of a site the one
// with the youngest news is believed. Taking in reports is commutative and
// idempotent, so it does not matter over which ways, how often and in what order
// they come.
//
// A World is not safe for concurrent use.
package world
