//go:build skew

package skew

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// deadline is for what has to happen, on a machine that does other things as well.
const deadline = 40 * time.Second

// testMesh is a hub at a site of its own and the sites north and south with a proxy
// each, all of them processes.
type testMesh struct {
	t    *testing.T
	dir  string
	port map[string]int
	// controllers and proxies are by site.
	controllers, proxies map[string]*process
	backends             map[string]string
}

// process is a program that runs, and its log, which goes on when it is replaced.
type process struct {
	name, log string
	process   *os.Process
	done      chan struct{}
	err       error
}

// said is what is in the log.
func (p *process) said() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

func (m *testMesh) path(name ...string) string {
	return filepath.Join(append([]string{m.dir}, name...)...)
}

// run starts a program; the test ends what is left of it and of what took over from it.
func (m *testMesh) run(name string, args ...string) *process {
	m.t.Helper()
	p := &process{name: name, log: m.path(strings.ReplaceAll(name, " ", "-") + ".log"), done: make(chan struct{})}
	// A file and no pipe: what takes over has it, too, and would keep a pipe open.
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		m.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = m.dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	p.process = cmd.Process
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	m.t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it has ended, or has nothing to lose
		<-p.done
	})
	return p
}

// end stops a process in order.
func (m *testMesh) end(p *process) {
	m.t.Helper()
	if err := p.process.Signal(syscall.SIGTERM); err != nil {
		m.t.Fatalf("%s: %v\n%s", p.name, err, p.said())
	}
	m.ended(p)
}

func (m *testMesh) ended(p *process) {
	m.t.Helper()
	select {
	case <-p.done:
		if p.err != nil {
			m.t.Fatalf("%s ended: %v\n%s", p.name, p.err, p.said())
		}
	case <-time.After(deadline):
		m.t.Fatalf("%s does not end\n%s", p.name, p.said())
	}
}

// freePorts finds n ports, one after the other, below those that connections are given:
// they have to stay free while a process is replaced.
func freePorts(t *testing.T, n int) int {
	t.Helper()
	for range 1000 {
		first := 10_000 + rand.IntN(22_000)
		free := true
		for port := first; port < first+n && free; port++ {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			free = err == nil
			if free {
				_ = l.Close() // nothing came of it
			}
		}
		if free {
			return first
		}
	}
	t.Fatalf("there are no %d free ports in a row", n)
	return 0
}

// within waits for something, and says what was last seen when it never comes.
func (m *testMesh) within(what string, ok func() (bool, string)) {
	m.t.Helper()
	var seen string
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var good bool
		if good, seen = ok(); good {
			return
		}
	}
	for _, p := range []map[string]*process{m.controllers, m.proxies} {
		for _, q := range p {
			m.t.Logf("log of %s:\n%s", q.name, q.said())
		}
	}
	m.t.Fatalf("not within %s: %s\nlast seen:\n%s", deadline, what, seen)
}

// meridian runs the command line of a version and returns what it says, with what it
// complains of where it fails.
func (m *testMesh) meridian(v version, site string, args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(v.dir, "meridian"), append([]string{"--data", m.path(site)}, args...)...)
	var errs bytes.Buffer
	cmd.Dir, cmd.Stderr = m.dir, &errs
	out, err := cmd.Output()
	if err != nil {
		return string(out) + errs.String(), err
	}
	return string(out), nil
}

// says waits until a command's output matches.
func (m *testMesh) says(v version, site, want string, args ...string) {
	m.t.Helper()
	re := regexp.MustCompile("(?m)" + want)
	m.within(fmt.Sprintf("%s at %s, by the %s version, to say %s", strings.Join(args, " "), site, v.name, want), func() (bool, string) {
		out, err := m.meridian(v, site, args...)
		return err == nil && re.MatchString(out), out
	})
}

