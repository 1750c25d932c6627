package demo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/testbed/report"
	"github.com/meridian-mesh/meridian/testbed/scenario"
)

// These tests run the demo as a user does: the built binaries, real processes.
// They take what the demo takes, one minute and a half together; -short leaves
// them out. Their margins are for a machine that does other things as well.

// binaryDir is where the programs were built, empty until a test wanted them.
var binaryDir string

// binaries builds the programs once for all tests.
var binaries = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "meridian-e2e-"); err != nil {
		return "", err
	}
	binaryDir = dir
	cmd := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "../../cmd/meridian", "../../cmd/edgeproxy", "../../cmd/sitecontroller")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("%w\n%s", err, out)
	}
	return dir, nil
})

func removeBinaries() {
	if binaryDir != "" {
		_ = os.RemoveAll(binaryDir) // a leftover in the temporary folder fails no test
	}
}

// command prepares `meridian demo` with the arguments.
func command(t *testing.T, args ...string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs the demo for over ten seconds")
	}
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr = new(bytes.Buffer), new(bytes.Buffer)
	cmd = exec.Command(filepath.Join(dir, "meridian"), append([]string{"demo"}, args...)...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	t.Cleanup(func() { noneLeft(t, dir) })
	return cmd, stdout, stderr
}

// noneLeft fails the test when a process of the binaries lives.
func noneLeft(t *testing.T, dir string) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		left := running(dir)
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Errorf("left running: %s", strings.Join(left, ", "))
			return
		}
	}
}

func running(dir string) []string {
	var left []string
	links, _ := filepath.Glob("/proc/[0-9]*/exe") // the pattern is sound
	for _, l := range links {
		if exe, err := os.Readlink(l); err == nil && filepath.Dir(exe) == dir {
			left = append(left, filepath.Base(exe)+" "+filepath.Base(filepath.Dir(l)))
		}
	}
	return left
}

// play runs the demo and reads its report.
func play(t *testing.T, args ...string) *report.Report {
	t.Helper()
	cmd, stdout, stderr := command(t, append(args, "-o", "json")...)
	began := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatalf("meridian demo: %v\n%s", err, stderr)
	}
	var r report.Report
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		t.Fatalf("%v\n%s", err, stdout)
	}
	t.Logf("took %v\n%s", time.Since(began), r.Table())
	return &r
}

func phaseOf(t *testing.T, r *report.Report, policy, phase string) report.Phase {
	t.Helper()
	for _, run := range r.Runs {
		for _, p := range run.Phases {
			if run.Policy == policy && p.Name == phase {
				if p.All.Requests == 0 || p.HotHome.Requests == 0 {
					t.Fatalf("%s, %s: no requests", policy, phase)
				}
				return p
			}
		}
	}
	t.Fatalf("no phase %s of policy %s", phase, policy)
	return report.Phase{}
}

// shared asserts what sharing must show at the least in the hotspot.
func shared(t *testing.T, r *report.Report) {
	t.Helper()
	hot := phaseOf(t, r, report.Cooperative, scenario.Hotspot)
	if hot.All.Errors != 0 {
		t.Errorf("%d errors in the hotspot: %v", hot.All.Errors, r.Runs[0].ErrorKinds)
	}
	if hot.HotHome.AwayShare < 0.2 {
		t.Errorf("%.0f %% of the hot site's users were served elsewhere: nobody shared", 100*hot.HotHome.AwayShare)
	}
	if hot.HotHome.MedianMS > 1000 {
		t.Errorf("the hot site's users waited %.0f ms in the median", hot.HotHome.MedianMS)
	}
}

func TestCooperationAgainstNone(t *testing.T) {
	r := play(t, "--duration", "15s", "--sites", "3", "--policies", "cooperative,none", "--seed", "3")
	shared(t, r)
	coop, none := phaseOf(t, r, report.Cooperative, scenario.Hotspot), phaseOf(t, r, report.None, scenario.Hotspot)
	if c, n := coop.HotHome.MedianMS, none.HotHome.MedianMS; c > 0.1*n {
		t.Errorf("hot users' median: %.0f ms with cooperation, %.0f ms alone", c, n)
	}
	if coop.All.Requests != none.All.Requests {
		t.Errorf("%d and %d requests: the policies were not compared on the same", coop.All.Requests, none.All.Requests)
	}
	if none.All.AwayShare != 0 {
		t.Errorf("policy none sent %.2f away", none.All.AwayShare)
	}
	coop, none = phaseOf(t, r, report.Cooperative, scenario.Slow), phaseOf(t, r, report.None, scenario.Slow)
	if c, n := coop.SlowHome.P99MS, none.SlowHome.P99MS; c > 0.8*n {
		t.Errorf("slow site's users' p99: %.0f ms with cooperation, %.0f ms alone", c, n)
	}
	run := r.Runs[0]
	if run.ReactionMS == nil || *run.ReactionMS > 3000 {
		t.Errorf("reaction %v", run.ReactionMS)
	}
	if r.Runs[1].ReactionMS != nil {
		t.Errorf("policy none changed weights after %v ms", *r.Runs[1].ReactionMS)
	}
}

