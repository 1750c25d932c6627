// Package manifest reads the files in which people write documents: one file, the
// documents of a folder, or standard input. It reads bytes; what they say is
// api/mesh's to judge.
package manifest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// maxBytes bounds what is read in all: a folder given by mistake must not fill
// the memory.
const maxBytes = 32 << 20

// Stdin is the path that stands for standard input.
const Stdin = "-"

// Read returns the sources at paths, in that order: a file; the *.yaml, *.yml and
// *.json of a folder by name, without hidden ones and subfolders; or stdin for
// [Stdin].
func Read(paths []string, stdin io.Reader) ([]mesh.Source, error) {
	var out []mesh.Source
	total := 0
	add := func(name string, data []byte) error {
		if total += len(data); total > maxBytes {
			return fmt.Errorf("%s: more than %d MiB of documents in all", name, maxBytes>>20)
		}
		out = append(out, mesh.Source{Name: name, Data: data})
		return nil
	}
	for _, path := range paths {
		if path == Stdin {
			data, err := io.ReadAll(io.LimitReader(stdin, maxBytes+1))
			if err != nil {
				return nil, fmt.Errorf("standard input: %w", err)
			}
			if err := add("<stdin>", data); err != nil {
				return nil, err
			}
			continue
		}
		names, err := Files(path)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			data, err := readFile(name)
			if err != nil {
				return nil, err
			}
			if err := add(name, data); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// ErrNone says that a folder has no documents.
var ErrNone = errors.New("no *.yaml, *.yml or *.json in this folder")

// Files returns the names of the files that [Read] reads of a path: the file, or
// those of the folder.
func Files(path string) ([]string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path) // sorted by name
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name())) {
			continue
		}
		name := filepath.Join(path, e.Name())
		if st, err := os.Stat(name); err == nil && st.IsDir() {
			continue
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s: %w", path, ErrNone)
	}
	return names, nil
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxBytes+1))
}
