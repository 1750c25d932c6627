//go:build !race

package edgeproxy

const raceEnabled = false
