// Package demo runs a mesh of real processes on this machine (a hub, and per site
// a controller, a proxy and backends, joined by relays with the delay of the real
// distance), sends it the traffic of a scenario under one sharing policy after
// another, and reports what users saw.
//
// Everything it starts is found beside the running binary, listens on loopback
// ports that the kernel chose, keeps its files in one temporary folder, and ends
// with the demo however that ends.
package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/testbed/report"
	"github.com/meridian-mesh/meridian/testbed/scenario"
	"github.com/meridian-mesh/meridian/testbed/topo"
)

// FaultControllers kills, during the hotspot, the hub and the controllers of the
// hot site and of the site that helps it most.
const FaultControllers = "controllers"

// Options say what to run.
type Options struct {
	Topology *topo.Topology
	// Duration is the length of one policy's run.
	Duration time.Duration
	Seed     uint64
	// Policies are run in this order; see [report.Policies].
	Policies []string
	// Fault is "" or FaultControllers.
	Fault string
	// Keep leaves the temporary folder where it is.
	Keep bool
	// Version is printed in the report.
	Version string
	// BinDir holds the binaries; empty means the folder of this one.
	BinDir string
	// View is shown what happens.
	View *View
}

// Validate says what is wrong with the options, naming flags.
func (o *Options) Validate() error {
	var errs []error
	if len(o.Policies) == 0 {
		errs = append(errs, errors.New("--policies: name at least one of "+strings.Join(report.Policies(), ", ")))
	}
	for i, p := range o.Policies {
		switch {
		case !slices.Contains(report.Policies(), p):
			errs = append(errs, fmt.Errorf("--policies: %q is not one of %s", p, strings.Join(report.Policies(), ", ")))
		case slices.Contains(o.Policies[:i], p):
			errs = append(errs, fmt.Errorf("--policies: %s is there twice", p))
		}
	}
	if o.Fault != "" && o.Fault != FaultControllers {
		errs = append(errs, fmt.Errorf("--fault: %q is not %s", o.Fault, FaultControllers))
	}
	if _, err := plan(o); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// plan lays the scenario over the topology's sites.
func plan(o *Options) (*scenario.Scenario, error) {
	var sites []scenario.Site
	for i, s := range o.Topology.Sites {
		sites = append(sites, scenario.Site{Name: s.Name, Slots: s.Slots, ServiceTime: s.ServiceTime, Users: o.Topology.UsersOf(i)})
	}
	return scenario.New(sites, o.Duration)
}

// programs are the binaries that a mesh consists of.
type programs struct{ meridian, proxy, controller string }

// find looks for the siblings of the running binary.
func find(dir string) (programs, error) {
	var p programs
	self, err := os.Executable()
	if err != nil {
		return p, fmt.Errorf("where is this program: %w", err)
	}
	if dir == "" {
		if self, err = filepath.EvalSymlinks(self); err != nil {
			return p, fmt.Errorf("where is this program: %w", err)
		}
		dir = filepath.Dir(self)
	}
	p = programs{filepath.Join(dir, "meridian"), filepath.Join(dir, "edgeproxy"), filepath.Join(dir, "sitecontroller")}
	var missing []string
	for _, path := range []string{p.meridian, p.proxy, p.controller} {
		info, err := os.Stat(path)
		if err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			missing = append(missing, filepath.Base(path))
		}
	}
	if len(missing) > 0 {
		return p, fmt.Errorf("no %s in %s: run `make build`, which puts all binaries into one folder", strings.Join(missing, " and no "), dir)
	}
	return p, nil
}

// within repeats try until it succeeds; after limit it returns the last reason.
func within(ctx context.Context, limit time.Duration, what string, try func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil {
			return nil
		}
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v for %s: %w", limit, what, err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
