// Command edgeproxy is Meridian's data plane: one process per node that listens
// where its Gateways say and sends requests to services of this site and, where
// sites share load, of others.
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
	"syscall"

	"github.com/meridian-mesh/meridian/internal/logring"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func run(args []string, stdout, stderr io.Writer) int {
	opts, err := parseFlags(args, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "edgeproxy: %v\nRun 'edgeproxy --help' for usage.\n", err)
		return exitUsage
	case opts.version:
		fmt.Fprintln(stdout, build())
		return exitOK
	case opts.check:
		return check(opts.config, stdout, stderr)
	}
	said := logring.New(logring.Bytes)
	log := slog.New(opts.logHandler(io.MultiWriter(said, stderr)))
	if opts.memoryLimit == 0 { // else the proxy tells the collector as it goes
		if err := limitMemory(); err != nil {
			log.Warn("memory limit is not set", "err", err)
		}
	}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	context.AfterFunc(stop, cancel) // the second signal takes its default action: at once
	in, err := inherit()
	if err == nil {
		var n *node
		if n, err = newNode(opts, in, log, said); err == nil {
			err = n.run(stop)
		}
	}
	if err != nil {
		if terr := in.tell(err.Error()); terr != nil {
			log.Warn("taking over", "err", terr)
		}
		log.Error("edgeproxy ends", "err", err)
		return exitFailed
	}
	return exitOK
}
