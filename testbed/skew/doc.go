// Package skew holds two versions of Meridian to living together: the one that the
// file previous names by its commit, built from this clone's history, and this tree's.
// A real mesh of two sites goes from one to the other process by process, under
// traffic, and back; see skew_test.go and make test-skew.
//
// The file is changed with each release, to the commit of the release before.
package skew
