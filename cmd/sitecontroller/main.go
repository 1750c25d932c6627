// Command sitecontroller runs one Meridian site: its NATS server (the hub's, or a
// leaf of it), what its nodes serve from, and how it shares load with others.
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
	"runtime/debug"
	"syscall"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller"
	"github.com/meridian-mesh/meridian/internal/logring"
	"github.com/meridian-mesh/meridian/internal/manifest"
	"github.com/meridian-mesh/meridian/internal/supervisor"
)

// version is set by the release build (-ldflags "-X main.version=...").
var version = "dev"

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// memoryLimit is the soft limit of the Go heap unless GOMEMLIMIT says otherwise.
// Without one the NATS server's buffers let it follow the machine's memory.
const memoryLimit = 256 << 20

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	o, err := parseFlags(args, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "sitecontroller: %v\nRun 'sitecontroller --help' for usage.\n", err)
		return exitUsage
	case o.version:
		fmt.Fprintf(stdout, "sitecontroller %s\n", version)
		return exitOK
	}
	cfg := o.config
	cfg.Version = version
	if len(o.documents) > 0 {
		if cfg.Preload, err = manifest.Read(o.documents, stdin); err != nil {
			fmt.Fprintf(stderr, "sitecontroller: --config: %v\n", err)
			return exitFailed
		}
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	said := logring.New(logring.Bytes)
	log := slog.New(o.logHandler(io.MultiWriter(said, stderr)))
	srv, err := controller.New(cfg, controller.Deps{Log: log, Said: said})
	if faults := (*mesh.Faults)(nil); errors.As(err, &faults) {
		fmt.Fprintf(stderr, "sitecontroller: --config is refused:\n%v\n", err)
		return exitFailed
	}
	if err != nil {
		fmt.Fprintf(stderr, "sitecontroller: %v\nRun 'sitecontroller --help' for usage.\n", err)
		return exitUsage
	}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	context.AfterFunc(stop, cancel) // the second signal takes its default action: at once
	err = supervisor.Run(stop, log, srv.Ready(), srv.Alive, func(ctx context.Context) error { return serve(ctx, srv, o.bridge, log) })
	if err != nil {
		log.Error("sitecontroller ends", "err", err)
		return exitFailed
	}
	return exitOK
}
