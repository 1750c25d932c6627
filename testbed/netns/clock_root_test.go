//go:build root

package netns

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"
)

// clocked builds the real programs with a wall clock that can be set for one
// process: a Go program asks the kernel without libc, and a namespace of time has
// no wall clock of its own. time.Now adds a variable, which setClock writes; the
// monotonic clock stays as it is, as with a machine whose time is set.
var clocked = sync.OnceValues(func() (dir string, err error) {
	plain, err := programs()
	if err != nil {
		return "", err
	}
	// A folder of programs': TestMain removes it.
	dir = filepath.Join(plain, "clocked")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w", err)
	}
	source := filepath.Join(string(bytes.TrimSpace(root)), "src", "time", "time.go")
	code, err := os.ReadFile(source)
	if err != nil {
		return "", err
	}
	const asks = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if n := bytes.Count(code, []byte(asks)); n != 1 {
		return "", fmt.Errorf("%s of %s has time.Now %d times in the known form: see the new one", source, runtime.Version(), n)
	}
	code = bytes.Replace(code, []byte(asks), []byte("var jump int64\n\n"+asks+"\tsec += jump\n"), 1)
	changed, overlay := filepath.Join(dir, "time.go"), filepath.Join(dir, "overlay.json")
	text, err := json.Marshal(map[string]any{"Replace": map[string]string{source: changed}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(changed, code, 0o600); err != nil {
		return "", err
	}
	if err := os.WriteFile(overlay, text, 0o600); err != nil {
		return "", err
	}
	for _, p := range []string{controllerRole, proxyRole} {
		out, err := exec.Command("go", "build", "-overlay", overlay, "-o", filepath.Join(dir, p), "../../cmd/"+p).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("build %s with a clock to set: %w\n%s", p, err, out)
		}
	}
	for _, p := range []string{backendRole, "meridian"} {
		if err := os.Symlink(filepath.Join(plain, p), filepath.Join(dir, p)); err != nil {
			return "", err
		}
	}
	return dir, nil
})

// setClock moves the wall clock of one process of the site, which clocked must have
// built, by whole seconds from the machine's; zero sets it right again.
func (s *site) setClock(role string, by time.Duration) error {
	p := s.procs[role]
	if p == nil {
		return fmt.Errorf("%s does not run at %s", role, s.name)
	}
	at, err := address(p.cmd.Path, "time.jump")
	if err != nil {
		return err
	}
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", p.cmd.Process.Pid), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer memory.Close()
	_, err = memory.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(by/time.Second)), int64(at))
	return err
}

// address is where a program that is not position independent has a variable.
func address(program, name string) (uint64, error) {
	f, err := elf.Open(program)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if f.Type != elf.ET_EXEC {
		return 0, fmt.Errorf("%s is position independent: where its variables are is not known before it runs", program)
	}
	symbols, err := f.Symbols()
	if err != nil {
		return 0, fmt.Errorf("%s: %w", program, err)
	}
	for _, s := range symbols {
		if s.Name == name {
			return s.Value, nil
		}
	}
	return 0, fmt.Errorf("%s has no variable %s", program, name)
}

// jumpClock sets the clock of a whole site and shows that its controller goes by it.
func (s *site) jumpClock(t *testing.T, by time.Duration) {
	for _, role := range []string{controllerRole, proxyRole} {
		if err := s.setClock(role, by); err != nil {
			t.Errorf("the clock of %s at %s: %v", role, s.name, err)
		}
	}
	st, err := s.status(t.Context())
	if err != nil {
		t.Errorf("%s with its clock %s off does not answer: %v", s.name, by, err)
	} else if off := st.Now.Sub(time.Now().Add(by)); off.Abs() > 5*time.Second {
		t.Errorf("the clock of %s was set by %s, and is %s from that", s.name, by, off)
	}
}
