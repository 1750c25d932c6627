// Command chainagent runs the service chains of one node: it owns the node's BPF
// programs, fills them from documents, and watches function instances.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/chaining/agent"
	"github.com/meridian-mesh/meridian/chaining/datapath"
	"github.com/meridian-mesh/meridian/internal/manifest"
	"github.com/meridian-mesh/meridian/internal/supervisor"
)

// version is set by the linker.
var version = "unknown"

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	opts, err := parseFlags(args, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "chainagent: %v\nRun 'chainagent --help' for usage.\n", err)
		return exitUsage
	case opts.version:
		fmt.Fprintln(stdout, "chainagent", version)
		return exitOK
	case opts.detach:
		err = detach(opts)
	case opts.check:
		err = check(opts)
	default:
		ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer cancel()
		context.AfterFunc(ctx, cancel) // the second signal ends at once
		err = serve(ctx, opts, slog.New(slog.NewTextHandler(stderr, nil)))
	}
	if err != nil {
		fmt.Fprintf(stderr, "chainagent: %v\n", err)
		return exitFailed
	}
	return exitOK
}

func load(config string) (*mesh.Objects, error) {
	sources, err := manifest.Read([]string{config}, os.Stdin)
	if err != nil {
		return nil, err
	}
	return mesh.ParseSources(sources)
}

func check(opts *options) error {
	o, err := load(opts.config)
	if err != nil {
		return err
	}
	return agent.Check(o, opts.agent.Node)
}

// mountPins gives the pins a BPF file system when their folder has none.
func mountPins(o *options) error {
	if o.mount == "" {
		return nil
	}
	if err := datapath.MountPins(o.mount); err != nil {
		return fmt.Errorf("%w; or mount one yourself and name a folder on it by --pins", err)
	}
	return nil
}

func serve(ctx context.Context, opts *options, log *slog.Logger) error {
	forwarder, closeForwarder, err := openForwarder(opts, log)
	if err != nil {
		return err
	}
	defer closeForwarder()
	opts.agent.Log = log
	redirect := &redirector{Redirector: datapath.NewRedirector(opts.datapath.Pins, opts.cgroups), o: opts}
	defer redirect.Close()
	opts.agent.Redirector = redirect
	var a *agent.Agent
	src, controller, err := openSource(opts, func(s *mesh.Snapshot) error { return take(a, s) }, log)
	if err != nil {
		return err
	}
	if controller != nil {
		defer controller.Close()
	}
	opts.agent.Configuration = func() agent.Configuration { return configuration(src.State()) }
	a = agent.New(opts.agent, forwarder)
	if opts.admin != "" {
		stop, err := a.ServeAdmin(opts.admin)
		if err != nil {
			return err
		}
		defer stop()
	}
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	parts.Go(func() { a.Run(ctx) })
	if controller != nil {
		parts.Go(func() { report(ctx, controller, opts.site, a, src, log) })
	}
	if err := src.Start(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	parts.Go(func() {
		for {
			select {
			case <-hup:
				src.Reload()
			case <-ctx.Done():
				return
			}
		}
	})
	started := make(chan struct{})
	close(started)
	return supervisor.Run(ctx, log, started, a.Alive, src.Run)
}
