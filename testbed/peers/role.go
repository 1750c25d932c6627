package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"time"

	"github.com/meridian-mesh/meridian/testbed/reactor"
)

// Roles of child processes: the first argument of this program. A child lives
// until its standard input ends, so none outlives the parent.
const (
	roleBackend = "role-backend"
	roleLoad    = "role-load"
	roleSink    = "role-sink"
	roleSource  = "role-source"
	roleHold    = "role-hold"
	roleSecure  = "role-secure"
	// Of modes tls-idle and burst.
	roleSecureHold = "role-secure-hold"
	roleBurst      = "role-burst"
	// Of mode grpc.
	roleGRPC    = "role-grpc"
	roleUDPEcho = "role-udp-echo"
	roleUDPLoad = "role-udp-load"
	roleBare    = "role-bare"
)

// order asks a load child for one run.
type order struct {
	Duration time.Duration `json:"duration"`
	Rate     float64       `json:"rate"`
	// Large has each connection at rest send requests that fill TLS records.
	Large bool `json:"large,omitempty"`
	// Once has new connections come at once one time, not again and again.
	Once bool `json:"once,omitempty"`
}

func runRole(args []string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if args[0] == roleBackend {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin) // its end is the message
			cancel()
		}()
		return serveBackend(ctx, os.Stdout)
	}
	switch args[0] {
	case roleSink:
		return serveSink(os.Stdin, os.Stdout)
	case roleSource:
		return serveSource(args[1:], os.Stdin, os.Stdout)
	case roleGRPC:
		return serveGRPC(os.Stdin, os.Stdout)
	case roleUDPEcho:
		return serveUDPEcho(os.Stdin, os.Stdout)
	case roleUDPLoad:
		return serveUDPLoad(args[1:], os.Stdin, os.Stdout)
	case roleHold:
		return hold(args[1:], os.Stdin, os.Stdout)
	case roleBare:
		return serveBare(args[1], args[2])
	case roleSecure:
		return secureLoad(args[1:], os.Stdin, os.Stdout)
	case roleSecureHold:
		return secureHold(args[1:], os.Stdin, os.Stdout)
	case roleBurst:
		return burst(args[1:], os.Stdin, os.Stdout)
	}
	fs := flag.NewFlagSet(roleLoad, flag.ContinueOnError)
	addr := fs.String("addr", "", "proxy")
	conns := fs.Int("connections", 1, "connections")
	if err := fs.Parse(args[1:]); err != nil {
		return err
	}
	to, err := netip.ParseAddrPort(*addr)
	if err != nil {
		return err
	}
	loop, err := reactor.New()
	if err != nil {
		return err
	}
	g := newGenerator(loop, to, *conns)
	go func() {
		defer cancel()
		answers := json.NewEncoder(os.Stdout)
		for orders := json.NewDecoder(os.Stdin); ; {
			var o order
			if orders.Decode(&o) != nil {
				return
			}
			done := make(chan loadResult, 1)
			loop.Post(func() { g.begin(o.Duration, o.Rate, func(r loadResult) { done <- r }) })
			if err := answers.Encode(<-done); err != nil {
				return
			}
		}
	}()
	return loop.Run(ctx)
}

// child is a process in one of the roles.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startChild(cpus []int, args ...string) (*child, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(exe, args...)}
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(out)
	return c, onCPUs(cpus, c.cmd.Start)
}

func (c *child) stop() error {
	return errors.Join(c.in.Close(), c.cmd.Wait())
}

// roles are those of child processes.
var roles = []string{roleBackend, roleLoad, roleSink, roleSource, roleGRPC, roleUDPEcho, roleUDPLoad, roleHold, roleSecure, roleSecureHold, roleBurst, roleBare}

// startBackend starts what proxies send to, in one of two roles, and returns its
// address.
func startBackend(role string, cpus []int) (*child, string, error) {
	c, err := startChild(cpus, role)
	if err != nil {
		return nil, "", err
	}
	line, err := c.out.ReadString('\n')
	if err != nil {
		return nil, "", errors.Join(fmt.Errorf("backend: %w", err), c.stop())
	}
	return c, line[:len(line)-1], nil
}

// load runs one load over a child's connections.
func (c *child) load(o order) (r loadResult, err error) {
	return r, c.ask(o, &r)
}

// ask sends a child an order and reads what comes of it.
func (c *child) ask(o order, result any) error {
	if err := json.NewEncoder(c.in).Encode(o); err != nil {
		return fmt.Errorf("load generator: %w", err)
	}
	return c.answer(result)
}

func (c *child) answer(result any) error {
	line, err := c.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, result)
	}
	if err != nil {
		return fmt.Errorf("load generator: %w", err)
	}
	return nil
}
