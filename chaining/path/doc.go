// Package path turns chains, instances and topology into service function paths
// and those into what forwarders read.
//
// A service function path is rendered in full (RFC 7665 2, "rendered service
// path"): each SPI names one instance for each of its functions, so (SPI, SI) says
// everything a forwarder needs, in both directions, and no node has to agree with
// another on a choice. A chain with several instances has several paths; the
// classifier spreads flows over them by a Maglev table of SPIs.
//
//	chains, instances, topology --Plan--> []Path --Compile(node)--> Table
//
// [Table] is read by chaining/soft and written into maps by chaining/datapath;
// [Verdict] and [Reason] are what both answer. The package is pure; a Table is
// immutable once compiled.
package path
