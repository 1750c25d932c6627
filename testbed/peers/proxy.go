package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Addresses that stand in the configurations; a run puts free ones in their place.
const (
	confListen  = "127.0.0.1:18080"
	confBackend = "127.0.0.1:18081"
)

// requestPath is one of the 50 routes of conf/meridian.yaml.
const requestPath = "/service-25/item"

// proxy is one way of running one proxy.
type proxy struct {
	name    string
	version string
	// conf is the configuration's file.
	conf string
	// stream says that connections are passed on whole, packets that datagrams are.
	stream, packets bool
	// calls says that the backend is one of gRPC.
	calls bool
	// workers rewrites the configuration to n workers; nil where the program finds
	// out by itself.
	workers func(conf string, n int) (string, error)
	// secure rewrites the configuration so that the proxy speaks TLS, with what it puts
	// into the folder; nil where it does not.
	secure func(conf, dir string) (string, error)
	// command starts the program with a configuration file; dir is its to write in.
	command func(confFile, dir string) []string
}

func ourProxy(o options, binary string) (proxy, error) {
	p := proxy{
		name: "meridian",
		conf: filepath.Join(o.conf, "meridian.yaml"),
		command: func(confFile, dir string) []string {
			return []string{binary, "--config", confFile, "--admin", "127.0.0.1:0", "--state-dir", filepath.Join(dir, "state"), "--log-level", "warn"}
		},
	}
	out, err := exec.Command(binary, "--version").CombinedOutput()
	if err != nil {
		return p, fmt.Errorf("our proxy: %w %s(make build makes it)", err, out)
	}
	p.version = firstLine(out)
	return p, nil
}

// debianPackages provide the peers.
var debianPackages = map[string]string{"haproxy": "haproxy", "nginx": "nginx-light"}

var (
	nbthread        = regexp.MustCompile(`(?m)^(\s*nbthread )1$`)
	workerProcesses = regexp.MustCompile(`(?m)^(worker_processes )1;$`)
)

// peerProxy finds the program and the configuration behind a name such as nginx-tuned.
func peerProxy(o options, name string) (proxy, error) {
	if name == bareRelay || name == bareSplice {
		return bareProxy(o, name)
	}
	program, _, _ := strings.Cut(name, "-")
	p := proxy{name: name}
	pkg, known := debianPackages[program]
	if !known {
		return p, fmt.Errorf("no peer %q: a name is haproxy-X or nginx-X for a file of %s", name, o.conf)
	}
	bin, err := find(program)
	if err != nil {
		return p, fmt.Errorf("%w: install it (apt-get install %s) or choose others with --peers", err, pkg)
	}
	versionFlag := "-v"
	switch program {
	case "haproxy":
		p.conf = filepath.Join(o.conf, name+".cfg")
		p.workers = replacing(nbthread, "${1}%d")
		p.command = func(confFile, _ string) []string { return []string{bin, "-db", "-f", confFile} }
	case "nginx":
		p.conf = filepath.Join(o.conf, name+".conf")
		p.workers = replacing(workerProcesses, "${1}%d;")
		p.command = func(confFile, dir string) []string {
			return []string{bin, "-p", dir, "-e", "stderr", "-c", confFile}
		}
	}
	out, err := exec.Command(bin, versionFlag).CombinedOutput()
	if err != nil {
		return p, fmt.Errorf("%s %s: %w", bin, versionFlag, err)
	}
	p.version = strings.TrimPrefix(firstLine(out), "nginx version: ")
	p.version, _, _ = strings.Cut(p.version, " - ")
	return p, nil
}

// find looks in PATH and where Debian keeps servers.
func find(program string) (string, error) {
	if bin, err := exec.LookPath(program); err == nil {
		return bin, nil
	}
	return exec.LookPath(filepath.Join("/usr/sbin", program))
}

func replacing(re *regexp.Regexp, with string) func(string, int) (string, error) {
	return func(conf string, n int) (string, error) {
		if !re.MatchString(conf) {
			return "", fmt.Errorf("no line %s to set the number of workers in", re)
		}
		return re.ReplaceAllString(conf, fmt.Sprintf(with, n)), nil
	}
}

