// Package docstest holds the documentation to what the program does. In README.md,
// CONTRIBUTING.md, docs/benchmarks.md and docs/guide every fenced block is checked
// by its language and by the mark (an HTML comment) on the line above it:
//
//	sh    <!-- run -->: executed, block after block of a page in one shell;
//	      <!-- run as root -->: so, too, by make test-root, in namespaces.
//	      <!-- shown: why -->: not executed, but its programs, flags and make
//	      targets must exist.
//	yaml  read as documents, strictly; <!-- fault -->: must be refused.
//	text  <!-- output -->: every line must be, in this order, among what the run
//	      or fault block before it said; … stands for anything.
//
// Links between pages must lead somewhere, and ARCHITECTURE.md must name every
// package and no other.
package docstest
