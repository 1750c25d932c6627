// Schemagen writes the JSON Schemas of Meridian's documents: meridian.json for
// all kinds, and one file for each kind; and CustomResourceDefinitions of the mesh's
// own kinds.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
)

func main() {
	out := flag.String("out", "docs/reference/schema", "folder to write to")
	crdDir := flag.String("crds", "deploy/crds", "folder to write CustomResourceDefinitions to")
	flag.Parse()
	if err := errors.Join(generate(*out), crds(*crdDir)); err != nil {
		fmt.Fprintln(os.Stderr, "schemagen:", err)
		os.Exit(1)
	}
}

func generate(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := write(filepath.Join(dir, "meridian.json")); err != nil {
		return err
	}
	for _, kind := range mesh.Kinds() {
		if err := write(filepath.Join(dir, strings.ToLower(kind)+".json"), kind); err != nil {
			return err
		}
	}
	return nil
}

func write(file string, kinds ...string) error {
	text, err := mesh.Schema(kinds...)
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}
