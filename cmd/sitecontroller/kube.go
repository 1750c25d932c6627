package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"

	apikube "github.com/meridian-mesh/meridian/api/kube"
	"github.com/meridian-mesh/meridian/controller"
	"github.com/meridian-mesh/meridian/controller/kube"
)

// bridge are the flags of the Kubernetes bridge.
type bridge struct {
	on     bool
	config kube.Config
}

const label = `[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?`

var (
	clusterName = regexp.MustCompile(`^` + label + `$`)
	domainName  = regexp.MustCompile(`^` + label + `(\.` + label + `)*$`)
)

func (b *bridge) flags(fs *flag.FlagSet) {
	c := &b.config
	fs.BoolFunc("kube", "bring a Kubernetes cluster's services and routes into the mesh; --kube=`FILE` names its kubeconfig (default: the pod's service account, KUBECONFIG or ~/.kube/config)", func(s string) error {
		if b.on = s != "false"; s != "true" && b.on {
			c.Kubeconfig = s
		}
		return nil
	})
	fs.StringVar(&c.Context, "kube-context", "", "with --kube: `name` of the kubeconfig's context (default: its current one)")
	fs.StringVar(&c.Cluster, "kube-cluster", "", "with --kube: the cluster's `name` in the mesh (default: the site's)")
	fs.StringVar(&c.Domain, "kube-domain", "", "with --kube: the cluster's DNS `domain`, for the names of Services (default: "+apikube.DefaultDomain+")")
	fs.Func("kube-addresses", "with --kube: `addresses` of the proxies' machines (10.9.0.0/24, 10.9.1.7, ...) of which each Gateway gets one of its own (default: Gateways listen on all addresses)", func(s string) error {
		for part := range strings.SplitSeq(s, ",") {
			p, err := netip.ParsePrefix(part)
			if err != nil {
				ip, ierr := netip.ParseAddr(part)
				if ierr != nil {
					return fmt.Errorf("%q is neither an address nor a network", part)
				}
				p = netip.PrefixFrom(ip, ip.BitLen())
			}
			c.Pool = append(c.Pool, p)
		}
		return nil
	})
	fs.StringVar(&c.Certificates, "kube-certificates", "", "with --kube: `folder` into which TLS Secrets that Gateways name are written; the proxies read them at the same path (default: Secrets are not read)")
}

// check completes the flags once the site is known.
func (b *bridge) check(site string) error {
	c := &b.config
	if !b.on {
		if c.Context != "" || c.Cluster != "" || c.Domain != "" || len(c.Pool) > 0 || c.Certificates != "" {
			return errors.New("--kube-context, --kube-cluster, --kube-domain, --kube-addresses and --kube-certificates are for --kube")
		}
		return nil
	}
	c.Site = site
	if c.Cluster == "" {
		c.Cluster = site
	}
	if !clusterName.MatchString(c.Cluster) {
		return fmt.Errorf("--kube-cluster %q is not a name: lower-case letters, digits and -, a letter or digit at both ends, at most 63", c.Cluster)
	}
	if c.Domain != "" && !domainName.MatchString(c.Domain) {
		return fmt.Errorf("--kube-domain %q is not a domain, such as %s: labels of lower-case letters, digits and -, with dots between them", c.Domain, apikube.DefaultDomain)
	}
	if c.Certificates != "" {
		var err error
		if c.Certificates, err = filepath.Abs(c.Certificates); err != nil {
			return fmt.Errorf("--kube-certificates: %w", err)
		}
	}
	return nil
}

// serve runs the controller and the bridge until ctx ends or one of them fails.
func serve(ctx context.Context, srv *controller.Server, b bridge, log *slog.Logger) error {
	if !b.on {
		return srv.Run(ctx)
	}
	k, err := kube.New(b.config, srv, log)
	if err != nil {
		return err
	}
	srv.VerifyAccounts(k)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		defer stop()
		select {
		case <-srv.Ready():
			log.Info("bridges a Kubernetes cluster", "cluster", b.config.Cluster, "server", k.Server())
			ended <- k.Run(ctx)
		case <-ctx.Done():
			ended <- nil
		}
	}()
	err = srv.Run(ctx)
	stop()
	return errors.Join(err, <-ended)
}
