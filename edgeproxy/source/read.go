package source

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// maxBytes bounds what a configuration may weigh: a folder given by mistake
// (/ or a data directory) must not fill the node's memory.
const maxBytes = 32 << 20

// readAll returns the documents at path: the file, or the folder's *.yaml, *.yml
// and *.json by name, without hidden ones and without its subfolders.
func readAll(path string) ([]mesh.Source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	names := []string{path}
	if info.IsDir() {
		if names, err = documentNames(path); err != nil {
			return nil, err
		}
		if len(names) == 0 {
			return nil, fmt.Errorf("%s: no *.yaml, *.yml or *.json in this folder", path)
		}
	}
	docs := make([]mesh.Source, 0, len(names))
	total := int64(0)
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%s: not a regular file", name)
		}
		if total += info.Size(); total > maxBytes {
			return nil, fmt.Errorf("%s: configuration is over %d MiB", path, maxBytes>>20)
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		docs = append(docs, mesh.Source{Name: name, Data: data})
	}
	return docs, nil
}

func documentNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name)) {
			continue
		}
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			continue
		}
		names = append(names, path)
	}
	return names, nil
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
