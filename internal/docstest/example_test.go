package docstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
)

const module = "github.com/meridian-mesh/meridian/"

func goTool(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, exit.Stderr)
		}
		t.Fatal(err)
	}
	return string(out)
}

// packages lists the module's packages relative to it.
func packages(t *testing.T) (out []string) {
	t.Helper()
	for _, p := range strings.Fields(goTool(t, "list", "./...")) {
		out = append(out, strings.TrimPrefix(p, module))
	}
	return out
}

// binDir is where build puts the binaries of cmd.
var binDir string

var build = sync.OnceValue(func() error {
	cmd := exec.Command("go", "build", "-o", binDir+"/", "./cmd/...")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build ./cmd/...: %w\n%s", err, out)
	}
	return nil
})

// bin returns the folder of the built binaries.
func bin(t *testing.T) string {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	return binDir
}

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "curl" {
		os.Exit(curl(os.Args[1:]))
	}
	os.Exit(func() int {
		var err error
		if binDir, err = os.MkdirTemp("", "docstest-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(binDir)
		return m.Run()
	}())
}

// TestYAML reads every YAML example as a node reads its file.
func TestYAML(t *testing.T) {
	read1 := 0
	for _, page := range pages(t) {
		var said string
		for _, b := range blocks(page, read(t, page)) {
			switch {
			case b.lang == "yaml":
				read1++
				_, err := mesh.ParseYAML(page, []byte(b.text))
				said = ""
				if err != nil {
					said = err.Error()
				}
				if fault := b.mark == "fault"; fault != (err != nil) {
					t.Errorf("%s: fault wanted %v, got: %v", b, fault, err)
				}
			case b.mark == "output" && said != "":
				for _, line := range missingLines(b.text, said) {
					t.Errorf("%s: the fault does not say %q, but\n%s", b, line, said)
				}
				said = ""
			case b.lang == "sh":
				said = ""
			}
		}
	}
	if read1 < 4 {
		t.Errorf("read only %d YAML examples", read1)
	}
}

var (
	makeTarget = regexp.MustCompile(`(?m)^([a-z-]+):.*## `)
	flagWord   = regexp.MustCompile(`^--?[a-z][a-z-]*`)
)

// TestShown checks what the examples that are not run name: make targets, our
// programs, their commands and flags.
func TestShown(t *testing.T) {
	var targets []string
	for _, m := range makeTarget.FindAllStringSubmatch(read(t, "Makefile"), -1) {
		targets = append(targets, m[1])
	}
	checked := 0
	for _, page := range pages(t) {
		for _, b := range blocks(page, read(t, page)) {
			if !b.shows() {
				continue
			}
			for line := range strings.Lines(b.text) {
				words := strings.Fields(line)
				if len(words) == 0 {
					continue
				}
				switch program, isBin := strings.CutPrefix(words[0], "bin/"); {
				case isBin:
					checkCommand(t, b, program, words[1:])
				case words[0] == "make" && len(words) > 1 && !slices.Contains(targets, words[1]):
					t.Errorf("%s: the Makefile has no target %s", b, words[1])
				case words[0] == "make" && words[1] == "run":
					_, args, _ := strings.Cut(line, "ARGS='")
					args, _, _ = strings.Cut(args, "'")
					checkCommand(t, b, "meridian", append([]string{"demo"}, strings.Fields(args)...))
				}
				checked++
			}
		}
	}
	if checked < 5 {
		t.Errorf("checked only %d lines", checked)
	}
}

// checkCommand asks the program's own help for the commands and flags of a line.
func checkCommand(t *testing.T, b block, program string, words []string) {
	t.Helper()
	var commands []string
	for _, w := range words {
		if strings.HasPrefix(w, "-") {
			break
		}
		if regexp.MustCompile(`^[a-z-]+$`).MatchString(w) {
			commands = append(commands, w)
		}
	}
	out, err := exec.Command(filepath.Join(bin(t), program), append(commands, "--help")...).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %s %s --help: %v\n%s", b, program, strings.Join(commands, " "), err, out)
		return
	}
	for _, w := range words {
		name := strings.TrimLeft(flagWord.FindString(w), "-")
		if name != "" && !regexp.MustCompile(`(?m)(^|[\s,])--?`+regexp.QuoteMeta(name)+`\b`).Match(out) {
			t.Errorf("%s: %s %s has no flag %s", b, program, strings.Join(commands, " "), w)
		}
	}
}
