package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// family starts processes and sees to it that none outlives the demo: each is in
// a process group of its own, the kernel kills it when this process dies
// (PR_SET_PDEATHSIG), and [family.stop] ends what is left. A process that ends
// unasked ends the demo, with the tail of its log.
type family struct {
	logs string // folder of the logs
	fail context.CancelCauseFunc

	// The kernel sends a parent-death signal when the thread that forked ends,
	// so all forks happen on one thread that lives as long as the demo.
	fork chan func()

	mu       sync.Mutex
	children []*child
}

// child is one process.
type child struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended; err is set then
	err  error

	mu     sync.Mutex
	ending bool // it was asked to
}

// newFamily makes an empty family; fail is called with the reason when a
// process ends unasked.
func newFamily(logs string, fail context.CancelCauseFunc) *family {
	f := &family{logs: logs, fail: fail, fork: make(chan func())}
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		for fn := range f.fork {
			fn()
		}
	}()
	return f
}

// start runs a program with its output in <logs>/<name>.log.
func (f *family) start(name, program string, args ...string) (*child, error) {
	path := filepath.Join(f.logs, name+".log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	c := &child{name: name, log: path, cmd: exec.Command(program, args...), done: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = log, log
	// The children are many and the cores few: they need no more threads' worth
	// of scheduler than the machine has, whatever the environment says.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	f.fork <- func() { started <- c.cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	f.mu.Lock()
	f.children = append(f.children, c)
	f.mu.Unlock()
	go func() {
		c.err = c.cmd.Wait()
		close(c.done)
		c.mu.Lock()
		asked := c.ending
		c.mu.Unlock()
		if !asked {
			f.fail(fmt.Errorf("%s ended: %w", name, errors.Join(cmpErr(c.err), tail(path))))
		}
	}()
	return c, nil
}

func cmpErr(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// signal sends a signal to the process group and expects its end.
func (c *child) signal(s syscall.Signal) {
	c.mu.Lock()
	c.ending = true
	c.mu.Unlock()
	select {
	case <-c.done:
	default:
		// A group that ended this moment is what was wanted.
		_ = syscall.Kill(-c.cmd.Process.Pid, s)
	}
}

// kill ends the process at once, as a crash would, and waits for it.
func (c *child) kill() {
	c.signal(syscall.SIGKILL)
	<-c.done
}

// stop ends all processes: by SIGTERM, the last started first, and after the
// grace by SIGKILL. It returns when all have ended.
func (f *family) stop(grace time.Duration) {
	f.mu.Lock()
	children := slices.Clone(f.children)
	f.children = nil
	f.mu.Unlock()
	slices.Reverse(children)
	for _, c := range children {
		c.signal(syscall.SIGTERM)
	}
	deadline := time.After(grace)
	for _, c := range children {
		select {
		case <-c.done:
		case <-deadline:
			for _, c := range children {
				c.signal(syscall.SIGKILL)
			}
			<-c.done
		}
	}
}

// close gives the forking thread back; no more processes can be started.
func (f *family) close() { close(f.fork) }

// living are the processes that were started and not ended.
func (f *family) living() []*child {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*child
	for _, c := range f.children {
		select {
		case <-c.done:
		default:
			out = append(out, c)
		}
	}
	return out
}

// tail is the end of a log, as an error to be joined to what went wrong.
func tail(path string) error {
	const most = 2 << 10
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := f.Seek(max(size-most, 0), io.SeekStart); err != nil {
		return err
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	if size > most {
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			b = b[i+1:]
		}
	}
	text := strings.TrimSpace(string(b))
	if text == "" {
		text = "(empty)"
	}
	return fmt.Errorf("last lines of %s:\n  %s", path, strings.ReplaceAll(text, "\n", "\n  "))
}
