package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/source"
	"github.com/meridian-mesh/meridian/edgeproxy/tlsio"
	"github.com/meridian-mesh/meridian/edgeproxy/view"
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
	conditions = append(conditions, certificates(objects)...)
	for _, c := range conditions {
		fmt.Fprintln(stderr, c)
	}
	if len(conditions) > 0 {
		return exitFailed
	}
	fmt.Fprintf(stdout, "%s: in order: %s\n", path, summary(objects))
	return exitOK
}

// certificates reads the files that Certificates name, as a node on this machine would.
func certificates(o *mesh.Objects) []mesh.Condition {
	var out []mesh.Condition
	for _, c := range o.Certificates {
		pair := view.KeyPairOf(c)
		loaded, _, err := pair.Load()
		if err == nil {
			err = tlsio.Valid(loaded.Leaf, time.Now())
		}
		if err != nil {
			key := mesh.Key{Kind: mesh.KindCertificate, Namespace: c.Metadata.Namespace, Name: c.Metadata.Name}
			out = append(out, mesh.Condition{Object: key, Path: "spec", Reason: "InvalidCertificate", Message: err.Error(), Position: o.Positions[key]})
		}
	}
	return out
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
