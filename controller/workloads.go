package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/ca"
	"github.com/meridian-mesh/meridian/internal/bus"
	"github.com/meridian-mesh/meridian/internal/spiffe"
)

// Accounts says whose a Kubernetes service account's token is.
type Accounts interface {
	// Review asks the API server about a token, and returns the service account and the
	// node whose pod the token was made for. What is not good for that is an error.
	Review(ctx context.Context, token string) (namespace, account, node string, err error)
}

// VerifyAccounts has workloads of a cluster known by their tokens. It is called before
// [Server.Run].
func (s *Server) VerifyAccounts(a Accounts) { s.accounts = a }

// workload answers a node that asks for the certificate of a workload: one that runs
// there, by the word of the cluster or of the services' endpoints.
func (i *issuing) workload(ctx context.Context, node string, r *bus.WorkloadRequest) ([]byte, error) {
	for _, name := range []string{r.Namespace, r.Account} {
		if err := spiffe.CheckSegment(name); err != nil {
			return nil, fmt.Errorf("workload %s/%s: %w", r.Namespace, r.Account, err)
		}
	}
	if r.Namespace == spiffe.NodeNamespace {
		return nil, fmt.Errorf("workload %s/%s: identities in namespace %s are those of nodes", r.Namespace, r.Account, spiffe.NodeNamespace)
	}
	var err error
	if r.Token != "" {
		err = i.s.ofCluster(ctx, node, r)
	} else {
		err = i.s.ofEndpoints(ctx, node, r)
	}
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.isDenied(spiffe.ID{Domain: i.domain, Site: i.s.cfg.Site, Namespace: r.Namespace, Account: r.Account}) {
		return nil, fmt.Errorf("workload %s/%s is on the deny list", r.Namespace, r.Account)
	}
	chain, err := i.issuer.Issue(r.Namespace, r.Account, r.Request, time.Now())
	if err != nil {
		if i.problem != "" {
			err = fmt.Errorf("%w (%s)", err, i.problem)
		}
		return nil, err
	}
	i.s.log.Debug("identity issued", "node", node, "workload", r.Namespace+"/"+r.Account, "serial", chain[0].SerialNumber.Text(16))
	return []byte(ca.FormatChain(chain...)), nil
}

// ofCluster holds a request against what the cluster says of its token.
func (s *Server) ofCluster(ctx context.Context, node string, r *bus.WorkloadRequest) error {
	if s.accounts == nil {
		return errors.New("the site's controller bridges no cluster that could tell whose the token is: start it with --kube")
	}
	namespace, account, at, err := s.accounts.Review(ctx, r.Token)
	switch {
	case err != nil:
		return fmt.Errorf("token of the service account: %w", err)
	case namespace != r.Namespace || account != r.Account:
		return fmt.Errorf("the token is that of service account %s/%s, not %s/%s", namespace, account, r.Namespace, r.Account)
	case at != node:
		return fmt.Errorf("the token is for a pod on node %q, this is node %q", at, node)
	}
	return nil
}

// ofEndpoints holds a request against the endpoints of services: one of them has to run
// on the node and be of the workload.
func (s *Server) ofEndpoints(ctx context.Context, node string, r *bus.WorkloadRequest) error {
	var elsewhere []string
	found, bridged := false, false
	err := s.do(ctx, func() {
		for _, o := range s.world.List() {
			m, ok := o.Doc.(*mesh.MeshService)
			if !ok || o.Shadowed {
				continue
			}
			for k := range m.Spec.Endpoints {
				e := &m.Spec.Endpoints[k]
				if w := e.Workload; w == nil || w.Namespace != r.Namespace || w.Name != r.Account {
					continue
				}
				switch site := cmp.Or(e.Site, s.cfg.Site); {
				case clusterOf(m) != "":
					bridged = true
				case site == s.cfg.Site && e.Node == node:
					found = true
				default:
					elsewhere = append(elsewhere, fmt.Sprintf("node %q of site %s", e.Node, site))
				}
			}
		}
	})
	slices.Sort(elsewhere)
	elsewhere = slices.Compact(elsewhere)
	switch {
	case err != nil:
		return err
	case found:
		return nil
	case bridged:
		return fmt.Errorf("workload %s/%s is of a Kubernetes cluster: its service account's token says who it is (--workload-token-file)", r.Namespace, r.Account)
	case len(elsewhere) > 0:
		return fmt.Errorf("workload %s/%s does not run on node %q: its endpoints are on %s", r.Namespace, r.Account, node, strings.Join(elsewhere[:min(len(elsewhere), 8)], ", "))
	}
	return fmt.Errorf("there is no workload %s/%s here: no MeshService has an endpoint with node %s and workload {namespace: %s, name: %s}", r.Namespace, r.Account, node, r.Namespace, r.Account)
}
