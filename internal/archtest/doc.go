// Package archtest turns the architecture into tests: who may import whom, which
// rooms are pure, which room owns which dependency, what may be linked into the
// node's binaries, and a few habits (package docs, file sizes, names) that keep
// the tree readable.
//
// The facts stand as commented data in table.go, the rules in rules.go. Every
// rule has a fixture under testdata, a small module that breaks it: a rule that
// cannot fail proves nothing. To add a package, give it a row in the table; to
// add a dependency, name the room that owns it.
package archtest
