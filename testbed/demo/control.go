package demo

import "context"

// plane is the control plane: the hub and the sites' controllers.
type plane struct {
	hub         *child
	controllers []*child
	killed      []bool // by site
}

func (p *plane) nodeArgs(site int) []string { return nil }

func (p *plane) kill(sites []int) {
	p.hub.kill()
	for _, i := range sites {
		p.controllers[i].kill()
		p.killed[i] = true
	}
}

func (c *cluster) startPlane(ctx context.Context) error                  { return nil }
func (c *cluster) applyAll(ctx context.Context, policyName string) error { return nil }
func (c *cluster) applyPolicy(ctx context.Context, name string) error    { return nil }
