//go:build race

package placement

// slower is by how much the race detector slows things down.
const slower = 20
