package source

import (
	"fmt"
	"os"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/internal/manifest"
)

// readAll returns the documents at path. A pipe or a device in the place of a file
// is refused: the node would wait for it.
func readAll(path string) ([]mesh.Source, error) {
	names, err := manifest.Files(path)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if info, err := os.Stat(name); err != nil {
			return nil, err
		} else if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%s: not a regular file", name)
		}
	}
	return manifest.Read(names, strings.NewReader(""))
}

// Read returns the objects at path (file or folder). The error is *[mesh.Faults]
// when the documents are at fault, and has a line for each fault.
func Read(path string) (*mesh.Objects, error) {
	docs, err := readAll(path)
	if err != nil {
		return nil, err
	}
	return parse(path, docs)
}

func parse(path string, docs []mesh.Source) (*mesh.Objects, error) {
	objects, err := mesh.ParseSources(docs)
	if err != nil {
		return nil, err
	}
	if objects.Len() == 0 {
		return nil, fmt.Errorf("%s: holds no document; the smallest useful one has a Gateway, an HTTPRoute and a MeshService", path)
	}
	return objects, nil
}
