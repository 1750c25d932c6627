package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
)

// pauseImage holds each pod's namespaces.
const pauseImage = "meridian.test/pause:1"

// writeImage writes an image of one static program, with the given names, as an
// archive that `ctr images import` takes. The program is started with no arguments
// but those of the pod.
func writeImage(file, program string, names []string) error {
	body, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	entry := "/" + filepath.Base(program)
	layer, err := archive([]member{
		{"etc/", 0o755, nil},
		{"tmp/", 0o1777, nil},
		{entry[1:], 0o755, body},
	})
	if err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": []string{entry}, "Env": []string{"PATH=/"}, "WorkingDir": "/"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	})
	if err != nil {
		return err
	}
	configName := fmt.Sprintf("%x.json", sha256.Sum256(config))
	manifest, err := json.Marshal([]any{map[string]any{"Config": configName, "RepoTags": names, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return err
	}
	out, err := archive([]member{{configName, 0o644, config}, {"layer.tar", 0o644, layer}, {"manifest.json", 0o644, manifest}})
	if err != nil {
		return err
	}
	return writeFiles(map[string][]byte{file: out})
}

type member struct {
	name string
	mode int64
	body []byte
}

// archive is the same for the same members: no times in it.
func archive(members []member) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Mode: m.mode, Size: int64(len(m.body)), Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		if path.Clean(m.name) != m.name {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("archive %s: %w", m.name, err)
		}
		if _, err := w.Write(m.body); err != nil {
			return nil, fmt.Errorf("archive %s: %w", m.name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