// apply sets documents at the hub.
func (m *testMesh) apply(v version, text string) (string, error) {
	path := m.path("apply.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
	return m.meridian(v, "hub", "apply", "-f", path)
}

// controller starts a site's, or replaces it by that of a version.
func (m *testMesh) controller(site string, v version) {
	m.t.Helper()
	if p := m.controllers[site]; p != nil {
		m.end(p)
	}
	p := m.run("sitecontroller of "+site, filepath.Join(v.dir, "sitecontroller"),
		"--data", m.path(site), "--listen", fmt.Sprintf("127.0.0.1:%d", m.port["nats-"+site]))
	m.controllers[site] = p
	m.within("the controller of "+site+" serves", func() (bool, string) {
		select {
		case <-p.done:
			m.t.Fatalf("%s ended: %v\n%s", p.name, p.err, p.said())
		default:
		}
		_, err := os.Stat(m.path(site, "run.json"))
		return err == nil, p.said()
	})
}

// install puts a version's proxy where the site's proxy is started from.
func (m *testMesh) install(site string, v version) string {
	m.t.Helper()
	path := m.path(site+"-node", "edgeproxy")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		m.t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(v.dir, "edgeproxy"))
	if err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", data, 0o755); err != nil { //nolint:gosec // a program
		m.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		m.t.Fatal(err)
	}
	return path
}

func (m *testMesh) proxy(site string, v version) {
	m.t.Helper()
	path := m.install(site, v)
	m.proxies[site] = m.run("edgeproxy of "+site, path,
		"--config", fmt.Sprintf("nats://127.0.0.1:%d", m.port["nats-"+site]), "--site", site, "--node", "n1",
		"--nats-token-file", m.path(site, "node.token"), "--trust-key", m.path(site, "site.pub"),
		"--state-dir", m.path(site+"-node"), "--admin", "127.0.0.1:0", "--loops", "1", "--drain-timeout", "2s")
}

// upgrade replaces a running proxy by that of a version, as its supervisor does.
func (m *testMesh) upgrade(site string, v version) {
	m.t.Helper()
	m.install(site, v)
	p := m.proxies[site]
	if err := p.process.Signal(syscall.SIGUSR2); err != nil {
		m.t.Fatal(err)
	}
	m.ended(p)
	var run struct{ PID int }
	data, err := os.ReadFile(m.path(site+"-node", "run.json"))
	if err == nil {
		err = json.Unmarshal(data, &run)
	}
	if err != nil || run.PID == p.process.Pid {
		m.t.Fatalf("run.json after the upgrade: %v, process %d\n%s", err, run.PID, p.said())
	}
	next, err := os.FindProcess(run.PID)
	if err != nil {
		m.t.Fatal(err)
	}
	q := &process{name: p.name, process: next, log: p.log, done: make(chan struct{})}
	go func() { // it is no child of this process
		defer close(q.done)
		for next.Signal(syscall.Signal(0)) == nil {
			time.Sleep(20 * time.Millisecond)
		}
	}()
	m.proxies[site] = q
}

// get asks a site's proxy for a service and returns which backend answered.
func (m *testMesh) get(client *http.Client, site, host string) (string, error) {
	req, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", m.port["http-"+site]), nil)
	if err != nil {
		return "", err
	}
	req.Host = host
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}

// reaches waits until a request at a site is answered by a backend.
func (m *testMesh) reaches(site, host, backend string) {
	m.t.Helper()
	m.within(fmt.Sprintf("%s at %s is answered by %s", host, site, backend), func() (bool, string) {
		got, err := m.get(http.DefaultClient, site, host)
		return err == nil && got == backend, fmt.Sprint(got, " ", err)
	})
}

// load sends requests to both sites, one after the other, and counts what is not
// answered by a backend, until stop is called.
func (m *testMesh) load(hosts map[string][]string) (stop func() (sent int, failed []string)) {
	end, ended := make(chan struct{}), make(chan struct{})
	var sent int
	var failed []string
	go func() {
		defer close(ended)
		client := &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}
		defer client.CloseIdleConnections()
		for {
			for site, names := range hosts {
				for _, host := range names {
					if _, err := m.get(client, site, host); err != nil {
						failed = append(failed, fmt.Sprintf("%s %s at %s: %v", time.Now().Format("15:04:05.000"), host, site, err))
					}
					sent++
				}
			}
			select {
			case <-end:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	return func() (int, []string) {
		close(end)
		<-ended
		return sent, failed
	}
}

// backend starts a server that answers with its name.
func (m *testMesh) backend(name string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) }))
	m.t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	m.backends[name] = s.Listener.Addr().String()
}
