package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Roles that this test binary plays when it starts itself.
const (
	roleSleep    = "role-sleep"    // a child that ends by SIGTERM
	roleStubborn = "role-stubborn" // one that only SIGKILL ends
	roleFail     = "role-fail"     // one that ends by itself with a message
	roleParent   = "role-parent"   // starts a child, prints its id and waits
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case roleSleep:
			time.Sleep(time.Minute)
			os.Exit(0)
		case roleStubborn:
			signal.Ignore(syscall.SIGTERM)
			fmt.Println("ignoring")
			time.Sleep(time.Minute)
			os.Exit(0)
		case roleFail:
			fmt.Println("first line\nno such thing")
			os.Exit(3)
		case roleParent:
			f := newFamily(os.Args[2], func(error) {})
			c, err := f.start("child", self(), roleSleep)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			fmt.Println(c.cmd.Process.Pid)
			time.Sleep(time.Minute)
			os.Exit(0)
		}
	}
	code := m.Run()
	removeBinaries()
	os.Exit(code)
}

func self() string {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return path
}

// gone waits until no process has the id, or what has it is a zombie.
func gone(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if errors.Is(err, os.ErrNotExist) || strings.Contains(string(b), ") Z ") {
			return
		}
	}
	t.Errorf("process %d lives on", pid)
}

func TestStopEndsAllProcesses(t *testing.T) {
	dir := t.TempDir()
	var failed error
	f := newFamily(dir, func(err error) { failed = err })
	defer f.close()
	var pids []int
	for i, role := range []string{roleSleep, roleStubborn, roleSleep} {
		c, err := f.start(fmt.Sprintf("%s-%d", role, i), self(), role)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, c.cmd.Process.Pid)
	}
	// Only a process that already ignores the signal shows that the second one comes.
	waitForText(t, filepath.Join(dir, roleStubborn+"-1.log"), "ignoring")
	if n := len(f.living()); n != 3 {
		t.Errorf("%d of 3 live", n)
	}
	f.stop(200 * time.Millisecond)
	for _, pid := range pids {
		gone(t, pid)
	}
	if failed != nil {
		t.Errorf("an end that was asked for is a failure: %v", failed)
	}
}

func waitForText(t *testing.T, path, text string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), text) {
			return
		}
	}
	t.Fatalf("no %q in %s", text, path)
}

func TestAnEndUnaskedIsAFailureWithTheLog(t *testing.T) {
	ctx, fail := context.WithCancelCause(context.Background())
	f := newFamily(t.TempDir(), fail)
	defer f.close()
	if _, err := f.start("broken", self(), roleFail); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("nobody was told")
	}
	text := context.Cause(ctx).Error()
	for _, want := range []string{"broken ended", "exit status 3", "no such thing"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %q", want, text)
		}
	}
	f.stop(time.Second)
}

func TestKillIsNoFailure(t *testing.T) {
	ctx, fail := context.WithCancelCause(context.Background())
	f := newFamily(t.TempDir(), fail)
	defer f.close()
	c, err := f.start("victim", self(), roleSleep)
	if err != nil {
		t.Fatal(err)
	}
	c.kill()
	gone(t, c.cmd.Process.Pid)
	f.stop(time.Second)
	if ctx.Err() != nil {
		t.Error(context.Cause(ctx))
	}
}

// TestChildrenDieWithTheirParent kills a parent as nothing can catch it: only the
// kernel can end the child then.
func TestChildrenDieWithTheirParent(t *testing.T) {
	parent := exec.Command(self(), roleParent, t.TempDir())
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	parent.Stderr = os.Stderr
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("the child does not live: %v", err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // says that it was killed
	gone(t, pid)
}

func TestStatTime(t *testing.T) {
	got, err := statTime([]byte("42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 150 25 0 0 20 0 8 0 100 1 1"))
	if err != nil || got != 1750*time.Millisecond {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := statTime([]byte("42 (a) S 1")); err == nil {
		t.Error("a short line was read")
	}
}