func firstLine(b []byte) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(b), []byte("\n"))
	return string(line)
}

// running is a started proxy.
type running struct {
	proxy
	*process
	addr string
}

// start runs the proxy in front of backend and waits until it answers. n is the
// number of workers, cpus the set it may run on (nil: all).
func (p proxy) start(ctx context.Context, backend string, n int, cpus []int) (*running, error) {
	body, err := os.ReadFile(p.conf)
	if err != nil {
		return nil, err
	}
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	conf := string(body)
	if p.workers != nil {
		if conf, err = p.workers(conf, n); err != nil {
			return nil, fmt.Errorf("%s: %w", p.conf, err)
		}
	}
	dir, err := os.MkdirTemp("", "peers-")
	if err != nil {
		return nil, err
	}
	// nginx's worker is another user when the master is root.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	if p.secure != nil {
		if conf, err = p.secure(conf, dir); err != nil {
			return nil, fmt.Errorf("%s: %w", p.conf, err)
		}
	}
	if conf, err = replaceAddresses(conf, addr, backend); err != nil {
		return nil, fmt.Errorf("%s: %w", p.conf, err)
	}
	confFile := filepath.Join(dir, filepath.Base(p.conf))
	if err := os.WriteFile(confFile, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	proc, err := startProcess(p.command(confFile, dir), cpus)
	if err != nil {
		return nil, err
	}
	proc.dir = dir
	r := &running{proxy: p, process: proc, addr: addr}
	if err := r.awaitAnswer(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%s does not serve: %w\n%s", p.name, err, proc.said()), proc.stop())
	}
	return r, nil
}

// replaceAddresses puts real addresses in the place of the two that stand in a
// configuration. YAML of ours has host and port of the listener apart.
func replaceAddresses(conf, listen, backend string) (string, error) {
	_, confPort, _ := strings.Cut(confListen, ":")
	_, port, _ := strings.Cut(listen, ":")
	out := strings.ReplaceAll(conf, confBackend, backend)
	out = strings.ReplaceAll(out, confListen, listen)
	out = strings.ReplaceAll(out, "port: "+confPort, "port: "+port)
	if !strings.Contains(out, backend) || !strings.Contains(out, port) {
		return "", fmt.Errorf("does not name %s and %s", confListen, confBackend)
	}
	return out, nil
}

func (r *running) awaitAnswer(ctx context.Context) error {
	transport, scheme := &http.Transport{DisableKeepAlives: true}, "http://"
	if r.secure != nil {
		config, err := clientConfig(r.dir)
		if err != nil {
			return err
		}
		transport.TLSClientConfig, scheme = config, "https://"
	}
	client := http.Client{Timeout: time.Second, Transport: transport}
	var last error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if r.ended() {
			return errors.New("it ended")
		}
		if r.packets {
			if last = echoes(r.addr); last == nil {
				return nil
			}
			continue
		}
		if r.calls {
			if last = answersCall(ctx, r.addr); last == nil {
				return nil
			}
			continue
		}
		if r.stream {
			c, err := net.Dial("tcp", r.addr)
			if err == nil {
				return c.Close()
			}
			last = err
			continue
		}
		resp, err := client.Get(scheme + r.addr + requestPath)
		if err != nil {
			last = err
			continue
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK && resp.ContentLength == bodyLength {
			return nil
		}
		last = fmt.Errorf("answered %s with %d bytes", resp.Status, resp.ContentLength)
	}
	return last
}

// echoes sends a datagram and says why nothing came back.
func echoes(addr string) error {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		return err
	}
	if _, err := c.Write(make([]byte, udpBytes)); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, udpBytes))
	return err
}

// freeAddress asks the kernel for a free port. Another process may take it before
// the proxy does; the proxy then ends and the run says so.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return "127.0.0.1:" + strconv.Itoa(l.Addr().(*net.TCPAddr).Port), nil
}
