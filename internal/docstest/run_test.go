package docstest

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pageLimit bounds the run of one page's examples.
const pageLimit = 2 * time.Minute

// docPorts are the ports that the documentation uses; a run puts free ones in
// their place, because a busy machine may hold these.
var docPorts = []string{"8080", "9001", "9002", "15000"}

// TestRun executes the examples: every page in a folder of its own that looks
// like a checkout with built binaries.
func TestRun(t *testing.T) {
	ran := 0
	for _, page := range pages(t) {
		all := blocks(page, read(t, page))
		script := script(all, runs)
		if script == "" {
			continue
		}
		ran++
		t.Run(page, func(t *testing.T) {
			t.Parallel()
			compare(t, all, runs, run(t, script))
		})
	}
	if ran == 0 {
		t.Error("no page has an example that runs")
	}
}

// Marks of the examples that are executed.
const (
	runs       = "run"
	runsAsRoot = "run as root" // in namespaces, by TestRootRun
)

// compare looks for the outputs that a page shows in what its examples said.
func compare(t *testing.T, all []block, executed, said string) {
	t.Helper()
	var last string
	for i, b := range all {
		switch b.mark {
		case executed:
			_, last, _ = strings.Cut(said, mark(i))
			last, _, _ = strings.Cut(last, markPrefix)
		case "output":
			if last == "" {
				continue // of a fault (TestYAML), or of the other kind of example
			}
			for _, line := range missingLines(b.text, last) {
				t.Errorf("%s: not in the output: %s\n%s", b, line, last)
			}
		default:
			last = ""
		}
	}
}

const markPrefix = "\n@@@ example "

func mark(i int) string { return fmt.Sprintf("%s%d\n", markPrefix, i) }

// script strings the examples of a page that bear a mark together, each after a line of
// its own.
func script(all []block, executed string) string {
	var b strings.Builder
	for i, blk := range all {
		if blk.mark == executed {
			fmt.Fprintf(&b, "printf '%%s' '%s'\n%s\n", mark(i), blk.text)
		}
	}
	return b.String()
}

func run(t *testing.T, script string) string {
	t.Helper()
	dir := checkout(t)
	ports := free(t, len(docPorts))
	// In one pass: a free port may hold the digits of one of the documentation's.
	var there, back []string
	for i, p := range docPorts {
		there, back = append(there, p, ports[i]), append(back, ports[i], p)
	}
	replace := strings.NewReplacer(there...).Replace
	examples, err := filepath.Glob(filepath.Join(dir, "examples", "*.yaml"))
	if err != nil || len(examples) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, name := range examples {
		body, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(replace(string(body))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	script = replace(script)
	if !strings.Contains(script, "--admin") {
		// The examples leave the admin address at its default, which may be taken.
		script = strings.ReplaceAll(script, "bin/edgeproxy --config", "bin/edgeproxy --admin 127.0.0.1:"+ports[3]+" --config")
	}

	ctx, cancel := context.WithTimeout(t.Context(), pageLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "tools")+":"+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // what runs in the background holds the output open
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	// The background. The folder is removed when it has ended.
	for range 200 {
		if syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) != nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	said := strings.NewReplacer(back...).Replace(out.String())
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		t.Fatalf("the examples end with %v:\n%s", err, said)
	}
	return said
}

// checkout makes a folder with the module's source, its examples to write to,
// built binaries, and a curl where the machine has none.
func checkout(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	abs, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"go.mod", "go.sum", "docs"} {
		must(os.Symlink(filepath.Join(abs, name), filepath.Join(dir, name)))
	}
	must(os.CopyFS(filepath.Join(dir, "examples"), os.DirFS(filepath.Join(abs, "examples"))))
	must(os.Symlink(bin(t), filepath.Join(dir, "bin")))
	must(os.Mkdir(filepath.Join(dir, "tools"), 0o755))
	if _, err := exec.LookPath("curl"); err != nil {
		self, err := os.Executable()
		must(err)
		must(os.Symlink(self, filepath.Join(dir, "tools", "curl")))
	}
	return dir
}

// free asks the kernel for ports that nobody holds, none of which is within
// another one's digits.
func free(t *testing.T, n int) (ports []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, port)
	}
	return ports
}

// curl is the little of curl(1) that the documentation uses, for machines that
// have only Go.
func curl(args []string) int {
	fs := flag.NewFlagSet("curl", flag.ContinueOnError)
	fs.Bool("s", false, "")
	fail := fs.Bool("fail", false, "")
	retries := fs.Int("retry", 0, "")
	delay := fs.Int("retry-delay", 1, "")
	all := fs.Bool("retry-all-errors", false, "")
	if err := fs.Parse(args); err != nil || fs.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "curl:", err, "or not one URL")
		return 2
	}
	for try := 0; ; try++ {
		resp, err := http.Get(fs.Arg(0))
		if err == nil {
			_, err = io.Copy(os.Stdout, resp.Body)
			resp.Body.Close()
			if *fail && resp.StatusCode >= 400 {
				err = errors.New(resp.Status)
			}
		}
		if err == nil {
			return 0
		}
		if try >= *retries || !*all {
			fmt.Fprintln(os.Stderr, "curl:", err)
			return 22
		}
		time.Sleep(time.Duration(*delay) * time.Second)
	}
}

func TestCurl(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	answers := 0
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if answers++; answers < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})}
	go srv.Serve(l)
	defer srv.Close()
	url := "http://" + l.Addr().String()
	if code := curl([]string{"-s", "--fail", url}); code == 0 {
		t.Error("a 503 is no success")
	}
	if code := curl([]string{"-s", "--retry", "5", "--retry-delay", "0", "--retry-all-errors", "--fail", url}); code != 0 {
		t.Errorf("exit %d after retries", code)
	}
}
