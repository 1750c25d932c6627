//go:build race

package edgeproxy

const raceEnabled = true
