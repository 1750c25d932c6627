package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/source"
)

// check reads the configuration as a node would and changes nothing. It is
// stricter than serving: a node answers the share of traffic that a dangling
// reference hits with errors and serves the rest, but who asks wants to know.
func check(path string, stdout, stderr io.Writer) int {
	objects, err := source.Read(path)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailed
	}
	conditions := mesh.Check(objects)
	for _, c := range conditions {
		fmt.Fprintln(stderr, c)
	}
	if len(conditions) > 0 {
		return exitFailed
	}
	fmt.Fprintf(stdout, "%s: in order: %s\n", path, summary(objects))
	return exitOK
}

// summary counts the objects by kind: "1 Gateway, 2 HTTPRoute".
func summary(o *mesh.Objects) string {
	counts := map[string]int{}
	for key := range o.All() {
		counts[key.Kind]++
	}
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", counts[kind], kind))
	}
	return strings.Join(parts, ", ")
}
