// Command cluster runs a real Kubernetes cluster on this machine, without Docker and
// without a registry: control plane and kubelets built from their Go modules, Debian's
// containerd and runc, meridian-scheduler as the only scheduler. Each node has
// namespaces of its own. Nothing of it is seen outside but the API server's port on
// loopback, and all of it ends with one process.
//
// It needs root, Linux with cgroups, and programs of Debian's packages containerd,
// runc, containernetworking-plugins, nftables and iproute2.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const usage = `cluster runs a real Kubernetes cluster in namespaces of this machine.

Usage:
  cluster up [flags]                       build what is missing, start, return when ready
  cluster run [flags]                      the same, but stay until interrupted
  cluster down [flags]                     end it, or remove what a killed one left
  cluster status [flags]                   what runs, as JSON
  cluster kubeconfig [flags]               print the path of the kubeconfig
  cluster exec [flags] COMMAND...          run a command in the control plane's network
  cluster image [flags] PROGRAM NAME...    make an image of a static program, give it to all nodes
  cluster build [flags]                    build the programs only

Examples:
  go run ./testbed/cluster up
  export KUBECONFIG=$(go run ./testbed/cluster kubeconfig)
  go run ./testbed/cluster exec ip link set node-2 down      lose a node
  go run ./testbed/cluster exec --node node-1 ctr -n k8s.io containers list

Flags:
`

// options of all verbs.
type options struct {
	name, source, node string
	nodes              int
}

func main() {
	if len(os.Args) < 2 || strings.Trim(os.Args[1], "-") == "help" || os.Args[1] == "-h" {
		fmt.Fprint(os.Stdout, usage)
		flags(&options{}).PrintDefaults()
		return
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func flags(o *options) *flag.FlagSet {
	set := flag.NewFlagSet("cluster", flag.ContinueOnError)
	set.SetOutput(os.Stdout)
	set.StringVar(&o.name, "name", "meridian", "the cluster's `NAME`: several may run")
	set.StringVar(&o.source, "source", "", "the `FOLDER` of Meridian's source; by default the one around the working directory")
	set.IntVar(&o.nodes, "nodes", 2, "how many nodes to start, 1 to 9")
	set.StringVar(&o.node, "node", "", "exec in the network, mounts and host name of that `NODE`")
	return set
}

func run(verb string, args []string) error {
	o := &options{}
	set := flags(o)
	if err := set.Parse(args); err != nil {
		return err
	}
	rest := set.Args()
	p, err := newPlace(o.name, o.source)
	if err != nil {
		return err
	}
	if o.nodes < 1 || o.nodes > maxNodes {
		return fmt.Errorf("--nodes %d: want 1 to %d", o.nodes, maxNodes)
	}
	switch verb {
	case "exec":
		if len(rest) == 0 {
			return errors.New("exec: which command?")
		}
		return p.enter(o.node, rest)
	case "image":
		if len(rest) < 2 {
			return errors.New("image: want a program and the image's name or names")
		}
		return p.image(rest[0], rest[1:])
	// The roles in which this program starts itself.
	case "first":
		return p.first(rest)
	case "control", "node":
		return p.role(verb, rest)
	}
	if len(rest) > 0 {
		return fmt.Errorf("%s: unexpected %q", verb, rest[0])
	}
	switch verb {
	case "build":
		return p.build()
	case "up":
		return p.up(o.nodes)
	case "run":
		return p.run(o.nodes)
	case "keep":
		return p.keepUntilTold(o.nodes, func(*state) {})
	case "down":
		return p.down()
	case "status":
		s, err := p.read()
		if err != nil {
			return err
		}
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", "  ")
		return out.Encode(s)
	case "kubeconfig":
		s, err := p.read()
		if err == nil {
			fmt.Println(s.Kubeconfig)
		}
		return err
	}
	return fmt.Errorf("no verb %q: see cluster help", verb)
}

// role reads the arguments that this program gave to itself.
func (p *place) role(verb string, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("%s is not for people", verb)
	}
	count, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	if verb == "node" {
		return p.node(count, args[1])
	}
	port, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	return p.control(count, port)
}

// up starts a keeper that outlives this process.
func (p *place) up(count int) error {
	if err := p.prepare(); err != nil {
		return err
	}
	began := time.Now()
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	// Not in its logs folder: the keeper empties that.
	log, err := os.Create(p.dir + ".log")
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command("/proc/self/exe", "keep", "--name", p.name, "--source", p.root, "--nodes", strconv.Itoa(count))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // its log says what was wrong
	}()
	told := make(chan os.Signal, 1)
	signal.Notify(told, unix.SIGINT, unix.SIGTERM)
	for {
		select {
		case <-ended:
			b, err := os.ReadFile(p.dir + ".log")
			return errors.Join(errors.New(strings.TrimPrefix(strings.TrimSpace(string(b)), "cluster: ")), err)
		case s := <-told:
			_ = cmd.Process.Signal(unix.SIGTERM)
			<-ended
			return fmt.Errorf("ended by %s before it was ready", s)
		case <-time.After(50 * time.Millisecond):
			// The keeper first removes what an earlier one left: the state is its own.
			if s, err := p.read(); err == nil && unix.Kill(s.Init, 0) == nil {
				p.greet(s, time.Since(began))
				return nil
			}
		}
	}
}

// run keeps the cluster itself.
func (p *place) run(count int) error {
	if err := p.prepare(); err != nil {
		return err
	}
	began := time.Now()
	return p.keepUntilTold(count, func(s *state) { p.greet(s, time.Since(began)) })
}

func (p *place) keepUntilTold(count int, ready func(*state)) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	return p.keep(ctx, count, ready)
}

func (p *place) greet(s *state, took time.Duration) {
	fmt.Printf("cluster %s is ready after %.1f s: %d nodes\nexport KUBECONFIG=%s\n", s.Name, took.Seconds(), len(s.Nodes), s.Kubeconfig)
}
