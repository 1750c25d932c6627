//go:build skew

package skew

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

//go:embed previous
var pinned string

// root is the repository, seen from this package.
const root = "../.."

var programs = []string{"edgeproxy", "sitecontroller", "meridian"}

// version is a folder with the programs of one version.
type version struct{ name, dir string }

// versions are the previous one and this tree's, which make has built.
func versions(t *testing.T) (old, now version) {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join(root, "bin"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range programs {
		if _, err := os.Stat(filepath.Join(dir, p)); err != nil {
			t.Fatalf("%v: make test-skew builds it", err)
		}
	}
	commit := strings.TrimSpace(pinned)
	if !regexp.MustCompile(`^[0-9a-f]{40}$`).MatchString(commit) {
		t.Fatalf("testbed/skew/previous: want one commit, 40 hexadecimal digits, have %q", commit)
	}
	was, err := filepath.Abs(filepath.Join(root, ".cache/skew", commit))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(was); errors.Is(err, os.ErrNotExist) {
		if err := buildPrevious(t, commit, was); err != nil {
			t.Fatal(err)
		}
	} else if err != nil {
		t.Fatal(err)
	}
	return version{"previous", was}, version{"this", dir}
}

// buildPrevious builds the programs of a commit into a folder, which is there whole or
// not at all.
func buildPrevious(t *testing.T, commit, dir string) error {
	git := func(args ...string) *exec.Cmd {
		cmd := exec.Command("git", append([]string{"-C", root}, args...)...)
		cmd.Stderr = os.Stderr
		return cmd
	}
	if git("cat-file", "-e", commit+"^{commit}").Run() != nil {
		return fmt.Errorf("this clone has no commit %s, which testbed/skew/previous names: fetch its history (git fetch --unshallow)", commit)
	}
	source, made := t.TempDir(), dir+".new"
	archive, err := git("archive", commit).Output()
	if err != nil {
		return fmt.Errorf("git archive %s: %w", commit, err)
	}
	untar := exec.Command("tar", "-x", "-C", source)
	untar.Stdin = bytes.NewReader(archive)
	if out, err := untar.CombinedOutput(); err != nil {
		return fmt.Errorf("unpack %s: %w\n%s", commit, err, out)
	}
	if err := os.RemoveAll(made); err != nil {
		return err
	}
	args := []string{"build", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w -X main.version=" + commit[:12], "-o", made + "/"}
	for _, p := range programs {
		args = append(args, "./cmd/"+p)
	}
	build := exec.Command("go", args...)
	build.Dir, build.Env = source, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", commit, err, out)
	}
	return os.Rename(made, dir)
}
