// Package packetgrammar makes frames by grammar, for tests that ask two forwarders
// the same a million times: packets of all kinds, right ones, odd ones and broken
// ones, in a mix that reaches every verdict and every reason of a drop.
//
//	table := packetgrammar.Table()
//	g := packetgrammar.New(seed)
//	port, frame := g.Next()
package packetgrammar
