package demo

import (
	"context"
	"errors"
	"fmt"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/join"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/controller/store"
)

// hubName is the hub's own name as a site; it has no proxy and no backends.
const hubName = "hub"

// plane is the control plane: the hub and the sites' controllers.
type plane struct {
	hub         *child
	api         *siteapi.Client // of the hub
	controllers []*child
	runs        []siteapi.RunFile
	killed      []bool // by site
}

// startPlane starts the hub and, when its leaf port is known, all sites' controllers.
func (c *cluster) startPlane(ctx context.Context) error {
	hub, run, err := c.startController(hubName, "--hub")
	if err != nil {
		return err
	}
	c.plane.hub = hub
	at, err := run(ctx)
	if err != nil {
		return err
	}
	if c.plane.api, err = siteapi.Dial(at.API); err != nil {
		return err
	}
	n := len(c.topology.Sites)
	c.plane.killed = make([]bool, n)
	runs := make([]func(context.Context) (siteapi.RunFile, error), n)
	for i, s := range c.topology.Sites {
		if err := c.admit(ctx, s.Name); err != nil {
			return err
		}
		controller, run, err := c.startController(s.Name)
		if err != nil {
			return err
		}
		c.plane.controllers = append(c.plane.controllers, controller)
		runs[i] = run
	}
	for _, run := range runs {
		r, err := run(ctx)
		if err != nil {
			return err
		}
		c.plane.runs = append(c.plane.runs, r)
	}
	return nil
}

// admit makes a site's data folder one of a member of the mesh.
func (c *cluster) admit(ctx context.Context, site string) (err error) {
	t, err := c.plane.api.CreateToken(ctx, siteapi.TokenRequest{Site: site})
	if err != nil {
		return err
	}
	token, err := join.ParseToken(t.Token)
	if err != nil {
		return err
	}
	dir, err := c.folder(controllerFolder(site))
	if err != nil {
		return err
	}
	f, err := store.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = join.Join(ctx, f, token, "")
	return err
}

func controllerFolder(site string) string { return "controller-" + site }

// startController starts a sitecontroller; the function returned waits until it serves.
func (c *cluster) startController(site string, args ...string) (*child, func(context.Context) (siteapi.RunFile, error), error) {
	name := controllerFolder(site)
	dir, err := c.folder(name)
	if err != nil {
		return nil, nil, err
	}
	p, err := c.family.start(name, c.programs.controller, append(args, "--site", site, "--data", dir)...)
	if err != nil {
		return nil, nil, err
	}
	return p, func(ctx context.Context) (r siteapi.RunFile, err error) {
		err = within(ctx, startLimit, "the controller of "+site+" to serve", func() error {
			r, err = siteapi.ReadRunFile(dir)
			return err
		})
		return r, err
	}, nil
}

// nodeArgs lead a site's proxy to its controller.
func (p *plane) nodeArgs(site int) []string {
	r := p.runs[site]
	return []string{"--config", r.NATS, "--nats-token-file", r.TokenFile, "--trust-key", r.TrustKey}
}

// kill ends the hub and the controllers of the sites as a crash would.
func (p *plane) kill(sites []int) {
	p.hub.kill()
	for _, i := range sites {
		p.controllers[i].kill()
		p.killed[i] = true
	}
}

// applyAll hands the hub the whole mesh.
func (c *cluster) applyAll(ctx context.Context, policyName string) error {
	o := c.layout.objects()
	o.TrafficPolicies = append(o.TrafficPolicies, policy(policyName))
	return c.apply(ctx, "mesh.yaml", o)
}

func (c *cluster) applyPolicy(ctx context.Context, name string) error {
	return c.apply(ctx, "policy.yaml", &mesh.Objects{TrafficPolicies: []*mesh.TrafficPolicy{policy(name)}})
}

func (c *cluster) apply(ctx context.Context, name string, o *mesh.Objects) error {
	text, err := documents(o)
	if err != nil {
		return err
	}
	request := siteapi.ApplyRequest{Documents: []siteapi.Document{{Name: name, YAML: string(text)}}}
	var result *siteapi.Result
	// A write waits for the disk; on a busy machine that can outlast the hub's
	// patience, and applying again is harmless.
	if err := within(ctx, startLimit, "the hub to store "+name, func() (err error) {
		result, err = c.plane.api.Apply(ctx, request)
		return err
	}); err != nil {
		return err
	}
	var errs []error
	for _, f := range result.Faults {
		errs = append(errs, errors.New(f.String()))
	}
	for _, condition := range result.Conditions {
		errs = append(errs, errors.New(condition.String()))
	}
	if len(errs) > 0 {
		return fmt.Errorf("apply %s: %w", name, errors.Join(errs...))
	}
	return nil
}