func TestSharingSurvivesTheControllers(t *testing.T) {
	r := play(t, "--duration", "15s", "--sites", "5", "--policies", "cooperative", "--fault", "controllers")
	shared(t, r)
	if fault := r.Runs[0].Fault; !strings.Contains(fault, "hub") || strings.Count(fault, "controller") != 2 {
		t.Errorf("fault %q, want the hub and two controllers", fault)
	}
	// From two seconds after the kill on.
	late := phaseOf(t, r, report.Cooperative, report.HotspotSettled)
	if late.HotHome.AwayShare < 0.2 || late.All.Errors != 0 {
		t.Errorf("after the controllers were killed %.0f %% of the hot users were served elsewhere, with %d errors",
			100*late.HotHome.AwayShare, late.All.Errors)
	}
}

func TestRealSitesAndUsers(t *testing.T) {
	data := os.Getenv("MERIDIAN_TESTDATA")
	if data == "" {
		data = filepath.Join("..", "..", "..", "shared", "data")
	}
	sites := filepath.Join(data, "eua", "site-optus-melbCBD.csv")
	if _, err := os.Stat(sites); errors.Is(err, os.ErrNotExist) {
		t.Skipf("needs the EUA data set at %s (MERIDIAN_TESTDATA names its folder)", sites)
	}
	r := play(t, "--duration", "15s", "--policies", "cooperative", "--max-sites", "6",
		"--sites-csv", sites, "--users-csv", filepath.Join(data, "eua", "users-melbcbd-generated.csv"))
	shared(t, r)
	users := 0
	for _, s := range r.Sites {
		users += s.Users
	}
	if len(r.Sites) != 6 || users != 816 {
		t.Errorf("%d sites and %d users, want 6 and 816", len(r.Sites), users)
	}
}

// begin starts the demo and returns when half of its processes live: in the
// middle of the start.
func begin(t *testing.T) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	t.Helper()
	cmd, stdout, stderr = command(t, "--sites", "3")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for len(running(binaryDir)) < 6 && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	return cmd, stdout, stderr
}

// temporary lists what is left in the demo's temporary folder.
func temporary(t *testing.T, cmd *exec.Cmd) []os.DirEntry {
	t.Helper()
	dir, _ := strings.CutPrefix(cmd.Env[len(cmd.Env)-1], "TMPDIR=")
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return left
}

func TestInterruptEndsEverything(t *testing.T) {
	cmd, stdout, stderr := begin(t)
	if len(temporary(t, cmd)) == 0 {
		t.Error("the demo keeps its files elsewhere")
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	stop := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer stop.Stop()
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("ended with %v, want exit status 1", err)
	}
	if !strings.Contains(stderr.String(), "interrupted") || stdout.Len() != 0 {
		t.Errorf("standard error:\n%s\nstandard output:\n%s", stderr, stdout)
	}
	if left := temporary(t, cmd); len(left) != 0 {
		t.Errorf("left in the temporary folder: %v", left)
	}
}

// TestACrashEndsEverything: what noneLeft asserts at the end is the kernel's doing.
func TestACrashEndsEverything(t *testing.T) {
	cmd, _, _ := begin(t)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // says that it was killed
}

func TestAnEarlyFailureSaysWhy(t *testing.T) {
	for want, args := range map[string][]string{
		"3s is too short":                {"--duration", "3s"},
		"has 6 sites":                    {"--sites", "7"},
		"give both or none":              {"--sites-csv", "x.csv"},
		"x.csv: no such file":            {"--sites-csv", "x.csv", "--users-csv", "y.csv"},
		`"fast" is not one of`:           {"--policies", "fast"},
		`"floods" is not controllers`:    {"--fault", "floods"},
		`--output "xml" is not table or`: {"-o", "xml"},
	} {
		cmd, stdout, stderr := command(t, args...)
		if err := cmd.Run(); err == nil || !strings.Contains(stderr.String(), want) || stdout.Len() != 0 {
			t.Errorf("%v: %v, no %q in %q", args, err, want, stderr)
		}
	}
}
